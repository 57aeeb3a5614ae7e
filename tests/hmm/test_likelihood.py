"""The likelihood of a binned trace against the reference, closed forms and photon by photon."""

import itertools
from typing import Any

import numpy as np
import pytest
from fake_counts import CAMERA, WIDTH_S, Array, some_counts, some_rates
from scipy.stats import poisson

from pncbayes.hmm import photon_by_photon, reference
from pncbayes.hmm.likelihood import FASTEST_PER_BIN, BinnedLikelihood, choose_n_nodes


def some_likelihood(family: str, n_states: int, n_gates: int) -> tuple[BinnedLikelihood, list[Any]]:
    """Make a likelihood of a family, with the arguments that `value` and `gradient` take."""
    gate_rate, transition_rate = some_rates(n_states, n_gates)
    counts = some_counts(gate_rate)
    arguments: list[Any] = [gate_rate, transition_rate]
    if family == "excess":
        arguments.append(np.geomspace(0.4, 0.05, n_states))
        return BinnedLikelihood(counts, WIDTH_S, n_nodes=6, excess_noise=True), arguments
    if family == "camera":
        gain, offset, read_noise, _ = CAMERA
        counts = offset + gain * counts
        counts += np.random.default_rng(2).normal(0.0, read_noise, counts.shape)
        return BinnedLikelihood(counts, WIDTH_S, n_nodes=6, camera=CAMERA), arguments
    return BinnedLikelihood(counts, WIDTH_S, n_nodes=6), arguments


FAMILIES = [
    ("poisson", 1, 1),
    ("poisson", 2, 1),
    ("poisson", 3, 5),
    ("poisson", 4, 3),
    ("poisson", 5, 1),
    ("poisson", 7, 1),
    ("excess", 1, 3),
    ("excess", 2, 1),
    ("excess", 3, 4),
    ("camera", 1, 1),
    ("camera", 3, 1),
]


@pytest.mark.parametrize(
    ("n_states", "n_gates"), [(1, 1), (2, 1), (3, 4), (4, 2), (5, 3), (6, 1), (7, 9)]
)
def test_equals_reference(n_states: int, n_gates: int) -> None:
    gate_rate, transition_rate = some_rates(n_states, n_gates)
    counts = some_counts(gate_rate)
    matrices = reference.bin_matrices(counts, WIDTH_S, gate_rate, transition_rate, 7)
    expected = reference.log_likelihood(matrices, np.full(n_states, 1.0 / n_states))
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=7)
    # the diagonal is ignored
    given = transition_rate + np.diag(np.full(n_states, -3.0))
    assert likelihood.value(gate_rate, given) == pytest.approx(expected, rel=1e-11)
    assert likelihood.gradient(gate_rate, given).value == pytest.approx(expected, rel=1e-11)


def test_reference_equals_enumeration() -> None:
    gate_rate, transition_rate = some_rates(3, 2)
    counts = some_counts(gate_rate, n_bins=4)
    matrices = reference.bin_matrices(counts, WIDTH_S, gate_rate, transition_rate, 5)
    initial = np.full(3, 1.0 / 3.0)
    expected = reference.log_likelihood_by_enumeration(matrices, initial)
    assert reference.log_likelihood(matrices, initial) == pytest.approx(expected, rel=1e-12)
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=5)
    assert likelihood.value(gate_rate, transition_rate) == pytest.approx(expected, rel=1e-12)


def test_one_state_is_independent_bins() -> None:
    gate_rate, _ = some_rates(1, 3)
    counts = some_counts(gate_rate)
    likelihood = BinnedLikelihood(counts, WIDTH_S)
    expected = poisson.logpmf(counts, gate_rate * WIDTH_S).sum()
    assert likelihood.value(gate_rate, np.zeros((1, 1))) == pytest.approx(expected, rel=1e-12)


def test_two_states_equal_exact_counting() -> None:
    gate_rate, transition_rate = np.array([[3e3], [4e2]]), np.array([[0.0, 40.0], [25.0, 0.0]])
    counts = some_counts(gate_rate, n_bins=200)
    exact = reference.exact_count_matrices(
        int(counts.max()), WIDTH_S, gate_rate[:, 0], transition_rate
    )
    expected = reference.log_likelihood(exact[counts[:, 0].astype(int)], np.full(2, 0.5))
    found = BinnedLikelihood(counts, WIDTH_S).value(gate_rate, transition_rate)
    assert found == pytest.approx(expected, abs=1e-4)


def test_does_not_depend_on_the_order_of_states() -> None:
    likelihood, arguments = some_likelihood("excess", 3, 4)
    order = np.array([2, 0, 1])
    permuted = [arguments[0][order], arguments[1][np.ix_(order, order)], arguments[2][order]]
    assert likelihood.value(*permuted) == pytest.approx(likelihood.value(*arguments), rel=1e-12)


def test_equal_states_are_one_state() -> None:
    """Twins: however fast the chain jumps between them, nothing is seen of it."""
    gate_rate, _ = some_rates(1, 4)
    likelihood = BinnedLikelihood(some_counts(gate_rate), WIDTH_S)
    expected = likelihood.value(gate_rate, np.zeros((1, 1)))
    twins = np.repeat(gate_rate, 3, axis=0)
    for speed in (1e-3, 1.0, 100.0):
        rates = speed * np.array([[0.0, 1.0, 2.0], [0.5, 0.0, 0.1], [3.0, 1.0, 0.0]])
        assert likelihood.value(twins, rates) == pytest.approx(expected, abs=1e-8)


def test_nodes_grow_with_contrast_and_suffice() -> None:
    """What too few nodes lose, per switch, against exact counting."""
    transition_rate = np.array([[0.0, 5.0], [5.0, 0.0]])
    for bright, dim in ((10.0, 1.0), (40.0, 2.0), (400.0, 10.0), (400.0, 100.0)):
        gate_rate = np.array([[bright], [dim]]) / WIDTH_S
        counts = np.linspace(dim, bright, 50).round()[:, None]
        n_max = int(counts.max())
        exact = reference.exact_count_matrices(n_max, WIDTH_S, gate_rate[:, 0], transition_rate)
        likelihood = BinnedLikelihood(counts, WIDTH_S)
        found = reference.bin_matrices(
            counts, WIDTH_S, gate_rate, transition_rate, likelihood.n_nodes
        )
        wanted = exact[counts[:, 0].astype(int)]
        np.testing.assert_allclose(found[:, 0, 1], wanted[:, 0, 1], rtol=0.015)
    few = choose_n_nodes(np.full(100, 50.0))
    assert (
        few
        < choose_n_nodes(np.linspace(1.0, 50.0, 100))
        < choose_n_nodes(np.linspace(1.0, 400.0, 100), most=48)
    )
    assert choose_n_nodes(np.linspace(0.0, 1e6, 100)) == 16


@pytest.mark.parametrize(("family", "n_states", "n_gates"), FAMILIES)
def test_gradient_equals_finite_differences(family: str, n_states: int, n_gates: int) -> None:
    likelihood, arguments = some_likelihood(family, n_states, n_gates)
    found = likelihood.gradient(*arguments)
    assert found.value == pytest.approx(likelihood.value(*arguments), rel=1e-12)
    slopes = [found.gate_rate, found.transition_rate, found.excess]
    for number, argument in enumerate(arguments):
        expected = np.zeros_like(argument)
        for place in np.ndindex(argument.shape):
            if number == 1 and place[0] == place[1]:
                continue
            shifted = [array.copy() for array in arguments]
            step = 1e-5 * argument[place]
            shifted[number][place] += step
            up = likelihood.value(*shifted)
            shifted[number][place] -= 2 * step
            expected[place] = (up - likelihood.value(*shifted)) / (2 * step)
        np.testing.assert_allclose(slopes[number], expected, rtol=2e-4, atol=1e-5)
    assert (found.excess is None) == (family != "excess")
    assert found.occupied_s.sum() == pytest.approx(likelihood.n_bins * WIDTH_S, rel=1e-9)
    occupancy, _ = likelihood.smooth(*arguments)
    np.testing.assert_allclose(found.occupied_s, occupancy.sum(axis=0) * WIDTH_S, rtol=1e-8)


@pytest.mark.parametrize("n_gates", [1, 3])
def test_limit_of_fine_bins_is_photon_by_photon(n_gates: int) -> None:
    """Binned counts against the Markov-modulated Poisson process with gates as marks.

    Within a bin of constant rates the probability of counts n is the density of the photons
    times width^n / n!, gate by gate.
    """
    random = np.random.default_rng(9)
    rate_per_s = np.array([4000.0, 1500.0, 300.0])
    rates = np.array([[0.0, 30.0, 20.0], [40.0, 0.0, 10.0], [15.0, 25.0, 0.0]])
    gate_probability = random.dirichlet(np.full(n_gates, 3.0), 3)
    tick_s, duration_s = 1e-6, 0.512
    states = [0, 2, 1, 0, 1, 2, 0, 2]
    times = np.sort(
        np.concatenate(
            [
                (k + random.random(random.poisson(rate_per_s[s] * 0.064))) * 0.064
                for k, s in enumerate(states)
            ]
        )
    )
    ticks = (times / tick_s).astype(np.int64)
    segment = (ticks * tick_s / 0.064).astype(int)
    gates = np.array([random.choice(n_gates, p=gate_probability[states[k]]) for k in segment])
    exact = photon_by_photon.log_likelihood(
        ticks,
        tick_s,
        gates,
        rate_per_s,
        gate_probability,
        reference.generator(rates),
        np.full(3, 1.0 / 3.0),
        duration_s,
    )
    differences = []
    for n_bins in (64, 1024, 65536):
        width_s = duration_s / n_bins
        counts = np.zeros((n_bins, n_gates))
        np.add.at(counts, (((ticks + 0.5) * tick_s / width_s).astype(int), gates), 1.0)
        binned = BinnedLikelihood(counts, width_s, n_nodes=16).value(
            rate_per_s[:, None] * gate_probability, rates
        )
        orders = sum(np.log(np.arange(1, n + 1)).sum() for n in counts.ravel().astype(int))
        differences.append(abs(binned + orders - counts.sum() * np.log(width_s) - exact))
    assert differences[0] > 2.0 * differences[1] > 10.0 * differences[2]
    assert differences[2] < 0.04


def test_likelihood_does_not_depend_on_the_excess_where_it_vanishes() -> None:
    gate_rate, transition_rate = some_rates(3, 4)
    counts = some_counts(gate_rate)
    plain = BinnedLikelihood(counts, WIDTH_S, n_nodes=6).value(gate_rate, transition_rate)
    noisy = BinnedLikelihood(counts, WIDTH_S, n_nodes=6, excess_noise=True)
    gaps = [
        abs(noisy.value(gate_rate, transition_rate, np.full(3, excess)) - plain)
        for excess in (1e-2, 1e-3, 1e-4, 1e-6)
    ]
    assert all(finer < 0.2 * coarser for coarser, finer in itertools.pairwise(gaps))
    assert gaps[-1] < 1e-4


def test_excess_has_to_be_given() -> None:
    gate_rate, transition_rate = some_rates(2, 1)
    likelihood = BinnedLikelihood(some_counts(gate_rate), WIDTH_S, excess_noise=True)
    with pytest.raises(ValueError, match="`excess` is needed"):
        likelihood.value(gate_rate, transition_rate)


@pytest.mark.parametrize("n_gates", [1, 3])
def test_smoothing_and_paths_agree(n_gates: int) -> None:
    gate_rate, transition_rate = some_rates(2, n_gates)
    likelihood = BinnedLikelihood(some_counts(gate_rate, 24), WIDTH_S)
    occupancy, edges = likelihood.smooth(gate_rate, transition_rate)
    assert occupancy.shape == (24, 2)
    assert edges.shape == (25, 2)
    np.testing.assert_allclose(occupancy.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(edges.sum(axis=1), 1.0, rtol=1e-12)
    paths = likelihood.sample_paths(gate_rate, transition_rate, n_paths=3000, random_seed=1)
    assert paths.shape == (3000, 25)
    error = np.sqrt(edges[:, 1] * edges[:, 0] / 3000) + 1e-3
    assert (np.abs(paths.mean(axis=0) - edges[:, 1]) < 5.0 * error).all()
    np.testing.assert_array_equal(
        paths, likelihood.sample_paths(gate_rate, transition_rate, n_paths=3000, random_seed=1)
    )
    # where a state is nearly sure, the best path goes through it
    path = likelihood.most_probable_path(gate_rate, transition_rate)
    sure = edges.max(axis=1) > 0.99
    assert sure.sum() > 5
    np.testing.assert_array_equal(path[sure], edges.argmax(axis=1)[sure])


def test_occupancy_finds_a_switch_within_a_bin() -> None:
    """The middle bin has the counts of a quarter of its time spent bright."""
    gate_rate, transition_rate = np.array([[40_000.0], [0.001]]), np.array([[0.0, 1.0], [1.0, 0]])
    counts = np.array([0.0, 0.0, 100.0, 400.0, 400.0])
    occupancy, _ = BinnedLikelihood(counts, WIDTH_S).smooth(gate_rate, transition_rate)
    assert occupancy[2, 0] == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(occupancy[[0, 1, 3, 4], 0], [0, 0, 1, 1], atol=0.01)


EXTREME_COUNTS = {
    "zero": np.zeros((30, 1)),
    "zero in gates": np.zeros((30, 3)),
    "huge": np.full((30, 1), 2e6),
    "huge beside zero": np.array([[0.0, 0.0], [3e3, 3.0], [0.0, 0.0], [5.0, 3e3]]),
    "one bin": np.array([[7.0]]),
    "one bin of gates": np.array([[7.0, 0.0, 2.0]]),
}


@pytest.mark.parametrize("name", EXTREME_COUNTS)
@pytest.mark.parametrize("n_states", [1, 2, 3, 4])
@pytest.mark.parametrize("excess_noise", [False, True])
@pytest.mark.parametrize("rate_per_s", [1e-6, 1e3, 1e6])
@pytest.mark.parametrize("switching_per_s", [1e-9, 1.0, 3e3])
def test_extreme_input_is_finite(
    name: str, n_states: int, excess_noise: bool, rate_per_s: float, switching_per_s: float
) -> None:
    counts = EXTREME_COUNTS[name]
    likelihood = BinnedLikelihood(counts, WIDTH_S, excess_noise=excess_noise)
    gate_rate = np.geomspace(1.0, 1e-3, n_states)[:, None] * np.full(counts.shape[1], rate_per_s)
    rates = switching_per_s * (1.0 - np.eye(n_states))
    excess = np.full(n_states, 0.1) if excess_noise else None
    found = likelihood.gradient(gate_rate, rates, excess)
    assert np.isfinite(found.value)
    assert found.value == pytest.approx(likelihood.value(gate_rate, rates, excess), rel=1e-9)
    for part in (found.gate_rate, found.transition_rate, found.occupied_s):
        assert np.isfinite(part).all()
    occupancy, edges = likelihood.smooth(gate_rate, rates, excess)
    np.testing.assert_allclose(occupancy.sum(axis=1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(edges.sum(axis=1), 1.0, rtol=1e-9)


def test_beyond_the_fastest_switching_there_is_no_likelihood() -> None:
    likelihood = BinnedLikelihood(np.array([3.0, 5.0]), WIDTH_S)
    gate_rate, unit = np.array([[500.0], [100.0]]), np.array([[0.0, 1.0], [0.1, 0.0]])
    fastest = FASTEST_PER_BIN / WIDTH_S
    assert np.isfinite(likelihood.value(gate_rate, 0.999 * fastest * unit))
    assert likelihood.value(gate_rate, 1.001 * fastest * unit) == -np.inf
    found = likelihood.gradient(gate_rate, 1.001 * fastest * unit)
    assert found.value == -np.inf
    assert not found.gate_rate.any()
    assert not found.transition_rate.any()


@pytest.mark.parametrize(
    ("counts", "width_s", "settings", "message"),
    [
        (np.empty((0, 1)), 0.01, {}, "`counts` must have shape"),
        (np.zeros((2, 2, 2)), 0.01, {}, "`counts` must have shape"),
        (np.array([1.0, np.nan]), 0.01, {}, "finite and not negative"),
        (np.array([1.0, -1.0]), 0.01, {}, "finite and not negative"),
        (np.array([1.0, np.inf]), 0.01, {"camera": CAMERA}, "finite"),
        (np.ones(3), 0.0, {}, "`width_s` must be a positive time"),
        (np.ones(3), -0.01, {}, "`width_s` must be a positive time"),
        (np.ones(3), np.nan, {}, "`width_s` must be a positive time"),
        (
            np.ones(3),
            0.01,
            {"camera": CAMERA, "excess_noise": True},
            "`excess_noise` is for photon",
        ),
    ],
)
def test_bad_arguments(
    counts: Array, width_s: float, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BinnedLikelihood(counts, width_s, **settings)
