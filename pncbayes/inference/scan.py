"""Evidence for each number of states."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.evidence import MARGIN, Evidence, estimate_evidence, quick_log_evidence
from pncbayes.inference.optimum import Mode, find_modes
from pncbayes.inference.unvisited import Base
from pncbayes.physics.modelfile import ModelFile

__all__ = ["probabilities", "scan_n_states"]

Array = NDArray[np.float64]

# The quick figure is low by up to this; numbers of states further below the best are not sampled.
_QUICK_MARGIN = 25.0
# Nats below the best at which fewer states still do as the base of more.
_GOOD_BASE = 3.0


def scan_n_states(
    likelihood: BinnedLikelihood,
    counts: Array,
    model: ModelFile,
    n_states: Sequence[int],
    rng: np.random.Generator,
    *,
    n_draws: int | None = None,
    on_step: Callable[[str], None] | None = None,
) -> list[Evidence]:
    """Find the modes of every number of states, and the evidence of those that matter.

    Parameters
    ----------
    likelihood
        Likelihood of the trace.
    counts
        Its data, shape ``(n_bins, n_gates)``.
    model
        Priors.
    n_states
        Numbers of states, ascending.
    rng
        Source of starts and draws.
    n_draws
        Importance draws of a round; 400, or 1000 where bins share rows and a draw costs little.
    on_step
        Called with a word on each step, for a progress bar.

    Returns
    -------
    list of Evidence
        In the order of `n_states`.
    """
    tell = on_step or (lambda text: None)
    if n_draws is None:
        n_draws = 1000 if likelihood.n_gates == 1 else 400
    posteriors = [working_posterior(likelihood, model, number) for number in n_states]
    modes: list[list[Mode]] = []
    figures: list[float] = []
    simpler = None
    for number, posterior in zip(n_states, posteriors, strict=True):
        tell(f"{number} state{'s' * (number > 1)}")
        # one climb is enough where one state fewer was already far too many
        hopeless = bool(figures) and figures[-1] < max(figures) - _QUICK_MARGIN
        climbs = 1 if hopeless else (2 if likelihood.n_gates > 1 else 3)
        found = find_modes(posterior, counts, likelihood.width_s, simpler, rng, n_climbs=climbs)
        simpler = posterior.unpack(found[0].vector)
        figures.append(quick_log_evidence(posterior, found[0]))
        modes.append(found)
    quick = np.array(figures)
    results: dict[int, Evidence] = {}
    best = -np.inf
    base: Base | None = None
    for index in np.argsort(-quick):
        tell(f"evidence of {n_states[index]}")
        if quick[index] < best - _QUICK_MARGIN:
            results[index] = Evidence(
                n_states[index], float(quick[index]), float(quick[index]), np.nan, _QUICK_MARGIN,
                np.nan, 0.0, np.empty((0, posteriors[index].size)), modes[index][0], "quick",
            )  # fmt: skip
            continue
        results[index] = estimate_evidence(
            posteriors[index], modes[index], rng, n_draws=n_draws, worth=best - MARGIN, base=base
        )
        one = results[index]
        # the fewest states that are about as good as any: the others are surplus
        if one.base is not None and (
            base is None
            or (one.n_states < base.posterior.n_states and one.log_evidence > best - _GOOD_BASE)
        ):
            base = one.base
        best = max(best, results[index].log_evidence)
    return [results[index] for index in range(len(n_states))]


def probabilities(evidences: Sequence[Evidence]) -> Array:
    """P(number of states) under a uniform prior, shape ``(len(evidences),)``."""
    log_evidence = np.array([evidence.log_evidence for evidence in evidences])
    weights = np.exp(log_evidence - log_evidence.max())
    normalised: Array = weights / weights.sum()
    return normalised
