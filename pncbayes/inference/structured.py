r"""Posterior of a structured hypothesis, with the decays around their shapes integrated out.

The decay of a state is Dirichlet(:math:`\kappa p`) around the shape p that its physics gives it:
a model that is sure of its shapes explains the tail of a decay by switching. The decays are
integrated out by variational Bayes [1]_: with a Dirichlet(:math:`a`) density for each decay the
log evidence given everything else is at least

.. math:: F = \ln L(\exp \mathrm{E}_a \ln p) - \mathrm{KL}(a \,\|\, \kappa p),

where L is the likelihood of the hidden Markov model at these rates, and :math:`a = \kappa p + N`
with the expected photons N of each state and gate makes the bound tight where it is sure which
state a photon is from.

All other parameters have standard normal coordinates: each is the quantile of its prior at the
probability below a normal number.

References
----------
.. [1] Beal, M. J. Variational algorithms for approximate Bayesian inference, chapter 3. PhD thesis,
   University College London (2003).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, ndtr, ndtri, polygamma

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.physics.modelfile import LogNormal
from pncbayes.physics.structured_emission import Recorder, gate_rate_per_s
from pncbayes.physics.structures import Normal, Prior, StructuredModel, Uniform
from pncbayes.physics.tied_decay import WIDTH_STEP

__all__ = ["OWN", "Bound", "StructuredPosterior", "instrument_priors"]

Array = NDArray[np.float64]

# sd of the shift of the response, and of the log of its width, in their steps
_SHIFT_SD, _WIDTH_SD = 0.67, 0.1 / WIDTH_STEP
# Coordinates stay where probabilities can be told from 0 and 1.
_MOST_Z = 7.5
_STEP = 1e-5
_LEAST_RATE_PER_S = 1e-9
# Rounds of working out photons anew, and the gain at which they end, in nats.
_MOST_ROUNDS, _SETTLED_NATS = 40, 0.01


# Parameters whose priors come from the recording.
OWN = ("background_rate_per_s", "response_shift", "response_width")


def instrument_priors(trace: xr.Dataset) -> dict[str, Prior]:
    """Priors of what belongs to one recording: its background and where its response lies."""
    dark = float(trace.attrs.get("background_rate_per_s", np.nan))
    sd = float(trace.attrs.get("background_sd_per_s", np.nan))
    background = LogNormal(10.0, 2.0)
    if np.isfinite(dark) and dark > 0.0:
        background = LogNormal(dark, max(sd / dark, 0.02) if np.isfinite(sd) else 2.0)
    return {
        "background_rate_per_s": background,
        "response_shift": Normal(0.0, _SHIFT_SD),
        "response_width": Normal(0.0, _WIDTH_SD),
    }


def value_of(prior: Prior, z: Array) -> Array:
    """Value of a parameter at its standard normal coordinate, of any shape."""
    if isinstance(prior, LogNormal):
        return np.asarray(prior.median * np.exp(prior.sigma * z))
    if isinstance(prior, Uniform):
        return np.asarray(prior.low + (prior.high - prior.low) * ndtr(z))
    return np.asarray(prior.mean + prior.sd * z)


def coordinate_of(prior: Prior, value: float) -> float:
    """Standard normal coordinate of a value."""
    if isinstance(prior, LogNormal):
        return float(np.log(value / prior.median) / prior.sigma)
    if isinstance(prior, Uniform):
        share = (value - prior.low) / (prior.high - prior.low)
        return float(ndtri(np.clip(share, 1e-6, 1.0 - 1e-6)))
    return float((value - prior.mean) / prior.sd)


@dataclass(frozen=True, eq=False)
class Bound:
    """Bound of the log density at a point.

    Attributes
    ----------
    value
        Bound of the log likelihood plus the log prior of the coordinates, constants included.
    slope
        With respect to the coordinates, shape ``(size,)``; zeros if it was not asked for.
    photons
        Photons that each state explains in each gate, shape ``(n_states, n_gates)``.
    occupied_s
        Expected time in each state, shape ``(n_states,)``.
    information
        Curvature if it were known which state each photon is from, that of the prior included,
        shape ``(size, size)``; identity if the slope was not asked for.
    """

    value: float
    slope: Array
    photons: Array
    occupied_s: Array
    information: Array


class StructuredPosterior:
    """Posterior of one structured hypothesis with given numbers of levels.

    Parameters
    ----------
    model
        The hypothesis.
    counts
        Shape ``(n_bins, n_gates)``.
    width_s
        Bin width in s.
    recorder
        What the instrument makes of light.
    own_priors
        As `instrument_priors` gives them.
    """

    def __init__(
        self,
        model: StructuredModel,
        counts: Array,
        width_s: float,
        recorder: Recorder,
        own_priors: Mapping[str, Prior],
    ) -> None:
        self.model, self.recorder, self.width_s = model, recorder, width_s
        self.counts = np.asarray(counts, dtype=np.float64)
        # light in no gate: what the mean logarithms of the decays lack to 1
        empty = np.zeros((len(self.counts), 1))
        self.likelihood = BinnedLikelihood(np.hstack([self.counts, empty]), width_s)
        self.priors: dict[str, Prior] = {**model.priors(), **own_priors}
        self.names = list(self.priors)
        self._n_deviations = model.n_emitters * (len(model.levels) - 1)
        self.size = len(self.names) + self._n_deviations
        self._bend = np.zeros(self.size)
        for place, prior in enumerate(self.priors.values()):
            self._bend[place] = prior.sigma if isinstance(prior, LogNormal) else 0.0

    def values(self, z: Array) -> dict[str, Array]:
        """Values of the parameters by name; `z` of shape ``(..., size)``."""
        return {
            name: value_of(self.priors[name], z[..., place])
            for place, name in enumerate(self.names)
        }

    def deviations(self, z: Array) -> Array:
        """Lifetimes of the configurations off their place, in units of the slack."""
        shape = (self.model.n_emitters, len(self.model.levels) - 1)
        return z[len(self.names) :].reshape(shape)

    def rates(self, z: Array) -> tuple[Array, Array, float]:
        """Counts per s and gate, transition rates per s, and concentration of the decays."""
        values = self.values(z)
        gates = gate_rate_per_s(self.model, self.recorder, values, self.deviations(z))
        rates = self.model.transition_rate_per_s(values)
        concentration = float(values["decay_concentration"])
        return np.maximum(gates, _LEAST_RATE_PER_S), rates, concentration

    @property
    def plain_likelihood(self) -> BinnedLikelihood:
        """Likelihood of the counts alone."""
        return BinnedLikelihood(self.counts, self.width_s)

    def first_photons(self, z: Array) -> Array:
        """Photons of a first bound: of each state as many, with the shape that its parts make.

        Parameters
        ----------
        z
            Coordinates, shape ``(size,)``.

        Returns
        -------
        ndarray, shape ``(n_states, n_gates)``
        """
        gates, _, _ = self.rates(z)
        shape = gates / gates.sum(axis=1, keepdims=True)
        return np.asarray(self.counts.sum() / len(gates) * shape)

    def bound(
        self, z: Array, photons: Array, *, with_slope: bool = True, with_photons: bool = True
    ) -> Bound:
        """Bound of the log density, for decays that hold given photons.

        Parameters
        ----------
        z
            Coordinates, shape ``(size,)``.
        photons
            Of each state and gate, shape ``(n_states, n_gates)``: those of a bound nearby.
        with_slope
            Work out the slope.
        with_photons
            Work out the photons: three times the work of the value alone.
        """
        seconds = np.zeros(self.model.n_states)
        nothing = Bound(-np.inf, np.zeros(self.size), photons, seconds, np.eye(self.size))
        if not (np.abs(z) < _MOST_Z).all():
            return nothing
        gates, rates, concentration = self.rates(z)
        if not (np.isfinite(gates).all() and np.isfinite(rates).all()):
            return nothing
        total = gates.sum(axis=1)
        centre = concentration * gates / total[:, None]
        a, whole = centre + photons, concentration + photons.sum(axis=1)
        mean_log = digamma(a) - digamma(whole)[:, None]
        share = np.exp(mean_log)
        missing = np.maximum(1.0 - share.sum(axis=1), 1e-12)
        inside = np.hstack([share, missing[:, None]])
        divergence = (
            gammaln(whole) - gammaln(concentration) + (gammaln(centre) - gammaln(a)).sum(axis=1)
            + (photons * mean_log).sum(axis=1)
        )  # fmt: skip
        constant = -divergence.sum() - 0.5 * float(z @ z) - 0.5 * self.size * np.log(2.0 * np.pi)
        if not (with_slope or with_photons):
            value = self.likelihood.value(total[:, None] * inside, rates) + constant
            return replace(nothing, value=float(value) if np.isfinite(value) else -np.inf)
        found = self.likelihood.gradient(total[:, None] * inside, rates)
        value = found.value + constant
        if not np.isfinite(value):
            return nothing
        seconds = found.occupied_s
        explained = (found.gate_rate[:, :-1] + seconds[:, None]) * total[:, None] * share
        explained = np.maximum(explained, 0.0)
        if not with_slope:
            return Bound(float(value), nothing.slope, explained, seconds, nothing.information)
        # by the rates: the total, and the mean logarithms, which the centre moves
        by_total = (found.gate_rate * inside).sum(axis=1)
        ghost = np.where(missing > 1e-12, found.gate_rate[:, -1], 0.0)
        by_log = (found.gate_rate[:, :-1] - ghost[:, None]) * total[:, None] * share - photons
        by_a = by_log * polygamma(1, a) + digamma(a)
        by_whole = -by_log.sum(axis=1) * polygamma(1, whole) - digamma(whole)
        by_centre = by_a - digamma(centre)
        # concentration = sum of the centre, so that it also moves the whole
        by_centre += (by_whole + digamma(concentration))[:, None]
        totals, centres, moves = self._jacobian(z)
        slope = totals @ by_total
        slope += np.tensordot(centres, by_centre, 2) + np.tensordot(moves, found.transition_rate, 2)
        # of a Poisson number of photons in each state, of their gates, and of switches
        n_photons = photons.sum(axis=1)
        worth = n_photons * (concentration + 1.0) / (n_photons + concentration) / concentration
        change = centres - centre / concentration * centres.sum(axis=2, keepdims=True)
        shapes = (change * np.sqrt(worth[:, None] / centre)).reshape(self.size, -1)
        switches = np.sqrt(seconds[:, None] / np.where(rates > 0.0, rates, np.inf))
        steps = (moves * switches).reshape(self.size, -1)
        levels = totals * np.sqrt(seconds / total)
        information = levels @ levels.T + shapes @ shapes.T + steps @ steps.T + np.eye(self.size)
        # what bends because rates are exponentials of coordinates; next to nothing at a mode
        information[np.diag_indices(self.size)] += self._bend * np.abs(slope - z)
        return Bound(float(value), slope - z, explained, seconds, information)

    def _jacobian(self, z: Array) -> tuple[Array, Array, Array]:
        """Derivatives of totals, centres of the decays and switches, the coordinates first."""
        changes: tuple[list[Array], ...] = ([], [], [])
        for step in _STEP * np.eye(self.size):
            ahead, behind = self._features(z + step), self._features(z - step)
            for kept, x, y in zip(changes, ahead, behind, strict=True):
                kept.append((x - y) / (2.0 * _STEP))
        totals, centres, moves = (np.array(kept) for kept in changes)
        return totals, centres, moves

    def _features(self, z: Array) -> tuple[Array, Array, Array]:
        gates, rates, concentration = self.rates(z)
        total = gates.sum(axis=1)
        return total, concentration * gates / total[:, None], rates

    def settled(self, z: Array, photons: Array | None = None) -> Bound:
        """Bound with slope, after the photons have been worked out anew until nothing changes.

        Parameters
        ----------
        z
            Coordinates, shape ``(size,)``.
        photons
            To begin with, shape ``(n_states, n_gates)``; `first_photons` if there are none.
        """
        photons, last = self.first_photons(z) if photons is None else photons, -np.inf
        for _ in range(_MOST_ROUNDS):
            found = self.bound(z, photons, with_slope=False)
            if not found.value > last + _SETTLED_NATS:
                break
            photons, last = found.photons, found.value
        return self.bound(z, photons)
