"""The classical analysis: threshold, dwell times, power laws through them."""

from __future__ import annotations

import numpy as np
import pytest

from pncbayes.photons.dwell_times import fit_power_law, fit_straight_line, threshold_dwell_times


def pareto(exponent: float, n_draws: int, seed: int, shortest_s: float = 0.01) -> np.ndarray:
    uniform = np.random.default_rng(seed).random(n_draws)
    return np.asarray(shortest_s * (1.0 - uniform) ** (1.0 / (1.0 - exponent)))


def test_dwells_of_a_known_trace() -> None:
    counts = [9, 9, 1, 9, 9, 9, 1, 1, 9, 1]
    found = threshold_dwell_times(counts, 0.1)
    assert found.threshold == pytest.approx(5.0)
    np.testing.assert_allclose(found.on_s, [0.3, 0.1])
    np.testing.assert_allclose(found.off_s, [0.1, 0.2])
    np.testing.assert_allclose(found.on_censored_s, [0.2])
    np.testing.assert_allclose(found.off_censored_s, [0.1])
    assert threshold_dwell_times(counts, 0.1, threshold=20.0).off_censored_s == pytest.approx([1.0])
    assert threshold_dwell_times([3, 3, 3], 0.1).on_s.size == 0


def test_likelihood_recovers_exponent_and_truncation() -> None:
    raw = pareto(1.5, 200_000, 1)
    keep = np.random.default_rng(2).random(raw.size) < np.exp(-(raw - 0.01) / 2.0)
    dwells = raw[keep][:20_000]
    # counted in fine bins
    found = fit_power_law(np.rint(dwells / 1e-4) * 1e-4, 1e-4, shortest_s=0.01)
    assert found.exponent == pytest.approx(1.5, abs=4 * found.exponent_sd)
    assert np.log(found.truncation_s / 2.0) == pytest.approx(0.0, abs=4 * found.log_truncation_sd)
    assert found.exponent_sd < 0.02
    assert found.distance < 0.02
    assert found.n_dwells == 20_000


def test_pure_power_law_needs_no_truncation() -> None:
    found = fit_power_law(pareto(1.8, 3000, 3), 1e-5, shortest_s=0.01)
    assert found.exponent == pytest.approx(1.8, abs=0.06)
    assert found.truncation_s > 10.0


def test_censored_dwells_lengthen_the_law() -> None:
    dwells = np.random.default_rng(4).exponential(0.5, 400) + 0.01
    limit = 0.6
    complete, cut = dwells[dwells < limit], np.full((dwells >= limit).sum(), limit)
    without = fit_power_law(complete, 1e-4, shortest_s=0.01)
    with_them = fit_power_law(complete, 1e-4, shortest_s=0.01, censored_s=cut)
    whole = fit_power_law(dwells, 1e-4, shortest_s=0.01)
    assert with_them.truncation_s > 1.5 * without.truncation_s
    assert abs(np.log(with_them.truncation_s / whole.truncation_s)) < 0.4


def test_start_is_found_where_the_law_begins() -> None:
    rng = np.random.default_rng(5)
    # below 0.1 s dwells are spread evenly, from there on they are a power law
    dwells = np.concatenate([rng.uniform(0.01, 0.1, 1500), pareto(1.7, 1500, 6, 0.1)])
    found = fit_power_law(np.ceil(dwells / 0.01) * 0.01, 0.01)
    assert 0.07 < found.shortest_s < 0.5
    assert found.exponent == pytest.approx(1.7, abs=0.15)


def test_straight_line() -> None:
    slope, error = fit_straight_line(pareto(1.6, 100_000, 7))
    assert slope == pytest.approx(1.6, abs=0.15)
    assert error > 0
    assert np.isnan(fit_straight_line([0.1, 0.1])[0])
    assert np.isnan(fit_straight_line([])[0])


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="`counts`"):
        threshold_dwell_times([[1, 2]], 0.1)
    with pytest.raises(ValueError, match="`counts`"):
        threshold_dwell_times([1, np.nan], 0.1)
    with pytest.raises(ValueError, match="`width_s`"):
        threshold_dwell_times([1, 2, 3], 0.0)
    with pytest.raises(ValueError, match="`threshold`"):
        threshold_dwell_times([1, 2, 3], 0.1, threshold=np.inf)
    with pytest.raises(ValueError, match="10 complete dwells"):
        fit_power_law([0.1, 0.2], 0.01)
    with pytest.raises(ValueError, match="10 complete dwells"):
        fit_power_law([], 0.01)
    with pytest.raises(ValueError, match="`dwell_s`"):
        fit_power_law([-1.0] * 20, 0.01)
    with pytest.raises(ValueError, match="`width_s`"):
        fit_power_law([1.0] * 20, -0.01)
    with pytest.raises(ValueError, match="`per_decade`"):
        fit_straight_line([1.0], per_decade=0)
