"""`pncbayes.fit` from photons to the summary, on simulated dots whose truth is known.

Only what is simulated differs from the model: switches fall inside bins, decays have two
components, there is background.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import pncbayes
from pncbayes.errors import DiagnosticError, PhotonFileError
from pncbayes.inference.fit import fit
from pncbayes.inference.results import Fit, load
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.camera import camera_trace
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import Simulation, simulate
from pncbayes.physics.simulated_dot import Flicker, SimulatedState

INTERVAL = {"mean", "sd", "q05", "q95"}
BACKGROUND_PER_S = 200.0

# what one photon stream says about its own response
pytestmark = pytest.mark.filterwarnings("ignore:.*response was estimated.*")


def quick_fit(data: Any, **settings: Any) -> Fit:
    settings = {"max_states": 3, "random_seed": 1, "progressbar": False} | settings
    return fit(data, **settings)


@cache
def blinking_dot() -> Simulation:
    """Two states, two-exponential decays, background, and a switch in every tenth bin of 10 ms."""
    bright = SimulatedState(rate_per_s=1.2e4, lifetimes_ns=(20.0, 6.0), amplitudes=(0.6, 0.4))
    dim = SimulatedState(rate_per_s=1.5e3, lifetimes_ns=(4.0, 1.5), amplitudes=(0.5, 0.5))
    return simulate(
        [bright, dim],
        [8.0, 10.0],
        6.0,
        period_ns=200.0,
        background_rate_per_s=BACKGROUND_PER_S,
        random_seed=1,
    )


@cache
def blinking_fit() -> Fit:
    """The fit that most tests look at: made once."""
    return quick_fit(blinking_dot().photons, width_s=0.02)


def levels(
    rates_per_s: list[float],
    exits_per_s: list[float] | None,
    duration_s: float,
    seed: int,
    **settings: Any,
) -> Simulation:
    """A dot without delays."""
    states = [SimulatedState(rate_per_s=rate) for rate in rates_per_s]
    return simulate(states, exits_per_s, duration_s, period_ns=None, random_seed=seed, **settings)


def without_photons(trace: xr.Dataset) -> xr.Dataset:
    """A trace as someone else's program would have left it: its grid is all there is."""
    return trace.assign_attrs(digest="of no photons", path="")


def contains(row: Any, name: str, truth: float, *, n_sd: float = 4.0, slack: float = 0.0) -> bool:
    return bool(abs(row[f"{name}_mean"] - truth) < n_sd * row[f"{name}_sd"] + slack * truth)


def test_finds_two_states() -> None:
    found = blinking_fit()
    assert found.most_probable_n_states == 2
    assert found.n_states[2] > 0.95
    assert found.n_states.sum() == pytest.approx(1.0, rel=1e-9)
    assert list(found.n_states.index) == [1, 2, 3]
    assert "predictive check" not in " ".join(found.warnings)


def test_states_contain_the_truth() -> None:
    dot, states = blinking_dot(), blinking_fit().states
    spent = dot.occupancy_per_bin(0.02).mean(axis=0)
    lifetimes_ns = (0.6 * 20.0 + 0.4 * 6.0, 0.5 * 4.0 + 0.5 * 1.5)
    for k, (rate, lifetime_ns) in enumerate(zip((1.2e4, 1.5e3), lifetimes_ns, strict=True)):
        row = states.loc[k]
        assert contains(row, "rate_per_s", rate)
        # the response is estimated from the same photons
        assert contains(row, "lifetime_ns", lifetime_ns, slack=0.05)
        assert row["occupancy_mean"] == pytest.approx(spent[k], abs=0.01)
        # and they say something
        assert row["rate_per_s_sd"] < 0.05 * rate
        assert row["lifetime_ns_sd"] < 0.15 * lifetime_ns
        for name in ("rate_per_s", "lifetime_ns", "occupancy"):
            assert row[f"{name}_q05"] <= row[f"{name}_mean"] <= row[f"{name}_q95"]
    assert states["occupancy_mean"].sum() == pytest.approx(1.0, rel=1e-9)


def test_rates_contain_the_truth() -> None:
    found = blinking_fit()
    rates = found.rates
    assert list(rates["kind"]) == ["trapping", "detrapping"]
    for (_, row), truth in zip(rates.iterrows(), (8.0, 10.0), strict=True):
        assert contains(row, "per_s", truth)
        assert 0.05 * truth < row["per_s_sd"] < 0.5 * truth
    trap, detrap = found.k_trap_per_s, found.k_detrap_per_s
    assert trap is not None
    assert detrap is not None
    # of two states they are the two rates
    assert trap["mean"] == pytest.approx(rates["per_s_mean"][0], rel=1e-9)
    assert detrap["mean"] == pytest.approx(rates["per_s_mean"][1], rel=1e-9)
    assert found.on_fraction["mean"] == pytest.approx(found.states["occupancy_mean"][0], abs=1e-9)


def test_path_is_that_of_the_dot() -> None:
    spent = blinking_dot().occupancy_per_bin(0.02)
    states = blinking_fit().tree["states"]
    probability = states["probability"].values
    assert probability.shape == spent.shape
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(states["path"], probability.argmax(axis=1))
    # also where it switched inside the bin: the share of the bin is told
    assert np.abs(probability - spent).mean() < 0.02
    mixed = (spent[:, 0] > 0.2) & (spent[:, 0] < 0.8)
    assert mixed.sum() > 10
    assert np.abs(probability[mixed] - spent[mixed]).mean() < 0.1


def test_tree_has_the_stated_groups() -> None:
    found = blinking_fit()
    tree, trace = found.tree, bin_photons(blinking_dot().photons, 0.02)
    assert {"posterior", "evidence", "states", "predictive", "observed_data", "constant_data"} <= (
        set(tree.children)
    )
    posterior = tree["posterior"]
    assert posterior.sizes["chain"] == 1
    n_draws, n_gates = posterior.sizes["draw"], trace.sizes["gate"]
    for name, shape in (
        ("rate_per_s", (2,)),
        ("total_rate_per_s", (2,)),
        ("occupancy", (2,)),
        ("exit_rate_per_s", (2,)),
        ("lifetime_ns", (2,)),
        ("transition_rate_per_s", (2, 2)),
        ("gate_probability", (2, n_gates)),
    ):
        assert posterior[name].shape == (1, n_draws, *shape)
    np.testing.assert_allclose(posterior["gate_probability"].sum("gate"), 1.0, rtol=1e-9)
    exits = posterior["transition_rate_per_s"].sum("to_state")
    np.testing.assert_allclose(exits, posterior["exit_rate_per_s"], rtol=1e-12)
    background = posterior["total_rate_per_s"] - posterior["rate_per_s"]
    assert float(background.mean()) == pytest.approx(BACKGROUND_PER_S, rel=0.25)
    xr.testing.assert_equal(tree["observed_data"]["counts"].variable, trace["counts"].variable)
    assert tree["evidence"]["probability"].dims == ("n_states",)
    assert {"response", "background_gate_fraction"} <= set(tree["constant_data"].data_vars)
    assert {"count_histogram", "autocorrelation", "p_value", "gate_counts"} <= set(
        tree["predictive"].data_vars
    )
    attrs = tree.attrs
    assert attrs["width_s"] == 0.02
    assert attrs["likelihood_width_s"] < 0.02
    assert attrs["digest"] == blinking_dot().photons.digest
    assert attrs["model_digest"] == load_model("free").digest
    assert attrs["model_text"] == load_model("free").text
    assert attrs["random_seed"] == 1


def test_surely_bright_bins_have_the_bright_decay() -> None:
    """Counts per gate of the bins in one state, per s, are that state's rates."""
    tree = blinking_fit().tree
    seconds = tree["predictive"]["gate_counts_time_s"].values
    assert (seconds > 0.5).all()
    assert seconds.sum() < 6.0
    found = tree["predictive"]["gate_counts"].sum("gate").values / seconds
    expected = tree["posterior"]["total_rate_per_s"].mean(("chain", "draw")).values
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_summary_keeps_the_contract() -> None:
    found = blinking_fit()
    summary = found.summary()
    # what is promised in writing; keys may be added, none may go
    assert {
        "schema",
        "file",
        "n_photons",
        "duration_s",
        "width_s",
        "n_states",
        "most_probable_n_states",
        "states",
        "mechanisms",
        "verdict",
        "rates",
        "auger_rate_per_ns",
        "on_fraction",
        "loss_budget",
        "diagnostics",
        "warnings",
    } <= set(summary)
    assert summary["schema"] == 1
    assert summary["n_photons"] == blinking_dot().photons.n_photons
    assert summary["duration_s"] == 6.0
    assert summary["width_s"] == 0.02
    assert summary["n_states"] == {str(k): float(p) for k, p in found.n_states.items()}
    assert len(summary["states"]) == summary["most_probable_n_states"] == 2
    for state in summary["states"]:
        for name in ("rate_per_s", "lifetime_ns", "occupancy"):
            assert set(state[name]) == INTERVAL
        assert {"mechanism", "named_mechanism", "reference"} <= set(state)
    brightness = [state["rate_per_s"]["mean"] for state in summary["states"]]
    assert brightness == sorted(brightness, reverse=True)
    assert [(rate["from"], rate["to"], rate["kind"]) for rate in summary["rates"]] == [
        (0, 1, "trapping"),
        (1, 0, "detrapping"),
    ]
    assert all(set(rate["per_s"]) == INTERVAL for rate in summary["rates"])
    assert set(summary["on_fraction"]) == INTERVAL
    diagnostics = summary["diagnostics"]
    assert {"log_evidence", "log_evidence_error", "r_hat", "ess", "pareto_k", "divergences"} <= (
        set(diagnostics)
    )
    for name in ("log_evidence", "log_evidence_error", "method"):
        assert set(diagnostics[name]) == {"1", "2", "3"}
    assert diagnostics["n_states_probability_rough"] == pytest.approx(
        sum(found.n_states[int(k)] for k, how in diagnostics["method"].items() if how == "rough")
    )
    assert set(diagnostics["predictive_p_values"]) == {"count_histogram", "autocorrelation"}
    assert all(isinstance(text, str) for text in summary["warnings"])
    # plain numbers and text
    assert json.loads(json.dumps(summary))["states"] == summary["states"]
    assert repr(found).startswith("Fit(photons, P(number of states) = {2: ")


def test_saved_and_opened_again_is_the_same(tmp_path: Path) -> None:
    found = blinking_fit()
    path = tmp_path / "fit.nc"
    found.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["fit.nc"]
    again = load(path)
    xr.testing.assert_identical(again.tree, found.tree)
    # a NaN equals no NaN, but reads the same
    texts = [json.dumps(one.summary(), default=int) for one in (again, found)]
    assert texts[0] == texts[1]
    assert repr(again) == repr(found)
    # over an older result too
    found.save(path)
    assert isinstance(pncbayes.load(path), Fit)


def test_summary_of_an_opened_fit_is_ready_for_json(tmp_path: Path) -> None:
    blinking_fit().save(tmp_path / "fit.nc")
    again = json.dumps(load(tmp_path / "fit.nc").summary())
    assert again == json.dumps(blinking_fit().summary())


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        blinking_fit().save(tmp_path / "nowhere" / "fit.nc")
    assert not list(tmp_path.iterdir())


def test_what_is_no_saved_fit(tmp_path: Path) -> None:
    text, other = tmp_path / "text.nc", tmp_path / "other.nc"
    text.write_text("not netCDF", encoding="utf-8")
    xr.Dataset({"x": 1.0}).to_netcdf(other, engine="h5netcdf")
    for path in (text, other, tmp_path / "missing.nc"):
        with pytest.raises(PhotonFileError, match=path.name):
            load(path)


def test_same_seed_same_numbers() -> None:
    photons = levels([5e3, 8e2], [3.0, 2.0], 5.0, 2).photons
    one, other = (quick_fit(photons, max_states=2) for _ in range(2))
    xr.testing.assert_identical(one.tree, other.tree)
    third = quick_fit(photons, max_states=2, random_seed=2)
    assert not third.states.equals(one.states)
    # another seed, the same answer
    assert third.most_probable_n_states == one.most_probable_n_states
    np.testing.assert_allclose(
        third.states["rate_per_s_mean"], one.states["rate_per_s_mean"], rtol=0.02
    )


def test_generator_as_seed() -> None:
    photons = levels([3e3], None, 2.0, 6).photons
    one, other = (
        quick_fit(photons, max_states=1, random_seed=np.random.default_rng(4)) for _ in range(2)
    )
    xr.testing.assert_identical(one.tree, other.tree)
    assert one.summary()["random_seed"] is None


def test_steady_light_is_one_state() -> None:
    found = quick_fit(levels([3e3], None, 10.0, 6).photons)
    assert found.most_probable_n_states == 1
    assert found.n_states[1] > 0.7
    assert contains(found.states.loc[0], "rate_per_s", 3e3)
    assert found.states["occupancy_mean"][0] == 1.0
    assert found.states.filter(like="lifetime").isna().all(axis=None)
    assert found.rates.empty
    assert found.k_trap_per_s is None
    assert found.k_detrap_per_s is None
    assert found.on_fraction["mean"] == 1.0
    assert not any("predictive" in text or "most states" in text for text in found.warnings)
    summary = found.summary()
    assert summary["states"][0]["lifetime_ns"] is None
    assert summary["rates"] == []


def test_model_of_one_steady_level() -> None:
    found = quick_fit(levels([3e3], None, 2.0, 6).photons, model="steady", max_states=None)
    assert list(found.n_states.index) == [1]
    assert found.n_states[1] == 1.0
    assert found.summary()["model"]["name"] == "steady"


def test_three_levels_and_a_limit_of_two() -> None:
    photons = levels([1.5e4, 7e3, 1e3], [2.0, 2.0, 2.0], 12.0, 4).photons
    found = quick_fit(photons)
    assert found.most_probable_n_states == 3
    for k, rate in enumerate((1.5e4, 7e3, 1e3)):
        assert contains(found.states.loc[k], "rate_per_s", rate)
    kinds = {(row["from"], row["to"]): row["kind"] for _, row in found.rates.iterrows()}
    assert kinds[0, 1] == kinds[0, 2] == "trapping"
    assert kinds[1, 0] == kinds[2, 0] == "detrapping"
    assert kinds[1, 2] == kinds[2, 1] == "dim_to_dim"
    for _, row in found.rates.iterrows():
        assert contains(row, "per_s", 1.0)
    assert any("the most states allowed (3)" in text for text in found.warnings)
    limited = quick_fit(photons, max_states=2)
    assert limited.most_probable_n_states == 2
    text = " ".join(limited.warnings)
    assert "the most states allowed (2)" in text
    assert "read it as 2 or more" in text
    assert "predictive check failed: count histogram" in text
    with pytest.raises(DiagnosticError, match="the most states allowed"):
        quick_fit(photons, max_states=2, strict=True)


def test_flicker_fails_the_checks() -> None:
    """A brightness that wanders is no set of levels, whatever their number."""
    dot = levels([2e4], None, 8.0, 5, flicker=Flicker(log_sd=0.3, correlation_time_s=0.1))
    found = quick_fit(dot.photons, max_states=2)
    assert any("predictive check failed" in text for text in found.warnings)
    assert min(found.diagnostics["predictive_p_values"].values()) < 0.02


def test_switching_too_fast_for_the_bins() -> None:
    """With the photons a finer grid is found; with the trace alone a warning is all there is."""
    photons = levels([1.5e4, 1e3], [100.0, 80.0], 8.0, 3).photons
    found = quick_fit(photons, max_states=2)
    assert found.diagnostics["likelihood_width_s"] <= 0.002
    assert not any("too fast" in text for text in found.warnings)
    for (_, row), truth in zip(found.rates.iterrows(), (100.0, 80.0), strict=True):
        assert contains(row, "per_s", truth)
    trace = without_photons(bin_photons(photons, 0.02))
    coarse = quick_fit(trace, max_states=2)
    assert coarse.diagnostics["likelihood_width_s"] == 0.02
    assert any("switching is too fast for bins of 20 ms" in text for text in coarse.warnings)
    # two states are exact at any speed all the same
    for (_, row), truth in zip(coarse.rates.iterrows(), (100.0, 80.0), strict=True):
        assert contains(row, "per_s", truth)


def test_camera() -> None:
    random = np.random.default_rng(8)
    frame_s, gain, offset, read_noise = 0.02, 3.0, 100.0, 5.0
    spent = levels([4e3, 4e2], [2.0, 2.0], 20.0, 9).occupancy_per_bin(frame_s)
    electrons = random.poisson(spent @ [4e3, 4e2] * frame_s)
    counts = offset + gain * electrons + random.normal(0.0, read_noise, electrons.size)
    trace = camera_trace(
        counts, frame_s, gain=gain, offset=offset, read_noise=read_noise, excess_factor=1.0
    )
    found = quick_fit(trace, max_states=3)
    assert found.most_probable_n_states == 2
    for k, rate in enumerate((4e3, 4e2)):
        assert contains(found.states.loc[k], "rate_per_s", rate)
    for _, row in found.rates.iterrows():
        assert contains(row, "per_s", 2.0)
    assert found.diagnostics["likelihood_width_s"] == frame_s


def test_excess_noise_is_found_where_it_is() -> None:
    random = np.random.default_rng(10)
    photons = levels([3e3], None, 6.0, 6).photons
    plain = bin_photons(photons, 0.01)
    noisy = without_photons(plain.copy(deep=True))
    mean = random.gamma(30.0 / 0.6, 0.6, plain.sizes["time"])
    noisy["counts"].values[:, 0] = random.poisson(mean)
    found = quick_fit(noisy, max_states=1, excess_noise=True)
    assert any("the data ask for excess noise" in text for text in found.warnings)
    excess = found.tree["posterior"]["excess_variance_ratio"].values
    assert abs(excess.mean() - 0.6) < 4.0 * excess.std()
    none = quick_fit(without_photons(plain), max_states=1, excess_noise=True)
    assert any("do not ask for excess noise" in text for text in none.warnings)


def test_strict_lets_a_good_fit_pass() -> None:
    """That the data do not ask for excess noise is no reason to distrust the fit."""
    trace = without_photons(bin_photons(levels([3e3], None, 5.0, 6).photons, 0.01))
    quick_fit(trace, max_states=2, excess_noise=True, strict=True)


def test_states_of_equal_brightness_keep_their_decays() -> None:
    """An intensity-silent blink: only the lifetime tells the states apart."""
    slow = SimulatedState(rate_per_s=1e4, lifetimes_ns=(20.0,))
    fast = SimulatedState(rate_per_s=1e4, lifetimes_ns=(4.0,))
    dot = simulate([slow, fast], [2.0, 2.0], 6.0, period_ns=200.0, random_seed=1)
    found = quick_fit(bin_photons(dot.photons, 0.01, n_gates=8), max_states=2)
    assert found.most_probable_n_states == 2
    lifetimes = found.states.sort_values("lifetime_ns_mean")
    for (_, row), truth in zip(lifetimes.iterrows(), (4.0, 20.0), strict=True):
        assert row["lifetime_ns_mean"] == pytest.approx(truth, rel=0.1)
        assert row["lifetime_ns_sd"] < 0.1 * truth


def test_occupancy_is_as_unsure_as_the_path() -> None:
    """Dim levels: which bins belong to which state is not known, given the rates either."""
    n_inside, n_dots = 0, 5
    for seed in range(n_dots):
        dot = levels([2000.0, 800.0], [5.0, 5.0], 20.0, seed)
        trace = without_photons(bin_photons(dot.photons, 0.01))
        truth = dot.occupancy_per_bin(0.01).mean(axis=0)[0]
        row = quick_fit(trace, max_states=2).states.loc[0]
        n_inside += bool(row["occupancy_q05"] <= truth <= row["occupancy_q95"])
    # 90 % intervals: two or fewer of five happen once in a hundred
    assert n_inside >= 3


def test_warnings_do_not_repeat() -> None:
    found = blinking_fit()
    assert len(set(found.warnings)) == len(found.warnings)


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"max_states": 0}, "`max_states` must be a whole number from 1 to 12, got 0"),
    ({"max_states": 13}, "`max_states` must be a whole number from 1 to 12, got 13"),
    ({"max_states": 2.5}, "`max_states` must be a whole number from 1 to 12, got 2.5"),
    ({"max_states": True}, "`max_states` must be a whole number from 1 to 12, got True"),
    ({"sampler": "metropolis"}, "`sampler` must be 'evidence' or 'nuts', got 'metropolis'"),
    ({"model": "fre"}, "no model named 'fre'"),
    ({"width_s": 0.05}, "`width_s` is 0.05 s but the trace has bins of 0.02 s"),
    ({"random_seed": -1}, "`random_seed` must be a whole number, 0 or more, .* got -1"),
]


@pytest.mark.parametrize(("settings", "message"), ARGUMENTS)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    trace = bin_photons(blinking_dot().photons, 0.02)
    with pytest.raises(ValueError, match=message):
        quick_fit(trace, **settings)


@pytest.mark.parametrize("width_s", [0.0, -0.01, np.nan, 100.0])
def test_bad_widths(width_s: float) -> None:
    with pytest.raises(ValueError, match="`width_s` must be"):
        quick_fit(blinking_dot().photons, width_s=width_s)


@pytest.mark.parametrize("data", [None, 3, np.arange(5), [1.0, 2.0], {"counts": 1}])
def test_bad_data(data: Any) -> None:
    with pytest.raises(ValueError, match="`data` must be Photons, a trace or the path of a file"):
        quick_fit(data)


def test_trace_cut_after_binning_is_refused() -> None:
    """The likelihood would bin all photons anew, those cut off as well."""
    trace = bin_photons(blinking_dot().photons, 0.02)
    with pytest.raises(ValueError, match=r"trace of 100 bins .* fills 300: it was cut"):
        quick_fit(trace.isel(time=slice(100)))
    alone = without_photons(trace.isel(time=slice(20), gate=slice(1)))
    assert quick_fit(alone, max_states=1).tree["states"].sizes["time"] == 20


def test_missing_file() -> None:
    with pytest.raises(PhotonFileError, match=r"nowhere\.ptu"):
        quick_fit("nowhere.ptu")


def test_dataset_that_is_no_trace() -> None:
    with pytest.raises(ValueError, match="trace"):
        quick_fit(xr.Dataset({"counts": ("time", np.arange(5))}))


def test_response_beside_a_trace_is_refused() -> None:
    trace = without_photons(bin_photons(levels([3e3], None, 2.0, 6).photons, 0.01))
    with pytest.raises(ValueError, match="response"):
        quick_fit(trace, response="nowhere.ptu", max_states=1)


def test_counts_that_are_all_zero() -> None:
    trace = without_photons(bin_photons(levels([3e3], None, 2.0, 6).photons, 0.01))
    dark = trace.copy(deep=True)
    dark["counts"].values[:] = 0
    found = quick_fit(dark, max_states=1)
    assert found.states["rate_per_s_q95"][0] < 20.0
    # with two, one may be bright and never visited: the time is spent in the dark all the same
    draws = quick_fit(dark, max_states=2).tree["posterior"].dataset
    light_per_s = (draws["occupancy"] * draws["rate_per_s"]).sum("state")
    # paths are drawn for some of the draws only, and serve the others, too
    assert float((light_per_s > 20.0).mean()) < 0.1


def simple_counts(counts: NDArray[np.float64]) -> xr.Dataset:
    """A trace of few bins."""
    trace = without_photons(bin_photons(levels([3e3], None, 2.0, 6).photons, 0.01))
    few = trace.isel(time=slice(len(counts))).copy(deep=True)
    few["counts"].values[:, 0] = counts
    return few


@pytest.mark.parametrize("n_bins", [1, 2, 5])
def test_few_bins(n_bins: int, tmp_path: Path) -> None:
    """No warning of NumPy's on the way, and a check that cannot be made is said, not passed."""
    found = quick_fit(simple_counts(np.full(n_bins, 30.0)), max_states=2)
    assert found.n_states.sum() == pytest.approx(1.0)
    assert found.tree["states"].sizes["time"] == n_bins
    p_values = found.diagnostics["predictive_p_values"]
    assert np.isnan(p_values["autocorrelation"]) == (n_bins < 4)
    assert 0.0 < p_values["count_histogram"] <= 1.0
    said = any("check not made: autocorrelation. It takes four" in one for one in found.warnings)
    assert said == (n_bins < 4)
    found.save(tmp_path / "fit.nc")
    xr.testing.assert_identical(load(tmp_path / "fit.nc").tree, found.tree)


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """Twenty dots: 90 % intervals of rates hold the truth in at least 75 % of 80 cases."""
    inside = []
    for seed in range(20):
        photons = levels([6e3, 1e3], [3.0, 4.0], 20.0, 100 + seed).photons
        found = quick_fit(photons, max_states=2)
        assert found.most_probable_n_states == 2
        for k, rate in enumerate((6e3, 1e3)):
            row = found.states.loc[k]
            inside.append(row["rate_per_s_q05"] <= rate <= row["rate_per_s_q95"])
        for (_, row), rate in zip(found.rates.iterrows(), (3.0, 4.0), strict=True):
            inside.append(row["per_s_q05"] <= rate <= row["per_s_q95"])
    assert np.mean(inside) > 0.75
