"""What families of dynamics there are, what they see, and their parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pncbayes.physics.flicker import DelayTable

__all__ = ["DynamicsData", "DynamicsPoint", "Family"]

Array = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Family:
    """What else there is beside levels.

    Attributes
    ----------
    flicker
        ``""`` for none, or one of `pncbayes.physics.flicker.FLICKERS`.
    excess
        Whether each level has excess noise.
    level_of
        Level of each hidden state, where several emit alike: dwell times that no single rate
        explains. Empty: each state is a level.
    bleaching
        Whether the last level is never left.
    """

    flicker: str = ""
    excess: bool = False
    level_of: tuple[int, ...] = ()
    bleaching: bool = False

    @property
    def name(self) -> str:
        """In words."""
        words = {
            "": "levels",
            "common": "levels x flicker of the brightness",
            "level": "levels x flicker of each level",
            "k_nr": "levels x flicker of a non-radiative rate",
        }
        text = words[self.flicker] + (" + excess noise" if self.excess else "")
        text += f" + {len(self.level_of)} hidden states" if self.level_of else ""
        return text + (" + bleaching" if self.bleaching else "")


@dataclass(frozen=True)
class DynamicsData:
    """What all families see.

    Attributes
    ----------
    counts
        Shape ``(n_bins, n_gates)``.
    width_s
        Bin width in s.
    background_per_s
        Background in each gate, counts per s, ``(n_gates,)``.
    base, concentration
        Shape around which the decays of levels are Dirichlet, and its concentration.
    delays
        When the photons come, where there are delays.
    """

    counts: Array
    width_s: float
    background_per_s: Array
    base: Array
    concentration: float
    delays: DelayTable | None = None

    @property
    def n_gates(self) -> int:
        """Number of delay gates."""
        return int(self.counts.shape[1])

    @property
    def duration_s(self) -> float:
        """Length of the record in s."""
        return float(self.width_s * self.counts.shape[0])


@dataclass(frozen=True)
class DynamicsPoint:
    """Parameters of one point.

    Attributes
    ----------
    signal_per_s
        Signal of each state in each gate, counts per s, at the mean of the flicker (brightness) or
        at x = 0 (rate), shape ``(n_states, n_gates)``.
    transition_rate_per_s
        Shape ``(n_states, n_states)``, zero on the diagonal.
    amplitude
        Of the flicker, shape ``(1,)`` or ``(n_states,)``; of size 0 without.
    relaxation_rate_per_s
        Of the flicker; NaN without.
    non_radiative_rate_per_ns
        At x = 0; NaN unless it flickers.
    excess
        Excess variance ratios, ``(n_states,)``, or None.
    """

    signal_per_s: Array
    transition_rate_per_s: Array
    amplitude: Array
    relaxation_rate_per_s: float = np.nan
    non_radiative_rate_per_ns: float = np.nan
    excess: Array | None = None

    @property
    def n_states(self) -> int:
        """Number of hidden states."""
        return int(self.signal_per_s.shape[0])

    def permuted(self, order: NDArray[np.intp]) -> DynamicsPoint:
        """Return the same point with states in another order."""
        return DynamicsPoint(
            self.signal_per_s[order],
            self.transition_rate_per_s[np.ix_(order, order)],
            self.amplitude[order] if self.amplitude.size > 1 else self.amplitude,
            self.relaxation_rate_per_s,
            self.non_radiative_rate_per_ns,
            None if self.excess is None else self.excess[order],
        )
