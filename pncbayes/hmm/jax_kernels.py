"""The binned likelihood in JAX, for samplers and accelerators that want to differentiate it.

Names and arguments follow `pncbayes.hmm.switching`, `pncbayes.hmm.emission` and
`pncbayes.hmm.numba_kernels`; the formulas are explained there. Every function is pure and can be
traced, jitted and differentiated. All need 64 bits, since a log-likelihood of a million has no
digits left in 32; nothing is switched on import, so call them inside `double_precision` (or a
program that has set ``jax_enable_x64`` itself).

Examples
--------
>>> import numpy as np
>>> from pncbayes.hmm import jax_kernels
>>> from pncbayes.hmm.likelihood import BinnedLikelihood
>>> likelihood = BinnedLikelihood(np.array([3.0, 9.0, 2.0]), 0.01)
>>> rates = np.array([[0.0, 2.0], [1.0, 0.0]])
>>> with jax_kernels.double_precision():
...     value = jax_kernels.log_likelihood(likelihood, np.array([[900.0], [200.0]]), rates)
>>> bool(np.isclose(value, likelihood.value(np.array([[900.0], [200.0]]), rates)))
True
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm.emission import CameraEmission, NegativeBinomialEmission
from pncbayes.hmm.likelihood import BinnedLikelihood

try:
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import expm
    from jax.scipy.special import gammaln
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the JAX kernel needs the extra `jax`: pip install 'pncbayes[jax]'"
    ) from error

__all__ = [
    "bin_matrices",
    "double_precision",
    "forward",
    "log_columns",
    "log_likelihood",
    "mixed_excess",
    "negative_binomial_columns",
    "poisson_columns",
    "scaled",
    "switch_weights",
]

# Enough for 2 sqrt(x) = 60, that is, some 60 switches within one bin.
_BESSEL_TERMS = 100
# Least expected counts of a column with excess noise.
_DARK = 1e-150


def double_precision() -> AbstractContextManager[Any]:
    """Return a context in which JAX computes with 64 bits; outside it nothing changes."""
    context: AbstractContextManager[Any] = jax.enable_x64(True)
    return context


def _bessel_series(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum over k x^k/(k! k!) and x^k/(k! (k+1)!): no square root, so smooth at x = 0."""

    def add(k: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        term, zeroth, first = sums
        term = term * x / (k * k)
        return term, zeroth + term, first + term / (k + 1)

    one = jnp.ones_like(x)
    _, zeroth, first = jax.lax.fori_loop(1, _BESSEL_TERMS, add, (one, one, one))
    return zeroth, first


def switch_weights(
    rates: Any, width_s: float, nodes: Any, node_weights: Any
) -> tuple[jax.Array, jax.Array]:
    """Weights of the emission columns in the matrix of a bin.

    Parameters
    ----------
    rates
        Transition rates per s, shape ``(n_states, n_states)``; the diagonal is ignored.
    width_s
        Bin width in s.
    nodes, node_weights
        Shares of the bin spent in the second state of a pair, and their quadrature weights, each
        of shape ``(n_nodes,)``.

    Returns
    -------
    stay : jax.Array
        Probability of no switch, shape ``(n_states,)``.
    pair_weights : jax.Array
        Shape ``(n_pairs, 4, n_nodes)``, as `pncbayes.hmm.switching.switch_weights` orders them.

    References
    ----------
    .. [1] Pedler, P. J. Occupation times for two state Markov chains. J. Appl. Probab. 8, 381
       (1971), doi:10.2307/3211908.
    """
    rates, nodes, node_weights = (jnp.asarray(array) for array in (rates, nodes, node_weights))
    n_states = rates.shape[0]
    first, second = np.triu_indices(n_states, 1)
    # where, not a product with the mask: whatever stands on the diagonal stays out of the gradient
    rates = jnp.where(np.eye(n_states, dtype=bool), 0.0, rates)
    leave = rates.sum(axis=1)
    stay = jnp.exp(-leave * width_s)
    transitions = expm((rates - jnp.diag(leave)) * width_s)
    product = (rates[first, second] * rates[second, first])[:, None] * width_s**2
    spent = leave[first][:, None] * (1.0 - nodes) + leave[second][:, None] * nodes
    survive = node_weights * jnp.exp(-spent * width_s)
    zeroth, one = _bessel_series(product * nodes * (1.0 - nodes))
    across = survive * zeroth
    share = across / across.sum(axis=1, keepdims=True)
    back = survive * one * product
    back_first, back_second = back * (1.0 - nodes), back * nodes
    returns = jnp.zeros(n_states).at[first].add(back_first.sum(axis=1))
    returns = returns.at[second].add(back_second.sum(axis=1))
    possible = returns > 0.0
    gap = jnp.maximum(jnp.diag(transitions) - stay, 0.0)
    scale = jnp.where(possible, gap / jnp.where(possible, returns, 1.0), 0.0)
    pair_weights = [
        transitions[first, second][:, None] * share,
        transitions[second, first][:, None] * share,
        back_first * scale[first][:, None],
        back_second * scale[second][:, None],
    ]
    return stay, jnp.stack(pair_weights, axis=1)


def log_columns(likelihood: BinnedLikelihood, means: Any, excess: Any = None) -> jax.Array:
    """Log-likelihood of every row of data under every emission column.

    Parameters
    ----------
    likelihood
        The data, and the emission family.
    means
        Expected counts per bin and gate, shape ``(n_columns, n_gates)``.
    excess
        Excess variance ratios, shape ``(n_columns,)``, for a likelihood with excess noise.

    Returns
    -------
    jax.Array
        Shape ``(n_rows, n_columns)``.

    Raises
    ------
    ValueError
        If the likelihood has excess noise and `excess` is missing.
    """
    emission = likelihood.emission
    if isinstance(emission, CameraEmission):
        photons = means[:, 0]
        gain_squared = (emission.excess_factor * emission.gain) ** 2
        variance = gain_squared * photons + emission.read_noise**2
        residual = emission.counts[:, None] - (emission.offset + emission.gain * photons)
        return jnp.asarray(-0.5 * residual**2 / variance - 0.5 * jnp.log(2.0 * np.pi * variance))
    counts: NDArray[np.float64] = emission.counts  # type: ignore[attr-defined]
    constant = -gammaln(counts + 1.0).sum(axis=1)[:, None]
    if not isinstance(emission, NegativeBinomialEmission):
        return poisson_columns(counts, means) + constant
    if excess is None:
        raise ValueError("`excess` is needed: one excess variance ratio per column")
    return negative_binomial_columns(counts, means, excess) + constant


def mixed_excess(shares: Any, means: Any, excess: Any) -> jax.Array:
    """Excess variance ratio of bins that are shared by states; see `pncbayes.hmm.emission`."""
    brightness = means.sum(axis=1)
    total = shares @ brightness
    dark = total <= 0.0
    mixed = (shares @ (brightness * excess)) / jnp.where(dark, 1.0, total)
    return jnp.where(dark, shares @ excess, mixed)


def _counted(counts: Any, means: Any) -> jax.Array:
    """Counts times logarithms of the means: 0 for none of 0, minus infinity for some of 0."""
    dark = means <= 0.0
    logs = counts @ jnp.log(jnp.where(dark, 1.0, means)).T
    return jnp.where(counts @ dark.T.astype(counts.dtype) > 0.0, -jnp.inf, logs)


def poisson_columns(counts: Any, means: Any) -> jax.Array:
    """Log-likelihood of Poisson counts under each column, without their factorials."""
    return jnp.asarray(_counted(counts, means) - means.sum(axis=1))


def negative_binomial_columns(counts: Any, means: Any, excess: Any) -> jax.Array:
    """Log-likelihood with negative binomial totals, without the factorials of the counts."""
    mean = means.sum(axis=1)
    # the gamma functions need more than no light at all
    mean = mean + jnp.where(mean > 0.0, 0.0, _DARK)
    shape, n = mean / excess, counts.sum(axis=1)[:, None]
    rising = gammaln(jnp.where(n > 0.0, n, 1.0) + shape) - gammaln(shape)
    total = jnp.where(n > 0.0, rising, 0.0) - shape * jnp.log1p(excess)
    total += n * (jnp.log(excess) - jnp.log1p(excess))
    return jnp.asarray(_counted(counts, means / mean[:, None]) + total)


def scaled(columns: Any) -> tuple[jax.Array, jax.Array]:
    """Likelihood of rows over that of each row's best column, and the logarithm of the latter."""
    # a constant shift per row: its derivative cancels between the columns and the sum
    largest = jax.lax.stop_gradient(columns.max(axis=1))
    return jnp.exp(columns - jnp.where(jnp.isfinite(largest), largest, 0.0)[:, None]), largest


def bin_matrices(columns: Any, stay: Any, pair_weights: Any) -> jax.Array:
    """Matrix of each row from its emission columns, shape ``(n_rows, n_states, n_states)``.

    Parameters
    ----------
    columns
        Scaled likelihood of each row under each column, shape ``(n_rows, n_columns)``: the pure
        states first, then the nodes of each pair.
    stay, pair_weights
        As `switch_weights` returns them.
    """
    n_states, (n_pairs, _, n_nodes) = stay.shape[0], pair_weights.shape
    first, second = np.triu_indices(n_states, 1)
    states = np.arange(n_states)
    matrices = jnp.zeros((columns.shape[0], n_states, n_states))
    matrices = matrices.at[:, states, states].set(columns[:, :n_states] * stay)
    mixed = columns[:, n_states:].reshape(columns.shape[0], n_pairs, n_nodes)
    entries = jnp.einsum("rpn,pen->rpe", mixed, pair_weights)
    ends = ((first, second), (second, first), (first, first), (second, second))
    for entry, (start, stop) in enumerate(ends):
        matrices = matrices.at[:, start, stop].add(entries[:, :, entry])
    return matrices


def forward(matrices: Any, row_of_bin: Any, initial: Any) -> jax.Array:
    """Log-likelihood of the scaled matrices, summed over all hidden paths."""
    matrices = jnp.asarray(matrices)

    def step(row: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        moved = row @ matrices[index]
        norm = moved.sum()
        return moved / norm, jnp.log(norm)

    _, log_norms = jax.lax.scan(step, jnp.asarray(initial), jnp.asarray(row_of_bin))
    return log_norms.sum()


def log_likelihood(
    likelihood: BinnedLikelihood,
    gate_rate_per_s: Any,
    transition_rate_per_s: Any,
    excess: Any = None,
) -> jax.Array:
    """`BinnedLikelihood.value`, to be traced and differentiated by JAX.

    Parameters
    ----------
    likelihood
        The data, bin width, nodes and emission family.
    gate_rate_per_s
        Counts per s in each gate, background included, shape ``(n_states, n_gates)``.
    transition_rate_per_s
        Shape ``(n_states, n_states)``; the diagonal is ignored.
    excess
        Excess variance ratio of each state, shape ``(n_states,)``; needed with excess noise.

    Returns
    -------
    jax.Array
        Natural logarithm, with all constants; a scalar.

    Raises
    ------
    ValueError
        If JAX is in 32-bit mode, or `excess` is missing.
    """
    if not jax.config.jax_enable_x64:
        raise ValueError(
            "the likelihood needs 64 bits, but JAX is in 32-bit mode: call it inside "
            "`with pncbayes.hmm.jax_kernels.double_precision():`, or set `jax_enable_x64`"
        )
    gate_rate = jnp.asarray(gate_rate_per_s)
    n_states = gate_rate.shape[0]
    shares = likelihood.column_shares(n_states)
    means = gate_rate * likelihood.width_s
    column_excess = None if excess is None else mixed_excess(shares, means, jnp.asarray(excess))
    columns, largest = scaled(log_columns(likelihood, shares @ means, column_excess))
    stay, pair_weights = switch_weights(
        transition_rate_per_s, likelihood.width_s, likelihood.nodes, likelihood.node_weights
    )
    matrices = bin_matrices(columns, stay, pair_weights)
    initial = jnp.full(n_states, 1.0 / n_states)
    total = forward(matrices, likelihood.row_of_bin, initial)
    scale = largest[likelihood.row_of_bin].sum()
    return jnp.where(jnp.isfinite(scale), total + scale, -jnp.inf)
