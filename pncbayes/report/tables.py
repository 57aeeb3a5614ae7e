"""Tables of a fit and of a recording, for the terminal (rich) and for text (Markdown)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

__all__ = [
    "Table",
    "facts_table",
    "fit_report",
    "format_value",
    "n_states_table",
    "rates_table",
    "states_table",
    "truth_table",
]

_RATE = "per_s"
_PARTS = ("mean", "q05", "q95")
# Columns of a table of states: name in the frame, title, factor to the title's unit.
_QUANTITIES = (
    ("rate_per_s", "counts per s", 1.0),
    ("lifetime_ns", "lifetime (ns)", 1.0),
    ("occupancy", "time spent (%)", 100.0),
)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Parameters
    ----------
    title
        What the table shows.
    header
        Names of the columns, with units.
    rows
        One tuple of text per row, as long as `header`.
    numeric
        Whether all columns but the first hold numbers, which are aligned on the right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True

    def rich(self) -> RichTable:
        """Return the table for a terminal."""
        table = RichTable(
            title=self.title,
            title_justify="left",
            title_style="bold",
            show_header=any(self.header),
        )
        for column, name in enumerate(self.header):
            table.add_column(name, justify="right" if self.numeric and column else "left")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table

    def markdown(self) -> str:
        """Return the table as Markdown, without its title."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )


def format_value(mean: float, low: float, high: float) -> str:
    """Write a value with its 90 % interval, to the digits that the interval supports.

    Parameters
    ----------
    mean, low, high
        Posterior mean, 5 % and 95 % quantile, in the same units.

    Returns
    -------
    str
        "12.3 (11.9 to 12.8)"; a dash where there is no value.

    Examples
    --------
    >>> format_value(19034.2, 18950.1, 19110.7)
    '19034 (18950 to 19111)'
    >>> format_value(0.4312, 0.38, 0.48)
    '0.431 (0.380 to 0.480)'
    """
    if not np.all(np.isfinite([mean, low, high])):
        return "–"
    # two digits of the half-width, but no more than four of the number
    half = max(0.5 * (high - low), 2e-3 * max(abs(low), abs(high)))
    decimals = 1 - int(np.floor(np.log10(half))) if half > 0 else 0
    written = [f"{round(value, decimals):.{max(decimals, 0)}f}" for value in (mean, low, high)]
    return f"{written[0]} ({written[1]} to {written[2]})"


def n_states_table(fit: Any) -> Table:
    """P(number of states | data) of a fit."""
    numbers = [str(number) for number in fit.n_states.index]
    if len(numbers) > 1:
        numbers[-1] = f">= {numbers[-1]}"
    row = tuple(_percent(float(value)) for value in fit.n_states.to_numpy())
    return Table("Number of states", ("states", *numbers), (("probability", *row),))


def states_table(fit: Any) -> Table:
    """Brightness, lifetime and occupancy of the states of a fit, from bright to dim."""
    rows = [
        (str(name), *(_interval(row, quantity, factor) for quantity, _, factor in _QUANTITIES))
        for name, row in fit.states.iterrows()
    ]
    header = ("state", *(title for _, title, _ in _QUANTITIES))
    return Table("States, bright to dim: mean (90 % interval)", header, tuple(rows))


def rates_table(fit: Any) -> Table:
    """Switching rates of a fit, per s, with the mechanism that they serve where it is known."""
    rows = [
        (f"{row['from']} -> {row['to']}", _kind(row), _interval(row, _RATE))
        for _, row in fit.rates.iterrows()
    ]
    return Table(
        "Switching: mean (90 % interval)", ("from -> to", "kind", "rate (per s)"), tuple(rows)
    )


def _kind(row: Any) -> str:
    mechanism = row.get("mechanism")
    return f"{row['kind']}, {mechanism}" if isinstance(mechanism, str) else str(row["kind"])


def mechanisms_table(fit: Any) -> Table | None:
    """Mechanism of each state of a fit, with its probability or why none is named; None without."""
    states = getattr(fit, "state_mechanisms", None)
    if states is None or len(states) < 2:
        return None
    columns = [name for name in states.columns if name in fit.mechanisms.index]
    rows = []
    for name, row in states.iterrows():
        most = "" if row["named_mechanism"] == "reference" else _percent(float(row[columns].max()))
        likely = "" if row["named_mechanism"] == "reference" else str(row[columns].idxmax())
        rows.append((str(name), str(row["named_mechanism"]), likely, most, str(row["reason"])))
    header = ("state", "mechanism", "most probable", "probability", "why not")
    return Table("Mechanisms, against the exciton (reference)", header, tuple(rows), numeric=False)


def fit_report(fit: Any) -> Group:
    """All that a first look at a fit needs, for a terminal: states, rates, and its warnings."""
    parts: list[Any] = []
    if (verdict := getattr(fit, "verdict", None)) is not None:
        parts.append(Text(f"verdict: {verdict}", style="bold"))
    parts += [n_states_table(fit).rich(), states_table(fit).rich()]
    mechanisms = mechanisms_table(fit)
    if mechanisms is not None:
        parts.append(mechanisms.rich())
    if len(fit.rates):
        parts.append(rates_table(fit).rich())
    parts += [Text(f"warning: {text}", style="yellow") for text in fit.warnings]
    return Group(*parts)


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Names and values, one row each; ``width_s`` is written as "width (s)"."""
    rows = tuple((_fact_name(name), _fact(value)) for name, value in facts.items())
    return Table(title, ("", ""), rows, numeric=False)


def _fact_name(name: str) -> str:
    for suffix, unit in (("_per_s", "per s"), ("_ns", "ns"), ("_s", "s")):
        if name.endswith(suffix):
            return f"{_fact_name(name.removesuffix(suffix))} ({unit})"
    return name.removeprefix("n_").replace("_", " ")


def _fact(value: Any) -> str:
    if value is None or value == "":
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        parts = [f"{_fact_name(str(key))}: {_fact(one)}" for key, one in value.items()]
        return ", ".join(parts) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_fact(one) for one in value) or "none"
    return str(value)


def truth_table(fit: Any, truth: Mapping[str, Any]) -> Table:
    """Set the answer of a fit beside the truth of a simulation.

    Parameters
    ----------
    fit
        A fit of simulated photons.
    truth
        As `pncbayes.simulate(...).truth()` gives it.

    Returns
    -------
    Table
        States are matched by brightness; rates are compared when the numbers of states agree.
    """
    true = sorted(truth["states"], key=lambda state: -state["rate_per_s"])
    agree = len(true) == len(fit.states)
    rows = [("number of states", str(len(true)), str(fit.most_probable_n_states))]
    names = [str(name) for name in fit.states.index]
    for position in range(max(len(true), len(fit.states))):
        known = true[position] if position < len(true) else {}
        line = fit.states.iloc[position] if position < len(fit.states) else None
        name = names[position] if position < len(names) else "-"
        for quantity, title, factor in _QUANTITIES:
            value = known.get(quantity)
            found = "–" if line is None else _interval(line, quantity, factor)
            if value is not None or found != "–":
                exact = "–" if value is None else f"{factor * value:.4g}"
                rows.append((f"state {name}: {title}", exact, found))
    if agree:
        order = [state["state"] for state in true]
        position_of = {name: position for position, name in enumerate(fit.states.index)}
        for _, line in fit.rates.iterrows():
            first, second = (order[position_of[line[end]]] for end in ("from", "to"))
            exact = f"{truth['transition_rates_per_s'][first][second]:.4g}"
            rows.append((f"{line['from']} -> {line['to']} per s", exact, _interval(line, _RATE)))
    return Table("Truth and answer", ("", "truth", "fit (90 % interval)"), tuple(rows))


def _interval(row: Any, name: str, factor: float = 1.0) -> str:
    return format_value(*(factor * float(row[f"{name}_{part}"]) for part in _PARTS))


def _percent(probability: float) -> str:
    if probability < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if probability > 0.999 else f"{100 * probability:.1f} %"
