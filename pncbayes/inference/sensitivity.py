"""P(number of states) under wider and narrower priors, by reweighting the draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.found_evidence import Evidence
from pncbayes.physics.modelfile import ModelFile

__all__ = ["reweighted_probabilities"]


def reweighted_probabilities(
    evidences: Sequence[Evidence],
    likelihood: BinnedLikelihood,
    model: ModelFile,
    factor: float,
) -> NDArray[np.float64]:
    """P(number of states) with every log-normal prior wider by a factor.

    The evidence under another prior is the evidence times the posterior mean of the ratio of the
    two priors, so no likelihood is evaluated.

    Parameters
    ----------
    evidences
        Evidence and draws of each number of states.
    likelihood, model
        As in the fit.
    factor
        2 for twice as wide, 0.5 for half as wide.

    Returns
    -------
    ndarray
        Shape ``(len(evidences),)``.
    """
    other = model.widened(factor)
    logs = []
    for evidence in evidences:
        here = working_posterior(likelihood, model, evidence.n_states)
        there = working_posterior(likelihood, other, evidence.n_states)
        points = evidence.draws if len(evidence.draws) else evidence.mode.vector[None]
        ratio = np.array([there.log_prior(v)[0] - here.log_prior(v)[0] for v in points])
        logs.append(evidence.log_evidence + logsumexp(ratio) - np.log(len(ratio)))
    weights = np.exp(np.array(logs) - np.max(logs))
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised
