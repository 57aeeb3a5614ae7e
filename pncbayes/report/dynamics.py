"""The figure of what a verdict on the dynamics rests on."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pncbayes.inference.dynamics import Dynamics
from pncbayes.inference.dynamics_group import DynamicsTables, dynamics_group
from pncbayes.report.drawing import DARK, GREY, LIGHT, STYLE

__all__ = ["plot_dynamics", "save_dynamics"]

_SLIDE = (13.33, 7.5)
# Nats below the best that are drawn; what is further is as far.
_DEEPEST = 60.0
_MARKERS = {"none": "o", "common": "s", "level": "D", "k_nr": "^"}
_COLOURS = {"none": DARK, "common": "#D55E00", "level": "#E69F00", "k_nr": "#0072B2"}
_WORDS = {
    "none": "levels",
    "common": "x flicker of the brightness",
    "level": "x flicker of each level",
    "k_nr": "x flicker of a rate at the band edge",
}
_CHECKS = {
    "counts": ("Counts per bin", "counts", "bins"),
    "autocorrelation": ("Autocorrelation", "lag (s)", "excess over 1"),
    "dwell_times": ("Dwell times, as a threshold sees them", "duration (s)", "dwells"),
    "decay": ("Mean gate against brightness", "group of bins, dim to bright", "mean gate"),
}


def plot_dynamics(fit: Any) -> tuple[Figure, dict[str, Axes]]:
    """Draw evidence of the families, predictive checks and the tempered number of levels.

    Parameters
    ----------
    fit
        A `Fit` with dynamics, or what `pncbayes.dynamics` returned.

    Returns
    -------
    Figure
        The page.
    dict of str to Axes
        ``families``, ``counts``, ``autocorrelation``, ``dwell_times``, ``decay`` where there are
        delays, and ``tempering``.

    Raises
    ------
    ValueError
        If the fit was made without dynamics.
    """
    dataset = _dataset_of(fit)
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=_SLIDE, layout="constrained")
        return figure, _draw(dataset, figure)


def save_dynamics(fit: Any, path: str | Path) -> None:
    """Write the figure as PNG, without a display and without pyplot's state."""
    dataset = _dataset_of(fit)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SLIDE, layout="constrained")
        _draw(dataset, figure)
        figure.savefig(path, format="png", dpi=160)


def _dataset_of(fit: Any) -> xr.Dataset:
    if isinstance(fit, Dynamics):
        return dynamics_group(fit, None)
    tree = getattr(fit, "tree", fit)
    if "dynamics" not in tree.children:
        raise ValueError("this fit holds no dynamics; fit with `dynamics=True`")
    dataset: xr.Dataset = tree["dynamics"].to_dataset()
    return dataset


def _draw(dataset: xr.Dataset, figure: Figure) -> dict[str, Axes]:
    names = ["families"]
    names += [name for name in _CHECKS if f"{name}_observed" in dataset]
    names.append("tempering")
    grid = figure.add_gridspec(2, 3)
    axes = {name: figure.add_subplot(grid[n // 3, n % 3]) for n, name in enumerate(names)}
    tables = DynamicsTables(dataset)
    _draw_families(tables, axes["families"])
    for name in names[1:-1]:
        _draw_check(dataset, tables, name, axes[name])
    _draw_tempering(tables, axes["tempering"])
    text = f"{tables.verdict}   ·   {tables.summary['family']}"
    figure.suptitle(text, fontsize=12, color=DARK)
    notes = [*tables.reasons, *tables.remarks]
    if notes:
        shown = "\n".join(textwrap.shorten(one, 170, placeholder=" ...") for one in notes[:3])
        figure.supxlabel(shown, fontsize=8.5, color="#A33A00")
    return axes


def _draw_families(tables: DynamicsTables, ax: Axes) -> None:
    table = tables.table
    best = table["log_evidence"].max()
    for kind in _MARKERS:
        some = table[table["flicker"] == kind]
        if not len(some):
            continue
        # of each number of levels the best: noise, hidden states and bleaching are details
        top = some.groupby("n_levels")["log_evidence"].max() - best
        ax.plot(
            top.index, np.maximum(top.to_numpy(), -_DEEPEST), _MARKERS[kind] + "-",
            color=_COLOURS[kind], label=_WORDS[kind], ms=6, lw=1.0,
        )  # fmt: skip
    ax.axhline(-_DEEPEST, color=LIGHT, lw=0.8, ls=":")
    ax.set_xticks(range(1, int(table["n_levels"].max()) + 1))
    ax.set(title="Evidence", xlabel="emission levels", ylabel="nats below the best")
    # above the points: the best is at 0, most others at the bottom
    ax.set_ylim(-1.08 * _DEEPEST, 0.45 * _DEEPEST)
    ax.set_yticks(np.arange(-_DEEPEST, 1.0, 20.0))
    ax.legend(loc="upper left")


def _draw_check(dataset: xr.Dataset, tables: DynamicsTables, name: str, ax: Axes) -> None:
    title, x_label, y_label = _CHECKS[name]
    x = dataset[f"{name}_at"].to_numpy()
    observed = dataset[f"{name}_observed"].to_numpy()
    low, middle, high = dataset[f"{name}_replicated"].to_numpy()
    parts = [slice(None)]
    if name == "dwell_times":
        half = x.size // 2
        parts = [slice(0, half), slice(half, None)]
    for n, part in enumerate(parts):
        colour = ("#D55E00", "#0072B2")[n] if len(parts) > 1 else DARK
        label = ("above", "below")[n] if len(parts) > 1 else "data"
        ax.fill_between(x[part], low[part], high[part], color=LIGHT, lw=0)
        ax.plot(x[part], middle[part], color=GREY, lw=1.0)
        ax.plot(x[part], observed[part], ".", color=colour, ms=5, label=label)
    if name in ("autocorrelation", "dwell_times"):
        ax.set_xscale("log")
    if name == "dwell_times":
        ax.set_yscale("symlog", linthresh=1.0)
        ax.set_ylim(bottom=0.0)
        ax.legend(loc="upper right")
    if name == "counts":
        filled = np.flatnonzero((observed > 0) | (high > 0))
        if filled.size:
            ax.set_xlim(x[filled[0]], x[filled[-1]])
    p_value = tables.summary["predictive_p_values"][name]
    ax.set(title=f"{title}: p = {p_value:.2g}", xlabel=x_label, ylabel=y_label)


def _draw_tempering(tables: DynamicsTables, ax: Axes) -> None:
    tempered = tables.tempering
    shades = mpl.colormaps["viridis"](np.linspace(0.05, 0.9, len(tempered.columns)))
    for colour, number in zip(shades, tempered.columns, strict=True):
        ax.plot(tempered.index, tempered[number], color=colour, label=str(number))
    ax.set_xscale("log")
    ax.set(
        title="Levels alone, tempered", xlabel="power of the likelihood",
        ylabel="P(number of levels)", ylim=(0.0, 1.02),
    )  # fmt: skip
    ax.legend(title="levels", loc="center left", ncols=2)
