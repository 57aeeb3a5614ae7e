"""What is found out about one number of states: its evidence, and draws behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from pncbayes.inference.gibbs import PosteriorDraws
from pncbayes.inference.optimum import Mode
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.unvisited import Base

__all__ = ["Evidence"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Evidence of one number of states.

    Attributes
    ----------
    n_states
        Number of states.
    log_evidence
        The figure to use: by sampling where that was run, else Laplace.
    laplace, importance
        The two methods; `importance` is NaN where it was not run. To Laplace's approximation
        around the modes in which all states are visited is added what is known of the others.
    error
        Standard error of `log_evidence`; for Laplace, a rough bound.
    pareto_k, effective_draws
        Quality of the importance weights; by `gibbs`, NaN, and what its chains are worth.
    draws
        Equally weighted posterior draws in log coordinates, shape ``(n_draws, size)``; empty
        where importance sampling was not run.
    mode
        The best mode.
    method
        ``"importance"``, ``"bridge"``, ``"gibbs"``, ``"rough"`` (weights not reliable) or
        ``"laplace"``.
    base
        What the model with one state more builds on.
    chains
        Draws of a Gibbs sampler, where one was run.
    """

    n_states: int
    log_evidence: float
    laplace: float
    importance: float
    error: float
    pareto_k: float
    effective_draws: float
    draws: Array
    mode: Mode
    method: str
    base: Base | None = None
    chains: PosteriorDraws | None = None

    @classmethod
    def from_draws(
        cls,
        posterior: Posterior,
        mode: Mode,
        points: Array,
        weights: Array | None,
        log_mean: float,
        error: float,
        effective_draws: float,
        method: str,
        laplace: float,
        rng: np.random.Generator,
        n_kept: int,
        chains: PosteriorDraws | None = None,
    ) -> Evidence:
        """Make one of draws and the integral over ordered states, as chains give them.

        Parameters
        ----------
        posterior, mode
            The density and its best mode.
        points, weights
            Draws in log coordinates, shape ``(n, size)``, and their weights; None if equal.
        log_mean, error
            Log of the integral over ordered states, and its standard error.
        effective_draws, method, laplace, chains
            As the attributes.
        rng
            Picks the draws to keep.
        n_kept
            How many.
        """
        size = len(points)
        if weights is None:
            weights = np.full(size, 1.0 / size)
            keep = rng.choice(size, size=n_kept, replace=size < n_kept)
        else:
            keep = rng.choice(size, size=n_kept, p=weights)
        base = Base(posterior, mode, points.copy(), weights, log_mean, error)
        log_evidence = log_mean + float(gammaln(posterior.n_states + 1))
        return cls(
            posterior.n_states, log_evidence, laplace, np.nan, error, np.nan, effective_draws,
            points[keep], mode, method, base, chains,
        )  # fmt: skip
