"""JAX behind the Ops of `pncbayes.hmm.op`; imported when PyTensor compiles one of them for JAX.

The formulas are those of `pncbayes.hmm.jax_kernels`, with the data as traced arrays too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from pytensor.link.jax.dispatch.basic import jax_funcify

from pncbayes.hmm import jax_kernels as kernels
from pncbayes.hmm.likelihood import FASTEST_PER_BIN
from pncbayes.hmm.op import BinnedLogLikelihood, BinnedLogLikelihoodValue

__all__ = ["log_likelihood"]


def _column_shares(n_states: int, nodes: Any) -> jax.Array:
    """Share of the bin that each column spends in each state, shape ``(n_columns, n_states)``."""
    first, second = np.triu_indices(n_states, 1)
    states = np.eye(n_states)
    mixed = (1.0 - nodes)[:, None] * states[first][:, None] + nodes[:, None] * states[second][
        :, None
    ]
    return jnp.concatenate([states, mixed.reshape(-1, n_states)])


def _log_columns(family: str, means: Any, excess: Any, counts: Any, camera: Any) -> Any:
    """Log-likelihood of each row under each column, without the factorials of the counts."""
    if family == "camera":
        gain, offset, read_noise, factor = camera
        variance = (factor * gain) ** 2 * means[:, 0] + read_noise**2
        residual = counts - (offset + gain * means[:, 0])
        return -0.5 * residual**2 / variance - 0.5 * jnp.log(2.0 * np.pi * variance)
    if family == "poisson":
        return kernels.poisson_columns(counts, means)
    return kernels.negative_binomial_columns(counts, means, excess)


def log_likelihood(
    family: str,
    gate_rate_per_s: Any,
    transition_rate_per_s: Any,
    excess: Any,
    counts: Any,
    row_of_bin: Any,
    width_s: Any,
    nodes: Any,
    node_weights: Any,
    camera: Any,
) -> jax.Array:
    """Log-likelihood without the factorials; see `pncbayes.hmm.numba_likelihood.log_likelihood`.

    Can be traced, jitted and differentiated by JAX.

    Raises
    ------
    ValueError
        If JAX is in 32-bit mode.
    """
    if not jax.config.jax_enable_x64:
        raise ValueError(
            "the likelihood needs 64 bits, but JAX is in 32-bit mode: set `jax_enable_x64`"
        )
    n_states = gate_rate_per_s.shape[0]
    shares = _column_shares(n_states, nodes)
    means = gate_rate_per_s * width_s
    column_excess = kernels.mixed_excess(shares, means, excess)
    columns = _log_columns(family, shares @ means, column_excess, counts, camera)
    columns, largest = kernels.scaled(columns)
    stay, pair_weights = kernels.switch_weights(transition_rate_per_s, width_s, nodes, node_weights)
    matrices = kernels.bin_matrices(columns, stay, pair_weights)
    value = kernels.forward(matrices, row_of_bin, jnp.full(n_states, 1.0 / n_states))
    exits = jnp.where(np.eye(n_states, dtype=bool), 0.0, transition_rate_per_s).sum(axis=1)
    allowed = exits.max() * width_s <= FASTEST_PER_BIN
    scale = largest[row_of_bin].sum()
    return jnp.where(allowed & jnp.isfinite(scale), value + scale, -jnp.inf)


@jax_funcify.register(BinnedLogLikelihoodValue)
def _value_in_jax(op: BinnedLogLikelihoodValue, **kwargs: Any) -> Callable[..., Any]:
    def value(*inputs: Any) -> Any:
        return log_likelihood(op.family, *inputs)

    return value


@jax_funcify.register(BinnedLogLikelihood)
def _gradient_in_jax(op: BinnedLogLikelihood, **kwargs: Any) -> Callable[..., Any]:
    def gradient(*inputs: Any) -> Any:
        def value(*parameters: Any) -> Any:
            return log_likelihood(op.family, *parameters, *inputs[3:])

        found, slopes = jax.value_and_grad(value, argnums=(0, 1, 2))(*inputs[:3])
        return found, *slopes

    return gradient
