"""Tables: digits that the intervals support, and nothing invented where there is nothing."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pncbayes.report.tables import (
    Table,
    fit_report,
    format_value,
    mechanisms_table,
    n_states_table,
    rates_table,
    states_table,
    truth_table,
)


def text_of(renderable: Any) -> str:
    console = Console(width=140, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((19034.2, 18950.1, 19110.7), "19034 (18950 to 19111)"),
        ((0.4312, 0.38, 0.48), "0.431 (0.380 to 0.480)"),
        ((1234567.0, 1200000.0, 1300000.0), "1235000 (1200000 to 1300000)"),
        ((5.0, 5.0, 5.0), "5.000 (5.000 to 5.000)"),
        ((0.0, 0.0, 0.0), "0 (0 to 0)"),
        ((np.nan, 1.0, 2.0), "–"),
        ((np.inf, 1.0, 2.0), "–"),
    ],
)
def test_format_value(value: tuple[float, float, float], expected: str) -> None:
    assert format_value(*value) == expected


def test_report_of_a_fit(make_fit: Callable[..., Any]) -> None:
    text = text_of(fit_report(make_fit(3, warnings=("may be more than one dot",))))
    for part in (">= 6", "88.", "counts per s", "0 -> 1", "warning: may be more than one dot"):
        assert part in text


def test_one_state_has_no_rates(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(1)
    assert rates_table(fit).rows == ()
    assert "Switching" not in text_of(fit_report(fit))


def test_no_delays_no_lifetimes(make_fit: Callable[..., Any]) -> None:
    table = states_table(make_fit(2, n_gates=1))
    column = table.header.index("lifetime (ns)")
    assert [row[column] for row in table.rows] == ["–", "–"]


def test_small_probabilities_are_not_zero(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2)
    fit.n_states[:] = [1e-30, 1 - 1e-12, 0.0, 0.0, 0.0, 0.0]
    (row,) = n_states_table(fit).rows
    assert row[1:3] == ("< 0.1 %", "> 99.9 %")


def test_markdown() -> None:
    table = Table("title", ("a", "b"), (("1", "2|3"),))
    assert table.markdown().splitlines() == ["| a | b |", "| --- | --- |", "| 1 | 2\\|3 |"]


def test_truth_is_matched_by_brightness(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2)
    truth = {
        "states": [
            {"state": 0, "rate_per_s": 5_000.0, "lifetime_ns": None, "occupancy": 0.25},
            {"state": 1, "rate_per_s": 20_000.0, "lifetime_ns": 14.0, "occupancy": 0.75},
        ],
        "transition_rates_per_s": [[0.0, 3.0], [7.0, 0.0]],
    }
    rows = {row[0]: row[1:] for row in truth_table(fit, truth).rows}
    assert rows["number of states"] == ("2", "2")
    assert rows["state 0: counts per s"][0] == "2e+04"
    assert rows["state 0: time spent (%)"][0] == "75"
    assert rows["state 1: lifetime (ns)"][0] == "–"
    # bright to dim in the fit is from 1 to 0 in the truth
    assert rows["0 -> 1 per s"][0] == "7"


def test_truth_with_another_number_of_states(make_fit: Callable[..., Any]) -> None:
    truth = {
        "states": [{"state": 0, "rate_per_s": 5_000.0, "lifetime_ns": 3.0, "occupancy": 1.0}],
        "transition_rates_per_s": [[0.0]],
    }
    rows = {row[0]: row[1:] for row in truth_table(make_fit(2), truth).rows}
    assert rows["number of states"] == ("1", "2")
    assert rows["state 1: counts per s"][0] == "–"
    assert not any("->" in name for name in rows)


def test_mechanisms_are_named_or_said_why_not(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(3)
    assert mechanisms_table(fit) is None
    fit.mechanisms = pd.Series({"auger": 0.9, "nbc": 0.6, "other": 0.1})
    fit.state_mechanisms = pd.DataFrame(
        {
            "auger": [0.0, 0.93, 0.45], "nbc": [0.0, 0.02, 0.5], "other": [0.0, 0.05, 0.05],
            "reference": [1.0, 0.0, 0.0],
            "named_mechanism": ["reference", "auger", "undetermined"],
            "reason": ["", "", "the data allow nbc 0.50, auger 0.45"],
        }
    )  # fmt: skip
    table = mechanisms_table(fit)
    assert table is not None
    assert table.rows[0][1:4] == ("reference", "", "")
    assert table.rows[1][1:4] == ("auger", "auger", "93.0 %")
    assert table.rows[2][1:] == (
        "undetermined", "nbc", "50.0 %", "the data allow nbc 0.50, auger 0.45",
    )  # fmt: skip
    assert "undetermined" in text_of(fit_report(fit))


def test_rates_say_which_mechanism_they_serve(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2)
    assert [row[1] for row in rates_table(fit).rows] == ["trapping", "detrapping"]
    fit.rates["mechanism"] = ["auger", None]
    assert [row[1] for row in rates_table(fit).rows] == ["trapping, auger", "detrapping"]
