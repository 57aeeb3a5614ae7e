"""Density of what all states share - reference decay, background, scatter - compiled.

One function is compiled as a whole, `log_density`; what draws from it is plain Python, which costs
nothing beside it and need not be compiled with it once more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.inference.label_counts import Counts, sum_over_labels
from pncbayes.inference.label_kernels import (
    COARSE,
    MOST_NODES,
    N_COARSE,
    Decays,
    log_probability_of_photons,
)
from pncbayes.inference.state_evidence import state_evidence
from pncbayes.physics.mechanism_kernels import N_LABELS, V_LOW
from pncbayes.physics.tied_kernels import (
    add_afterpulses,
    blend_tables,
    delay_by_biexcitons,
    quenched_shares,
)

__all__ = ["SIZE", "Beliefs", "Instrument", "Workspace", "log_density", "prepare", "workspace"]

Array = NDArray[np.float64]

# of the shared parameters
BRIGHT, LIFETIME, SPREAD, FAST, SCATTER, FLAT, CONCENTRATION, SHIFT = range(8)
PAIR_SHARE, PAIR_LIFETIME, PAIR_POWER, SLACK = range(8, 12)
AFTERPULSES, WIDTH, AFTER_PAIR = range(12, 15)
SIZE = 15
_NEVER = -1e300
# shifts of the response, and steps of its width, for which parabolas are no good
_MOST_SHIFT = 2.5


class Instrument(NamedTuple):
    """What the kernels take of a `DecayTable`."""

    tables: Array
    scatters: Array
    uniform: Array
    background: Array
    log_start: float
    log_step: float


class Beliefs(NamedTuple):
    """Priors.

    Attributes
    ----------
    mean, sd
        Of the shared parameters; those of the scatter are of its log ratio to the signal of the
        reference, and those of that signal of its log with the biexcitons.
    mechanisms
        `MechanismPriors.packed`, whose slack gives way to that of the point.
    counts
        Of `label_counts`, for all states but the reference.
    """

    mean: Array
    sd: Array
    mechanisms: Array
    counts: Counts


class Workspace(NamedTuple):
    """Filled by `log_density`.

    Attributes
    ----------
    evidence
        Log evidence of each mechanism of each state, shape ``(n_states, N_LABELS)``; of the
        reference, zeros.
    nodes
        Of each state, on the plane and of unresolved charging: brightness, lifetime, log weight
        times likelihood; shape ``(n_states, 2, MOST_NODES, 3)``.
    n_nodes
        Numbers of nodes, shape ``(n_states, 2)``.
    """

    evidence: Array
    nodes: Array
    n_nodes: NDArray[np.int64]


def workspace(n_states: int) -> Workspace:
    """Room for what `log_density` fills."""
    return Workspace(
        np.zeros((n_states, N_LABELS)),
        np.zeros((n_states, 2, MOST_NODES, 3)),
        np.zeros((n_states, 2), dtype=np.int64),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def unpack(point: Array, amplitudes: Array, rates: Array) -> None:
    """Amplitudes and rates of the two exponentials of the reference decay."""
    mean, ratio = math.exp(point[LIFETIME]), math.exp(abs(point[SPREAD]))
    fast = 1.0 / (1.0 + math.exp(-point[FAST]))
    short = mean / (fast + (1.0 - fast) * ratio)
    amplitudes[0], amplitudes[1] = fast, 1.0 - fast
    rates[0], rates[1] = 1.0 / short, 1.0 / (short * ratio)


@njit(cache=True, nogil=True, error_model="numpy")
def prepare(point: Array, instrument: Instrument) -> Decays:
    """Everything that a point says about decays."""
    n_gates = instrument.background.size
    start, step = instrument.log_start, instrument.log_step
    plain = np.empty(instrument.tables.shape[2:])
    table, response = np.empty(plain.shape), np.empty((1, n_gates))
    blend_tables(instrument.tables, point[SHIFT], point[WIDTH], plain)
    blend_tables(instrument.scatters, point[SHIFT], point[WIDTH], response)
    flat = math.exp(point[SCATTER]) * response[0] + math.exp(point[FLAT]) * instrument.background
    delay_by_biexcitons(
        plain, start, step, point[PAIR_LIFETIME], math.exp(point[AFTER_PAIR]), table
    )
    afterpulses = math.exp(point[AFTERPULSES])
    # of all light of the dot: a share of each row is one of every decay that is made of them
    for i in range(table.shape[0]):
        add_afterpulses(table[i], instrument.uniform, afterpulses)
    amplitudes, rates = np.empty(2), np.empty(2)
    unpack(point, amplitudes, rates)
    # one call for all, as a call is compiled with all that it calls
    shares = np.empty((N_COARSE + 2, n_gates))
    short_rate = np.full(2, math.exp(-point[PAIR_LIFETIME]))
    for j in range(N_COARSE + 2):
        is_pair = j == N_COARSE + 1
        ratio = math.exp(V_LOW + j * COARSE) if j < N_COARSE else 1.0
        quenched_shares(
            amplitudes, short_rate if is_pair else rates, ratio, plain if is_pair else table,
            start, step, shares[j],
        )  # fmt: skip
    add_afterpulses(shares[N_COARSE + 1], instrument.uniform, afterpulses)
    return Decays(
        table, start, step, amplitudes, rates, shares[N_COARSE], shares[:N_COARSE], flat,
        math.exp(point[BRIGHT]), math.exp(point[PAIR_SHARE]),
        1.0 / (1.0 + math.exp(-point[PAIR_POWER])), shares[N_COARSE + 1],
        math.exp(point[CONCENTRATION]),
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(
    point: Array,
    reference: int,
    photons: Array,
    seconds: Array,
    instrument: Instrument,
    beliefs: Beliefs,
    work: Workspace,
) -> float:
    """Log density of what is shared, with the mechanisms of all states summed out.

    Parameters
    ----------
    point
        Log of the signal rate of the reference, log of its mean lifetime in ns, log of the ratio
        of its two lifetimes, logit of the fast one's amplitude, logs of the rates of scatter and
        background per s and of the concentration, the shift of the response in its steps, log of
        the biexcitons' signal over that of single excitons in the reference, log of their
        lifetime in ns, logit of the power of the brightness by which they grow in others, log of
        the slack, log of the share of afterpulses, the width of the response in its steps, and
        log of the share of single excitons' light that comes after a biexciton.
    reference
        Number of the reference state; -1 if no state is the exciton.
    photons, seconds
        Photons of each state and gate, and time in each state.
    instrument
        Decays as it records them.
    beliefs
        Priors.
    work
        Filled: what the sum over mechanisms is made of.
    """
    value = 0.0
    for i in range(SIZE):
        at = point[i] - (point[BRIGHT] if i == SCATTER else 0.0)
        if i == BRIGHT:
            # what is known of the exciton's light is of all of it
            at += math.log1p(math.exp(point[PAIR_SHARE]))
        value -= 0.5 * ((at - beliefs.mean[i]) / beliefs.sd[i]) ** 2
    if abs(point[SHIFT]) > _MOST_SHIFT or abs(point[WIDTH]) > _MOST_SHIFT:
        return _NEVER
    if max(point[AFTERPULSES], point[AFTER_PAIR]) > 0.0:
        return _NEVER
    if not math.isfinite(value) or value < -1e6:
        return _NEVER
    decays = prepare(point, instrument)
    mechanisms = beliefs.mechanisms.copy()
    mechanisms[0] = math.exp(point[SLACK])
    for s in range(seconds.size):
        if s == reference:
            work.evidence[s] = 0.0
            work.n_nodes[s] = 0
            pairs = decays.pair_share * decays.pair_shares
            value += log_probability_of_photons(
                photons[s], photons[s].sum(), seconds[s],
                decays.bright * (decays.whole + pairs) + decays.flat, decays.concentration,
            )  # fmt: skip
            continue
        state_evidence(
            photons[s], seconds[s], decays, mechanisms, work.nodes[s], work.n_nodes[s],
            work.evidence[s],
        )  # fmt: skip
    value += sum_over_labels(work.evidence, reference, beliefs.counts)
    return value if math.isfinite(value) else _NEVER
