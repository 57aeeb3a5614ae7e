"""Names of mechanisms, and the reasons where none is given, from probabilities made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pncbayes.inference.mechanism_tables import MechanismTables
from pncbayes.physics.mechanisms import MECHANISMS


def tables(
    name: str,
    probability: float,
    *,
    log_r_sd: float = 0.05,
    width: float = 2.0,
    guess: int = 0,
    added: float = 0.0,
) -> MechanismTables:
    """A reference, and a state with a mechanism of given probability; the rest is `other`."""
    shares = np.zeros((2, len(MECHANISMS)))
    shares[1, MECHANISMS.index(name)] = probability
    shares[1, MECHANISMS.index("other")] += 1.0 - probability
    return MechanismTables(
        xr.Dataset(
            {
                "probability": (("state", "mechanism"), shares),
                "reference": ("state", np.array([1.0, 0.0])),
                "broad_log_radiative_ratio_sd": ("state", np.array([0.0, log_r_sd])),
                "lifetime_over_response": ("state", np.array([10.0, width])),
                "added_over_own_light": ("state", np.array([0.0, added])),
            },
            coords={"mechanism": list(MECHANISMS), "state": [0, 1]},
            attrs={"response_is_estimated": guess},
        )
    )


@pytest.mark.parametrize("name", ["auger", "hot_carrier", "nbc", "background"])
def test_a_name_is_given_above_four_fifths(name: str) -> None:
    assert tables(name, 0.81).of_states["named_mechanism"].tolist() == ["reference", name]
    doubtful = tables(name, 0.79).of_states.iloc[1]
    assert doubtful["named_mechanism"] == "undetermined"
    assert doubtful["reason"] == f"the data allow {name} 0.79, other 0.21"


@pytest.mark.parametrize("name", ["auger", "hot_carrier", "nbc"])
def test_no_name_without_a_radiative_rate(name: str) -> None:
    vague = tables(name, 0.95, log_r_sd=0.3).of_states.iloc[1]
    assert vague["named_mechanism"] == "undetermined"
    assert vague["reason"] == "its radiative rate is known to a factor of 1.3"
    unknown = tables(name, 0.95, log_r_sd=np.nan).of_states.iloc[1]
    assert unknown["reason"] == "its radiative rate is known not at all"
    assert tables("background", 0.95, log_r_sd=np.nan).of_states.iloc[1]["reason"] == ""


def test_a_lifetime_within_an_estimated_response_gets_no_name() -> None:
    given = tables("nbc", 0.9, width=0.1).of_states.iloc[1]
    assert given["named_mechanism"] == "nbc"
    guessed = tables("nbc", 0.9, width=0.1, guess=1).of_states.iloc[1]
    assert guessed["named_mechanism"] == "undetermined"
    assert guessed["reason"] == (
        "its lifetime, 0.1 of the width of the response, is hidden by that, which was estimated: "
        "give a measured response"
    )
    assert tables("nbc", 0.9, width=0.3, guess=1).of_states["named_mechanism"].iloc[1] == "nbc"
    dark = tables("background", 0.9, width=0.1, guess=1).of_states.iloc[1]
    assert dark["named_mechanism"] == "background"


@pytest.mark.parametrize("name", ["auger", "hot_carrier", "nbc"])
def test_what_would_be_mostly_scatter_and_biexcitons_gets_no_name(name: str) -> None:
    assert tables(name, 0.95, added=0.9).of_states["named_mechanism"].iloc[1] == name
    outshone = tables(name, 0.95, added=3.2).of_states.iloc[1]
    assert outshone["named_mechanism"] == "undetermined"
    assert outshone["reason"] == (
        f"as {name} it would emit less than the scatter and the biexcitons that its light is mixed "
        "with (3.2 times its own)"
    )
    dark = tables("background", 0.95, added=3.2).of_states.iloc[1]
    assert dark["named_mechanism"] == "background"


def test_results_of_before_added_light_was_weighed_are_read() -> None:
    old = MechanismTables(tables("nbc", 0.95).group.drop_vars("added_over_own_light"))
    assert old.of_states["named_mechanism"].tolist() == ["reference", "nbc"]


def test_a_burst_is_no_exciton() -> None:
    good = tables("nbc", 0.95).group.assign(reference_occupancy=0.02)
    assert MechanismTables(good).of_states["named_mechanism"].tolist() == ["reference", "nbc"]
    assert MechanismTables(good).notes == []
    burst = MechanismTables(good.assign(reference_occupancy=0.001))
    assert burst.of_states["named_mechanism"].tolist() == ["reference", "undetermined"]
    assert "0.1 % of the time" in burst.of_states["reason"].iloc[1]
    assert burst.notes[0].startswith("state 0 is taken for the neutral exciton")
