"""Mean, standard deviation and 90 % interval of draws, as results give them."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["interval"]

_QUANTILES = (0.05, 0.95)


def interval(values: Any) -> dict[str, float]:
    """Mean, sd and the ends of the central 90 % of the finite draws; NaN where there are none."""
    draws = np.asarray(values, dtype=float)
    draws = draws[np.isfinite(draws)]
    if draws.size == 0:
        return {"mean": np.nan, "sd": np.nan, "q05": np.nan, "q95": np.nan}
    low, high = np.quantile(draws, _QUANTILES)
    return {
        "mean": float(draws.mean()),
        "sd": float(draws.std()),
        "q05": float(low),
        "q95": float(high),
    }
