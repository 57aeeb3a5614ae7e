"""Draws of a cheap density of a dozen or two coordinates, and its integral: walkers, then a bridge.

Laplace's density overlaps too little with a curved ridge for importance sampling; walkers follow
the ridge, and with their draws the bridge needs no more than an overlap. Now and then they leap to
a draw of a mixture that follows where they have been: along a ridge alone they take too long.

References
----------
.. [1] ter Braak, C. J. F. A Markov chain Monte Carlo version of the genetic algorithm Differential
   Evolution. Stat. Comput. 16, 239 (2006), doi:10.1007/s11222-006-8769-1.
.. [2] Vrugt, J. A. et al. Accelerating Markov chain Monte Carlo simulation by differential
   evolution with self-adaptive randomized subspace sampling. Int. J. Nonlinear Sci. Numer. Simul.
   10, 273 (2009), doi:10.1515/IJNSNS.2009.10.3.273.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from pncbayes.inference.bridge import bridge

__all__ = ["Walked", "walk"]

Array = NDArray[np.float64]

_WALKERS, _THIN, _FREEDOM, _COMPONENTS, _EM_STEPS = 64, 4, 7.0, 4, 20
# Share of moves as long as the distance of two walkers: from one mode to another.
_LONG, _JITTER = 0.1, 1e-3
_SHARES = (0.3, 0.6, 1.0)
# Share of moves that leap to a draw of a density that follows the walkers, and draws it is made of.
_LEAPS, _FEW = 0.3, 3000


@dataclass(frozen=True, eq=False)
class Walked:
    """Draws of a density and what it adds up to.

    Attributes
    ----------
    points
        Draws, shape ``(n_draws, size)``.
    log_integral, error
        Of the density, and its standard error, in nats.
    effective
        Independent draws that they are worth.
    """

    points: Array
    log_integral: float
    error: float
    effective: float


def walk(
    log_density: Callable[[Array], Array],
    starts: Array,
    covariance: Array,
    n_sweeps: int,
    rng: np.random.Generator,
    *,
    n_proposed: int = 4000,
) -> Walked:
    """Sample a density and integrate it.

    Parameters
    ----------
    log_density
        Log density of points of shape ``(n, size)``; minus infinity where it is 0.
    starts
        Points of high density, shape ``(n_starts, size)``.
    covariance
        Its covariance, roughly, shape ``(size, size)``.
    n_sweeps
        Moves of each walker; the first third is thrown away.
    rng
        Source of random numbers.
    n_proposed
        Draws of the density that the bridge leads to.
    """
    size = covariance.shape[0]
    across = np.linalg.cholesky(covariance)
    first = starts[np.arange(_WALKERS) % len(starts)]
    at_start = log_density(first)
    points, values, reach = first.copy(), np.full(_WALKERS, -np.inf), 1.0
    while True:
        far = values < at_start - 2.0 * size - 20.0
        if not far.any():
            break
        reach = reach * 0.8 if reach > 0.01 else 0.0
        points[far] = first[far] + reach * rng.standard_normal((far.sum(), size)) @ across.T
        values[far] = log_density(points[far])
    halves = np.arange(_WALKERS // 2), np.arange(_WALKERS // 2, _WALKERS)
    kept: list[Array] = []
    leaps: _Mixture | None = None
    burn = n_sweeps // 3
    for sweep in range(n_sweeps):
        if sweep in (burn // 4, burn // 2, burn):
            # moves change some directions of the walkers' own scatter at a time
            scatter = np.cov(points.T).reshape(size, size)
            across = np.linalg.cholesky(scatter + 0.02 * np.diag(np.diag(scatter)))
            # and leap to draws of a density that follows where they were; after burn it is fixed
            seen = np.concatenate(kept[len(kept) // 2 :] or [points])
            leaps = _Mixture(seen, rng)
            kept = []
        for moved, others in (halves, halves[::-1]):
            if leaps is not None and rng.random() < _LEAPS:
                proposed = leaps.draw(moved.size, rng)
                found = log_density(proposed)
                gain = found - values[moved] + leaps.log_density(points[moved])
                gain -= leaps.log_density(proposed)
            else:
                proposed = points[moved] + _moves(points[others], across, rng)
                found = log_density(proposed)
                gain = found - values[moved]
            taken = np.log(rng.random(moved.size)) < gain
            points[moved[taken]], values[moved[taken]] = proposed[taken], found[taken]
        if sweep % _THIN == 0:
            kept.append(points.copy())
    chains = np.swapaxes(np.array(kept), 0, 1)
    return _integrate(log_density, chains, n_proposed, rng)


def _moves(others: Array, across: Array, rng: np.random.Generator) -> Array:
    """Differences of two walkers of the other half, in some of their directions."""
    n, size = others.shape
    first = rng.integers(n, size=n)
    second = (first + rng.integers(1, n, size=n)) % n
    apart = np.linalg.solve(across, (others[first] - others[second]).T).T
    along = rng.random((n, size)) < rng.choice(_SHARES, size=(n, 1))
    along[np.arange(n), rng.integers(size, size=n)] = True
    scale = 2.38 / np.sqrt(2.0 * along.sum(axis=1))
    scale = np.where(rng.random(n) < _LONG, 1.0, scale) * (1.0 + 0.1 * rng.standard_normal(n))
    steps = scale[:, None] * apart * along + _JITTER * rng.standard_normal((n, size))
    return np.asarray(steps @ across.T)


def _integrate(
    log_density: Callable[[Array], Array], chains: Array, n_proposed: int, rng: np.random.Generator
) -> Walked:
    """Bridge from one half of the walkers to a density made from the other half."""
    from arviz_stats.base.array import array_stats

    size = chains.shape[2]
    worth = [
        float(array_stats.ess(chains[:, :, place], 0, 1, "mean"))  # type: ignore[no-untyped-call]
        for place in range(size)
    ]
    effective = max(min(worth), 1.0)
    own = chains[1::2].reshape(-1, size)
    own = own[:: max(1, len(own) // n_proposed)]
    density = _Mixture(chains[::2].reshape(-1, size), rng)
    proposed = density.draw(n_proposed, rng)

    def ratio(points: Array) -> Array:
        return np.asarray(log_density(points) - density.log_density(points))

    log_integral, error = bridge(ratio(own), ratio(proposed), 0.5 * effective)
    return Walked(chains.reshape(-1, size), log_integral, error, effective)


class _Mixture:
    """A density that follows draws."""

    def __init__(self, points: Array, rng: np.random.Generator) -> None:
        few = points[:: max(1, len(points) // _FEW)]
        # what is known to a thousandth beside what is not known would look singular
        spread = few.std(axis=0)
        self._scale = np.where(spread > 0.0, spread, 1.0)
        self._parts, self._shares = _components(few / self._scale, rng)
        self._size = points.shape[1]

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Return draws, shape ``(n, size)``."""
        numbers = rng.multinomial(n, self._shares)
        drawn = np.vstack([
            part.rvs(number, random_state=rng).reshape(number, self._size)
            for part, number in zip(self._parts, numbers, strict=True) if number
        ])  # fmt: skip
        # each is offered to one walker: in the order of the parts, one walker would always get the
        # same part, and not a draw of the mixture
        return np.asarray(rng.permutation(drawn)) * self._scale

    def log_density(self, points: Array) -> Array:
        """Return its log at points of shape ``(n, size)``."""
        logs = [
            np.log(share) + np.atleast_1d(part.logpdf(points / self._scale))
            for share, part in zip(self._shares, self._parts, strict=True)
        ]
        return np.asarray(logsumexp(logs, axis=0) - np.log(self._scale).sum())


def _components(points: Array, rng: np.random.Generator) -> tuple[list[Any], Array]:
    """A few densities whose mixture follows the draws: expectation and maximisation."""
    size = points.shape[1]
    whole = np.cov(points.T).reshape(size, size)
    whole += 0.01 * np.diag(np.diag(whole)) + 1e-6 * np.eye(size)
    centres = points[rng.choice(len(points), size=_COMPONENTS, replace=False)]
    spreads = [whole] * _COMPONENTS
    shares = np.full(_COMPONENTS, 1.0 / _COMPONENTS)
    for _ in range(_EM_STEPS):
        logs = [
            np.log(share) + stats.multivariate_normal(centre, spread).logpdf(points)
            for share, centre, spread in zip(shares, centres, spreads, strict=True)
        ]
        belongs = np.exp(np.array(logs) - logsumexp(logs, axis=0))
        numbers = belongs.sum(axis=1) + 1e-9
        shares = np.maximum(numbers / len(points), 0.02)
        shares /= shares.sum()
        centres = belongs @ points / numbers[:, None]
        for k in range(_COMPONENTS):
            off = points - centres[k]
            # draws of a chain are worth a tenth of what they are
            trust = 0.1 * numbers[k] / (0.1 * numbers[k] + size)
            own = (belongs[k][:, None] * off).T @ off / numbers[k]
            spreads[k] = trust * own + (1.0 - trust) * whole
    densities = [
        stats.multivariate_t(centre, spread, df=_FREEDOM)
        for centre, spread in zip(centres, spreads, strict=True)
    ]
    return densities, shares
