r"""Which mechanism each state loses its light by, from completed draws of a hidden Markov model.

The number of states comes from the model whose decays are free. Here the decays are tied: those of
a state are Dirichlet(:math:`\kappa p`) around a shape p that brightness, lifetime, background and
response give (`pncbayes.physics.mechanisms`). Both models share the likelihood of the photons
given the rates of all gates, so a draw of the path and of the photons of each state under the free
one is a draw under the tied one with the weight

.. math:: w = Z_{tied}(N, T) / Z_{free}(N, T),

with the photons N of each state and gate and the time T in each state, both integrated over all
that is not N and T. Nothing is fitted to decoded photons: they are drawn anew with each path, and
switches inside bins leave no leak of one state into another.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.gibbs import GibbsSampler
from pncbayes.inference.label_counts import draw_labels, label_probabilities
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.shared_kernels import SIZE, SLACK
from pncbayes.inference.shared_parameters import SharedParameters
from pncbayes.inference.special import log_sum_exp
from pncbayes.physics.exciton import Exciton
from pncbayes.physics.mechanism_kernels import BACKGROUND, OTHER, UNRESOLVED, add_log_prior
from pncbayes.physics.mechanisms import MECHANISMS
from pncbayes.physics.modelfile import ModelFile
from pncbayes.physics.tied_decay import DecayTable

__all__ = ["Labels", "compile_labels", "label_states"]

Array = NDArray[np.float64]

N_LABELS = len(MECHANISMS)
# Completed paths, and points of what is shared that each of them is paired with.
_PATHS, _POINTS = 100, 8
# Nats below the best at which a reference no longer counts; states dimmer than this are none.
_FAR, _DIMMEST_REFERENCE = 18.0, 1.0 / 3.0
# Nats below a mode at which a climb of what lies there would not lead to another, and nats that a
# climb gains where it does; below the first at which the second no longer counts.
_HOPELESS, _OWN_MODE, _SLIGHT = 300.0, 3.0, 9.0


@dataclass(frozen=True)
class Labels:
    """Mechanisms of the states of one number of states.

    Attributes
    ----------
    probability
        Of each mechanism of each state, shape ``(n_states, n_mechanisms)``; what is missing to 1
        is the probability that the state is the reference.
    reference
        Probability that a state is the neutral exciton, shape ``(n_states,)``.
    no_reference
        Probability that none is.
    takes_part
        Probability that some state has a mechanism, shape ``(n_mechanisms,)``.
    label
        Draws: number of the mechanism of each state, -1 for the reference; ``(n, n_states)``.
    log_brightness, log_lifetime
        Draws: ln f and ln g of each state; of an unresolved charging, ln g is the trion's.
    broad_log_r
        Draws of ln R of each state as if no mechanism were known.
    shared
        Draws of what all states share, shape ``(n, SIZE)``.
    path
        Which draw of the hidden Markov model each belongs to.
    effective_paths
        What the weighted paths are worth.
    occupancy
        Share of the recording in each state, by the paths, shape ``(n_states,)``.
    """

    probability: Array
    reference: Array
    no_reference: float
    takes_part: Array
    label: NDArray[np.int64]
    log_brightness: Array
    log_lifetime: Array
    broad_log_r: Array
    shared: Array
    path: NDArray[np.int64]
    effective_paths: float
    occupancy: Array


def label_states(
    draws: list[Parameters],
    sampler: GibbsSampler,
    table: DecayTable,
    trace: xr.Dataset,
    rng: np.random.Generator,
    *,
    exciton: Exciton | None = None,
    n_draws: int = 400,
) -> Labels:
    """Probability of each mechanism of each state.

    Parameters
    ----------
    draws
        Posterior draws of one number of states, states in one order.
    sampler
        Completes them.
    table
        Decays as the instrument records them.
    trace
        For what is known of the background.
    rng
        Source of the draws.
    exciton
        What is known of the neutral exciton; with its brightness, that no state is the exciton is
        one more hypothesis.
    n_draws
        Draws to return.
    """
    posterior = sampler.posterior
    assert isinstance(posterior, CollapsedPosterior)
    photons, seconds, chosen = _completed(draws, sampler, rng)
    free = np.array([_log_free(posterior, n, t) for n, t in zip(photons, seconds, strict=True)])
    mean_photons, mean_seconds = photons.mean(axis=0), seconds.mean(axis=0)
    rate = mean_photons.sum(axis=1) / mean_seconds
    candidates = np.flatnonzero(rate >= _DIMMEST_REFERENCE * rate.max()).tolist()
    if exciton is not None and exciton.rate_per_s is not None:
        candidates.append(-1)
    n_states = len(rate)
    found: list[tuple[SharedParameters, Array, float]] = []
    for state in candidates:
        one = SharedParameters(table, trace, posterior.model, state, n_states, exciton)
        top, value = one.climb(mean_photons, mean_seconds)
        found.append((one, top, value))
    found = _climbed_from_each_other(found, mean_photons, mean_seconds)
    highest = max(value for _, _, value in found)
    found = [one for one in found if one[2] > highest - _FAR]
    found = [half for one in found for half in _halves(*one, mean_photons, mean_seconds)]
    compared = len(found) > 1
    parts, logs = [], []
    for one, top, _ in found:
        points, values = one.draw(top, mean_photons, mean_seconds, rng, to_compare=compared)
        log_z = 0.0
        if compared:
            log_z = one.log_evidence(points, values, mean_photons, mean_seconds, rng)
        chosen_points = rng.choice(len(points), size=(len(photons), _POINTS), replace=False)
        part = _Pairs(one, points[chosen_points], values[chosen_points], photons, seconds, free)
        parts.append(part)
        logs.append(log_z + logsumexp(part.log_weights) - np.log(part.log_weights.size))
    by_reference = np.exp(np.array(logs) - logsumexp(logs))
    return _collect(parts, by_reference, photons, seconds, chosen, n_draws, rng)


def _climbed_from_each_other(
    found: list[tuple[SharedParameters, Array, float]], photons: Array, seconds: Array
) -> list[tuple[SharedParameters, Array, float]]:
    """Best point of each reference, looked for at what is shared under the best other one, too.

    A climb that ends in a poor mode would decide between references.
    """
    better = []
    for one, top, value in found:
        others = [other for other in found if other[0] is not one]
        if others:
            near = max(others, key=lambda other: other[2])[1]
            there, found_there = one.climb(photons, seconds, one.start_near(near, photons, seconds))
            if found_there > value:
                top, value = there, found_there
        better.append((one, top, value))
    return better


def _halves(
    shared: SharedParameters, top: Array, value: float, photons: Array, seconds: Array
) -> list[tuple[SharedParameters, Array, float]]:
    """Take a hypothesis apart where charging and all else have each a mode of its own.

    A fast part of a decay is from a trion that is there part of the time, or from biexcitons:
    what is shared by all states differs, and draws around one mode do not see the other.
    """
    halves = [shared.half(charging) for charging in (False, True)]
    at_top = [half.value(top, photons, seconds)[0] for half in halves]
    ahead, behind = int(np.argmax(at_top)), int(np.argmin(at_top))
    if at_top[behind] < value - _HOPELESS:
        return [(shared, top, value)]
    other, best = halves[behind].climb(photons, seconds, top)
    if best < value - _SLIGHT or best < at_top[behind] + _OWN_MODE:
        return [(shared, top, value)]
    return [(halves[ahead], top, at_top[ahead]), (halves[behind], other, best)]


def compile_labels(
    table: DecayTable, trace: xr.Dataset, model: ModelFile, rng: np.random.Generator
) -> None:
    """Run every compiled function once, on photons of a flat decay."""
    shared = SharedParameters(table, trace, model, 0, 2)
    photons, seconds = np.outer([1000.0, 100.0], table.background), np.ones(2)
    _draw_places(shared, shared.start(photons, seconds), photons, seconds, rng)
    add_log_prior(OTHER, np.zeros((1, 3)), shared.beliefs.mechanisms)


def _completed(
    draws: list[Parameters], sampler: GibbsSampler, rng: np.random.Generator
) -> tuple[Array, Array, NDArray[np.int64]]:
    chosen = rng.choice(len(draws), size=_PATHS, replace=len(draws) < _PATHS)
    sampler.forget()
    for index in chosen[::5]:
        sampler.focus(draws[index])
    complete = [sampler.complete(draws[index]) for index in chosen]
    photons = np.array([one[0] for one in complete], dtype=np.float64)
    seconds = np.maximum(np.array([one[1] for one in complete]), 1e-9)
    return photons, seconds, chosen


def _log_free(posterior: CollapsedPosterior, photons: Array, seconds: Array) -> float:
    """Log probability of completed photons where decays are free, up to a constant."""
    value = float(log_sum_exp(posterior.decays.given_photons(photons)[0][None, :])[0])
    n_photons = photons.sum(axis=1)
    value += float((gammaln(n_photons + 1.0) - (n_photons + 1.0) * np.log(seconds)).sum())
    rate = (n_photons + 0.5) / seconds
    brightest, prior = float(rate.max()), posterior.model.brightest_rate_per_s
    value -= 0.5 * ((np.log(brightest) - np.log(prior.median)) / prior.sigma) ** 2
    return float(value - len(rate) * np.log(brightest))


class _Pairs:
    """Completed paths, each with points of what is shared, for one reference.

    The points are draws given the mean photons, with the log density `values`: their weight is
    what the photons of the path make of it.
    """

    def __init__(
        self,
        shared: SharedParameters,
        points: Array,
        values: Array,
        photons: Array,
        seconds: Array,
        free: Array,
    ) -> None:
        self.shared, self.points = shared, points
        self.log_weights = np.empty(values.shape)
        self.probability = np.empty((*values.shape, seconds.shape[1], N_LABELS))
        self.takes_part = np.empty((*values.shape, N_LABELS))
        for i, j in np.ndindex(values.shape):
            value, evidence = shared.value(points[i, j], photons[i], seconds[i])
            self.probability[i, j], self.takes_part[i, j] = label_probabilities(
                evidence, shared.reference, shared.counts
            )
            self.log_weights[i, j] = value - values[i, j] - free[i]

    @functools.cached_property
    def weights(self) -> Array:
        """Of the pairs; they add up to 1."""
        return np.asarray(np.exp(self.log_weights - logsumexp(self.log_weights)))


def _collect(
    parts: list[_Pairs],
    by_reference: Array,
    photons: Array,
    seconds: Array,
    chosen: NDArray[np.int64],
    n_draws: int,
    rng: np.random.Generator,
) -> Labels:
    n_states = seconds.shape[1]
    probability, takes_part = np.zeros((n_states, N_LABELS)), np.zeros(N_LABELS)
    # the last is that no state is the exciton, whose number is -1
    reference, by_path = np.zeros(n_states + 1), np.zeros(len(photons))
    for part, share in zip(parts, by_reference, strict=True):
        weights = part.weights
        probability += share * np.einsum("ij,ijsl->sl", weights, part.probability)
        takes_part += share * np.einsum("ij,ijl->l", weights, part.takes_part)
        reference[part.shared.reference] += share
        by_path += share * weights.sum(axis=1)
    label = np.empty((n_draws, n_states), dtype=np.int64)
    places, broad = np.empty((n_draws, n_states, 2)), np.empty((n_draws, n_states, 2))
    points, path = np.empty((n_draws, SIZE)), np.empty(n_draws, dtype=np.int64)
    for n, k in enumerate(rng.choice(len(parts), size=n_draws, p=by_reference)):
        part = parts[k]
        pair = int(rng.choice(part.weights.size, p=part.weights.ravel()))
        i, j = divmod(pair, part.points.shape[1])
        shared, points[n], path[n] = part.shared, part.points[i, j], chosen[i]
        label[n], places[n], broad[n] = _draw_places(shared, points[n], photons[i], seconds[i], rng)
    return Labels(
        probability, reference[:-1], float(reference[-1]), takes_part, label,
        places[..., 0], places[..., 1], broad[..., 0] - broad[..., 1], points, path,
        float(1.0 / (by_path**2).sum()), seconds.sum(axis=0) / seconds.sum(),
    )  # fmt: skip


def _draw_places(
    shared: SharedParameters,
    point: Array,
    photons: Array,
    seconds: Array,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], Array, Array]:
    """Draw the mechanism of each state, and its place in the plane, given what is shared.

    Returns the mechanism, -1 for the reference; log brightness and log lifetime, shape
    ``(n_states, 2)``, of unresolved charging the lifetime of the trion, of a mere background
    nothing; and a place drawn as if no mechanism were known.
    """
    _, evidence = shared.value(point, photons, seconds)
    mechanisms = shared.beliefs.mechanisms.copy()
    mechanisms[0] = np.exp(point[SLACK])
    labels = draw_labels(evidence, shared.reference, shared.counts, rng)
    places, broad = np.full((len(seconds), 2), np.nan), np.full((len(seconds), 2), np.nan)
    for s in range(len(seconds)):
        if s == shared.reference:
            places[s] = broad[s] = 0.0
            continue
        plane, charging = shared.nodes_of(s)
        if len(plane):
            broad[s] = plane[_pick(plane[:, 2], rng), :2]
        if labels[s] == BACKGROUND:
            continue
        nodes = charging if labels[s] == UNRESOLVED else plane
        add_log_prior(int(labels[s]), nodes, mechanisms)
        places[s] = nodes[_pick(nodes[:, 2], rng), :2]
    return labels, places, broad


def _pick(logs: Array, rng: np.random.Generator) -> int:
    total = np.cumsum(np.exp(logs - logs.max()))
    return min(int(np.searchsorted(total, rng.random() * total[-1])), len(logs) - 1)
