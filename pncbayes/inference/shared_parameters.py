"""What all states of a dot share, for one reference state: its climb, draws and evidence."""

from __future__ import annotations

import copy

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize

from pncbayes.inference.bridge import bridge
from pncbayes.inference.label_counts import label_counts
from pncbayes.inference.shared_kernels import (
    BRIGHT,
    LIFETIME,
    PAIR_SHARE,
    SIZE,
    Beliefs,
    Instrument,
    log_density,
    workspace,
)
from pncbayes.physics.exciton import Exciton
from pncbayes.physics.mechanism_kernels import UNRESOLVED
from pncbayes.physics.modelfile import ModelFile
from pncbayes.physics.tied_decay import WIDTH_STEP, DecayTable

__all__ = ["SharedParameters"]

Array = NDArray[np.float64]

# Of the differential evolution: walkers, rounds before those that are kept, and these. More are
# kept where evidences are compared: too few made probabilities of references jump by 0.3.
_WALKERS, _FIRST_ROUNDS, _KEPT, _KEPT_TO_COMPARE = 30, 50, 40, 160
# Nats below the first walker at which another may not start, and halvings of the way to it; also
# of steps that are too long for a curvature.
_FAR_OUT, _MOST_HALVINGS = 40.0, 12
# Of the climb: searches, the gain in nats after which another is worth it, and the options of each.
_MOST_CLIMBS, _LITTLE = 5, 0.5
_CLIMB = {"eps": 1e-3, "gtol": 0.1, "maxiter": 40}
_LOW = -1e30
# Draws for the evidence of a reference, and degrees of freedom of the density they are from.
_TRIALS, _FREEDOM = 1500, 8.0
# Rounds of the evolution that make one independent draw of each walker.
_ROUNDS_PER_DRAW = 10.0
# sd of the logit of the power of the brightness by which biexcitons grow: nearly uniform.
_POWER_SD = 1.5
# sd of the shift of the response, in its steps.
_SHIFT_SD = 0.67
# sd of the log of its width.
_WIDTH_SD = 0.1


class SharedParameters:
    """Density of what all states share, for one reference state.

    Parameters
    ----------
    table, trace, model
        Decays as the instrument records them, what is known of the background, and the priors.
    reference
        Number of the state that is the neutral exciton; -1 if none is.
    n_states
        Number of states.
    exciton
        What is known of it; its brightness is needed where no state has it.
    """

    def __init__(
        self,
        table: DecayTable,
        trace: xr.Dataset,
        model: ModelFile,
        reference: int,
        n_states: int,
        exciton: Exciton | None = None,
    ) -> None:
        self.reference = reference
        priors = model.mechanism
        dark = float(trace.attrs.get("background_rate_per_s", np.nan))
        dark_sd = float(trace.attrs.get("background_sd_per_s", np.nan))
        known = np.isfinite(dark) and dark > 0
        self.dark = max(dark, 0.1) if known else 10.0
        relative = max(dark_sd / self.dark, 0.02) if known and np.isfinite(dark_sd) else 2.0
        bright, decays = model.brightest_rate_per_s, model.decay_concentration
        mean = np.array([
            np.log(bright.median), np.log(priors.exciton_lifetime_median_ns), 0.0, 0.0,
            np.log(priors.scatter_median), np.log(self.dark), np.log(decays.median), 0.0,
            np.log(priors.biexciton_share_median), np.log(priors.biexciton_lifetime_median_ns), 0.0,
            np.log(priors.slack_median), np.log(priors.afterpulsing_median), 0.0,
            np.log(priors.after_biexciton_median),
        ])  # fmt: skip
        sd = np.array([
            bright.sigma, priors.exciton_lifetime_sigma, 1.5, 1.5, priors.scatter_sigma,
            relative, decays.sigma, _SHIFT_SD, priors.biexciton_share_sigma,
            priors.biexciton_lifetime_sigma, _POWER_SD, priors.slack_sigma,
            priors.afterpulsing_sigma, _WIDTH_SD / WIDTH_STEP, priors.after_biexciton_sigma,
        ])  # fmt: skip
        self.counts = label_counts(n_states - (reference >= 0), priors.concentrations())
        self.beliefs = Beliefs(mean, sd, priors.packed(), self.counts)
        self.instrument = Instrument(
            table.shares,
            table.scatter[:, :, None],
            table.uniform,
            table.background,
            table.log_start,
            table.log_step,
        )
        if exciton is not None and exciton.rate_per_s is not None:
            mean[BRIGHT], sd[BRIGHT] = exciton.log_normal(*exciton.rate_per_s)
        if exciton is not None and exciton.lifetime_ns is not None:
            mean[LIFETIME], sd[LIFETIME] = exciton.log_normal(*exciton.lifetime_ns)
        self.exciton = exciton
        self.table = table
        self.priors = priors
        self._work = workspace(n_states)

    def half(self, charging: bool) -> SharedParameters:
        """Return the same without unresolved charging of any state, or with it in one at least.

        The two add up to the whole.
        """
        part = copy.copy(self)
        without = self.counts.none[:, UNRESOLVED]
        prior = np.where(without != charging, self.counts.prior, 0.0)
        part.counts = self.counts._replace(prior=prior)
        part.beliefs = self.beliefs._replace(counts=part.counts)
        return part

    def value(self, point: Array, photons: Array, seconds: Array) -> tuple[float, Array]:
        """Log density, and log evidence of each mechanism of each state."""
        value = log_density(
            point, self.reference, photons, seconds, self.instrument, self.beliefs, self._work
        )
        return float(value), self._work.evidence.copy()

    def nodes_of(self, state: int) -> tuple[Array, Array]:
        """Nodes of a state on the plane, and of unresolved charging, at the latest point."""
        plane, charging = self._work.n_nodes[state]
        nodes = self._work.nodes[state]
        return nodes[0, :plane].copy(), nodes[1, :charging].copy()

    def start(self, photons: Array, seconds: Array) -> Array:
        """Where the climb begins."""
        # where no state is the exciton, the brightest is the next best start for its lifetime
        own = photons[self.reference]
        if self.reference < 0:
            own = photons[int(np.argmax(photons.sum(axis=1) / seconds))]
        rate = photons[self.reference].sum() / seconds[self.reference]
        signal = max(rate - self.dark, 0.1 * rate)
        known = self.exciton is not None and self.exciton.rate_per_s is not None
        if known and self.reference < 0:
            signal = float(np.exp(self.beliefs.mean[BRIGHT]))
        # the first moment of the delays after the fastest gate stands for the lifetime
        lifetimes = np.exp(np.linspace(np.log(0.3), np.log(60.0), 24))
        shares = np.array([self.table.quenched(np.ones(1), np.array([t])) for t in lifetimes])
        expected = shares * signal + self.dark * self.table.background
        expected /= expected.sum(axis=1, keepdims=True)
        best = int(np.argmax(np.log(np.maximum(expected, 1e-12)) @ own))
        log_lifetime = np.log(lifetimes[best])
        if self.exciton is not None and self.exciton.lifetime_ns is not None:
            log_lifetime = self.beliefs.mean[LIFETIME]
        return np.array([
            np.log(signal), log_lifetime, 0.3, 0.0,
            np.log(self.priors.scatter_median * signal), np.log(self.dark), np.log(1000.0), 0.0,
            *self.beliefs.mean[PAIR_SHARE:],
        ])  # fmt: skip

    def start_near(self, top: Array, photons: Array, seconds: Array) -> Array:
        """Where a climb begins that takes all but the exciton's light from another reference."""
        start, own = top.copy(), self.start(photons, seconds)
        start[[BRIGHT, LIFETIME]] = own[[BRIGHT, LIFETIME]]
        return start

    def climb(
        self, photons: Array, seconds: Array, top: Array | None = None
    ) -> tuple[Array, float]:
        """Best point and its value; from a point that is good, if there is one."""
        top = self.start(photons, seconds) if top is None else top
        value = self.value(top, photons, seconds)[0]
        # about the width of a posterior, so that differences are far above the roughness that
        # nodes leave; where the search gets stuck it starts anew
        unit = np.minimum(self.beliefs.sd, 0.1)
        for _ in range(_MOST_CLIMBS):
            found = minimize(
                lambda step, top=top: (
                    -max(self.value(top + unit * step, photons, seconds)[0], _LOW)
                ),
                np.zeros(SIZE),
                method="BFGS",
                options=_CLIMB,
            )
            gained = -float(found.fun) - value
            if gained > 0.0:
                top, value = top + unit * found.x, -float(found.fun)
            if gained < _LITTLE:
                break
        return top, value

    def draw(
        self,
        top: Array,
        photons: Array,
        seconds: Array,
        rng: np.random.Generator,
        *,
        to_compare: bool,
    ) -> tuple[Array, Array]:
        """Draws given photons and times, shape ``(n, SIZE)``, and their values.

        As many as `log_evidence` needs if they are `to_compare` references.
        """
        spread = self._spread(top, photons, seconds)
        walkers = top + rng.standard_normal((_WALKERS, SIZE)) @ spread.T
        walkers[0] = top
        n_kept = _KEPT_TO_COMPARE if to_compare else _KEPT
        return self._evolve(walkers, n_kept, photons, seconds, rng)

    def _evolve(
        self, now: Array, n_kept: int, photons: Array, seconds: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Differential evolution: each walker moves by the difference of two others.

        The first walker is a good point, near which the others start. Returns the walkers of the
        last rounds, and their values [1]_.

        References
        ----------
        .. [1] ter Braak, C. J. F. A Markov chain Monte Carlo version of the genetic algorithm
           differential evolution. Stat. Comput. 16, 239 (2006), doi:10.1007/s11222-006-8769-1.
        """
        values = np.empty(_WALKERS)
        for w in range(_WALKERS):
            for _ in range(_MOST_HALVINGS):
                values[w] = self.value(now[w], photons, seconds)[0]
                # walkers far out would draw all others after them
                if values[w] > values[0] - _FAR_OUT:
                    break
                now[w] = 0.5 * (now[w] + now[0])
        kept, kept_values = [], []
        for sweep in range(_FIRST_ROUNDS + n_kept):
            # now and then a whole difference: from one mode to another
            gain = 1.0 if sweep % 10 == 9 else 2.38 / np.sqrt(2.0 * SIZE)
            jitter = 1e-4 * self.beliefs.sd * rng.standard_normal((_WALKERS, SIZE))
            chance = np.log(rng.random(_WALKERS) + 1e-300)
            first = rng.integers(_WALKERS - 1, size=_WALKERS)
            second = rng.integers(_WALKERS - 2, size=_WALKERS)
            for w in range(_WALKERS):
                a = first[w] + (first[w] >= w)
                b = second[w] + (second[w] >= min(a, w))
                b += b >= max(a, w)
                trial = now[w] + gain * (now[a] - now[b]) + jitter[w]
                value = self.value(trial, photons, seconds)[0]
                if chance[w] < value - values[w]:
                    now[w], values[w] = trial, value
            if sweep >= _FIRST_ROUNDS:
                kept.append(now.copy())
                kept_values.append(values.copy())
        return np.concatenate(kept), np.concatenate(kept_values)

    def _spread(self, top: Array, photons: Array, seconds: Array) -> Array:
        """Square root of the covariance at the top, by differences; no wider than the prior."""

        def value(point: Array) -> float:
            return max(self.value(point, photons, seconds)[0], _LOW)

        here = value(top)
        steps, eye = 0.5 * self.beliefs.sd, np.eye(SIZE)
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
        scale = self.beliefs.sd / steps
        curvature, axes = np.linalg.eigh(-bend * scale[:, None] * scale[None, :])
        width = 1.0 / np.sqrt(np.maximum(curvature, 1.0))
        return np.asarray(self.beliefs.sd[:, None] * axes * width)

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
