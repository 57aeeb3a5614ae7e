"""What a comparison of structured hypotheses says, as tables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pncbayes.inference.intervals import interval

__all__ = ["ModelComparison"]


class ModelComparison:
    """Result of `pncbayes.compare_models`.

    Parameters
    ----------
    tree
        Its root has one entry per hypothesis and number of levels (``variant``); each has a group
        ``draws_<variant>`` with draws of its parameters, and of brightness and rates of its states.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self.tree = tree

    def __repr__(self) -> str:
        table = ", ".join(f"{k}: {p:.2f}" for k, p in self.probability.items() if p > 0.005)
        return f"ModelComparison({{{table}}})"

    @property
    def variants(self) -> pd.DataFrame:
        """One row per hypothesis and number of states: evidence, its errors, probability.

        ``log_evidence`` is by a bridge and importance weights, with its standard ``error``;
        ``log_evidence_laplace`` by Laplace's method. Where a hypothesis lies far behind the best
        there is Laplace's figure alone, and the error is infinite.
        """
        root = self.tree.to_dataset()
        names = (
            "model", "n_states", "log_evidence", "error", "log_evidence_laplace", "pareto_k",
            "effective_draws", "probability",
        )  # fmt: skip
        return pd.DataFrame({name: root[name].values for name in names})

    @property
    def probability(self) -> pd.Series:
        """P(hypothesis | data), all equally probable before; averaged over numbers of levels."""
        table = self.variants
        sums = table.groupby("model", sort=False)["probability"].sum()
        return sums.astype(float)

    @property
    def mechanisms(self) -> pd.Series:
        """Probability that a mechanism has a part in the dot, by the hypotheses compared."""
        root = self.tree.to_dataset()
        takes_part = root["takes_part"].values
        index = pd.Index(root["mechanism"].values.astype(str), name="mechanism")
        values = root["probability"].values @ takes_part
        return pd.Series(values, index=index, name="probability")

    @property
    def best(self) -> str:
        """Name of the most probable hypothesis."""
        return str(self.probability.idxmax())

    def _best_variant(self, model: str | None) -> int:
        table = self.variants
        name = self.best if model is None else model
        own = (table["model"] == name).to_numpy()
        if not own.any():
            raise ValueError(
                f"`model` must be one of those compared, {', '.join(self.probability.index)}, "
                f"got {model!r}"
            )
        evidence = np.where(own, table["log_evidence"].to_numpy(), -np.inf)
        return int(np.argmax(evidence))

    def draws(self, model: str | None = None) -> xr.Dataset:
        """Draws of a hypothesis, the best if not named, at its most probable number of levels."""
        return self.tree[f"draws_{self._best_variant(model)}"].to_dataset()

    def parameters(self, model: str | None = None) -> pd.DataFrame:
        """Named parameters of a hypothesis: mean, sd and 90 % interval, one row each.

        Parameters
        ----------
        model
            Name of one of those compared; the most probable one if not given.
        """
        draws = self.draws(model)
        names = [str(name) for name in draws.data_vars if draws[name].dims == ("sample",)]
        rows = [interval(draws[name].values) for name in names]
        return pd.DataFrame(rows, index=pd.Index(names, name="parameter"))

    def states(self, model: str | None = None) -> pd.DataFrame:
        """States of a hypothesis, in the mean: brightness, and share of the time.

        ``rate_per_s`` is signal counts per s, after background; ``occupancy`` that of the most
        probable parameters. Lifetimes follow from `parameters`.
        """
        draws = self.draws(model)
        frame: dict[str, Any] = {}
        for name in ("rate_per_s", "occupancy"):
            frame[name] = draws[name].mean("sample").values
        return pd.DataFrame(frame, index=pd.Index(draws["state"].values, name="state"))

    @property
    def warnings(self) -> list[str]:
        """What to know before believing any of it."""
        found: list[str] = json.loads(self.tree.attrs["warnings"])
        return found
