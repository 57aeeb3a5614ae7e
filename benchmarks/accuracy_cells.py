"""The kinds of traces of `accuracy.py`, and what CPA reaches on them."""

from __future__ import annotations

from dataclasses import dataclass

import common  # noqa: F401  (sets one thread before NumPy is loaded)
import numpy as np
from numpy.typing import NDArray

from pncbayes.physics.simulate import PowerLawDwell, SimulatedState, Simulation, simulate

Integers = NDArray[np.int64]

WIDTH_S = 0.01
DWELLS = {0.05: 5.0, 0.4: 20.0, 2.0: 60.0}
BRIGHTNESSES = (5, 20, 100, 400)
LEVELS = (2, 3, 4, 5, 6)

# Measured once with the programs published by AMOLF, on traces of the same kind.
# CPA, per cent of 50 traces with the right number of levels, for 2 to 6 levels
CPA_RIGHT: dict[tuple[int, float], tuple[float, ...]] = {
    (5, 0.05): (30, 32, 2, 2, 0), (5, 0.4): (0, 10, 12, 38, 32), (5, 2.0): (52, 52, 42, 50, 46),
    (20, 0.05): (0, 10, 8, 42, 40), (20, 0.4): (56, 22, 14, 26, 26),
    (20, 2.0): (76, 78, 76, 88, 70), (100, 0.05): (16, 10, 2, 0, 12),
    (100, 0.4): (92, 88, 70, 68, 64), (100, 2.0): (90, 94, 96, 92, 96),
    (400, 0.05): (78, 50, 34, 26, 28), (400, 0.4): (98, 88, 98, 84, 88),
    (400, 2.0): (100, 100, 98, 98, 98),
}  # fmt: skip
# CPA, median per cent of mis-assigned bins; 0.2 where it was published as "at most 0.2"
CPA_WRONG_BINS: dict[tuple[int, float], tuple[float, ...]] = {
    (5, 0.05): (39, 64, 73, 79, 81), (5, 0.4): (6.7, 17, 28, 35, 42),
    (5, 2.0): (1.0, 2.4, 4.6, 6.6, 9.7), (20, 0.05): (14, 33, 46, 54, 62),
    (20, 0.4): (1.3, 3.1, 6.2, 10, 12), (20, 2.0): (0.2, 0.5, 0.8, 1.1, 1.5),
    (100, 0.05): (2.2, 5.4, 11, 16, 19), (100, 0.4): (0.2, 0.4, 0.8, 1.0, 1.4),
    (100, 2.0): (0.2,) * 5, (400, 0.05): (0.4, 1.0, 1.8, 2.8, 3.9), (400, 0.4): (0.2,) * 5,
    (400, 2.0): (0.0,) * 5,
}  # fmt: skip
CPA_CONSTANT, CPA_POWER_LAW = 100.0, 34.0


@dataclass(frozen=True)
class Cell:
    """One kind of trace.

    Attributes
    ----------
    name
        Name of the cell.
    rates_per_s
        Counts per s of each level, background included.
    dwell_s
        Mean dwell time; 0 for a constant signal or another law.
    duration_s
        Length of a trace.
    law
        Law of the dwell times in place of the exponential one.
    """

    name: str
    rates_per_s: tuple[float, ...]
    dwell_s: float
    duration_s: float
    law: PowerLawDwell | None = None

    @property
    def n_levels(self) -> int:
        """True number of levels."""
        return len(self.rates_per_s)

    @property
    def cb(self) -> int:
        """Counts per 10 ms of the brightest level."""
        return round(max(self.rates_per_s) * WIDTH_S)

    @property
    def on_grid(self) -> bool:
        """Whether the cell belongs to the grid of brightness, dwell and number of levels."""
        return self.dwell_s > 0


def grid_name(n_levels: int, cb: int, dwell_s: float) -> str:
    """Name of a cell of the grid."""
    return f"m{n_levels}_cb{cb}_dwell{dwell_s:g}"


def make_cells() -> dict[str, Cell]:
    """All cells by name."""
    cells = []
    for dwell_s, duration_s in DWELLS.items():
        for cb in BRIGHTNESSES:
            for m in LEVELS:
                rates = cb * (0.05 + 0.95 * np.arange(m) / (m - 1)) / WIDTH_S
                name = grid_name(m, cb, dwell_s)
                cells.append(Cell(name, tuple(rates.tolist()), dwell_s, duration_s))
    cells += [Cell(f"constant_cb{cb}", (cb / WIDTH_S,), 0.0, 20.0) for cb in BRIGHTNESSES]
    law = PowerLawDwell(1.5, 0.01, 5.0)
    cells.append(Cell("power_law", (5e3, 2e4, 3e4, 5e4), 0.0, 40.0, law))
    return {cell.name: cell for cell in cells}


CELLS = make_cells()


def simulate_cell(cell: Cell, rng: np.random.Generator) -> Simulation:
    """One trace of a cell."""
    m = cell.n_levels
    return simulate(
        [SimulatedState(rate_per_s=rate) for rate in cell.rates_per_s],
        [1.0 / cell.dwell_s if cell.dwell_s else 0.0] * m,
        cell.duration_s,
        dwell_laws=None if cell.law is None else (cell.law,) * m,
        initial_state="uniform",
        period_ns=None,
        tick_s=1e-7,
        n_detectors=1,
        random_seed=rng,
    )


def bin_counts(dot: Simulation) -> Integers:
    """Counts per bin of 10 ms."""
    n_bins = dot.path.n_bins(WIDTH_S)
    index = (dot.photons.time_ticks * dot.photons.tick_s / WIDTH_S).astype(np.int64)
    return np.bincount(index[index < n_bins], minlength=n_bins).astype(np.int64)
