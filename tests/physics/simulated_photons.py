"""What the tests of the simulator share: states, laser pulses, and checks that chance explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from pncbayes.photons.stream import Photons
from pncbayes.physics.simulate import SimulatedState

BRIGHT = SimulatedState(2.0e4, (6.0,))
DIM = SimulatedState(4.0e3, (0.6, 3.0), (2.0, 1.0))
DARK = SimulatedState(0.0)
PULSED: dict[str, Any] = {"period_ns": 100.0, "delay_tick_ns": 0.032}
# A right simulator fails a test at this level with one seed in 10,000; seeds are fixed.
LEVEL = 1e-4


def counts_in_bins(photons: Photons, width_s: float) -> NDArray[np.int64]:
    assert photons.duration_s is not None
    n_bins = round(photons.duration_s / width_s)
    return np.bincount((photons.time_s / width_s).astype(int), minlength=n_bins)[:n_bins]


def assert_count(observed: float, expected: float) -> None:
    """The observed number is Poisson with the expected mean."""
    allowed = scipy.stats.norm.isf(LEVEL / 2) * np.sqrt(expected)
    assert abs(observed - expected) < allowed, f"{observed}, expected {expected} +- {allowed}"


def assert_same(first: Photons, second: Photons) -> None:
    assert np.array_equal(first.time_ticks, second.time_ticks)
    assert np.array_equal(first.detector, second.detector)
    assert (first.delay_ticks is None) == (second.delay_ticks is None)
    if first.delay_ticks is not None:
        assert np.array_equal(first.delay_ticks, second.delay_ticks)
