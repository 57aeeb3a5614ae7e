"""What a fit says against itself: chains that failed, states alike, frames with dead time."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    # importing PyMC may warn about deprecations that are not ours
    warnings.simplefilter("ignore")
    import pymc  # noqa: F401

from pncbayes.errors import DiagnosticError
from pncbayes.inference.fit import fit
from pncbayes.inference.judge import alike_states, dead_time_notes, sampler_failures
from pncbayes.inference.nuts import _extreme
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.results import Fit, load
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.camera import camera_trace
from pncbayes.physics.simulate import simulate
from pncbayes.physics.simulated_dot import SimulatedState

GOOD = {"sampler": "nuts", "r_hat": 1.01, "ess": 400.0, "ess_tail": 400.0, "divergences": 0}
GOOD |= {"n_chains": 4}

BAD_CHAINS: list[tuple[dict[str, Any], str]] = [
    ({"r_hat": 1.011}, "the NUTS chains disagree (largest r_hat 1.011, at most 1.01"),
    ({"r_hat": np.nan}, "the NUTS chains disagree (largest r_hat nan"),
    ({"ess": 399.0}, "too few independent draws (399 in the bulk and 400 in the tails, at least"),
    ({"ess_tail": 12.0}, "too few independent draws (400 in the bulk and 12 in the tails"),
    ({"ess": np.nan}, "too few independent draws (nan in the bulk"),
    ({"n_chains": 5}, "at least 500 are needed"),
    ({"divergences": 3}, "NUTS diverged 3 times"),
]


def test_good_chains_are_not_blamed() -> None:
    assert sampler_failures(GOOD) == []
    # draws behind the evidence have no chains
    assert sampler_failures({"sampler": "evidence", "ess": 3.0}) == []


@pytest.mark.parametrize(("change", "text"), BAD_CHAINS)
def test_bad_chains_are_said(change: dict[str, Any], text: str) -> None:
    (note,) = sampler_failures(GOOD | change)
    assert text in note
    assert "`pnc.build`" in note


def steady_trace() -> Any:
    dot = simulate([SimulatedState(rate_per_s=3e3)], None, 2.0, period_ns=None, random_seed=6)
    return bin_photons(dot.photons, 0.01).assign_attrs(digest="of no photons", path="")


@pytest.fixture
def nuts_fit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fit]:
    """Fit with chains that say of themselves what the test says."""

    def run(change: dict[str, Any], **settings: Any) -> Fit:
        stats = {key: value for key, value in (GOOD | change).items() if key != "sampler"}

        def sample(*arguments: Any, **_: Any) -> Any:
            posterior, evidence = arguments[3:5]
            return [posterior.unpack(evidence.mode.vector)] * 50, stats

        monkeypatch.setattr("pncbayes.inference.nuts.sample_nuts", sample)
        settings = {"max_states": 1, "sampler": "nuts", "random_seed": 1} | settings
        return fit(steady_trace(), dynamics=False, progressbar=False, **settings)

    return run


def test_bad_chains_fail_a_strict_fit(nuts_fit: Callable[..., Fit]) -> None:
    change = {"r_hat": 1.2, "ess": 30.0, "ess_tail": 20.0, "divergences": 7}
    said = " ".join(nuts_fit(change).warnings)
    for part in ("largest r_hat 1.200", "30 in the bulk and 20 in the tails", "diverged 7 times"):
        assert part in said
        with pytest.raises(DiagnosticError, match=part):
            nuts_fit(change, strict=True)
    assert not [text for text in nuts_fit({}, strict=True).warnings if "NUTS" in text]


def test_summary_of_chains_survives_saving(nuts_fit: Callable[..., Fit], tmp_path: Path) -> None:
    found = nuts_fit({"divergences": 7})
    found.save(tmp_path / "fit.nc")
    diagnostics = json.loads(json.dumps(load(tmp_path / "fit.nc").summary()))["diagnostics"]
    expected = {"r_hat": 1.01, "ess": 400.0, "ess_tail": 400.0, "divergences": 7}
    assert {name: diagnostics[name] for name in expected} == expected


def test_a_chain_that_never_moved_is_not_overlooked() -> None:
    import xarray as xr

    values = xr.Dataset({"a": ("x", [1.0, np.nan]), "b": ("x", [1.0, 2.0])})
    assert np.isnan(_extreme(values, np.max))
    assert _extreme(values[["b"]], np.max) == 2.0
    assert _extreme(values[["b"]], np.min) == 1.0


def draws_of(rates: Any, fast: tuple[int, ...] = ()) -> list[Parameters]:
    """Draws with these brightnesses, shape (n_draws, n_states), and a fast decay in some states."""
    found = []
    for rate in np.atleast_2d(rates):
        shape = np.array([[0.2, 0.8] if k in fast else [0.6, 0.4] for k in range(rate.size)])
        jumps = np.ones((rate.size, rate.size)) - np.eye(rate.size)
        found.append(Parameters(rate[:, None] * shape, jumps, 200.0, None))
    return found


@pytest.mark.parametrize(
    ("rates", "fast", "named"),
    [
        ([9e3, 3e3], (), None),
        ([9e3, 8.8e3], (), "states 0 and 1 emit"),
        # one level told by its decay between two that are alike
        ([9e3, 8.9e3, 8.8e3], (1,), "states 0 and 2 emit"),
        ([9e3, 8.9e3, 8.8e3, 1e3], (), "states 0, 1 and 2 emit"),
        ([9e3, 8.9e3, 1e3, 0.99e3], (), "states 0 and 1, and states 2 and 3 emit"),
        ([9e3, 8.9e3], (0,), None),
        ([9e3, 8.5e3], (), None),
    ],
)
def test_states_that_emit_alike(rates: list[float], fast: tuple[int, ...], named: Any) -> None:
    notes = alike_states(draws_of([rates] * 3, fast))
    assert len(notes) == (named is not None)
    if named:
        assert notes[0].startswith(named)
        assert notes[0].count("one level with dwell times") == 1


def test_an_unknown_brightness_is_alike_to_none() -> None:
    """Its mean may fall on another level; few of its draws do."""
    steady = np.full(200, 5e3)
    unknown = np.linspace(0.0, 1e4, 200)
    assert unknown.mean() == pytest.approx(5e3)
    assert alike_states(draws_of(np.stack([steady, unknown], axis=1))) == []


@pytest.mark.parametrize(("exposure_s", "said"), [(0.02, False), (0.019, False), (0.005, True)])
def test_dead_time_of_a_camera(exposure_s: float, said: bool) -> None:
    numbers = {"gain": 2.0, "offset": 10.0, "read_noise": 1.0, "excess_factor": 1.0}
    counts = 10.0 + 2.0 * np.random.default_rng(1).poisson(50.0, 60)
    trace = camera_trace(counts, 0.02, exposure_s=exposure_s, **numbers)
    found = fit(trace, max_states=1, random_seed=1, dynamics=False, progressbar=False)
    notes = [text for text in found.warnings if "treated as if seen" in text]
    assert notes == dead_time_notes(trace)
    assert bool(notes) == said
    if said:
        assert "collect light for 0.005 s of 0.02 s" in notes[0]


def counts_trace(counts: Any, width_s: float) -> Any:
    trace = steady_trace()
    gates = {"gate": [0]}
    edges = {"gate_start_ns": ("gate", [np.nan]), "gate_stop_ns": ("gate", [np.nan])}
    made = trace.isel(time=slice(0, 0)).drop_vars("counts").drop_dims("time")
    made = made.assign_coords(time=np.arange(len(counts)) * width_s).isel(gates)
    made["counts"] = (("time", "gate"), np.asarray(counts, dtype=np.uint32)[:, None])
    made = made.assign_coords(edges)
    total = int(np.sum(counts))
    return made.assign_attrs(width_s=width_s, duration_s=len(counts) * width_s, n_photons=total)


def test_more_counts_than_the_likelihood_resolves_are_said() -> None:
    """Bins that tell, to a hundredth of their width, when a switch happened."""
    rng = np.random.default_rng(2)
    level = np.repeat([1e6, 1e4, 1e6, 1e4, 1e6], 8)
    few, many = (
        fit(counts_trace(rng.poisson(scale * level), 0.01), max_states=2, random_seed=1,
            dynamics=False, progressbar=False)
        for scale in (1e-4, 1.0)
    )  # fmt: skip
    assert few.most_probable_n_states == many.most_probable_n_states == 2
    text = "more finely than the likelihood resolves"
    assert not any(text in warning for warning in few.warnings)
    assert any(text in warning for warning in many.warnings)


def test_one_step_is_no_quarrel_between_methods() -> None:
    """Nothing leads back to the first level: Laplace has no figure for that."""
    rng = np.random.default_rng(0)
    counts = np.concatenate([rng.poisson(0.3, 15), rng.poisson(4.0, 15)])
    found = fit(
        counts_trace(counts, 0.01), max_states=2, random_seed=0, dynamics=False, progressbar=False
    )
    assert found.n_states[2] > 0.9
    assert not any("methods differ" in warning for warning in found.warnings)
