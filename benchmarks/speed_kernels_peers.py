"""The recordings of `speed_kernels.py`, and the programs of others that work on them.

Each program is a function from a problem to its tasks, by name. What it can prepare once per
recording (compiling, counting equal bins, constants) is done when the function is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import gammaln

Array = NDArray[np.float64]
Task = Callable[[], Any]
WIDTH_S = 0.01


@dataclass(frozen=True)
class Problem:
    """A recording with known parameters."""

    counts: NDArray[np.int64]
    gate_rate_per_s: Array
    transition_rate_per_s: Array
    transition: Array
    initial: Array

    @property
    def means(self) -> Array:
        """Expected counts per bin, shape (n_states, n_gates)."""
        return self.gate_rate_per_s * WIDTH_S

    @property
    def log_constant(self) -> float:
        """Sum of the logarithms of the factorials, the same for all parameters."""
        return float(gammaln(self.counts + 1.0).sum())


def simulate(n_states: int, n_bins: int, n_gates: int, *, seed: int) -> Problem:
    """Draw 200 down to 20 counts per bin; dwells of a second on average, ending inside bins."""
    random = np.random.default_rng(seed)
    rates = np.geomspace(200.0, 20.0, n_states) / WIDTH_S
    decay = np.exp(-np.arange(n_gates) / np.linspace(8.0, 2.0, n_states)[:, None])
    gate_rate = rates[:, None] * decay / decay.sum(1, keepdims=True)
    duration_s = n_bins * WIDTH_S
    dwells_s = random.exponential(1.0, int(2 * duration_s) + 100)
    states = np.cumsum(random.integers(1, n_states, dwells_s.size)) % n_states
    ends_s = np.append(0.0, np.cumsum(dwells_s))
    edges_s = np.arange(n_bins + 1) * WIDTH_S
    occupied_s = np.zeros((n_bins, n_states))
    for state in range(n_states):
        so_far_s = np.append(0.0, np.cumsum(np.where(states == state, dwells_s, 0.0)))
        occupied_s[:, state] = np.diff(np.interp(edges_s, ends_s, so_far_s))
    counts = random.poisson(np.maximum(occupied_s, 0.0) @ gate_rate)
    generator = np.full((n_states, n_states), 1.0 / (n_states - 1))
    np.fill_diagonal(generator, -1.0)
    return Problem(
        counts=counts,
        gate_rate_per_s=gate_rate,
        transition_rate_per_s=np.where(np.eye(n_states, dtype=bool), 0.0, generator),
        transition=expm(generator * WIDTH_S),
        initial=np.full(n_states, 1.0 / n_states),
    )


def load(name: str) -> Any:
    """Import a program only when it runs, after threads and precision are set."""
    return importlib.import_module(name)


def hmmlearn_public(problem: Problem) -> dict[str, Task]:
    model = load("hmmlearn.hmm").PoissonHMM(
        n_components=len(problem.initial), init_params="", params=""
    )
    model.n_features = problem.counts.shape[1]
    model.startprob_, model.transmat_ = problem.initial, problem.transition
    model.lambdas_ = problem.means
    return {
        "log-likelihood": lambda: model.score(problem.counts),
        "posterior": lambda: model.predict_proba(problem.counts),
        "Viterbi": lambda: model.predict(problem.counts),
    }


def hmmlearn_core(problem: Problem) -> dict[str, Task]:
    """hmmlearn's compiled core, fed by one matrix product: how fast it could be."""
    core = load("hmmlearn._hmmc")
    counts = problem.counts.astype(np.float64)
    constant = problem.log_constant

    def log_emission() -> Array:
        return np.ascontiguousarray(counts @ np.log(problem.means).T - problem.means.sum(1))

    def scaled() -> tuple[Array, Array]:
        log = log_emission()
        largest = log.max(1)
        return np.exp(log - largest[:, None]), largest

    def forward() -> float:
        emission, largest = scaled()
        found = core.forward_scaling(problem.initial, problem.transition, emission)[0]
        return float(found + largest.sum() - constant)

    def smooth() -> Array:
        emission, _ = scaled()
        _, rows, scales = core.forward_scaling(problem.initial, problem.transition, emission)
        columns = core.backward_scaling(problem.initial, problem.transition, emission, scales)
        joint: Array = rows * columns
        return joint / joint.sum(1, keepdims=True)

    logs = np.log(problem.initial), np.log(problem.transition)
    return {
        "log-likelihood": forward,
        "posterior": smooth,
        "Viterbi": lambda: core.viterbi(*logs, log_emission()),
    }


def dynamax(problem: Problem) -> dict[str, Task]:
    jax, jnp = load("jax"), load("jax.numpy")
    model = load("dynamax.hidden_markov_model").PoissonHMM(
        len(problem.initial), emission_dim=problem.counts.shape[1]
    )
    parameters, _ = model.initialize(
        jax.random.PRNGKey(0),
        initial_probs=jnp.asarray(problem.initial),
        transition_matrix=jnp.asarray(problem.transition),
        emission_rates=jnp.asarray(problem.means),
    )
    counts = jnp.asarray(problem.counts)
    value = jax.jit(model.marginal_log_prob)
    both = jax.jit(jax.value_and_grad(model.marginal_log_prob))
    smooth, path = jax.jit(model.smoother), jax.jit(model.most_likely_states)
    return {
        "log-likelihood": lambda: jax.block_until_ready(value(parameters, counts)),
        "+ gradient": lambda: jax.block_until_ready(both(parameters, counts)),
        "posterior": lambda: jax.block_until_ready(smooth(parameters, counts)),
        "Viterbi": lambda: jax.block_until_ready(path(parameters, counts)),
    }


def jax_scan(problem: Problem) -> dict[str, Task]:
    jax, jnp = load("jax"), load("jax.numpy")
    counts, constant = jnp.asarray(problem.counts, float), problem.log_constant

    def function(means: Any, transition: Any) -> Any:
        log = counts @ jnp.log(means).T - means.sum(1)
        largest = jax.lax.stop_gradient(log.max(1))

        def step(row: Any, emission: Any) -> Any:
            seen = row * emission
            norm = seen.sum()
            return (seen / norm) @ transition, jnp.log(norm)

        norms = jax.lax.scan(step, jnp.asarray(problem.initial), jnp.exp(log - largest[:, None]))[1]
        return norms.sum() + largest.sum() - constant

    value = jax.jit(function)
    both = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))
    arguments = jnp.asarray(problem.means), jnp.asarray(problem.transition)
    return {
        "log-likelihood": lambda: jax.block_until_ready(value(*arguments)),
        "+ gradient": lambda: jax.block_until_ready(both(*arguments)),
    }


def jax_same_work(problem: Problem) -> dict[str, Task]:
    """Return the likelihood of `ours`, switches inside bins and all, as a JAX scan."""
    from pncbayes.hmm import jax_kernels
    from pncbayes.hmm.likelihood import BinnedLikelihood

    jax = load("jax")
    likelihood = BinnedLikelihood(problem.counts, WIDTH_S)

    def function(gate_rate_per_s: Any, transition_rate_per_s: Any) -> Any:
        return jax_kernels.log_likelihood(likelihood, gate_rate_per_s, transition_rate_per_s)

    value = jax.jit(function)
    both = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))
    arguments = problem.gate_rate_per_s, problem.transition_rate_per_s
    return {
        "log-likelihood": lambda: jax.block_until_ready(value(*arguments)),
        "+ gradient": lambda: jax.block_until_ready(both(*arguments)),
    }


def pytensor_scan(problem: Problem) -> dict[str, Task]:
    pytensor, pt = load("pytensor"), load("pytensor.tensor")
    means, transition = pt.dmatrix("means"), pt.dmatrix("transition")
    counts = pytensor.shared(problem.counts.astype(np.float64))
    log = counts @ pt.log(means).T - means.sum(axis=1)
    largest = pytensor.gradient.disconnected_grad(log.max(axis=1))

    def step(emission: Any, row: Any, transition: Any) -> Any:
        seen = row * emission
        norm = seen.sum()
        return (seen / norm) @ transition, pt.log(norm)

    _, norms = pytensor.scan(
        step,
        sequences=[pt.exp(log - largest[:, None])],
        outputs_info=[pt.as_tensor(problem.initial), None],
        non_sequences=[transition],
        return_updates=False,
    )
    total = norms.sum() + largest.sum() - problem.log_constant
    value = pytensor.function([means, transition], total, mode="NUMBA")
    slopes = pytensor.grad(total, [means, transition])
    both = pytensor.function([means, transition], [total, *slopes], mode="NUMBA")
    arguments = problem.means, problem.transition
    return {"log-likelihood": lambda: value(*arguments), "+ gradient": lambda: both(*arguments)}


def pytensor_same_work(problem: Problem) -> dict[str, Task]:
    """Return the likelihood of `ours`, switches inside bins and all, as a PyTensor scan.

    Emission columns and matrices are worked out once per distinct row of counts; the weights of
    the columns come from this project's compiled code, and are differentiated like the rates.
    """
    from pncbayes.hmm.likelihood import BinnedLikelihood
    from pncbayes.hmm.switching import switch_weights

    pytensor, pt = load("pytensor"), load("pytensor.tensor")
    likelihood = BinnedLikelihood(problem.counts, WIDTH_S)
    n_states, n_nodes = len(problem.initial), likelihood.n_nodes
    means, stay, pair_weights = pt.dmatrix("means"), pt.dvector("stay"), pt.dtensor3("weights")
    counts: Any = likelihood.emission
    counts = counts.counts
    augmented = np.column_stack([counts, -np.ones(len(counts)), -gammaln(counts + 1.0).sum(1)])
    of_columns = likelihood.column_shares(n_states) @ means
    weights = pt.concatenate(
        [
            pt.log(of_columns),
            of_columns.sum(axis=1, keepdims=True),
            pt.ones_like(of_columns[:, :1]),
        ],
        axis=1,
    )
    log = pytensor.shared(augmented) @ weights.T
    largest = pytensor.gradient.disconnected_grad(log.max(axis=1))
    columns = pt.exp(log - largest[:, None])
    first, second = np.triu_indices(n_states, 1)
    states = np.arange(n_states)
    mixed = columns[:, n_states:].reshape((len(counts), first.size, n_nodes))
    # one product of matrices per pair: row and node, times node and entry
    entries = pt.matmul(mixed.transpose(1, 0, 2), pair_weights.transpose(0, 2, 1))
    matrices = pt.zeros((len(counts), n_states, n_states))
    matrices = pt.set_subtensor(matrices[:, states, states], columns[:, :n_states] * stay)
    ends = (first, second), (second, first), (first, first), (second, second)
    for entry, (start, stop) in enumerate(ends):
        matrices = pt.inc_subtensor(matrices[:, start, stop], entries[:, :, entry].T)
    row_of_bin = likelihood.row_of_bin

    def step(matrix: Any, row: Any) -> Any:
        seen = row @ matrix
        norm = seen.sum()
        return seen / norm, pt.log(norm)

    _, norms = pytensor.scan(
        step,
        sequences=[matrices[row_of_bin]],
        outputs_info=[pt.as_tensor(problem.initial), None],
        return_updates=False,
    )
    total = norms.sum() + largest[row_of_bin].sum()
    inputs = [means, stay, pair_weights]
    value = pytensor.function(inputs, total, mode="NUMBA")
    both = pytensor.function(inputs, [total, *pytensor.grad(total, inputs)], mode="NUMBA")

    def arguments() -> tuple[Array, ...]:
        rates = problem.transition_rate_per_s
        found = switch_weights(rates, WIDTH_S, likelihood.nodes, likelihood.node_weights)
        return problem.means, *found

    return {
        "log-likelihood": lambda: value(*arguments()),
        "+ gradient": lambda: both(*arguments()),
    }
