"""Small functions of arrays that are called so often that a general one costs too much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_sum_exp"]

Array = NDArray[np.float64]


def log_sum_exp(logs: Array) -> Array:
    """Log of the sum of exponentials over the last axis.

    SciPy's does the same for any axis, type and library of arrays, in twenty times the time for
    short arrays. Minus infinity in all entries gives minus infinity.

    Parameters
    ----------
    logs
        Shape ``(..., n)``, finite or minus infinity.
    """
    top = np.maximum(logs.max(axis=-1), -1e300)
    with np.errstate(divide="ignore"):
        total: Array = top + np.log(np.exp(logs - top[..., None]).sum(axis=-1))
    return total
