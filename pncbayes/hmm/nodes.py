"""How many quadrature nodes the place of a switch in a bin needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose_n_nodes", "nodes_wanted"]

Array = NDArray[np.float64]


def nodes_wanted(totals: Array) -> float:
    """Quadrature nodes that would resolve where in a bin a switch happened.

    The likelihood as a function of the share of a bin has a width of about one over the square
    root of the counts times the contrast, so the number of nodes grows with the number of
    distinguishable levels between the dimmest and the brightest bin.
    """
    low, high = np.quantile(totals, [0.001, 0.999])
    distinguishable = 2.0 * (np.sqrt(max(high, 0.0)) - np.sqrt(max(low, 0.0)))
    return float(np.ceil(0.7 * distinguishable) + 3)


def choose_n_nodes(totals: Array, *, fewest: int = 4, most: int = 16) -> int:
    """Quadrature nodes that are used: `nodes_wanted`, but within bounds."""
    return int(np.clip(nodes_wanted(totals), fewest, most))
