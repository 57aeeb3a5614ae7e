r"""Priors of the emission levels as PyMC distributions, with exact draws.

The brightest level is log-normal and the others uniform below it. Without delays the levels repel
each other: the density of the relative levels :math:`r_i`, with the brightest at 1, is
proportional to :math:`\prod_{i<j} |r_i - r_j|^\beta`. That is a Jacobi ensemble: draws are the
eigenvalues of a random tridiagonal matrix [1]_, and the normalisation is Selberg's integral.

References
----------
.. [1] Edelman, A.; Sutton, B. D. The beta-Jacobi matrix model, the CS decomposition, and
   generalized singular value problems. Found. Comput. Math. 8, 259 (2008),
   doi:10.1007/s10208-006-0215-9.
"""

# PyTensor is typed in part.
# mypy: allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.logprob.transforms import Transform
from pytensor.tensor.sort import argsort, sort
from scipy.special import gammaln

from pncbayes.inference.posterior import log_selberg
from pncbayes.physics.modelfile import LogNormal

__all__ = [
    "DecreasingShares",
    "Logarithms",
    "brightest_rate",
    "exchangeable_rates",
    "relative_levels",
]

Array = NDArray[np.float64]


class DecreasingShares(Transform):  # type: ignore[misc]
    """Numbers that decrease from below 1 to above 0: the log odds of each over the one before."""

    name = "decreasing_shares"
    ndim_supp = 1

    def backward(self, value: Any, *inputs: Any) -> Any:
        """Levels from log odds."""
        return pt.exp(-pt.cumsum(pt.softplus(-value), axis=-1))

    def forward(self, value: Any, *inputs: Any) -> Any:
        """Log odds from levels."""
        before = pt.concatenate([pt.ones_like(value[..., :1]), value[..., :-1]], axis=-1)
        return pt.log(value) - pt.log(before - value)

    def log_jac_det(self, value: Any, *inputs: Any) -> Any:
        """Logarithm of the determinant of the derivatives of `backward`."""
        logs = -pt.cumsum(pt.softplus(-value), axis=-1)
        return pt.sum(logs - pt.softplus(value), axis=-1)


class Logarithms(Transform):  # type: ignore[misc]
    """Positive numbers that belong together: the logarithm of each."""

    name = "logarithms"
    ndim_supp = 1

    def backward(self, value: Any, *inputs: Any) -> Any:
        """Numbers from logarithms."""
        return pt.exp(value)

    def forward(self, value: Any, *inputs: Any) -> Any:
        """Logarithms from numbers."""
        return pt.log(value)

    def log_jac_det(self, value: Any, *inputs: Any) -> Any:
        """Logarithm of the determinant of the derivatives of `backward`."""
        return pt.sum(value, axis=-1)


def _repelled(n_levels: int, repulsion: float) -> Any:
    """Draw levels below 1, from bright to dim, shape ``(n_levels,)``."""
    if repulsion == 0.0 or n_levels == 1:
        return -sort(-pm.Beta.dist(1.0, 1.0 + repulsion, size=n_levels))
    half = 0.5 * repulsion
    outer = np.arange(n_levels - 1, -1, -1)
    inner = outer[:-1]
    cosine = pm.Beta.dist(1.0 + half * outer, 1.0 + repulsion + half * outer, size=n_levels)
    sine = pm.Beta.dist(half * inner, 2.0 + repulsion - half + half * inner, size=n_levels - 1)
    diagonal = cosine * pt.concatenate([pt.ones(1), 1.0 - sine])
    above = (1.0 - cosine[:-1]) * sine
    # B B^T of the bidiagonal matrix B that has these squares
    beside = pt.diag(pt.sqrt(above * diagonal[1:]), 1)
    main = pt.diag(diagonal + pt.concatenate([above, pt.zeros(1)]))
    values: Any = pt.linalg.eigvalsh(main + beside + beside.T)
    return values[::-1]


def _log_repulsion(levels: Any, n_levels: int, repulsion: float) -> Any:
    """Log of the normalised factor by which levels repel, the brightest of them at 1."""
    if repulsion == 0.0:
        return pt.zeros(())
    first, second = np.triu_indices(n_levels, 1)
    # levels that coincide have density zero, but their gradient must not be NaN
    apart = pt.maximum(pt.abs(levels[first] - levels[second]), 1e-12)
    return repulsion * pt.log(apart).sum() - log_selberg(n_levels - 1, repulsion)


def brightest_rate(name: str, prior: LogNormal, *, start: float | None = None) -> Any:
    """Rate of the brightest level per s, log-normal; in the model on top.

    Parameters
    ----------
    name
        Name of the variable.
    prior
        Its prior.
    start
        Where samplers start; the median of the prior if not given.
    """
    # PyMC cannot condition a model that has initial values, so they hide in the distribution
    at = prior.median if start is None else start
    return pm.CustomDist(
        name,
        np.log(prior.median),
        prior.sigma,
        dist=lambda mu, sigma, size: pm.LogNormal.dist(mu, sigma, size=size),
        support_point=lambda rv, size, mu, sigma: pt.as_tensor(at),
        class_name="BrightestRate",
        default_transform=pm.distributions.transforms.log,
    )


def relative_levels(
    name: str, n_levels: int, repulsion: float, *, dims: str, start: Array | None = None
) -> Any:
    """Levels as shares of the brightest, from bright to dim, in the model on top.

    Parameters
    ----------
    name
        Name of the variable.
    n_levels
        Number of levels besides the brightest.
    repulsion
        Exponent of their distances; 0 leaves them uniform.
    dims
        Name of its dimension.
    start
        Where samplers start; evenly spread if not given.
    """
    at = np.linspace(1.0, 0.0, n_levels + 2)[1:-1] if start is None else start

    def draw(size: Any) -> Any:
        return _repelled(n_levels, repulsion)

    def logp(value: Any) -> Any:
        levels = pt.concatenate([pt.ones(1), value])
        density = float(gammaln(n_levels + 1)) + _log_repulsion(levels, n_levels + 1, repulsion)
        decreasing = pt.all(levels[1:] < levels[:-1]) & (levels[-1] > 0.0)
        return pt.switch(decreasing, density, -np.inf)

    return pm.CustomDist(
        name,
        dist=draw,
        logp=logp,
        support_point=lambda rv, size: pt.as_tensor(at),
        ndim_supp=1,
        class_name="RelativeLevels",
        default_transform=DecreasingShares(),
        dims=dims,
    )


def exchangeable_rates(
    name: str,
    brightest: LogNormal,
    n_states: int,
    repulsion: float,
    *,
    dims: str,
    start: Array | None = None,
) -> Any:
    """Rates of all levels per s, in no order: any may be the brightest; in the model on top.

    Parameters
    ----------
    name
        Name of the variable.
    brightest
        Prior of the brightest level, counts per s.
    n_states
        Number of levels.
    repulsion
        Exponent of their distances as shares of the brightest; 0 leaves them uniform.
    dims
        Name of its dimension.
    start
        Where samplers start; evenly spread below the prior's median if not given.
    """
    spread = brightest.median * np.linspace(1.0, 0.0, n_states + 1)[:-1]
    at = spread if start is None else start
    prior = {"mu": np.log(brightest.median), "sigma": brightest.sigma}

    def draw(size: Any) -> Any:
        top = pm.LogNormal.dist(**prior)
        levels = pt.concatenate([pt.ones(1), _repelled(n_states - 1, repulsion)])
        return top * levels[argsort(pm.Uniform.dist(size=n_states))]

    def logp(value: Any) -> Any:
        top = pt.max(value)
        density = pm.logp(pm.LogNormal.dist(**prior), top) - (n_states - 1) * pt.log(top)
        density += _log_repulsion(value / top, n_states, repulsion) - np.log(n_states)
        return pt.switch(pt.all(value > 0.0), density, -np.inf)

    return pm.CustomDist(
        name,
        dist=draw,
        logp=logp,
        support_point=lambda rv, size: pt.as_tensor(at),
        ndim_supp=1,
        class_name="ExchangeableRates",
        default_transform=Logarithms(),
        dims=dims,
    )
