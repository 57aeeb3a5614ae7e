"""Decays through the response against closed forms, and lifetimes against simulated truth."""

import time
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from pncbayes.photons.gates import choose_gates
from pncbayes.physics.decay import (
    GaussianResponse,
    HistogramResponse,
    LifetimeFitter,
    amplitude_averaged_lifetime,
    exponential_gate_probability,
    flat_gate_fraction,
    gate_probability,
    periodic_exponential,
    periodic_exponential_gaussian,
    response_shift_ns,
    scatter_gate_probability,
)

PERIOD_NS = 100.0
TICK_NS = 0.032
N_TICKS = 3125
RESPONSE = GaussianResponse(3.0, 0.1)


def histogram_response(center_ns=3.0, sd_ns=0.1, tick_ns=TICK_NS, n_ticks=N_TICKS):
    edges = np.arange(n_ticks + 1) * tick_ns
    weight = np.diff(scipy.stats.norm.cdf(edges, center_ns, sd_ns))
    return HistogramResponse(weight, tick_ns)


def gates_for(lifetimes_ns, amplitudes, background_share=0.1, response=RESPONSE):
    ticks = np.arange(N_TICKS + 1) * TICK_NS
    share = gate_probability(lifetimes_ns, amplitudes, ticks, response, PERIOD_NS)
    pooled = (1 - background_share) * share + background_share / N_TICKS
    return choose_gates(1e5 * pooled) * TICK_NS


@pytest.mark.parametrize("lifetime_ns", [1e-4, 0.05, 0.3, 5.0, 60.0, 400.0, 1e4])
@pytest.mark.parametrize("response", [RESPONSE, GaussianResponse(99.9, 0.3), histogram_response()])
def test_total_probability_is_one(lifetime_ns, response):
    edges = np.sort(np.r_[0.0, np.random.default_rng(1).uniform(0, PERIOD_NS, 30), PERIOD_NS])
    share = gate_probability([lifetime_ns], [1.0], edges, response, PERIOD_NS)
    assert share.sum() == pytest.approx(1.0, abs=1e-12)
    assert share.min() > -1e-13


@pytest.mark.parametrize("shift_ns", [-250.0, -0.05, 0.0, 31.4])
def test_total_is_one_for_a_period_that_is_not_whole_ticks(shift_ns):
    period_ns = 100.0 - 0.3 * TICK_NS
    edges = np.r_[np.linspace(0, 90, 10), period_ns]
    share = gate_probability([7.0], [1.0], edges, histogram_response(), period_ns, shift_ns)
    assert share.sum() == pytest.approx(1.0, abs=1e-12)
    moved = gate_probability([7.0], [1.0], edges, histogram_response(), period_ns, shift_ns + 1e-9)
    assert np.abs(moved - share).max() < 1e-8


@pytest.mark.parametrize(
    ("lifetime_ns", "sd_ns"), [(0.02, 0.2), (0.3, 0.1), (5.0, 0.4), (60.0, 0.1), (300.0, 2.0)]
)
def test_gaussian_closed_form_equals_numerical_convolution(lifetime_ns, sd_ns):
    """The response is integrated numerically over the exact periodic exponential."""
    edges = np.array([0.0, 2.7, 2.95, 3.0, 3.3, 8.0, 60.0, 100.0])
    center_ns = 3.0
    k = 1.0 / lifetime_ns

    def arrived(x):
        # one photon per period, from a response without width: the geometric sum by hand
        whole = np.floor(x / PERIOD_NS)
        inside = x - whole * PERIOD_NS
        return whole - np.exp(-k * inside) / (1 - np.exp(-k * PERIOD_NS))

    wanted = []
    for start, stop in pairwise(edges):
        kinks = sorted({start - center_ns, stop - center_ns})
        inner = [x for x in kinks if abs(x) < 9 * sd_ns]
        value = 0.0
        for low, high in zip([-9 * sd_ns, *inner], [*inner, 9 * sd_ns], strict=True):
            value += scipy.integrate.quad(
                lambda s, a=start, b=stop: (
                    scipy.stats.norm.pdf(s, 0, sd_ns)
                    * (arrived(b - center_ns - s) - arrived(a - center_ns - s))
                ),
                low,
                high,
                epsabs=1e-12,
                limit=200,
            )[0]
        wanted.append(value)
    got = gate_probability([lifetime_ns], [1.0], edges, GaussianResponse(3.0, sd_ns), PERIOD_NS)
    np.testing.assert_allclose(got, wanted, atol=1e-8)


@pytest.mark.parametrize("lifetime_ns", [0.05, 2.0, 80.0])
def test_fine_histogram_response_equals_gaussian(lifetime_ns):
    edges = np.array([0.0, 2.5, 2.9, 3.0, 3.2, 5.0, 20.0, 40.0])
    fine = histogram_response(tick_ns=0.001, n_ticks=40_000)
    got = gate_probability([lifetime_ns], [1.0], edges, fine, 40.0)
    wanted = gate_probability([lifetime_ns], [1.0], edges, RESPONSE, 40.0)
    # a tick wide, not a point: the difference is of the order of (tick / width) squared
    np.testing.assert_allclose(got, wanted, atol=5e-6)


def test_single_tick_response_is_the_periodic_geometric_sum():
    position = np.array([0.25, 0.9, 1.0, 4.0, 9.99])
    rate, period = 0.3, 10.0

    def by_images(x):
        def one(y):
            if y <= 0:
                return 0.0
            start = np.linspace(0, min(y, 1.0), 20_001)
            return scipy.integrate.trapezoid(1 - np.exp(-rate * (y - start)), start)

        # each earlier pulse has given all but its tail; constants cancel between gates
        return one(x) + sum(one(x + n * period) - 1.0 for n in range(1, 60))

    got = periodic_exponential(position, rate, period)
    np.testing.assert_allclose(got, [by_images(x) for x in position], atol=1e-8)


def test_scatter_is_a_decay_without_lifetime():
    edges = np.array([0.0, 2.5, 2.9, 3.0, 3.2, 5.0, PERIOD_NS])
    for response in (RESPONSE, histogram_response()):
        fast = gate_probability([1e-6], [1.0], edges, response, PERIOD_NS)
        scatter = scatter_gate_probability(edges, response, PERIOD_NS)
        np.testing.assert_allclose(scatter, fast, atol=1e-4)
        assert scatter.sum() == pytest.approx(1.0, abs=1e-12)


def test_amplitudes_weigh_photons_by_lifetime():
    edges = np.linspace(0, PERIOD_NS, 11)
    mixed = gate_probability([2.0, 10.0], [3.0, 1.0], edges, RESPONSE, PERIOD_NS)
    parts = [gate_probability([t], [1.0], edges, RESPONSE, PERIOD_NS) for t in (2.0, 10.0)]
    np.testing.assert_allclose(mixed, (6 * parts[0] + 10 * parts[1]) / 16, rtol=1e-12)


def test_pytensor_gives_the_same_numbers_and_gradients():
    import pytensor
    import pytensor.tensor as pt

    rates = np.array([0.05, 0.4, 3.0])
    edges = np.array([0.0, 2.9, 3.1, 3.5, 10.0, PERIOD_NS])
    coarse = histogram_response(tick_ns=0.5, n_ticks=200, sd_ns=0.7)
    for response in (RESPONSE, coarse):
        rate = pt.dvector("rate")
        share = exponential_gate_probability(rate, edges, response, PERIOD_NS, xp=pt)
        slope = pytensor.grad(pt.log(share[:, 2]).sum(), rate)
        function = pytensor.function([rate], [share, slope], mode="FAST_COMPILE")
        value, gradient = function(rates)
        wanted = exponential_gate_probability(rates, edges, response, PERIOD_NS)
        np.testing.assert_allclose(value, wanted, atol=1e-12)
        above, below = (
            np.log(exponential_gate_probability(rates * f, edges, response, PERIOD_NS)[:, 2])
            for f in (1 + 1e-6, 1 - 1e-6)
        )
        np.testing.assert_allclose(gradient, (above - below) / (2e-6 * rates), rtol=1e-5)


def test_gaussian_form_does_not_overflow():
    values = periodic_exponential_gaussian(np.linspace(-200, 200, 2001), 1e4, 1.0, 100.0)
    assert np.all(np.isfinite(values))
    assert np.all(np.diff(values) >= -1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([-1.0], [1.0], [0, 1, 2], RESPONSE, 100.0), "lifetimes_ns"),
        (([1.0, 2.0], [1.0], [0, 1, 2], RESPONSE, 100.0), "amplitudes"),
        (([1.0], [0.0], [0, 1, 2], RESPONSE, 100.0), "amplitudes"),
        (([1.0], [1.0], [0, 1, 2], RESPONSE, float("nan")), "period_ns"),
        (([1.0], [1.0], [0, 1, 2], GaussianResponse(1.0, 20.0), 100.0), "does not fit a period"),
        (([1.0], [1.0], [0, 1, 2], histogram_response(), 40.0), "another clock"),
        (([1.0], [1.0], [0, 1, 2], np.ones(5), 40.0), "delay_tick_ns"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        gate_probability(*arguments)


@pytest.mark.parametrize("weight", [np.zeros(5), [1, -1], [1, np.nan]])
def test_bad_response(weight):
    with pytest.raises(ValueError, match="weight"):
        HistogramResponse(np.asarray(weight, dtype=float), 0.1)


def test_response_width_is_that_of_a_gaussian():
    assert histogram_response().width_ns == pytest.approx(RESPONSE.width_ns, rel=0.05)


@pytest.mark.parametrize(
    ("lifetimes_ns", "amplitudes", "background_share"),
    [
        ([10.0], [1.0], 0.05),
        ([10.0], [1.0], 0.5),
        ([2.0, 15.0], [0.5, 0.5], 0.1),
        ([0.3], [1.0], 0.1),
    ],
)
def test_lifetime_is_recovered_within_its_error(lifetimes_ns, amplitudes, background_share):
    edges = gates_for(lifetimes_ns, amplitudes, background_share)
    share = gate_probability(lifetimes_ns, amplitudes, edges, RESPONSE, PERIOD_NS)
    mean = (1 - background_share) * share + background_share * flat_gate_fraction(edges)
    fitter = LifetimeFitter(edges[:-1], edges[1:], RESPONSE, PERIOD_NS)
    truth = np.dot(amplitudes, lifetimes_ns) / np.sum(amplitudes)
    exact = fitter.fit(1e7 * mean)
    assert exact.lifetime_ns[0] == pytest.approx(truth, rel=2e-3)
    assert exact.background_photons[0] == pytest.approx(1e7 * background_share, rel=1e-2)
    counts = np.random.default_rng(3).poisson(5_000 * mean, (300, mean.size))
    fit = fitter.fit(counts)
    z = (fit.lifetime_ns - truth) / fit.sd_ns
    assert abs(np.median(z)) < 0.25
    assert 0.75 < np.subtract(*np.quantile(z, [0.84, 0.16])) / 2 < 1.3
    assert not fit.too_few.any()
    assert fit.at_bound.mean() < 0.05


def test_measured_response_gives_the_same_lifetime():
    edges = gates_for([1.0, 8.0], [0.5, 0.5])
    share = gate_probability([1.0, 8.0], [0.5, 0.5], edges, RESPONSE, PERIOD_NS)
    fit = amplitude_averaged_lifetime(
        1e6 * share,
        edges[:-1],
        edges[1:],
        histogram_response().weight,
        PERIOD_NS,
        delay_tick_ns=TICK_NS,
    )
    assert fit.lifetime_ns[0] == pytest.approx(4.5, rel=0.01)


def test_background_alone_is_no_lifetime():
    edges = gates_for([5.0], [1.0])
    fitter = LifetimeFitter(edges[:-1], edges[1:], RESPONSE, PERIOD_NS)
    flat = np.random.default_rng(0).poisson(2_000 * fitter.background, (50, edges.size - 1))
    fit = fitter.fit(flat)
    assert (fit.too_few | fit.at_bound).mean() > 0.9
    nothing = fitter.fit(np.zeros(edges.size - 1))
    assert np.isnan(nothing.lifetime_ns[0])
    assert nothing.too_few[0]


def test_known_background_narrows_the_lifetime():
    edges = gates_for([20.0], [1.0], 0.5)
    share = gate_probability([20.0], [1.0], edges, RESPONSE, PERIOD_NS)
    fitter = LifetimeFitter(edges[:-1], edges[1:], RESPONSE, PERIOD_NS)
    mean = 500 * share + 500 * fitter.background
    free = fitter.fit(mean)
    known = fitter.fit(mean, background_counts=500.0, background_counts_sd=20.0)
    assert known.sd_ns[0] < 0.8 * free.sd_ns[0]


def test_lifetime_below_the_response_stands_at_the_bound():
    edges = gates_for([1e-4], [1.0], 0.1)
    share = gate_probability([1e-4], [1.0], edges, RESPONSE, PERIOD_NS)
    fitter = LifetimeFitter(edges[:-1], edges[1:], RESPONSE, PERIOD_NS)
    fit = fitter.fit(1e5 * share)
    assert fit.at_bound[0]
    assert fit.lifetime_ns[0] == pytest.approx(fitter.bounds_ns[0], rel=0.05)


def test_fit_is_fast_and_rows_do_not_depend_on_each_other():
    edges = gates_for([2.0, 15.0], [0.5, 0.5])
    share = gate_probability([2.0, 15.0], [0.5, 0.5], edges, RESPONSE, PERIOD_NS)
    fitter = LifetimeFitter(edges[:-1], edges[1:], RESPONSE, PERIOD_NS)
    counts = np.random.default_rng(3).poisson(5_000 * share, (400, share.size))
    one = fitter.fit(counts[7])
    started = time.perf_counter()
    every = fitter.fit(counts)
    assert (time.perf_counter() - started) / 400 < 1e-3
    assert every.lifetime_ns[7] == one.lifetime_ns[0]


@pytest.mark.parametrize("shift_ns", [-0.15, 0.08])
def test_shift_of_the_response_is_found(shift_ns):
    edges = gates_for([0.5, 8.0], [0.5, 0.5])
    share = gate_probability([0.5, 8.0], [0.5, 0.5], edges, RESPONSE, PERIOD_NS, shift_ns)
    counts = np.random.default_rng(5).poisson(47_500 * share + 2_500 * flat_gate_fraction(edges))
    shift, sd = response_shift_ns(counts, edges[:-1], edges[1:], RESPONSE, PERIOD_NS)
    assert sd < 0.01
    assert abs(shift - shift_ns) < 4 * sd + 0.002


@pytest.mark.parametrize(
    ("start", "stop", "counts", "message"),
    [
        ([np.nan], [np.nan], [1.0], "no lifetime"),
        ([0, 1, 2], [1, 2.5, 3], [1.0, 1, 1], "holes"),
        ([0, 1, 2], [1, 2, 3], [1.0, 1], "gates"),
        ([0, 1, 2], [1, 2, 3], [1.0, -1, 1], "finite"),
    ],
)
def test_bad_histograms(start, stop, counts, message):
    with pytest.raises(ValueError, match=message):
        amplitude_averaged_lifetime(counts, start, stop, GaussianResponse(1.0, 0.1), 3.0)
