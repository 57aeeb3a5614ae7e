"""Passes over the bins against sums over every path of states at the bin edges."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from pncbayes.hmm import numba_columns, reference, switching
from pncbayes.hmm import numba_kernels as kernels

Array = NDArray[np.float64]

ROW_OF_BIN = np.array([0, 2, 1, 1, 0])


def some_matrices(n_states: int, seed: int = 0) -> tuple[Array, Array]:
    """Three random matrices, of very uneven entries, and an initial distribution."""
    random = np.random.default_rng(seed)
    return random.random((3, n_states, n_states)) ** 3, random.dirichlet(np.ones(n_states))


def all_paths(matrices: Array, initial: Array) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every path of states at the edges of the bins, and its joint probability with the data."""
    for path in itertools.product(range(initial.size), repeat=ROW_OF_BIN.size + 1):
        probability = initial[path[0]]
        for t, row in enumerate(ROW_OF_BIN):
            probability *= matrices[row, path[t], path[t + 1]]
        yield path, float(probability)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 6, 7])
def test_forward_sums_over_all_paths(n_states: int) -> None:
    matrices, initial = some_matrices(n_states, seed=n_states)
    expected = np.log(sum(probability for _, probability in all_paths(matrices, initial)))
    assert reference.log_likelihood_by_enumeration(matrices[ROW_OF_BIN], initial) == pytest.approx(
        expected, rel=1e-12
    )
    assert reference.log_likelihood(matrices[ROW_OF_BIN], initial) == pytest.approx(
        expected, rel=1e-12
    )
    assert kernels.forward(matrices, ROW_OF_BIN, initial) == pytest.approx(expected, rel=1e-12)
    value, *_ = kernels.forward_backward(matrices, ROW_OF_BIN, initial)
    assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 6, 7])
def test_slopes_equal_finite_differences(n_states: int) -> None:
    matrices, initial = some_matrices(n_states, seed=7)
    _, slope, initial_slope = kernels.forward_backward(matrices, ROW_OF_BIN, initial)
    for place in np.ndindex(matrices.shape):
        step = np.zeros_like(matrices)
        step[place] = 1e-6
        up = kernels.forward(matrices + step, ROW_OF_BIN, initial)
        down = kernels.forward(matrices - step, ROW_OF_BIN, initial)
        assert slope[place] == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-8)
    for k in range(n_states):
        step = np.zeros_like(initial)
        step[k] = 1e-6
        up = kernels.forward(matrices, ROW_OF_BIN, initial + step)
        down = kernels.forward(matrices, ROW_OF_BIN, initial - step)
        assert initial_slope[k] == pytest.approx((up - down) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("factor", [1.0, 1e-90, 1e-120, 1e-250])
def test_products_beyond_the_range_of_floats(n_states: int, factor: float) -> None:
    """400 bins of 1e-120 each have a likelihood of 1e-48000: scaled, its logarithm is exact."""
    matrices, initial = some_matrices(n_states, seed=1)
    rows = np.tile(ROW_OF_BIN, 80)
    expected = reference.log_likelihood(matrices[rows], initial) + rows.size * np.log(factor)
    assert kernels.forward(factor * matrices, rows, initial) == pytest.approx(expected, rel=1e-11)
    value, slope, initial_slope = kernels.forward_backward(factor * matrices, rows, initial)
    assert value == pytest.approx(expected, rel=1e-11)
    # every bin has one transition: the slopes by the logarithms count the bins
    assert (slope * matrices * factor).sum() == pytest.approx(rows.size, rel=1e-10)
    assert (initial_slope * initial).sum() == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 6, 7])
def test_one_bin_far_less_probable_than_the_others(n_states: int) -> None:
    matrices, initial = some_matrices(n_states, seed=5)
    matrices *= np.array([1e-60, 1e-245, 1.0])[:, None, None]
    expected = reference.log_likelihood(matrices[ROW_OF_BIN], initial)
    assert kernels.forward(matrices, ROW_OF_BIN, initial) == pytest.approx(expected, rel=1e-12)
    value, slope, _ = kernels.forward_backward(matrices, ROW_OF_BIN, initial)
    assert value == pytest.approx(expected, rel=1e-12)
    assert (slope * matrices).sum() == pytest.approx(ROW_OF_BIN.size, rel=1e-10)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4])
def test_long_traces_keep_their_digits(n_states: int) -> None:
    """All rows of a matrix equal: the likelihood is a plain product."""
    one_row = np.random.default_rng(2).random((3, 1, n_states)) / n_states
    matrices = np.repeat(one_row, n_states, axis=1)
    initial = np.full(n_states, 1.0 / n_states)
    rows = np.random.default_rng(0).integers(0, 3, 200_000)
    expected = np.bincount(rows) @ np.log(matrices[:, 0].sum(axis=-1))
    assert kernels.forward(matrices, rows, initial) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4])
def test_impossible_data_have_no_likelihood(n_states: int) -> None:
    matrices, initial = some_matrices(n_states, seed=3)
    matrices[1] = 0.0
    assert kernels.forward(matrices, ROW_OF_BIN, initial) == -np.inf
    assert kernels.forward_backward(matrices, ROW_OF_BIN, initial)[0] == -np.inf


def test_row_maximum_is_subtracted_in_place() -> None:
    columns = np.random.default_rng(0).normal(size=(6, 4))
    before = columns.copy()
    largest = numba_columns.subtract_row_maximum(columns)
    np.testing.assert_array_equal(largest, before.max(axis=1))
    np.testing.assert_allclose(columns + largest[:, None], before, rtol=1e-12)
    assert (columns.max(axis=1) == 0.0).all()


def some_columns(n_states: int, n_nodes: int = 3) -> tuple[Array, Array, Array, Array]:
    """Random emission columns with the weights of a real generator, and the nodes."""
    random = np.random.default_rng(n_states)
    rates = random.uniform(10.0, 80.0, (n_states, n_states))
    nodes, node_weights = switching.pair_nodes(n_nodes)
    stay, pair_weights = switching.switch_weights(rates, 0.01, nodes, node_weights)
    columns = random.random((3, n_states + switching.n_pairs(n_states) * n_nodes)) ** 2
    return columns, stay, pair_weights, nodes


@pytest.mark.parametrize("n_states", [1, 2, 3, 4])
def test_matrices_are_the_weighted_columns(n_states: int) -> None:
    columns, stay, pair_weights, nodes = some_columns(n_states)
    expected = columns[:, :n_states, None] * np.eye(n_states) * stay
    pairs = list(itertools.combinations(range(n_states), 2))
    for pair, (i, j) in enumerate(pairs):
        mixed = columns[:, n_states + pair * nodes.size :][:, : nodes.size]
        for entry, (a, b) in enumerate([(i, j), (j, i), (i, i), (j, j)]):
            expected[:, a, b] += mixed @ pair_weights[pair, entry]
    found = numba_columns.bin_matrices(columns, stay, pair_weights)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4])
def test_pullback_of_the_matrices(n_states: int) -> None:
    """All three slopes against finite differences of ``sum(cotangent * matrices)``."""
    columns, stay, pair_weights, nodes = some_columns(n_states)
    cotangent = np.random.default_rng(8).random((3, n_states, n_states))

    def value(columns: Array, stay: Array, pair_weights: Array) -> float:
        return float((cotangent * numba_columns.bin_matrices(columns, stay, pair_weights)).sum())

    arguments = [columns, stay, pair_weights]
    slope, *others = numba_columns.columns_pullback(columns, cotangent, stay, pair_weights)
    # the first slope is with respect to the logarithm of the columns
    for number, found in enumerate([slope / columns, *others]):
        for place in np.ndindex(found.shape):
            shifted = [array.copy() for array in arguments]
            shifted[number][place] += 1e-3
            # the matrices are linear in each argument
            expected = (value(*shifted) - value(*arguments)) / 1e-3
            assert found[place] == pytest.approx(expected, rel=1e-9, abs=1e-10)
    mass = numba_columns.pair_mass(columns, cotangent, stay, pair_weights)
    pairs = slope[:, n_states:].reshape(3, -1, nodes.size).sum(axis=2)
    np.testing.assert_allclose(mass, pairs, rtol=1e-12)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 7])
def test_smoothing_equals_enumeration(n_states: int) -> None:
    columns, stay, pair_weights, nodes = some_columns(n_states)
    matrices = numba_columns.bin_matrices(columns, stay, pair_weights)
    initial = np.random.default_rng(1).dirichlet(np.ones(n_states))
    # of the matrix of a bin, the part in which the bin's time is spent in each state
    part = np.zeros((*matrices.shape, n_states))
    for k in range(n_states):
        part[:, k, k, k] = stay[k] * columns[:, k]
    for pair, (i, j) in enumerate(itertools.combinations(range(n_states), 2)):
        mixed = columns[:, n_states + pair * nodes.size :][:, : nodes.size]
        for entry, (a, b) in enumerate([(i, j), (j, i), (i, i), (j, j)]):
            part[:, a, b, i] += mixed @ (pair_weights[pair, entry] * (1.0 - nodes))
            part[:, a, b, j] += mixed @ (pair_weights[pair, entry] * nodes)
    np.testing.assert_allclose(part.sum(axis=-1), matrices, rtol=1e-12)
    edges = np.zeros((ROW_OF_BIN.size + 1, n_states))
    occupancy = np.zeros((ROW_OF_BIN.size, n_states))
    total = 0.0
    for path, probability in all_paths(matrices, initial):
        total += probability
        edges[np.arange(len(path)), path] += probability
        for t, row in enumerate(ROW_OF_BIN):
            a, b = path[t], path[t + 1]
            occupancy[t] += probability * part[row, a, b] / matrices[row, a, b]
    by_state = numba_columns.time_parts(columns, stay, pair_weights, nodes)
    found, found_edges = kernels.smooth(matrices, by_state, ROW_OF_BIN, initial)
    np.testing.assert_allclose(found, occupancy / total, rtol=1e-11)
    np.testing.assert_allclose(found_edges, edges / total, rtol=1e-11)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found_edges.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("seed", range(5))
def test_viterbi_finds_the_best_path(n_states: int, seed: int) -> None:
    matrices, initial = some_matrices(n_states, seed=100 + seed)
    expected, _ = max(all_paths(matrices, initial), key=lambda pair: pair[1])
    found = kernels.most_probable_path(matrices, ROW_OF_BIN, initial)
    np.testing.assert_array_equal(found, expected)


def test_sampled_paths_have_the_posterior_frequencies() -> None:
    matrices, initial = some_matrices(2, seed=11)
    random = np.random.default_rng(12)
    n_draws = 20_000
    probability = dict(all_paths(matrices, initial))
    total = sum(probability.values())
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(n_draws):
        drawn = kernels.sample_path(matrices, ROW_OF_BIN, initial, random.random(6))
        key = tuple(int(state) for state in drawn)
        seen[key] = seen.get(key, 0) + 1
    expected = {path: n_draws * weight / total for path, weight in probability.items()}
    # chi-square over the 64 paths, the rare ones pooled
    common = [path for path, number in expected.items() if number > 5]
    counts = np.array([seen.get(path, 0) for path in common] + [0.0])
    counts[-1] = n_draws - counts.sum()
    model = np.array([expected[path] for path in common] + [0.0])
    model[-1] = n_draws - model.sum()
    chi_square = ((counts - model) ** 2 / np.maximum(model, 1e-9))[model > 1].sum()
    degrees = int((model > 1).sum()) - 1
    assert degrees > 10
    assert chi_square < degrees + 4.0 * np.sqrt(2.0 * degrees)


def test_sampled_paths_use_the_initial_state() -> None:
    matrices = np.full((3, 2, 2), 0.5)
    drawn = kernels.sample_path(matrices, ROW_OF_BIN, np.array([0.0, 1.0]), np.full(6, 0.3))
    assert drawn[0] == 1


def test_messages_that_do_not_meet_are_impossible_not_nan() -> None:
    """No way from one state to the other, and bins that each belong to one of them alone."""
    matrices = np.zeros((2, 2, 2))
    matrices[0], matrices[1] = np.diag([1.0, 1e-200]), np.diag([1e-200, 1.0])
    rows = np.repeat([0, 1], 10)
    value, slope, initial_slope = kernels.forward_backward(matrices, rows, np.array([0.5, 0.5]))
    assert value == -np.inf
    assert not slope.any()
    assert not initial_slope.any()
