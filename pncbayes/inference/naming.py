"""How often the mechanism of a dim state would be named, by simulated photons of its gates.

Of each recording only the photons of the dim state in the delay gates are drawn. What all states
share is known from the exciton's photons and the priors: normal, with the precision of the expected
Fisher information of the exciton's gates plus that of the prior, and centred where those photons
put it in this recording. It is integrated out to second order (`naming_surface`). Over the plane of
log brightness and log lifetime nothing is taken to be normal: mechanisms are summed out on a grid,
as in `label_kernels`. The names are those that `pncbayes.fit` would give if it knew which photons
are of the dim state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import stats

from pncbayes.inference.naming_surface import (
    LEAST_RATE,
    Surface,
    information,
    inverse,
    log_of,
    square_root,
    surface,
    weighted_sd,
)
from pncbayes.physics.expected_photons import BACKGROUND as BACKGROUND_RATE
from pncbayes.physics.expected_photons import NUISANCES, WIDTH, Decays
from pncbayes.physics.mechanism_kernels import (
    AUGER,
    BACKGROUND,
    HOT_CARRIER,
    N_LABELS,
    NBC,
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
from pncbayes.physics.mechanisms import MechanismPriors

__all__ = ["KNOWN_LOG_R", "NEEDS_LIFETIME", "SURE", "DimState", "Namer", "can_be_charged"]

Array = NDArray[np.float64]

# A name is given above this probability, and where ln R is known to this, as in a fit.
# A hot-carrier state is named where unresolved charging has no more than this probability.
SURE, KNOWN_LOG_R, EXCLUDED = 0.8, 0.25, 0.05
NEEDS_LIFETIME = (AUGER, HOT_CARRIER, NBC)
TIED = (AUGER, HOT_CARRIER, NBC, OTHER)
# Nodes per side while the place of the likelihood is looked for, nats below the best that still
# count, and rounds of looking closer.
_N_LOOK, _FAR, _ROUNDS = 25, 40.0, 14
# Final nodes: this many over where the likelihood is, and closer than this share of the slack.
_N_NODES, _SLACK_STEP = 36, 0.7
# Directions of what is shared that change the curvature by less than this are left out.
_NEGLIGIBLE = 3e-3
_CHUNK = 4_000_000


@dataclass(frozen=True)
class DimState:
    """A dim state: what is true of it.

    Attributes
    ----------
    label
        Number of its mechanism.
    log_brightness
        ln f.
    log_lifetime
        ln g; of unresolved charging, the trion's.
    scaling
        m, where the state is charged for a part of the time.
    """

    label: int
    log_brightness: float
    log_lifetime: float
    scaling: float


@njit(cache=True, nogil=True, error_model="numpy")
def _log_label_priors(u: Array, v: Array, prior: Array, log_weights: Array, out: Array) -> None:
    """Log density of v and log weight of each mechanism of the plane, ``(label, n_u, n_v)``."""
    for label in range(out.shape[0]):
        for i in range(u.size):
            weight = log_allowed(label, u[i], prior) + log_weights[label]
            for j in range(v.size):
                density = log_prior_given_brightness(label, u[i], v[j], prior)
                out[label, i, j] = max(weight + density, -1e300)


@njit(cache=True, nogil=True, error_model="numpy")
def _count_allowed(u: float, v: Array, scaling: float) -> int:
    count = 0
    for one in v:
        count += charging_share(u, one, scaling) > 0.0
    return count


def can_be_charged(state: DimState, scaling: float) -> bool:
    """Whether a share of the time in a trion makes a state as bright as it is."""
    return bool(charging_share(state.log_brightness, state.log_lifetime, scaling) > 0.0)


class Namer:
    """Simulates recordings of a dim state, and says how many of them name its mechanism.

    Parameters
    ----------
    decays
        Expected photons.
    state
        The dim state.
    priors
        Of mechanisms.
    labels
        Numbers of the mechanisms that are weighed against each other, the true one among them.
    nuisance_sd
        Standard deviations of `NUISANCES` before any photon. The background and the width of the
        response are taken to have been measured with these errors, which differ from recording to
        recording; the others are believed to be where they are.
    exciton_seconds_per_second
        Time in the exciton state over time in the dim one; 0 with `exciton_seconds`.
    exciton_seconds
        Time in the exciton state that does not depend on that in the dim one.
    uniforms, normals
        Random numbers behind the recordings: shapes ``(n_recordings, n_gates)`` and
        ``(n_recordings, n_nuisances)``. The same ones for all times make shares comparable.
    """

    def __init__(
        self,
        decays: Decays,
        state: DimState,
        priors: MechanismPriors,
        labels: tuple[int, ...],
        nuisance_sd: Array,
        exciton_seconds_per_second: float,
        exciton_seconds: float,
        uniforms: Array,
        normals: Array,
    ) -> None:
        self.decays, self.state, self.labels = decays, state, labels
        self.priors, self._prior = priors, priors.packed()
        # of one state, the mean of the weights that a dot may have
        weights = np.array(priors.concentrations())
        self._log_weights = np.log(weights / weights.sum())
        self._sd = nuisance_sd
        self._per_second, self._fixed = exciton_seconds_per_second, exciton_seconds
        self._uniforms, self._normals = uniforms, normals
        rate, slopes = decays.tied(np.zeros(1), np.zeros(1))
        self._exciton = information(rate[0, 0], slopes[0, 0])
        self._measured = np.zeros(len(NUISANCES))
        for place in (BACKGROUND_RATE, WIDTH):
            self._measured[place] = nuisance_sd[place] ** -2.0
        self.rate, self._slopes = self._own(state.log_brightness, state.log_lifetime)

    def _own(self, u: float, v: float) -> tuple[Array, Array]:
        """Counts per s and gate of the dim state at a place, and their slopes."""
        places, state = (np.array([u]), np.array([v])), self.state
        if state.label == UNRESOLVED:
            rate, slopes, _ = self.decays.charged(*places, state.scaling)
        else:
            rate, slopes = self.decays.tied(*places)
        return np.maximum(rate[0, 0], LEAST_RATE), slopes[0, 0]

    def probability_at_best(self) -> Array:
        """Probability of each mechanism where brightness and lifetime are known exactly.

        Returns
        -------
        ndarray, shape ``(N_LABELS,)``
            Zero for those not weighed. Unresolved charging and the exciton's decay made faster by
            one rate have other shapes, so that enough photons tell them apart.
        """
        out = np.zeros(N_LABELS)
        state = self.state
        u, v = np.array([state.log_brightness]), np.array([state.log_lifetime])
        if state.label == UNRESOLVED:
            _, _, allowed = self.decays.charged(u, v, self.priors.scaling_median)
            out[UNRESOLVED] = float(allowed[0, 0])
            return out
        logs = np.empty((N_LABELS, 1, 1))
        _log_label_priors(u, v, self._prior, self._log_weights, logs)
        own = [label for label in TIED if label in self.labels]
        shares = np.exp(logs[own, 0, 0] - logs[own, 0, 0].max())
        if logs[own].max() > -1e200:
            out[own] = shares / shares.sum()
        return out

    def margins(self, seconds: float) -> Array:
        """How far each recording is from being named; positive where it is.

        Parameters
        ----------
        seconds
            Time in the dim state.

        Returns
        -------
        ndarray, shape ``(n_recordings,)``
            Log odds of the mechanism over those of the least probability that names, or, where the
            radiative rate is needed and this is less, ln of its largest sd over its sd; of a
            hot-carrier state the odds against unresolved charging have to be large enough, too.
        """
        probability, log_r_sd = self.recordings(seconds)
        own = np.clip(probability[:, self.state.label], 1e-12, 1.0 - 1e-12)
        out = np.log(own / (1.0 - own)) - np.log(SURE / (1.0 - SURE))
        if self.state.label in NEEDS_LIFETIME:
            out = np.minimum(out, np.log(KNOWN_LOG_R / np.maximum(log_r_sd, 1e-12)))
        if self.state.label == HOT_CARRIER:
            charged = np.clip(probability[:, UNRESOLVED], 1e-12, 1.0 - 1e-12)
            out = np.minimum(out, np.log(EXCLUDED / (1.0 - EXCLUDED) * (1.0 - charged) / charged))
        return np.asarray(out)

    def recordings(self, seconds: float) -> tuple[Array, Array]:
        """Probabilities of the mechanisms in simulated recordings, and sd of ln R in each.

        Parameters
        ----------
        seconds
            Time in the dim state.

        Returns
        -------
        probability : ndarray, shape ``(n_recordings, N_LABELS)``
        log_r_sd : ndarray, shape ``(n_recordings,)``
            As if no mechanism were known.
        """
        directions = self._directions(seconds)
        photons = stats.poisson.ppf(self._uniforms, seconds * self.rate)
        # the exciton's photons and what was measured put what is shared off the truth
        scatter = self._exciton_s(seconds) * self._exciton + np.diag(self._measured)
        scores = self._normals @ square_root(scatter).T
        centres = scores @ directions
        expected = seconds * self.rate[None, :]
        surfaces = self._surfaces(seconds, directions, expected)
        n = len(photons)
        log_evidence = np.full((n, N_LABELS), -1e300)
        log_r_sd = np.full(n, np.inf)
        largest = max(one.total.size for one in surfaces.values())
        size = max(1, _CHUNK // (largest * (1 + centres.shape[1])))
        for start in range(0, n, size):
            rows = slice(start, start + size)
            for kind, nodes in surfaces.items():
                value = nodes.values(photons[rows], centres[rows])
                if kind == "tied":
                    log_r_sd[rows] = weighted_sd(
                        value, (nodes.axes[0][:, None] - nodes.axes[1]).ravel()
                    )
                self._add(log_evidence[rows], kind, nodes, value)
        shares = np.exp(log_evidence - log_evidence.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True), log_r_sd

    def log_r_sd(self, seconds: float) -> float:
        """Expected standard deviation of ln R, from the Fisher information.

        What is shared is marginalised. NaN for a state that is charged for a part of the time.
        """
        if self.state.label == UNRESOLVED:
            return float("nan")
        step = 1e-3
        u, v = self.state.log_brightness, self.state.log_lifetime
        by_u = (self._own(u + step, v)[0] - self._own(u - step, v)[0]) / (2.0 * step)
        by_v = (self._own(u, v + step)[0] - self._own(u, v - step)[0]) / (2.0 * step)
        whole = seconds * information(self.rate, np.vstack([by_u, by_v, self._slopes]))
        whole[2:, 2:] += self._precision(seconds)
        covariance = inverse(whole)
        return float(np.sqrt(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1]))

    def _precision(self, seconds: float) -> Array:
        """Of what is shared, from the exciton's photons and the prior."""
        return np.asarray(self._exciton_s(seconds) * self._exciton + np.diag(self._sd**-2.0))

    def _exciton_s(self, seconds: float) -> float:
        return self._fixed + self._per_second * seconds

    def _directions(self, seconds: float) -> Array:
        """Directions of what is shared that matter: one sd each, independent; ``(k, r)``."""
        precision = self._precision(seconds)
        scale = 1.0 / np.sqrt(np.diag(precision))
        root = np.linalg.cholesky(precision * scale[:, None] * scale[None, :])
        white = scale[:, None] * np.linalg.inv(root).T
        own = white.T @ (seconds * information(self.rate, self._slopes)) @ white
        curvature, axes = np.linalg.eigh(own)
        kept = np.flatnonzero(curvature > _NEGLIGIBLE)
        return np.asarray(white @ axes[:, kept])

    def _surfaces(self, seconds: float, directions: Array, expected: Array) -> dict[str, Surface]:
        """Nodes where the likelihood of the expected photons is, of every kind of state."""
        kinds = ["tied"] if any(label in TIED for label in self.labels) else []
        kinds += ["charged"] if UNRESOLVED in self.labels else []
        found = {kind: self._look(kind, seconds, directions, expected) for kind in kinds}
        if BACKGROUND in self.labels:
            rate, slopes = self.decays.dark()
            found["dark"] = surface(
                seconds, directions, self.rate, (np.full(1, -np.inf), np.zeros(1)),
                rate[None, None], slopes[None, None], np.ones((1, 1), dtype=bool),
            )  # fmt: skip
        return found

    def _look(self, kind: str, seconds: float, directions: Array, expected: Array) -> Surface:
        """Close in on where the likelihood of the expected photons is."""
        low, high = np.array([U_LOW, V_LOW]), np.array([U_HIGH, V_HIGH])
        bottom, top = low.copy(), high.copy()
        centres = np.zeros((1, directions.shape[1]))
        for _ in range(_ROUNDS):
            u, v = (np.linspace(low[k], high[k], _N_LOOK) for k in (0, 1))
            nodes = self._at(kind, seconds, directions, u, v)
            value = nodes.values(expected, centres)[0].reshape(u.size, v.size)
            near = value > value.max() - _FAR
            before = high - low
            for k, places in enumerate((near.any(axis=1), near.any(axis=0))):
                inside = np.flatnonzero(places)
                axis = (u, v)[k]
                step = axis[1] - axis[0]
                low[k] = max(axis[inside[0]] - step, bottom[k])
                high[k] = min(axis[inside[-1]] + step, top[k])
            if (high - low > 0.8 * before).all():
                break
        n = [
            max(
                _N_NODES,
                int(np.ceil((high[k] - low[k]) / (_SLACK_STEP * self.priors.slack_median))),
            )
            for k in (0, 1)
        ]
        u, v = (np.linspace(low[k], high[k], n[k] + 1) for k in (0, 1))
        # in the middle of cells: the plane ends at its edges
        return self._at(kind, seconds, directions, 0.5 * (u[1:] + u[:-1]), 0.5 * (v[1:] + v[:-1]))

    def _at(self, kind: str, seconds: float, directions: Array, u: Array, v: Array) -> Surface:
        if kind == "tied":
            rate, slopes = self.decays.tied(u, v)
            allowed = np.ones(rate.shape[:2], dtype=bool)
        else:
            rate, slopes, allowed = self.decays.charged(u, v, self.priors.scaling_median)
        return surface(seconds, directions, self.rate, (u, v), rate, slopes, allowed)

    def _add(self, log_evidence: Array, kind: str, nodes: Surface, value: Array) -> None:
        """Fill in the evidence of the mechanisms of a surface."""
        if kind == "dark":
            log_evidence[:, BACKGROUND] = value[:, 0] + self._log_weights[BACKGROUND]
            return
        top = value.max(axis=1, keepdims=True)
        likelihood = np.exp(value - top)
        u, v = nodes.axes
        step_u, step_v = (float(axis[1] - axis[0]) for axis in (u, v))
        span = U_HIGH - U_LOW
        if kind == "charged":
            # uniform over the lifetimes that make a state this bright
            logs = np.array([log_allowed(UNRESOLVED, one, self._prior) for one in u])
            weights = np.exp(logs + self._log_weights[UNRESOLVED])
            density = np.repeat(weights / self._allowed_length(u), v.size) * step_u * step_v / span
            log_evidence[:, UNRESOLVED] = log_of(likelihood @ density) + top[:, 0]
            return
        logs = np.empty((N_LABELS, u.size, v.size))
        _log_label_priors(u, v, self._prior, self._log_weights, logs)
        for label in TIED:
            if label in self.labels:
                density = np.exp(logs[label].ravel()) * step_u * step_v / span
                log_evidence[:, label] = log_of(likelihood @ density) + top[:, 0]

    def _allowed_length(self, u: Array) -> Array:
        """Length of the log lifetimes of a trion that can make states this bright."""
        v = np.arange(V_LOW, V_HIGH, 0.01)
        length = [0.01 * _count_allowed(one, v, self.priors.scaling_median) for one in u]
        return np.asarray(np.maximum(length, 0.01))
