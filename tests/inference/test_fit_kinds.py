"""`pncbayes.fit` on dots of many kinds: steady, of three levels, fast, of a camera, and more."""

import numpy as np
import pytest
import xarray as xr
from quick_fits import contains, estimated_response, levels, quick_fit, without_photons

from pncbayes.errors import DiagnosticError
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.camera import camera_trace
from pncbayes.physics.simulate import simulate
from pncbayes.physics.simulated_dot import Flicker, SimulatedState

pytestmark = estimated_response


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
    assert summary["trap_rates"] == []


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
