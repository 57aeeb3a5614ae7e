"""Rates and counts of a made-up dot that blinks fast, to test likelihoods with."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
WIDTH_S = 0.01
# gain, offset, read noise, excess factor
CAMERA = (2.5, 100.0, 4.0, 1.4)


def some_rates(n_states: int, n_gates: int, seed: int = 0) -> tuple[Array, Array]:
    """Counts per s and gate, and transition rates per s, of a dot that blinks fast."""
    random = np.random.default_rng(seed)
    shape = random.dirichlet(np.full(n_gates, 5.0), n_states)
    gate_rate = np.geomspace(5e3, 4e2, n_states)[:, None] * shape
    transition_rate = random.uniform(0.5, 30.0, (n_states, n_states))
    np.fill_diagonal(transition_rate, 0.0)
    return gate_rate, transition_rate


def some_counts(gate_rate: Array, n_bins: int = 40, seed: int = 1) -> Array:
    random = np.random.default_rng(seed)
    state = random.integers(0, len(gate_rate), n_bins // 4).repeat(4)
    return random.poisson(gate_rate[state] * WIDTH_S).astype(float)
