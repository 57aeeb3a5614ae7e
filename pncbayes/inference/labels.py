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
from scipy import stats
from scipy.optimize import minimize
from scipy.special import gammaln, logsumexp

from pncbayes.inference.bridge import bridge
from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.gibbs import GibbsSampler
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.shared_kernels import PAIR_SHARE, SIZE, draw_points, evolve, log_density
from pncbayes.inference.special import log_sum_exp
from pncbayes.physics.mechanisms import MECHANISMS
from pncbayes.physics.modelfile import ModelFile
from pncbayes.physics.tied_decay import DecayTable

__all__ = ["Labels", "compile_labels", "label_states"]

Array = NDArray[np.float64]

N_LABELS = len(MECHANISMS)
# Completed paths, and points of what is shared, that are paired.
_PATHS, _POINTS = 40, 16
# Of the differential evolution.
_WALKERS, _ROUNDS, _KEPT = 30, 90, 40
_MOST_HALVINGS = 12
# Draws for the evidence of a reference, and degrees of freedom of the density they are from.
_TRIALS, _FREEDOM = 600, 5.0
# Rounds of the evolution that make one independent draw of each walker.
_ROUNDS_PER_DRAW = 10.0
# Nats below the best at which a reference no longer counts; states dimmer than this are none.
_FAR, _DIMMEST_REFERENCE = 18.0, 1.0 / 3.0
# sd of the logit of the power of the brightness by which biexcitons grow: nearly uniform.
_POWER_SD = 1.5
# sd of the shift of the response, in its steps.
_SHIFT_SD = 0.67


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
    """

    probability: Array
    reference: Array
    takes_part: Array
    label: NDArray[np.int64]
    log_brightness: Array
    log_lifetime: Array
    broad_log_r: Array
    shared: Array
    path: NDArray[np.int64]
    effective_paths: float


class _Shared:
    """Density of what all states share, for one reference state."""

    def __init__(
        self, table: DecayTable, trace: xr.Dataset, model: ModelFile, reference: int
    ) -> None:
        self.reference = reference
        priors = model.mechanism
        self.prior = priors.packed()
        dark = float(trace.attrs.get("background_rate_per_s", np.nan))
        dark_sd = float(trace.attrs.get("background_sd_per_s", np.nan))
        known = np.isfinite(dark) and dark > 0
        self.dark = max(dark, 0.1) if known else 10.0
        relative = max(dark_sd / self.dark, 0.02) if known and np.isfinite(dark_sd) else 2.0
        bright, decays = model.brightest_rate_per_s, model.decay_concentration
        self.mean = np.array([
            np.log(bright.median), np.log(priors.exciton_lifetime_median_ns), 0.0, 0.0,
            np.log(priors.scatter_median), np.log(self.dark), np.log(decays.median), 0.0,
            np.log(priors.biexciton_share_median), np.log(priors.biexciton_lifetime_median_ns), 0.0,
        ])  # fmt: skip
        self.sd = np.array([
            bright.sigma, priors.exciton_lifetime_sigma, 1.5, 1.5, priors.scatter_sigma,
            relative, decays.sigma, _SHIFT_SD, priors.biexciton_share_sigma,
            priors.biexciton_lifetime_sigma, _POWER_SD,
        ])  # fmt: skip
        self.table = table
        self.priors = priors

    @property
    def instrument(self) -> tuple[Array, Array, Array, float, float]:
        table = self.table
        return table.shares, table.scatter, table.background, table.log_start, table.log_step

    def value(self, point: Array, photons: Array, seconds: Array) -> tuple[float, Array]:
        """Log density, and log evidence of each mechanism of each state."""
        evidence = np.empty((len(seconds), N_LABELS))
        value = log_density(
            point, self.reference, photons, seconds, *self.instrument, self.mean, self.sd,
            self.prior, evidence,
        )  # fmt: skip
        return float(value), evidence

    def start(self, photons: Array, seconds: Array) -> Array:
        """Where the climb begins."""
        rate = photons[self.reference].sum() / seconds[self.reference]
        signal = max(rate - self.dark, 0.1 * rate)
        # the first moment of the delays after the fastest gate stands for the lifetime
        lifetimes = np.exp(np.linspace(np.log(0.3), np.log(60.0), 24))
        shares = np.array([self.table.quenched(np.ones(1), np.array([t])) for t in lifetimes])
        expected = shares * signal + self.dark * self.table.background
        expected /= expected.sum(axis=1, keepdims=True)
        own = photons[self.reference]
        best = int(np.argmax(np.log(np.maximum(expected, 1e-12)) @ own))
        return np.array([
            np.log(signal), np.log(lifetimes[best]), 0.3, 0.0,
            np.log(self.priors.scatter_median * signal), np.log(self.dark), np.log(1000.0), 0.0,
            *self.mean[PAIR_SHARE:],
        ])  # fmt: skip

    def climb(self, photons: Array, seconds: Array) -> tuple[Array, float]:
        """Best point and its value."""

        def minus(point: Array) -> float:
            return -max(self.value(point, photons, seconds)[0], -1e30)

        found = minimize(minus, self.start(photons, seconds), method="BFGS")
        return np.asarray(found.x), -float(found.fun)

    def draw(
        self, top: Array, photons: Array, seconds: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Draws given photons and times, shape ``(n, SIZE)``, and their values."""
        spread = self._spread(top, photons, seconds)
        walkers = top + rng.standard_normal((_WALKERS, SIZE)) @ spread.T
        walkers[0] = top
        kept, values = evolve(
            walkers, _ROUNDS, _KEPT, self.reference, photons, seconds, *self.instrument,
            self.mean, self.sd, self.prior, rng,
        )  # fmt: skip
        return np.asarray(kept.reshape(-1, SIZE)), np.asarray(values.reshape(-1))

    def _spread(self, top: Array, photons: Array, seconds: Array) -> Array:
        """Square root of the covariance at the top, by differences; no wider than the prior."""

        def value(point: Array) -> float:
            return max(self.value(point, photons, seconds)[0], -1e30)

        here = value(top)
        steps, eye = 0.5 * self.sd, np.eye(SIZE)
        for i in range(SIZE):
            for _ in range(_MOST_HALVINGS):
                drop = 2.0 * here - value(top + steps[i] * eye[i]) - value(top - steps[i] * eye[i])
                if drop < 2.0:
                    break
                # to where a parabola would drop by one
                steps[i] *= float(np.clip(np.sqrt(1.0 / drop), 0.05, 0.7))
        ahead = np.array([[value(top + steps[i] * eye[i] + steps[j] * eye[j]) if j <= i else 0.0
                           for j in range(SIZE)] for i in range(SIZE)])  # fmt: skip
        behind = np.array([[value(top - steps[i] * eye[i] - steps[j] * eye[j]) if j <= i else 0.0
                            for j in range(SIZE)] for i in range(SIZE)])  # fmt: skip
        one = np.array([value(top + steps[i] * eye[i]) + value(top - steps[i] * eye[i])
                        for i in range(SIZE)])  # fmt: skip
        bend = np.tril(ahead + behind - one[:, None] - one[None, :] + 2.0 * here, -1) / 2.0
        bend = bend + bend.T + np.diag(one - 2.0 * here)
        # in units of the prior, where nothing is wider than one
        scale = self.sd / steps
        curvature, axes = np.linalg.eigh(-bend * scale[:, None] * scale[None, :])
        width = 1.0 / np.sqrt(np.maximum(curvature, 1.0))
        return np.asarray(self.sd[:, None] * axes * width)

    def log_evidence(
        self,
        draws: Array,
        values: Array,
        photons: Array,
        seconds: Array,
        rng: np.random.Generator,
    ) -> float:
        """Log of the integral of the density, by a bridge to one shaped like half of the draws."""
        half = len(draws) // 2
        density = stats.multivariate_t(
            draws[:half].mean(axis=0),
            np.cov(draws[:half].T) + 1e-12 * np.eye(SIZE),
            df=_FREEDOM,
        )
        points = density.rvs(_TRIALS, random_state=rng)
        there = np.array([self.value(point, photons, seconds)[0] for point in points])
        # the normal densities of the prior lack their constant, the same for all references
        figure, _ = bridge(
            values[half:] - density.logpdf(draws[half:]),
            there - density.logpdf(points),
            half / _ROUNDS_PER_DRAW,
        )
        return figure


def label_states(
    draws: list[Parameters],
    sampler: GibbsSampler,
    table: DecayTable,
    trace: xr.Dataset,
    rng: np.random.Generator,
    *,
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
    n_draws
        Draws to return.
    """
    posterior = sampler.posterior
    assert isinstance(posterior, CollapsedPosterior)
    photons, seconds, chosen = _completed(draws, sampler, rng)
    free = np.array([_log_free(posterior, n, t) for n, t in zip(photons, seconds, strict=True)])
    mean_photons, mean_seconds = photons.mean(axis=0), seconds.mean(axis=0)
    rate = mean_photons.sum(axis=1) / mean_seconds
    candidates = np.flatnonzero(rate >= _DIMMEST_REFERENCE * rate.max())
    shared = [_Shared(table, trace, posterior.model, int(s)) for s in candidates]
    tops = [one.climb(mean_photons, mean_seconds) for one in shared]
    highest = max(value for _, value in tops)
    parts, logs = [], []
    for one, (top, value) in zip(shared, tops, strict=True):
        if value < highest - _FAR:
            continue
        points, values = one.draw(top, mean_photons, mean_seconds, rng)
        log_z = 0.0
        if sum(other > highest - _FAR for _, other in tops) > 1:
            log_z = one.log_evidence(points, values, mean_photons, mean_seconds, rng)
        keep = points[rng.choice(len(points), size=_POINTS, replace=False)]
        part = _Pairs(one, keep, photons, seconds, (mean_photons, mean_seconds), free)
        parts.append(part)
        logs.append(log_z + logsumexp(part.log_weights) - np.log(part.log_weights.size))
    by_reference = np.exp(np.array(logs) - logsumexp(logs))
    return _collect(parts, by_reference, photons, seconds, chosen, n_draws, rng)


def compile_labels(
    table: DecayTable, trace: xr.Dataset, model: ModelFile, rng: np.random.Generator
) -> None:
    """Run every compiled function once, on photons of a flat decay."""
    shared = _Shared(table, trace, model, 0)
    photons = np.outer([1000.0, 100.0], table.background)
    seconds = np.ones(2)
    point = shared.start(photons, seconds)
    _, evidence = shared.value(point, photons, seconds)
    places = np.empty((2, 2, 2))
    evolve(
        point + 0.01 * rng.standard_normal((4, SIZE)), 1, 1, 0, photons, seconds,
        *shared.instrument, shared.mean, shared.sd, shared.prior, rng,
    )  # fmt: skip
    draw_points(
        point, 0, photons, seconds, *shared.instrument, shared.prior, evidence,
        rng.random((2, 3)), np.empty(2, dtype=np.int64), places[0], places[1],
    )  # fmt: skip


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
    """All pairs of a completed path and a point of what is shared, for one reference."""

    def __init__(
        self,
        shared: _Shared,
        points: Array,
        photons: Array,
        seconds: Array,
        mean: tuple[Array, Array],
        free: Array,
    ) -> None:
        self.shared, self.points = shared, points
        n_states = seconds.shape[1]
        self.log_weights = np.empty((len(photons), len(points)))
        self.evidence = np.empty((len(photons), len(points), n_states, N_LABELS))
        before = np.array([shared.value(point, *mean)[0] for point in points])
        for i, (own, time_s) in enumerate(zip(photons, seconds, strict=True)):
            for j, point in enumerate(points):
                value, self.evidence[i, j] = shared.value(point, own, time_s)
                self.log_weights[i, j] = value - before[j] - free[i]

    @functools.cached_property
    def weights(self) -> Array:
        """Of the pairs; they add up to 1."""
        return np.asarray(np.exp(self.log_weights - logsumexp(self.log_weights)))

    @functools.cached_property
    def probability(self) -> Array:
        """Of each mechanism of each state, for each pair; zero for the reference."""
        top = self.evidence.max(axis=3, keepdims=True)
        share = np.exp(self.evidence - top)
        share /= share.sum(axis=3, keepdims=True)
        share[:, :, self.shared.reference] = 0.0
        return share


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
    reference, by_path = np.zeros(n_states), np.zeros(len(photons))
    for part, share in zip(parts, by_reference, strict=True):
        weights = part.weights
        probability += share * np.einsum("ij,ijsl->sl", weights, part.probability)
        none = (1.0 - part.probability).prod(axis=2)
        takes_part += share * np.einsum("ij,ijl->l", weights, 1.0 - none)
        reference[part.shared.reference] += share
        by_path += share * weights.sum(axis=1)
    label = np.empty((n_draws, n_states), dtype=np.int64)
    places, broad = np.empty((n_draws, n_states, 2)), np.empty((n_draws, n_states, 2))
    points, path = np.empty((n_draws, SIZE)), np.empty(n_draws, dtype=np.int64)
    for n, k in enumerate(rng.choice(len(parts), size=n_draws, p=by_reference)):
        part = parts[k]
        pair = int(rng.choice(part.weights.size, p=part.weights.ravel()))
        i, j = divmod(pair, len(part.points))
        shared, points[n], path[n] = part.shared, part.points[j], chosen[i]
        draw_points(  # type: ignore[call-arg]
            points[n], shared.reference, photons[i], seconds[i], *shared.instrument,
            shared.prior, part.evidence[i, j], rng.random((n_states, 3)),
            label[n], places[n], broad[n],
        )  # fmt: skip
    return Labels(
        probability, reference, takes_part, label, places[..., 0], places[..., 1],
        broad[..., 0] - broad[..., 1], points, path, float(1.0 / (by_path**2).sum()),
    )  # fmt: skip
