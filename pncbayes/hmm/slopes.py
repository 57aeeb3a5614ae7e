"""Derivatives of the likelihood of a binned trace, as they are handed on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ColumnSlopes", "Gradient"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gradient:
    """Log-likelihood and its derivatives.

    Attributes
    ----------
    value
        Log-likelihood, natural logarithm, with all constants.
    gate_rate
        With respect to the rates per s and gate, shape ``(n_states, n_gates)``.
    transition_rate
        With respect to the transition rates per s, shape ``(n_states, n_states)``, 0 on the
        diagonal.
    excess
        With respect to the excess variance ratios, shape ``(n_states,)``, or None.
    occupied_s
        Expected time in each state, shape ``(n_states,)``.
    """

    value: float
    gate_rate: Array
    transition_rate: Array
    excess: Array | None
    occupied_s: Array

    @classmethod
    def impossible(cls, gate_rate_per_s: Array, excess: Array | None) -> Gradient:
        """Where the value is minus infinity: all derivatives 0, shapes as those given."""
        n_states = len(gate_rate_per_s)
        return cls(
            value=-np.inf,
            gate_rate=np.zeros_like(gate_rate_per_s),
            transition_rate=np.zeros((n_states, n_states)),
            excess=None if excess is None else np.zeros(n_states),
            occupied_s=np.zeros(n_states),
        )


@dataclass(frozen=True)
class ColumnSlopes:
    """Derivatives with respect to what the columns were made of.

    Attributes
    ----------
    means
        Expected counts per bin of each state and gate, shape ``(n_states, n_gates)``.
    excess
        Excess variance ratios, shape ``(n_states,)``, or None.
    stay, pair_weights
        Weights of the columns, as `pncbayes.hmm.switching.switch_weights` returns them.
    occupied
        Expected number of bins spent in each state, shape ``(n_states,)``: not a derivative.
    """

    means: Array
    excess: Array | None
    stay: Array
    pair_weights: Array
    occupied: Array
