"""The Ops against the NumPy likelihood and finite differences, over all linkers."""

import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    # importing PyTensor may warn about deprecations that are not ours
    warnings.simplefilter("ignore")
    import pytensor
    import pytensor.tensor as pt

from pncbayes.hmm import numba_likelihood
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.op import (
    BinnedLogLikelihood,
    BinnedLogLikelihoodValue,
    binned_log_likelihood,
    family_of,
    likelihood_data,
)

WIDTH_S = 0.004
CASES = [
    *[("poisson", n_states, n_gates) for n_states in (1, 2, 3) for n_gates in (1, 4)],
    ("negative_binomial", 2, 1),
    ("negative_binomial", 3, 4),
    ("camera", 1, 1),
    ("camera", 3, 1),
]


def problem(
    family: str, n_states: int, n_gates: int, *, n_bins: int = 600, seed: int = 0
) -> tuple[BinnedLikelihood, list[Any]]:
    """Likelihood with more rows than one block, and parameters near those that made its data."""
    random = np.random.default_rng(seed)
    gate_rate = np.geomspace(8e3, 1e3, n_states)[:, None] * random.dirichlet(
        np.full(n_gates, 3.0), n_states
    )
    transition_rate = random.uniform(0.5, 20.0, (n_states, n_states))
    states = np.repeat(random.integers(0, n_states, n_bins // 20), 20)
    counts = random.poisson(gate_rate[states] * WIDTH_S).astype(float)
    camera = None
    if family == "camera":
        camera = (2.0, 100.0, 3.0, 1.4)
        counts = 100.0 + 2.0 * counts + random.normal(0.0, 3.0, counts.shape)
    likelihood = BinnedLikelihood(
        counts, WIDTH_S, n_nodes=5, excess_noise=family == "negative_binomial", camera=camera
    )
    return likelihood, [gate_rate * 1.05, transition_rate, random.uniform(0.02, 0.3, n_states)]


def compiled(likelihood: BinnedLikelihood, mode: str) -> Any:
    """Value and gradient as a PyTensor function."""
    inputs = [pt.dmatrix(), pt.dmatrix(), pt.dvector()]
    value = binned_log_likelihood(
        *inputs[:2], likelihood_data(likelihood), family=family_of(likelihood), excess=inputs[2]
    )
    return pytensor.function(inputs, [value, *pt.grad(value, inputs)], mode=mode)


def reference(likelihood: BinnedLikelihood, point: list[Any]) -> tuple[Any, ...]:
    """The same by `BinnedLikelihood`."""
    gate_rate, transition_rate, excess = point
    transition_rate = transition_rate * (1.0 - np.eye(len(transition_rate)))
    used = excess if likelihood.emission.has_excess else None
    parts = likelihood.gradient(gate_rate, transition_rate, used)
    slope = np.zeros_like(excess) if parts.excess is None else parts.excess
    return parts.value, parts.gate_rate, parts.transition_rate, slope


def assert_equal(found: Any, expected: Any) -> None:
    assert float(found[0]) == pytest.approx(expected[0], rel=1e-11)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        scale = np.abs(theirs).max() if np.size(theirs) else 0.0
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * scale + 1e-12)


@pytest.mark.parametrize(("family", "n_states", "n_gates"), CASES)
def test_equals_binned_likelihood(family: str, n_states: int, n_gates: int) -> None:
    likelihood, point = problem(family, n_states, n_gates)
    assert_equal(compiled(likelihood, "FAST_COMPILE")(*point), reference(likelihood, point))


@pytest.mark.parametrize(
    ("family", "n_gates"), [("poisson", 4), ("negative_binomial", 4), ("camera", 1)]
)
def test_gradient_equals_finite_differences(family: str, n_gates: int) -> None:
    likelihood, point = problem(family, 3, n_gates, n_bins=200)
    function = compiled(likelihood, "FAST_COMPILE")
    slopes = function(*point)[1:]
    for index, slope in enumerate(slopes):
        for place in np.ndindex(slope.shape):
            step = 1e-4 * point[index][place]
            values = []
            for sign in (-1.0, 1.0):
                moved = [part.copy() for part in point]
                moved[index][place] += sign * step
                values.append(float(function(*moved)[0]))
            expected = (values[1] - values[0]) / (2.0 * step)
            # what the difference of two large values leaves, over the step
            lost = 1e-11 * abs(values[0]) / step
            assert slope[place] == pytest.approx(expected, rel=1e-5, abs=lost)


@pytest.mark.parametrize(
    ("family", "n_gates"), [("poisson", 4), ("negative_binomial", 1), ("camera", 1)]
)
def test_compiles_in_numba(family: str, n_gates: int) -> None:
    likelihood, point = problem(family, 3, n_gates)
    # warnings are errors here: PyTensor would say that it falls back to object mode
    function = compiled(likelihood, "NUMBA")
    assert_equal(function(*point), reference(likelihood, point))
    ops = [type(node.op) for node in function.maker.fgraph.apply_nodes]
    assert ops.count(BinnedLogLikelihood) == 1
    assert BinnedLogLikelihoodValue not in ops


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
def test_value_alone_does_without_slopes(mode: str) -> None:
    likelihood, point = problem("poisson", 2, 4)
    inputs = [pt.dmatrix(), pt.dmatrix()]
    value = binned_log_likelihood(*inputs, likelihood_data(likelihood))
    function = pytensor.function(inputs, value, mode=mode)
    ops = [type(node.op) for node in function.maker.fgraph.apply_nodes]
    assert BinnedLogLikelihoodValue in ops
    assert BinnedLogLikelihood not in ops
    assert float(function(*point[:2])) == pytest.approx(reference(likelihood, point)[0], rel=1e-11)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_rates_of_zero(family: str) -> None:
    likelihood, point = problem(family, 2, 4)
    point[0][1, 3] = 0.0
    assert_equal(compiled(likelihood, "FAST_COMPILE")(*point), reference(likelihood, point))
    point[0][:, 3] = 0.0
    found = compiled(likelihood, "FAST_COMPILE")(*point)
    assert float(found[0]) == -np.inf
    assert not any(slope.any() for slope in found[1:])


def test_takes_the_data_of_another_dot() -> None:
    likelihood, point = problem("poisson", 2, 4)
    other, _ = problem("poisson", 2, 4, n_bins=300, seed=1)
    data = {name: pytensor.shared(array) for name, array in likelihood_data(likelihood).items()}
    inputs = [pt.dmatrix(), pt.dmatrix()]
    value = binned_log_likelihood(*inputs, data)
    function = pytensor.function(inputs, [value, *pt.grad(value, inputs)], mode="NUMBA")
    for this in (likelihood, other):
        for name, array in likelihood_data(this).items():
            data[name].set_value(array)
        assert_equal(function(*point[:2]), reference(this, point)[:3])


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
def test_too_fast_switching_has_probability_zero(mode: str) -> None:
    likelihood, point = problem("poisson", 2, 4)
    function = compiled(likelihood, mode)
    found = function(point[0], np.full((2, 2), 200.0 / WIDTH_S), point[2])
    assert float(found[0]) == -np.inf
    assert all(np.isfinite(slope).all() for slope in found[1:])


@pytest.mark.parametrize("mode", ["FAST_COMPILE", "NUMBA"])
def test_shapes_that_do_not_fit_are_refused(mode: str) -> None:
    likelihood, point = problem("poisson", 2, 4)
    function = compiled(likelihood, mode)
    with pytest.raises(ValueError, match="likelihood"):
        function(point[0][:, :3], *point[1:])
    with pytest.raises(ValueError, match="likelihood"):
        function(point[0], np.ones((3, 3)), point[2])


def test_bins_without_a_row_are_refused() -> None:
    likelihood, point = problem("poisson", 2, 4)
    data = likelihood_data(likelihood)
    data["row_of_bin"] = data["row_of_bin"] + 1
    value = binned_log_likelihood(*point[:2], data)
    for mode in ("FAST_COMPILE", "NUMBA"):
        with pytest.raises(ValueError, match=r"row_of_bin|do not fit"):
            pytensor.function([], value, mode=mode)()


def test_second_derivatives_are_refused() -> None:
    likelihood, _ = problem("poisson", 2, 1)
    rate = pt.dmatrix()
    value = binned_log_likelihood(rate, np.ones((2, 2)), likelihood_data(likelihood))
    slope = pt.grad(value, rate)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        pt.grad(slope.sum(), rate)


def test_data_are_disconnected() -> None:
    likelihood, _ = problem("poisson", 2, 1)
    data: dict[str, Any] = likelihood_data(likelihood)
    data["width_s"] = pt.dscalar()
    value = binned_log_likelihood(np.ones((2, 1)), np.ones((2, 2)), data) - data["log_constant"]
    with pytest.raises(pytensor.gradient.DisconnectedInputError):
        pt.grad(value, data["width_s"])


def test_wrong_arguments_are_named() -> None:
    likelihood, point = problem("negative_binomial", 2, 1)
    data = likelihood_data(likelihood)
    with pytest.raises(ValueError, match="`family` must be one of poisson"):
        binned_log_likelihood(*point[:2], data, family="gauss")
    with pytest.raises(ValueError, match="`excess` is needed"):
        binned_log_likelihood(*point[:2], data, family="negative_binomial")
    with pytest.raises(ValueError, match="`data` lacks counts"):
        binned_log_likelihood(*point[:2], {k: v for k, v in data.items() if k != "counts"})
    with pytest.raises(ValueError, match="`transition_rate_per_s` must have 2 dimensions"):
        binned_log_likelihood(point[0], point[1][0], data)


def test_compiled_code_knows_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = numba_likelihood._stamp()
    monkeypatch.setattr(numba_likelihood, "kernels", numba_likelihood.switching)
    assert numba_likelihood._stamp() != before


@pytest.fixture
def double() -> Iterator[None]:
    """Have 64 bits in JAX, and what was there before afterwards.

    PyTensor's JAX linker switches them on when it is imported, for the whole program.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax = pytest.importorskip("jax")
        before = jax.config.jax_enable_x64
        importlib.import_module("pytensor.link.jax.dispatch")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize(
    ("family", "n_gates"), [("poisson", 4), ("negative_binomial", 1), ("camera", 1)]
)
@pytest.mark.usefixtures("double")
def test_jax(family: str, n_gates: int) -> None:
    likelihood, point = problem(family, 2, n_gates, n_bins=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compiled(likelihood, "JAX")(*point)
    assert_equal(found, reference(likelihood, point))


@pytest.mark.usefixtures("double")
def test_jax_differentiates_it_itself() -> None:
    # numpyro and BlackJAX differentiate the function of the value, not PyTensor's graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jax
        from pytensor.link.jax.dispatch import jax_funcify

        import pncbayes.hmm.jax_op  # noqa: F401
    likelihood, point = problem("poisson", 2, 3, n_bins=100)
    data = [array for name, array in likelihood_data(likelihood).items() if name != "log_constant"]
    expected = reference(likelihood, point)
    for op in (BinnedLogLikelihoodValue("poisson"), BinnedLogLikelihood("poisson")):
        function = jax_funcify(op)

        def value(gate_rate: Any, transition_rate: Any, function: Any = function) -> Any:
            found = function(gate_rate, transition_rate, np.zeros(2), *data)
            return found[0] if isinstance(found, tuple) else found

        slopes = jax.jit(jax.grad(value, argnums=(0, 1)))(*point[:2])
        for slope, theirs in zip(slopes, expected[1:3], strict=True):
            np.testing.assert_allclose(slope, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("double")
def test_jax_with_single_precision_is_refused() -> None:
    import jax

    likelihood, point = problem("poisson", 2, 1, n_bins=100)
    function = compiled(likelihood, "JAX")
    with jax.enable_x64(False), pytest.raises(ValueError, match="needs 64 bits"):
        function(*point)
