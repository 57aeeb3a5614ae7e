"""The comparison of dynamics as part of a result: to the tree of a fit, and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pncbayes.inference.dynamics import Dynamics
from pncbayes.inference.dynamics_checks import draw_points
from pncbayes.inference.dynamics_search import Optimum
from pncbayes.inference.posterior import Parameters
from pncbayes.photons.exposure_curve import Exposure

__all__ = [
    "DynamicsTables",
    "dynamics_group",
    "level_draws",
    "level_probability",
    "numbers_worth_a_scan",
]

Array = NDArray[np.float64]

_TEXT = ("family", "flicker")
_N_DRAWS = 400
# Probability above which levels alone are given up, and below which a number of levels is.
_SURE, _UNLIKELY = 0.99, 1e-3


def dynamics_group(found: Dynamics, exposure: Exposure | None) -> xr.Dataset:
    """Families, checks and tempered curve of a comparison as one dataset."""
    table = found.table
    variables: dict[str, Any] = {}
    for name in table.columns:
        values = table[name].to_numpy()
        if name in _TEXT:
            values = values.astype(str)
        elif values.dtype == bool:
            values = values.astype(np.int8)
        variables[name] = ("hypothesis", values)
    tempered = found.tempering()
    variables["tempered"] = (("power", "tempered_n_levels"), tempered.to_numpy())
    for name in found.checks.names:
        variables[f"{name}_observed"] = (f"{name}_x", found.checks.observed[name])
        variables[f"{name}_replicated"] = (("quantile", f"{name}_x"), found.checks.quantiles[name])
        variables[f"{name}_at"] = (f"{name}_x", found.checks.x[name])
    levels = found.n_levels
    variables["n_levels_probability"] = ("number", levels.to_numpy())
    dataset = xr.Dataset(
        variables,
        coords={
            "power": tempered.index.to_numpy(dtype=float),
            "tempered_n_levels": tempered.columns.to_numpy(dtype=int),
            "number": levels.index.to_numpy(dtype=int),
            "quantile": [0.05, 0.5, 0.95],
        },
    )
    summary = found.summary()
    dataset.attrs = {
        "verdict": found.verdict,
        "width_s": found.best.posterior.data.width_s,
        "summary": json.dumps(summary),
        "exposure": json.dumps(None if exposure is None else exposure.to_dict()),
    }
    return dataset


class DynamicsTables:
    """What a fit says of its dynamics, read from its tree.

    Parameters
    ----------
    dataset
        Made by `dynamics_group`.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self.dataset = dataset
        self.summary: dict[str, Any] = json.loads(dataset.attrs["summary"])
        self.exposure: dict[str, Any] | None = json.loads(dataset.attrs["exposure"])

    @property
    def verdict(self) -> str:
        """``"steady"``, ``"blinking"``, ``"flickering"``, ``"both"`` or ``"not identified"``."""
        return str(self.dataset.attrs["verdict"])

    @property
    def reasons(self) -> list[str]:
        """Why it is not identified."""
        return list(self.summary["reasons"])

    @property
    def remarks(self) -> list[str]:
        """What else to know."""
        return list(self.summary["remarks"])

    @property
    def flicker_probability(self) -> dict[str, float]:
        """P(flicker), and of each kind."""
        return dict(self.summary["flicker_probability"])

    @property
    def table(self) -> pd.DataFrame:
        """One row per family and number of levels, most probable first."""
        names = [n for n, one in self.dataset.data_vars.items() if one.dims == ("hypothesis",)]
        return pd.DataFrame({str(name): self.dataset[name].values for name in names})

    @property
    def tempering(self) -> pd.DataFrame:
        """P(number of levels) of levels alone against the power of the likelihood."""
        values = self.dataset["tempered"]
        return pd.DataFrame(
            values.values,
            index=pd.Index(values["power"].values, name="power"),
            columns=pd.Index(values["tempered_n_levels"].values, name="n_levels"),
        )

    @property
    def notes(self) -> list[str]:
        """What a reader of the fit has to know first."""
        texts = [f"dynamics not identified: {reason}" for reason in self.reasons]
        return texts + self.remarks


def level_probability(found: Dynamics, numbers: list[int], plain: Array) -> Array | None:
    """P(number of levels) where something else than levels is more probable; None where not.

    Parameters
    ----------
    found
        The comparison.
    numbers
        Numbers of states of the fit.
    plain
        Their probability if there are levels alone.
    """
    share = np.zeros(len(numbers))
    for one, probability in zip(found.optima, found.probability, strict=True):
        if _is_more_than_levels(one) and one.n_levels in numbers:
            share[numbers.index(one.n_levels)] += float(probability)
    other = _probability_of_more(found)
    # none where the levels it takes are more than the fit may have
    if other < 0.5 or share.sum() < 0.5 * other:
        return None
    mixed: Array = share + (1.0 - other) * plain
    return mixed / mixed.sum()


def numbers_worth_a_scan(found: Dynamics, numbers: list[int]) -> list[int]:
    """Numbers of states of levels alone that still matter, given the other families."""
    if _probability_of_more(found) < _SURE:
        return numbers
    likely = found.n_levels[found.n_levels > _UNLIKELY].index.max()
    return [number for number in numbers if number <= likely]


def _is_more_than_levels(one: Optimum) -> bool:
    """Whether levels alone would count something else; bleaching leaves levels what they are."""
    family = one.posterior.family
    return bool(family.flicker or family.level_of or family.excess)


def _probability_of_more(found: Dynamics) -> float:
    pairs = zip(found.optima, found.probability, strict=True)
    return float(sum(probability for one, probability in pairs if _is_more_than_levels(one)))


def level_draws(
    found: Dynamics, draws: list[Parameters], background_per_s: Array, rng: np.random.Generator
) -> list[Parameters] | None:
    """Draws of the levels of the most probable family, decays as in draws without flicker.

    None where levels are several hidden states, one is never left, or their number is another.

    Parameters
    ----------
    found
        The comparison.
    draws
        Of the fit of levels alone, bright to dim.
    background_per_s
        Of the gates of the fit, shape ``(n_gates,)``.
    rng
        Source of randomness.
    """
    best = found.best
    family = best.posterior.family
    if family.level_of or family.bleaching or best.n_levels != draws[0].n_states:
        return None
    # as much background as the comparison took off
    taken = float(best.posterior.data.background_per_s.sum())
    background_per_s = background_per_s * (taken / max(float(background_per_s.sum()), 1e-12))
    vectors = draw_points(best, _N_DRAWS, rng)
    picked = rng.integers(len(draws), size=len(vectors))
    made = []
    for vector, pick in zip(vectors, picked, strict=True):
        point = best.posterior.unpack(vector)
        order = np.argsort(-point.signal_per_s.sum(axis=1), kind="stable")
        signal = point.signal_per_s[order].sum(axis=1)
        own = np.maximum(draws[pick].gate_rate_per_s - background_per_s, 1e-9)
        shape = own / own.sum(axis=1, keepdims=True)
        made.append(
            Parameters(
                shape * signal[:, None] + background_per_s,
                point.transition_rate_per_s[np.ix_(order, order)],
                draws[pick].concentration,
                None,
                base_decay=draws[pick].base_decay,
            )
        )
    return made
