"""Evidence for each number of states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.evidence import MARGIN, estimate_evidence
from pncbayes.inference.found_evidence import Evidence
from pncbayes.inference.laplace import quick_log_evidence
from pncbayes.inference.optimum import Mode, distinct_modes, find_modes
from pncbayes.inference.unvisited import NewState
from pncbayes.physics.modelfile import ModelFile

__all__ = ["probabilities", "scan_n_states"]

Array = NDArray[np.float64]

# The quick figure is low by up to this; numbers of states further below the best are not sampled.
_QUICK_MARGIN = 25.0
_FIT_MARGIN = 30.0
# Starts to look at where two and three states fewer, say, were already far too many.
_GLANCE = 4
# Nats below the best at which draws with one state fewer still do as the base of more.
_GOOD_BASE = 8.0
# Nats by which a mode found with the evidence is better, and worth building on.
_BETTER = 1.0


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
    climbs = 2 if likelihood.n_gates > 1 else 3
    posteriors = [working_posterior(likelihood, model, number) for number in n_states]
    modes: list[list[Mode]] = []
    figures: list[float] = []
    simpler = None
    for number, posterior in zip(n_states, posteriors, strict=True):
        tell(f"{number} state{'s' * (number > 1)}")
        # a look is enough where one state fewer was already far too many
        too_many = [figure < max(figures) - _QUICK_MARGIN for figure in figures[-2:]]
        own = find_modes(
            posterior, counts, likelihood.width_s, simpler, rng,
            n_climbs=climbs, thorough=not any(too_many[-1:]),
            most_starts=_GLANCE if too_many == [True, True] else None,
        )  # fmt: skip
        simpler = posterior.unpack(own[0].vector)
        figures.append(quick_log_evidence(posterior, own[0]))
        modes.append(own)
    quick = np.array(figures)
    results: list[Evidence] = []
    fitted = np.array([found[0].parts.value for found in modes])
    hopeless = _hopeless(quick, fitted)
    # modes of one state more were looked for from these
    built_on = [found[0].log_density for found in modes]
    best = -np.inf
    for index, number in enumerate(n_states):
        tell(f"evidence of {number}")
        posterior, fewer = posteriors[index], results[-1] if results else None
        # one state fewer that is far worse is nothing to build on
        base = fewer.base if fewer is not None and fewer.n_states == number - 1 else None
        if base is not None and fewer is not None and fewer.log_evidence < best - _GOOD_BASE:
            base = None
        figure = float(quick[index])
        if hopeless[index] and base is not None and not posterior.has_excess:
            figure = max(figure, NewState(base, posterior).log_evidence_if_unvisited(rng))
        # with many gates the quick figure of a surplus state is low by any number of nats
        lowest = max(best, float(quick.max())) - MARGIN
        counts_anyway = likelihood.n_gates > 1 and figure > lowest
        if hopeless[index] and not counts_anyway:
            found = Evidence(
                number, figure, float(quick[index]), np.nan, _QUICK_MARGIN,
                np.nan, 0.0, np.empty((0, posterior.size)), modes[index][0], "quick",
            )  # fmt: skip
        else:
            found = estimate_evidence(
                posterior, modes[index], rng, n_draws=n_draws, worth=best - MARGIN, base=base,
                contested=bool((~hopeless).sum() > 1),
            )  # fmt: skip
        if not len(found.draws) and base is None and len(results) > 1:
            # one more state that is hardly visited costs as much again
            step = results[-1].log_evidence - results[-2].log_evidence
            if step < 0.0 or likelihood.n_gates > 1:
                figure = max(found.log_evidence, results[-1].log_evidence + min(step, 0.0))
                found = replace(found, log_evidence=figure)
        results.append(found)
        best = max(best, found.log_evidence)
        more = index + 1
        top = max(found.mode, modes[index][0], key=lambda mode: mode.log_density)
        if more < len(posteriors) and top.log_density > built_on[index] + _BETTER:
            # what was found on the way may lead on
            point = posterior.unpack(top.vector)
            own = find_modes(
                posteriors[more], counts, likelihood.width_s, point, rng, n_starts=0,
                n_climbs=climbs,
            )  # fmt: skip
            modes[more] = distinct_modes(posteriors[more], own + modes[more])
            quick[index] = quick_log_evidence(posterior, top)
            quick[more] = quick_log_evidence(posteriors[more], modes[more][0])
            fitted[index], fitted[more] = top.parts.value, modes[more][0].parts.value
            hopeless = _hopeless(quick, fitted)
    return results


def _hopeless(quick: Array, fitted: Array) -> NDArray[np.bool_]:
    """Numbers of states not worth integrating, from quick figures and log-likelihoods."""
    far = np.zeros(quick.size, dtype=bool)
    for index in range(quick.size):
        below = quick > quick[index] + _QUICK_MARGIN
        # the figure overrates states that are hardly visited: against more states it takes a gap
        # of the likelihood, too
        below[index:] &= fitted[index:] > fitted[index] + _FIT_MARGIN
        far[index] = below.any()
    return far


def probabilities(evidences: Sequence[Evidence]) -> Array:
    """P(number of states) under a uniform prior, shape ``(len(evidences),)``."""
    log_evidence = np.array([evidence.log_evidence for evidence in evidences])
    weights = np.exp(log_evidence - log_evidence.max())
    normalised: Array = weights / weights.sum()
    return normalised
