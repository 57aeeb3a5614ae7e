"""Switching rates as tables: what a switch serves, and how dim states are entered and left."""

import json

import numpy as np
import pytest
import xarray as xr

from pncbayes.inference.rate_tables import crossing_rate, rates_between_states, rates_of_dim_states
from pncbayes.inference.results import Fit
from pncbayes.physics.mechanisms import MECHANISMS

# draws without scatter: state 0 and 1 are ON, 2 and 3 OFF
ON = np.array([True, True, False, False])
RATES = np.array(
    [[0.0, 5.0, 2.0, 0.5], [6.0, 0.0, 1.0, 0.25], [3.0, 4.0, 0.0, 0.1], [0.7, 0.3, 0.2, 0.0]]
)
OCCUPANCY = np.array([0.4, 0.2, 0.3, 0.1])
MANY_RATES, MANY_OCCUPANCY = np.tile(RATES, (7, 1, 1)), np.tile(OCCUPANCY, (7, 1))
NAMES = [None, "undetermined", "auger", "nbc"]


def served(on: np.ndarray, names: list[str | None], reference: int | None) -> dict:
    table = rates_between_states(MANY_RATES, on, names, reference)
    return {(row["from"], row["to"]): row["mechanism"] for _, row in table.iterrows()}


def test_a_switch_serves_the_state_that_is_dim() -> None:
    assert served(ON, NAMES, 0) == {
        (0, 1): "undetermined", (1, 0): "undetermined",
        (0, 2): "auger", (2, 0): "auger", (1, 2): "auger", (2, 1): "auger",
        (0, 3): "nbc", (3, 0): "nbc", (1, 3): "nbc", (3, 1): "nbc",
        (2, 3): "nbc", (3, 2): "auger",
    }  # fmt: skip


def test_a_switch_never_serves_the_reference() -> None:
    """The exciton need not be the brightest state, nor an ON state."""
    names = ["auger", "nbc", None, "background"]
    for on in (ON, np.array([True, False, True, False]), np.array([True, False, False, False])):
        found = served(on, names, 2)
        assert None not in found.values()
        for other in (0, 1, 3):
            assert found[other, 2] == found[2, other] == names[other]


def test_without_mechanisms_none_is_served() -> None:
    assert set(served(ON, [None] * 4, None).values()) == {None}


def test_dim_states_have_rates_of_their_own() -> None:
    table = rates_of_dim_states(MANY_RATES, MANY_OCCUPANCY, ON, NAMES)
    assert table["state"].tolist() == [2, 3]
    assert table["mechanism"].tolist() == ["auger", "nbc"]
    # per s of ON time: two thirds of it in state 0
    np.testing.assert_allclose(
        table["k_trap_per_s_mean"], [(2 * 2.0 + 1.0) / 3, (2 * 0.5 + 0.25) / 3]
    )
    np.testing.assert_allclose(table["k_detrap_per_s_mean"], [7.0, 1.0])
    np.testing.assert_allclose(table["k_trap_per_s_sd"], 0.0, atol=1e-12)
    whole = crossing_rate(MANY_RATES, MANY_OCCUPANCY, ON, ~ON)
    assert table["k_trap_per_s_mean"].sum() == pytest.approx(whole.mean())


def test_without_dim_states_there_are_no_rows() -> None:
    table = rates_of_dim_states(MANY_RATES, MANY_OCCUPANCY, np.ones(4, bool), NAMES)
    assert table.empty
    assert {"state", "mechanism", "k_trap_per_s_q05", "k_detrap_per_s_q95"} <= set(table.columns)


def test_a_state_in_which_no_time_is_spent_has_no_rate() -> None:
    empty = MANY_OCCUPANCY * [0.0, 0.0, 1.0, 1.0]
    assert np.isnan(crossing_rate(MANY_RATES, empty, ON, ~ON)).all()


def some_fit(*, mechanisms: bool) -> Fit:
    """A fit with the groups that rates are made of, and no others."""
    by_state = ("chain", "draw", "state")
    posterior = xr.Dataset(
        {
            "transition_rate_per_s": ((*by_state, "to_state"), MANY_RATES[None]),
            "occupancy": (by_state, MANY_OCCUPANCY[None]),
            "rate_per_s": (by_state, np.tile([9e3, 8e3, 2e3, 1e3], (1, 7, 1))),
        }
    )
    groups = {"/posterior": posterior}
    if mechanisms:
        probability = np.zeros((4, len(MECHANISMS)))
        probability[1:, MECHANISMS.index("auger")] = [0.5, 0.99, 0.0]
        probability[1:, MECHANISMS.index("nbc")] = [0.5, 0.01, 1.0]
        groups["/mechanisms"] = xr.Dataset(
            {
                "probability": (("state", "mechanism"), probability),
                "reference": ("state", np.array([1.0, 0.0, 0.0, 0.0])),
                "broad_log_radiative_ratio_sd": ("state", np.full(4, 0.1)),
                "lifetime_over_response": ("state", np.full(4, 10.0)),
                "takes_part": ("mechanism", np.zeros(len(MECHANISMS))),
            },
            coords={"mechanism": list(MECHANISMS)},
        )
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(most_probable_n_states=4, on_threshold=0.5)
    return Fit(tree)


def test_a_fit_names_what_its_rates_serve() -> None:
    found = some_fit(mechanisms=True)
    rates = found.rates.set_index(["from", "to"])
    assert rates.loc[(0, 2), "mechanism"] == rates.loc[(2, 0), "mechanism"] == "auger"
    assert rates.loc[(0, 1), "mechanism"] == rates.loc[(1, 0), "mechanism"] == "undetermined"
    assert rates.loc[(2, 3), "mechanism"] == "nbc"
    traps = found.trap_rates
    assert traps["mechanism"].tolist() == ["auger", "nbc"]
    assert found.k_trap_per_s is not None
    assert traps["k_trap_per_s_mean"].sum() == pytest.approx(found.k_trap_per_s["mean"])


def test_a_fit_without_delays_has_rates_without_mechanisms() -> None:
    found = some_fit(mechanisms=False)
    assert [name is None for name in found.rates["mechanism"]] == [True] * 12
    assert [name is None for name in found.trap_rates["mechanism"]] == [True] * 2
    assert json.loads(found.rates.to_json())["mechanism"]["0"] is None
