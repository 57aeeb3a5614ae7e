r"""A structured posterior in which it is settled which photons are from which state.

With the photons N of each state and gate, the time T in each state and the number n of switches of
each kind held at what they are expected to be at one point, the log density of everything else is

.. math:: \sum_s \Big[N_s \ln I_s - T_s I_s + \ln \mathrm{DirMult}(N_s \mid \kappa p_s)\Big]
          + \sum_k \big[n_k \ln k - E_k k\big] + \ln \mathrm{prior},

with the rates I of counts and the times E in which a switch of kind k can happen. It takes a
hundredth of the time of the full bound, follows it within a fraction of a nat wherever states are
told apart, and the rates of switching are independent in it, of all else and of each other.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from pncbayes.inference.alike import alike_pairs
from pncbayes.inference.straight import Straight
from pncbayes.inference.structured import Bound, value_of
from pncbayes.inference.structured_compiled import CompiledPosterior
from pncbayes.physics.structured_kernels import fill_gate_rates, fill_values

__all__ = ["Assigned"]

Array = NDArray[np.float64]

# Coordinates stay where probabilities can be told from 0 and 1.
_EDGE, _LEAST_RATE_PER_S = 7.4, 1e-9
_NEVER = -1e30
_STEP, _WIDE_STEP, _HESSIAN_STEP = 1e-4, 1e-2, 0.02
# Coordinates between which the density of one rate of switching is looked for, nats below its top
# at which it ends, and points at which it is tabulated.
_GLANCE, _ENDS, _N_TABLE = np.linspace(-7.0, 7.0, 1401), 45.0, 2001
# Least share of the information of complete data that the data are taken to have.
_LEAST_SHARE = 0.02
# What shapes the decay of the exciton, or adds to it, without a change of brightness.
_SHAPE = (
    "log_lifetime_spread", "fast_amplitude", "scatter_share", "afterpulsing_share",
    "biexciton_share", "biexciton_lifetime_ns", "biexciton_power", "decay_concentration",
    "response_shift", "response_width", "after_biexciton_share",
)  # fmt: skip


@njit(cache=True, error_model="numpy")
def _log_light(  # type: ignore[no-untyped-def]
    points, n_values, concentration_place, priors, structure, instrument, photons, occupied_s
):
    """Log density of light of each point without the prior; minus infinity beyond the edge."""
    n_states, n_gates = photons.shape
    values = np.empty(n_values)
    gates = np.empty((n_states, n_gates))
    found = np.empty(points.shape[0])
    every = np.arange(n_states)
    for k in range(points.shape[0]):
        z = points[k]
        if not np.abs(z).max() < _EDGE:
            found[k] = -np.inf
            continue
        fill_values(z, priors, values)
        fill_gate_rates(values, z[n_values:], structure, instrument, every, gates)
        concentration = values[concentration_place]
        value = 0.0
        for s in range(n_states):
            total, n = 0.0, 0.0
            for gate in range(n_gates):
                gates[s, gate] = max(gates[s, gate], _LEAST_RATE_PER_S)
                total += gates[s, gate]
                n += photons[s, gate]
            value += n * math.log(total) - occupied_s[s] * total
            value += math.lgamma(concentration) - math.lgamma(concentration + n)
            for gate in range(n_gates):
                if photons[s, gate] > 0.0:
                    centre = concentration * gates[s, gate] / total
                    value += math.lgamma(centre + photons[s, gate]) - math.lgamma(centre)
        found[k] = value if math.isfinite(value) else -np.inf
    return found


class Assigned:
    """Log density of all coordinates, given which photons are from which state.

    Parameters
    ----------
    posterior
        The full posterior.
    z
        Point at which photons are assigned, shape ``(size,)``.
    bound
        Its bound there, with slope. The density agrees with it at `z`.
    """

    def __init__(self, posterior: CompiledPosterior, z: Array, bound: Bound) -> None:
        self.posterior = posterior
        self.photons, self.occupied_s = bound.photons, bound.occupied_s
        self._layout = posterior.layout
        names = posterior.names
        is_rate = np.zeros(posterior.size, dtype=bool)
        is_rate[posterior.rate_places] = True
        self.of_rates, self.of_light = np.flatnonzero(is_rate), np.flatnonzero(~is_rate)
        self.shape = np.array([
            place for place in self.of_light
            if place >= len(names) or names[place].endswith(_SHAPE)
        ])  # fmt: skip
        counted = [self._switches(int(place), z, bound) for place in self.of_rates]
        self.n_switches = np.array([n for n, _ in counted])
        self.exposed_s = np.array([seconds for _, seconds in counted])
        self._of_z = z.copy()
        self._straight = Straight(
            posterior, self._layout, z, bound.occupied_s, np.setdiff1d(self.of_light, self.shape)
        )
        # what is alike is told apart by its light
        self._in_order = [pair for pair in alike_pairs(posterior) if not is_rate[list(pair)].any()]
        self._share = np.ones(self.of_rates.size)
        self._tabulate()
        self._offset = 0.0
        self._offset = bound.value - float(self.value(z[None])[0])

    def _switches(self, place: int, z: Array, bound: Bound) -> tuple[float, float]:
        """Expected switches of one kind, and the time in which one could have happened."""
        posterior, step = self.posterior, np.zeros(self.posterior.size)
        step[place] = _STEP
        prior = posterior.priors[posterior.names[place]]
        here, low, high = value_of(prior, z[place] + _STEP * np.array([0.0, -1.0, 1.0]))
        _, more, _ = posterior.rates(z + step)
        _, less, _ = posterior.rates(z - step)
        exposed_s = float(((more - less).sum(axis=1) @ bound.occupied_s) / (high - low))
        per_z = (high - low) / (2.0 * _STEP)
        n = here * ((bound.slope[place] + z[place]) / per_z + exposed_s)
        return max(float(n), 0.0), exposed_s

    def weaken(self) -> None:
        """Give the rates of switching no more information than the full posterior has.

        Where states are hard to tell apart, a switch is less sure than one that is seen.
        """
        before = float(self.value(self._of_z[None])[0])
        for number, place in enumerate(self.of_rates):
            step = np.zeros(self._of_z.size)
            step[place] = _WIDE_STEP
            full = [
                self.posterior.bound(z, self.photons, with_slope=False, with_photons=False).value
                for z in (self._of_z - step, self._of_z, self._of_z + step)
            ]
            own = self._log_of_rate(number, self._of_z[place] + _WIDE_STEP * np.arange(-1.0, 2.0))
            wanted = -float(np.diff(full, 2)[0]) / _WIDE_STEP**2 - 1.0
            share = wanted / max(-float(np.diff(own, 2)[0]) / _WIDE_STEP**2, 1e-9)
            self._share[number] = np.clip(share, _LEAST_SHARE, 1.0)
        self._tabulate()
        self._offset += before - float(self.value(self._of_z[None])[0])

    def _log_of_rate(self, number: int, z: Array) -> Array:
        """What switches say of a rate, without the prior."""
        name = self.posterior.names[self.of_rates[number]]
        rate = value_of(self.posterior.priors[name], z)
        own = self.n_switches[number] * np.log(np.maximum(rate, 1e-300))
        return np.asarray(self._share[number] * (own - self.exposed_s[number] * rate))

    def _tabulate(self) -> None:
        """Tabulate the density of each rate where it is: it may be as narrow as a hundredth."""
        self._tables = []
        for number in range(self.of_rates.size):
            glance = self._log_of_rate(number, _GLANCE) - 0.5 * _GLANCE**2
            counts = np.flatnonzero(glance > glance.max() - _ENDS)
            low, high = max(counts[0] - 1, 0), min(counts[-1] + 1, _GLANCE.size - 1)
            at = np.linspace(_GLANCE[low], _GLANCE[high], _N_TABLE)
            self._tables.append((at, self._log_of_rate(number, at) - 0.5 * at**2))

    @property
    def log_integral_of_rates(self) -> float:
        """Log of the integral over the coordinates of all rates of switching."""
        return float(sum(logsumexp(logs) + np.log(at[1] - at[0]) for at, logs in self._tables))

    def draw_rates(self, n: int, rng: np.random.Generator) -> Array:
        """Draws of the coordinates of the rates of switching, shape ``(n, n_rates)``."""
        columns = []
        for at, logs in self._tables:
            # each point stands for the cell around it
            below = np.concatenate([[0.0], np.cumsum(np.exp(logs - logs.max()))])
            half = 0.5 * (at[1] - at[0])
            edges = np.append(at - half, at[-1] + half)
            columns.append(np.interp(rng.random(n), below / below[-1], edges))
        return np.stack(columns, axis=1) if columns else np.empty((n, 0))

    def light(self, points: Array, *, in_order: bool = True) -> Array:
        """Log density of brightness and decays, up to a constant.

        Parameters
        ----------
        points
            Coordinates, shape ``(n, size)``.
        in_order
            Zero density where emitters, or parts, that are alike are not in their order.

        Returns
        -------
        array, shape ``(n,)``
            Minus infinity beyond the edge of the coordinates.
        """
        names = self.posterior.names
        found = _log_light(
            np.ascontiguousarray(points), len(names), names.index("decay_concentration"),
            self._layout.priors, self._layout.structure, self._layout.instrument,
            self.photons, self.occupied_s,
        )  # fmt: skip
        own = points[:, self.of_light]
        found += self._offset - 0.5 * (own**2).sum(axis=1)
        for first, second in self._in_order if in_order else ():
            found[points[:, first] < points[:, second]] = -np.inf
        return np.asarray(found)

    def from_straight(self, own: Array) -> Array:
        """Points of straight coordinates of light, shape ``(n, n_light)``; rates as at `z`."""
        points = np.tile(self._of_z, (len(own), 1))
        points[:, self.of_light] = own
        return self._straight.bent(points)

    def to_straight(self, points: Array) -> Array:
        """Straight coordinates of light of points of shape ``(n, size)``."""
        return np.asarray(self._straight.unbent(points)[:, self.of_light])

    def curvature(self) -> tuple[Array, float]:
        """Covariance of light at `z` in straight coordinates, and the log of its determinant."""
        own, step = self.of_light.size, _HESSIAN_STEP
        at = self._of_z[self.of_light]
        pairs = np.triu_indices(own)
        one, two = step * np.eye(own)[pairs[0]], step * np.eye(own)[pairs[1]]
        points = np.vstack([at + one + two, at + one - two, at - one + two, at - one - two])
        # an edge where two emitters change names is no curvature
        values = self.light(self.from_straight(points), in_order=False)
        values = np.maximum(values, _NEVER).reshape(4, -1)
        hessian = np.zeros((own, own))
        hessian[pairs] = -(values[0] - values[1] - values[2] + values[3]) / (4.0 * step**2)
        hessian = hessian + np.triu(hessian, 1).T
        eigenvalues, vectors = np.linalg.eigh(np.clip(hessian, -1e12, 1e12))
        # nothing is wider than the prior, whose curvature is 1; half of it for tails
        eigenvalues = np.maximum(eigenvalues, 0.5)
        covariance = (vectors / eigenvalues) @ vectors.T
        return np.asarray(covariance), -float(np.log(eigenvalues).sum())

    def value(self, points: Array) -> Array:
        """Log density of points of shape ``(n, size)``; that of the full bound at `z`."""
        found = self.light(points)
        for number, place in enumerate(self.of_rates):
            at = points[:, place]
            found += self._log_of_rate(number, at) - 0.5 * at**2
        return found

    def climb(self, z: Array, n_steps: int) -> tuple[Array, float]:
        """Best point near a start, rates of switching as at `z`, and its log density of light."""
        covariance, _ = self.curvature()
        across = np.linalg.cholesky(covariance)
        start = self.to_straight(z[None])[0]
        steps = _STEP * across.T

        def at(x: Array) -> Array:
            return np.asarray(start + across @ x)

        def cost(x: Array) -> tuple[float, Array]:
            here = at(x)
            found = self.light(self.from_straight(np.vstack([here + steps, here - steps, here])))
            found = np.maximum(found, _NEVER)
            slope = (found[: start.size] - found[start.size : -1]) / (2.0 * _STEP)
            return -float(found[-1]), -slope

        found = minimize(
            cost, np.zeros(start.size), jac=True, method="BFGS",
            options={"maxiter": n_steps, "gtol": 0.03},
        )  # fmt: skip
        return self.from_straight(at(found.x)[None])[0], -float(found.fun)

    def other_shapes(self, z: Array, n: int, n_kept: int, rng: np.random.Generator) -> list[Array]:
        """Points with other explanations of the same decays, the best of `n` draws of the prior.

        A fast part of a decay may be the exciton's own, or of biexcitons, or scattered light:
        modes of their own that a climb does not leave.
        """
        points = np.tile(z, (n, 1))
        points[:, self.shape] = rng.standard_normal((n, self.shape.size))
        best = np.argsort(self.light(points))[::-1][:n_kept]
        return list(points[best])
