"""The JAX likelihood against the reference and the compiled one."""

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from pncbayes.hmm import numba_kernels, reference, switching
from pncbayes.hmm.likelihood import BinnedLikelihood

with warnings.catch_warnings():
    # importing JAX may warn about devices and deprecations that are not ours
    warnings.simplefilter("ignore")
    jax = pytest.importorskip("jax")
    from pncbayes.hmm import jax_kernels

WIDTH_S = 0.01


@pytest.fixture
def double() -> Iterator[None]:
    with jax_kernels.double_precision():
        yield


def rates_of(n_states: int, n_gates: int, seed: int = 0) -> tuple[Any, Any]:
    """Rates per s and gate, and transition rates per s."""
    random = np.random.default_rng(seed)
    gate_rate = np.geomspace(5e3, 4e2, n_states)[:, None] * random.dirichlet(
        np.full(n_gates, 5.0), n_states
    )
    transition_rate = random.uniform(0.5, 40.0, (n_states, n_states))
    np.fill_diagonal(transition_rate, 0.0)
    return gate_rate, transition_rate


def counts_of(gate_rate: Any, n_bins: int = 60) -> Any:
    random = np.random.default_rng(1)
    states = np.repeat(random.integers(0, len(gate_rate), n_bins // 5), 5)
    return random.poisson(gate_rate[states] * WIDTH_S)


@pytest.mark.parametrize("n_states", [1, 2, 3])
@pytest.mark.usefixtures("double")
def test_equals_reference(n_states: int) -> None:
    gate_rate, transition_rate = rates_of(n_states, 4)
    counts = counts_of(gate_rate)
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=6)
    matrices = reference.bin_matrices(counts, WIDTH_S, gate_rate, transition_rate, 6)
    expected = reference.log_likelihood(matrices, np.full(n_states, 1.0 / n_states))
    found = jax.jit(partial(jax_kernels.log_likelihood, likelihood))(gate_rate, transition_rate)
    assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rate_scale", [1e-6, 1.0, 100.0])
@pytest.mark.usefixtures("double")
def test_switch_weights_equal_numba(rate_scale: float) -> None:
    _, transition_rate = rates_of(3, 1)
    nodes = switching.pair_nodes(8)
    expected = switching.switch_weights(transition_rate * rate_scale, WIDTH_S, *nodes)
    found = jax_kernels.switch_weights(transition_rate * rate_scale, WIDTH_S, *nodes)
    for ours, theirs in zip(found, expected, strict=True):
        # the diagonal's return weights are the small difference of two numbers near 1
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)


@pytest.mark.usefixtures("double")
def test_forward_equals_numba() -> None:
    random = np.random.default_rng(4)
    matrices = random.uniform(size=(7, 3, 3))
    row_of_bin = random.integers(0, 7, 50)
    initial = np.array([0.2, 0.5, 0.3])
    assert float(jax_kernels.forward(matrices, row_of_bin, initial)) == pytest.approx(
        numba_kernels.forward(matrices, row_of_bin, initial), rel=1e-12
    )


@pytest.mark.parametrize(
    ("n_gates", "family"), [(1, "poisson"), (4, "poisson"), (4, "excess"), (1, "camera")]
)
@pytest.mark.usefixtures("double")
def test_value_and_gradient_equal_numba(n_gates: int, family: str) -> None:
    gate_rate, transition_rate = rates_of(3, n_gates)
    counts = counts_of(gate_rate)
    if family == "camera":
        counts = 100.0 + 2.0 * counts + np.random.default_rng(2).normal(0.0, 3.0, counts.shape)
    likelihood = BinnedLikelihood(
        counts,
        WIDTH_S,
        n_nodes=6,
        excess_noise=family == "excess",
        camera=(2.0, 100.0, 3.0, 1.4) if family == "camera" else None,
    )
    arguments = [gate_rate, transition_rate]
    if family == "excess":
        arguments.append(np.array([0.3, 0.1, 0.05]))
    expected = likelihood.gradient(*arguments)

    def function(*inputs: Any) -> Any:
        return jax_kernels.log_likelihood(likelihood, *inputs)

    found = jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(arguments)))))
    value, slopes = found(*arguments)
    assert float(value) == pytest.approx(expected.value, rel=1e-10)
    np.testing.assert_allclose(slopes[0], expected.gate_rate, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(slopes[1], expected.transition_rate, rtol=1e-6, atol=1e-8)
    if expected.excess is not None:
        np.testing.assert_allclose(slopes[2], expected.excess, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("excess_noise", [False, True])
@pytest.mark.usefixtures("double")
def test_rates_of_zero(excess_noise: bool) -> None:
    gate_rate, transition_rate = rates_of(2, 3)
    gate_rate[:, 2] = 0.0
    gate_rate[1] = 0.0
    counts = counts_of(gate_rate)
    likelihood = BinnedLikelihood(counts, WIDTH_S, n_nodes=6, excess_noise=excess_noise)
    excess = np.array([0.3, 0.1]) if excess_noise else None
    expected = likelihood.gradient(gate_rate, transition_rate, excess)

    def function(gate_rate: Any, transition_rate: Any) -> Any:
        return jax_kernels.log_likelihood(likelihood, gate_rate, transition_rate, excess)

    value, slopes = jax.value_and_grad(function, argnums=(0, 1))(gate_rate, transition_rate)
    assert float(value) == pytest.approx(expected.value, rel=1e-10)
    np.testing.assert_allclose(slopes[0], expected.gate_rate, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(slopes[1], expected.transition_rate, rtol=1e-6, atol=1e-8)
    gate_rate[:] = 0.0
    assert float(function(gate_rate, transition_rate)) == -np.inf


@pytest.mark.usefixtures("double")
def test_gradient_is_finite_when_a_state_is_never_left() -> None:
    gate_rate, transition_rate = rates_of(3, 1)
    transition_rate[2] = 0.0
    likelihood = BinnedLikelihood(counts_of(gate_rate), WIDTH_S)
    slope = jax.jit(
        jax.grad(lambda rates: jax_kernels.log_likelihood(likelihood, gate_rate, rates))
    )
    assert np.isfinite(slope(transition_rate)).all()


@pytest.mark.usefixtures("double")
def test_excess_noise_needs_its_parameter() -> None:
    gate_rate, transition_rate = rates_of(2, 1)
    likelihood = BinnedLikelihood(counts_of(gate_rate), WIDTH_S, excess_noise=True)
    with pytest.raises(ValueError, match="`excess` is needed"):
        jax_kernels.log_likelihood(likelihood, gate_rate, transition_rate)


def test_single_precision_is_refused_and_left_as_it_was() -> None:
    gate_rate, transition_rate = rates_of(2, 1)
    likelihood = BinnedLikelihood(counts_of(gate_rate), WIDTH_S)
    before = jax.config.jax_enable_x64
    with jax.enable_x64(False), pytest.raises(ValueError, match="needs 64 bits"):
        jax_kernels.log_likelihood(likelihood, gate_rate, transition_rate)
    with jax_kernels.double_precision():
        assert jax.config.jax_enable_x64
    assert jax.config.jax_enable_x64 == before
