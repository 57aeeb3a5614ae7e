"""Switching rates as tables: between states, and of each dim state, beside its mechanism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pncbayes.inference.intervals import interval

__all__ = ["crossing_rate", "rates_between_states", "rates_of_dim_states"]

Array = NDArray[np.float64]

_KINDS = {
    (True, False): "trapping",
    (False, True): "detrapping",
    (False, False): "dim_to_dim",
    (True, True): "bright_to_bright",
}
_PARTS = ("mean", "sd", "q05", "q95")


def rates_between_states(
    rate_per_s: Array, on: NDArray[np.bool_], mechanisms: list[str | None], reference: int | None
) -> pd.DataFrame:
    """One row per ordered pair of states: kind, mechanism that the switch serves, and rate.

    A switch serves the mechanism of the state that it leads to, and where it leads back to the
    light (`detrapping`, or to the reference) that of the state that it comes from.

    Parameters
    ----------
    rate_per_s
        Draws of the rates per s, shape ``(n_draws, n_states, n_states)``.
    on
        Which states are ON, shape ``(n_states,)``.
    mechanisms
        Name given to each state, or None.
    reference
        State that the others are held against, which has no mechanism; None if not known.
    """
    rows = []
    for i in range(len(on)):
        for j in range(len(on)):
            if i == j:
                continue
            kind = _KINDS[bool(on[i]), bool(on[j])]
            from_it = j == reference or (kind == "detrapping" and i != reference)
            part = {f"per_s_{key}": value for key, value in interval(rate_per_s[:, i, j]).items()}
            served = mechanisms[i if from_it else j]
            rows.append({"from": i, "to": j, "kind": kind, "mechanism": served, **part})
    columns = ["from", "to", "kind", "mechanism", *(f"per_s_{key}" for key in _PARTS)]
    return _with_none(pd.DataFrame(rows, columns=columns))


def rates_of_dim_states(
    rate_per_s: Array, occupancy: Array, on: NDArray[np.bool_], mechanisms: list[str | None]
) -> pd.DataFrame:
    """One row per OFF state: rate into it per s of ON time, and out of it to ON states.

    Parameters
    ----------
    rate_per_s
        Draws of the rates per s, shape ``(n_draws, n_states, n_states)``.
    occupancy
        Draws of the share of the time in each state, shape ``(n_draws, n_states)``.
    on
        Which states are ON, shape ``(n_states,)``.
    mechanisms
        Name given to each state, or None.
    """
    rows: list[dict[str, Any]] = []
    light = np.flatnonzero(on)
    for state in np.flatnonzero(~on):
        into = crossing_rate(rate_per_s, occupancy, on, np.arange(len(on)) == state)
        out = rate_per_s[:, state, light].sum(axis=1)
        row: dict[str, Any] = {"state": int(state), "mechanism": mechanisms[state]}
        for name, draws in (("k_trap_per_s", into), ("k_detrap_per_s", out)):
            row |= {f"{name}_{key}": value for key, value in interval(draws).items()}
        rows.append(row)
    names = [f"{name}_{key}" for name in ("k_trap_per_s", "k_detrap_per_s") for key in _PARTS]
    return _with_none(pd.DataFrame(rows, columns=["state", "mechanism", *names]))


def crossing_rate(
    rate_per_s: Array, occupancy: Array, source: NDArray[np.bool_], target: NDArray[np.bool_]
) -> Array:
    """Rate from some states to others, per s spent in the first, shape ``(n_draws,)``.

    Parameters
    ----------
    rate_per_s
        Shape ``(n_draws, n_states, n_states)``.
    occupancy
        Shape ``(n_draws, n_states)``.
    source, target
        Which states, shape ``(n_states,)``, or of each draw, ``(n_draws, n_states)``.

    Returns
    -------
    ndarray
        NaN where no time is spent in the first.
    """
    spent = occupancy * source
    flow = (spent[:, :, None] * rate_per_s * np.atleast_2d(target)[:, None, :]).sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate: Array = np.where(spent.sum(axis=1) > 0.0, flow / spent.sum(axis=1), np.nan)
    return rate


def _with_none(table: pd.DataFrame) -> pd.DataFrame:
    """Keep None as None where no mechanism is known: pandas would write NaN."""
    given = [None if pd.isna(name) else name for name in table["mechanism"]]
    return table.assign(mechanism=pd.Series(given, index=table.index, dtype=object))
