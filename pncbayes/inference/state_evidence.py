"""Evidence of each mechanism of a state, on the nodes of `label_kernels`, compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pncbayes.inference.label_kernels import (
    COARSE,
    N_BRIGHT,
    N_COARSE,
    Decays,
    brightness_nodes,
    log_likelihood,
    log_probability_of_photons,
    nodes_of_state,
    other_light,
    shares_at,
)
from pncbayes.physics.mechanism_kernels import (
    BACKGROUND,
    N_LABELS,
    OTHER,
    U_HIGH,
    U_LOW,
    UNRESOLVED,
    V_HIGH,
    V_LOW,
    charging_share,
    log_allowed,
    log_prior_given_brightness,
)

__all__ = ["state_evidence", "unresolved_nodes"]

Array = NDArray[np.float64]

# coarse nodes from one lifetime of an unresolved trion to the next, and steps to the best lifetime
# of the neutral part
_TRION_STEP, _MOST_NEWTON = 3, 3
# sd of the log lifetime of the trion below which its nodes are close, their number and distance
# in sds, and steps to the best one
_SHARP, _N_CLOSE, _CLOSE_STEP, _MOST_CLOSER = 0.3, 17, 0.6, 12
# nats below the best node at which another does not count; below the best other mechanism at
# which close nodes would not help
_HOPELESS, _FAR_BELOW = 60.0, 300.0
_NEVER = -1e300


@njit(cache=True, nogil=True, error_model="numpy")
def _mixed_value(
    share: float, trion: float, neutral: Array, charged: Array, photons: Array, n_photons: float,
    seconds: float, other: Array, decays: Decays, shares: Array, rate: Array,
) -> float:  # fmt: skip
    """Log likelihood of a state that is a trion part of the time."""
    for g in range(shares.size):
        shares[g] = (1.0 - share) * neutral[g] + trion * charged[g]
    return log_likelihood(
        photons, n_photons, seconds, other, decays.bright, shares, decays.concentration, rate
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _neutral_top(
    u: float, v: float, charged: Array, prior: Array, photons: Array, n_photons: float,
    seconds: float, decays: Decays, enough: float, work: Array, found: Array,
) -> float:  # fmt: skip
    """Density at the best lifetime of the neutral part, its slack integrated out.

    `found` holds the log of that lifetime over that of the reference and the sd of its density:
    where to begin, and then what was found. `work` is space for four rows of gates; the last one
    is filled with the shares of the gates in the neutral part. The search ends where the density
    stays below `enough`.
    """
    slack, share = prior[0], charging_share(u, v, prior[1])
    trion = share * prior[1] * math.exp(v)
    other, shares, rate, neutral = work[0], work[1], work[2], work[3]
    other_light(u, decays, other)
    near, value = np.empty(3), _NEVER
    for _ in range(_MOST_NEWTON):
        centre, sd = found[0], found[1]
        for side in range(3):
            v_neutral = centre + (side - 1) * sd
            shares_at(v_neutral, decays, neutral)
            near[side] = -0.5 * (v_neutral / slack) ** 2 + _mixed_value(
                share, trion, neutral, charged, photons, n_photons, seconds, other, decays,
                shares, rate,
            )  # fmt: skip
        value = max(near[0], near[1], near[2])
        # the prior alone bends that much
        bend = max(2.0 * near[1] - near[0] - near[2], 0.9 * (sd / slack) ** 2)
        moved = 0.5 * sd * (near[2] - near[0]) / bend
        found[1] = sd / math.sqrt(bend)
        found[0] = centre + min(max(moved, -2.0 * sd), 2.0 * sd)
        good = abs(moved) < 0.3 * found[1] and 0.6 < found[1] / sd < 1.7
        if good or value < enough:
            break
    shares_at(found[0], decays, neutral)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def _nodes_at(
    v: float, charged: Array, log_weight: float, u: Array, log_weights: Array, n_bright: int,
    centre: Array, prior: Array, photons: Array, n_photons: float, seconds: float, decays: Decays,
    work: Array, nodes: Array, n: int,
) -> int:  # fmt: skip
    """Add the nodes of all brightnesses at one lifetime of the trion; returns their number."""
    slack, scaling = prior[0], prior[1]
    weight = log_weight + math.log(centre[1] / slack) - 0.5 * (centre[0] / slack) ** 2
    for i in range(n_bright):
        share = charging_share(u[i], v, scaling)
        if share <= 0.0:
            continue
        other_light(u[i], decays, work[0])
        nodes[n, 0], nodes[n, 1] = u[i], v
        nodes[n, 2] = log_weights[i] + weight + _mixed_value(
            share, share * scaling * math.exp(v), work[3], charged, photons, n_photons, seconds,
            work[0], decays, work[1], work[2],
        )  # fmt: skip
        n += 1
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def unresolved_nodes(
    photons: Array, seconds: float, decays: Decays, prior: Array, floor: float, nodes: Array
) -> int:
    """Nodes over u and v, here that of the trion, where a state is charged part of the time.

    The lifetime of its neutral part has the slack of all other mechanisms, integrated out by
    Laplace's approximation around the best one, which hardly depends on the brightness. Nodes of
    the lifetime of the trion are coarse, or close around the best one where photons tell it.

    Parameters
    ----------
    photons, seconds, decays, nodes
        As in `nodes_of_state`.
    prior
        Of the mechanisms.
    floor
        Log evidence of the best other mechanism, beside which this one has to count.
    """
    n_photons, slack, scaling = photons.sum(), prior[0], prior[1]
    u, log_weights = np.empty(N_BRIGHT), np.empty(N_BRIGHT)
    n_bright = brightness_nodes(n_photons, seconds, decays, u, log_weights)
    work, charged = np.empty((4, photons.size)), np.empty(photons.size)
    # of each coarse lifetime: the brightness nearest to the middle that it allows, the best
    # neutral part, and the value there
    first = np.full(N_COARSE, -1)
    values, centres = np.full(N_COARSE, _NEVER), np.empty((N_COARSE, 2))
    allowed = np.zeros(N_BRIGHT)
    latest, best, top = np.array([0.0, slack]), _NEVER, -1
    for j in range(0, N_COARSE, _TRION_STEP):
        v = V_LOW + j * COARSE
        for i in range(n_bright):
            if charging_share(u[i], v, scaling) > 0.0:
                allowed[i] += 1.0
                if first[j] < 0 or abs(i - n_bright // 2) < abs(first[j] - n_bright // 2):
                    first[j] = i
        if first[j] < 0:
            continue
        values[j] = _neutral_top(
            u[first[j]], v, decays.coarse[j], prior, photons, n_photons, seconds, decays,
            best - _HOPELESS, work, latest,
        )  # fmt: skip
        centres[j] = latest
        if values[j] > best:
            best, top = values[j], j
    if top < 0:
        return 0
    n, sd = 0, 1.0
    inside = _TRION_STEP <= top < N_COARSE - _TRION_STEP
    if inside and first[top - _TRION_STEP] >= 0 and first[top + _TRION_STEP] >= 0:
        bend = 2.0 * best - values[top - _TRION_STEP] - values[top + _TRION_STEP]
        sd = _TRION_STEP * COARSE / math.sqrt(max(bend, 1e-6))
    if sd > _SHARP or best < floor - _FAR_BELOW:
        for j in range(0, N_COARSE, _TRION_STEP):
            if first[j] >= 0 and values[j] > best - _HOPELESS:
                shares_at(centres[j, 0], decays, work[3])
                n = _nodes_at(
                    V_LOW + j * COARSE, decays.coarse[j], 0.0, u, log_weights, n_bright,
                    centres[j], prior, photons, n_photons, seconds, decays, work, nodes, n,
                )  # fmt: skip
    else:
        i, centre, reach = first[top], V_LOW + top * COARSE, _TRION_STEP * COARSE
        latest[:] = centres[top]
        near = values[top - _TRION_STEP : top + _TRION_STEP + 1 : _TRION_STEP].copy()
        # closer and closer to the top
        for _ in range(_MOST_CLOSER):
            bend = max(2.0 * near[1] - near[0] - near[2], 1e-9)
            moved = 0.5 * reach * (near[2] - near[0]) / bend
            sd = reach / math.sqrt(bend)
            centre += min(max(moved, -reach), reach)
            if reach <= 1.5 * sd and abs(moved) < 0.3 * sd:
                break
            reach = max(min(reach, 0.35 * reach + 0.5 * sd), 1e-4)
            for side in range(3):
                v = centre + (side - 1) * reach
                near[side] = _NEVER
                if charging_share(u[i], v, scaling) > 0.0:
                    shares_at(v, decays, charged)
                    near[side] = _neutral_top(
                        u[i], v, charged, prior, photons, n_photons, seconds, decays, _NEVER,
                        work, latest,
                    )  # fmt: skip
        for j in range(_N_CLOSE):
            v = centre + _CLOSE_STEP * sd * (j - _N_CLOSE // 2)
            if not V_LOW <= v <= V_HIGH or charging_share(u[i], v, scaling) <= 0.0:
                continue
            shares_at(v, decays, charged)
            _neutral_top(
                u[i], v, charged, prior, photons, n_photons, seconds, decays, _NEVER, work, latest
            )
            n = _nodes_at(
                v, charged, math.log(_CLOSE_STEP * sd / (_TRION_STEP * COARSE)), u, log_weights,
                n_bright, latest, prior, photons, n_photons, seconds, decays, work, nodes, n,
            )  # fmt: skip
    for k in range(n):
        for i in range(n_bright):
            if nodes[k, 0] == u[i]:
                nodes[k, 2] -= math.log(allowed[i])
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def _add(total: float, term: float) -> float:
    """Log of a sum."""
    high, low = max(total, term), min(total, term)
    return high if low < high - 700.0 else high + math.log1p(math.exp(low - high))


@njit(cache=True, nogil=True, error_model="numpy")
def state_evidence(
    photons: Array, seconds: float, decays: Decays, prior: Array, nodes: Array,
    n_nodes: NDArray[np.int64], out: Array,
) -> None:  # fmt: skip
    """Log evidence of each mechanism of a state.

    Parameters
    ----------
    photons, seconds, decays
        As in `nodes_of_state`.
    prior
        Of the mechanisms.
    nodes, n_nodes
        Filled with the nodes of the plane and those of unresolved charging, shape
        ``(2, MOST_NODES, 3)``, and their numbers.
    out
        Filled with the log evidence, shape ``(N_LABELS,)``.
    """
    out[:] = _NEVER
    n = nodes_of_state(photons, seconds, decays, nodes[0])
    span = math.log(U_HIGH - U_LOW)
    allowed = np.zeros(N_LABELS)
    for k in range(n):
        u, v = nodes[0, k, 0], nodes[0, k, 1]
        for label in range(N_LABELS):
            if label not in (UNRESOLVED, BACKGROUND):
                if k == 0 or u != nodes[0, k - 1, 0]:
                    allowed[label] = log_allowed(label, u, prior) - span
                density = log_prior_given_brightness(label, u, v, prior)
                out[label] = _add(out[label], nodes[0, k, 2] + density + allowed[label])
    n_nodes[0] = n
    n = unresolved_nodes(photons, seconds, decays, prior, out.max(), nodes[1])
    for k in range(n):
        weight = log_allowed(UNRESOLVED, nodes[1, k, 0], prior)
        out[UNRESOLVED] = _add(out[UNRESOLVED], nodes[1, k, 2] + weight - span)
    n_nodes[1] = n
    out[BACKGROUND] = log_probability_of_photons(
        photons, photons.sum(), seconds, decays.flat, decays.concentration
    )
    out[OTHER] = max(out[OTHER], _NEVER)
