"""The overview of a fit: one page with everything that a first look needs."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pncbayes.report.drawing import (
    DARK,
    STYLE,
    has_delays,
    is_camera,
    total_counts,
    tree_of,
    variable,
)
from pncbayes.report.intensity_lifetime import plot_intensity_lifetime
from pncbayes.report.plots import (
    plot_autocorrelation,
    plot_counts,
    plot_decays,
    plot_n_states,
    plot_rates,
    plot_trace,
)

__all__ = ["plot_overview", "save_overview"]

# Inches of a 16:9 slide.
_SLIDE = (13.33, 7.5)
_MAX_WARNINGS = 4


def plot_overview(fit: Any) -> tuple[Figure, dict[str, Axes]]:
    """Draw a fit on one page: trace, counts, number of states, decays, lifetimes, and rates.

    Without lifetimes the autocorrelation stands in for them, without delays for decays, too.

    Parameters
    ----------
    fit
        A `Fit` or its tree.

    Returns
    -------
    Figure
        The page, in the format of a slide.
    dict of str to Axes
        The panels: ``trace``, ``zoom``, ``counts``, ``n_states``, ``rates`` and, where the fit
        has what they need, ``decays``, ``flid``, ``autocorrelation``.
    """
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=_SLIDE, layout="constrained")
        return figure, _draw_overview(tree_of(fit), figure)


def save_overview(fit: Any, path: str | Path) -> None:
    """Write the overview of a fit as PNG, without a display and without pyplot's state."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SLIDE, layout="constrained")
        _draw_overview(tree_of(fit), figure)
        figure.savefig(path, format="png", dpi=160)


def _draw_overview(tree: Any, figure: Figure) -> dict[str, Axes]:
    below = ["rates"]
    if has_delays(tree):
        below = ["decays", "rates"]
        if "lifetime_ns" in tree["posterior"].data_vars:
            below.insert(1, "flid")
    if "flid" not in below and variable(tree, "predictive", "autocorrelation") is not None:
        below.insert(-1, "autocorrelation")
    rows = figure.add_gridspec(2, 1, height_ratios=[2.0, 1.35])
    top = rows[0].subgridspec(2, 2, width_ratios=[3.4, 1.0])
    axes = {"trace": figure.add_subplot(top[0, 0])}
    axes["counts"] = figure.add_subplot(top[0, 1], sharey=axes["trace"])
    axes["zoom"] = figure.add_subplot(top[1, 0], sharey=axes["trace"])
    axes["n_states"] = figure.add_subplot(top[1, 1])
    bottom = rows[1].subgridspec(1, len(below))
    for column, name in enumerate(below):
        axes[name] = figure.add_subplot(bottom[column])

    start_s, stop_s = _telling_window(tree)
    plot_trace(tree, axes["zoom"], start_s=start_s, stop_s=stop_s)
    plot_trace(tree, axes["trace"])
    axes["trace"].axvspan(start_s, stop_s, facecolor="#7F7F7F38", edgecolor=DARK, lw=0.7)
    axes["trace"].set_title("Counts and most probable state")
    axes["zoom"].set_title(f"{stop_s - start_s:.3g} s of it (shaded above)")
    plot_counts(tree, axes["counts"], horizontal=True)
    axes["counts"].tick_params(labelleft=False)
    axes["counts"].set_title("Counts per bin")
    plot_n_states(tree, axes["n_states"])
    axes["n_states"].set_title("How many states")
    draw = {
        "decays": (plot_decays, "Decay of each state"),
        "flid": (plot_intensity_lifetime, "Intensity and lifetime"),
        "autocorrelation": (plot_autocorrelation, "Autocorrelation"),
        "rates": (plot_rates, "Switching"),
    }
    for name in below:
        function, title = draw[name]
        function(tree, axes[name])
        axes[name].set_title(title)
    _caption(tree, figure)
    return axes


def _telling_window(tree: Any) -> tuple[float, float]:
    """Start and stop, in s, of a short part with many states and a readable number of switches."""
    time, width_s = total_counts(tree)[0], float(tree.attrs["width_s"])
    path = np.asarray(tree["states"]["path"].values)
    switches = np.concatenate([[0], np.cumsum(np.diff(path) != 0)])
    total = int(switches[-1])
    n_bins = int(np.clip(12 * path.size / max(total, 1), min(80, path.size), path.size / 8 + 1))
    starts = np.arange(0, max(path.size - n_bins, 0) + 1, max(n_bins // 2, 1))[:20_000]

    def worth(first: int) -> tuple[int, int]:
        last = min(first + n_bins, path.size) - 1
        return (
            np.unique(path[first : last + 1]).size,
            -abs(int(switches[last] - switches[first]) - 12),
        )

    first = max((int(one) for one in starts), key=worth)
    return float(time[first]), float(time[min(first + n_bins, path.size) - 1] + width_s)


def _caption(tree: Any, figure: Figure) -> None:
    """Say above what was fitted, and below what the fit warns of."""
    facts = tree.attrs
    parts = [
        f"{int(facts['n_photons']):,} photons" if not is_camera(tree) else "",
        f"{float(facts['duration_s']):.4g} s" if "duration_s" in facts else "",
        f"bins of {1e3 * float(facts['width_s']):.3g} ms",
        f"model {facts['model_name']}" if "model_name" in facts else "",
    ]
    name = Path(str(facts.get("path") or "in memory")).name
    figure.suptitle(
        f"{name}   ·   " + "   ·   ".join(part for part in parts if part), fontsize=11, color=DARK
    )
    # the name of the file stands above
    prefix = f"{facts.get('path')}: "
    warnings = [str(text).removeprefix(prefix) for text in json.loads(facts.get("warnings", "[]"))]
    if warnings:
        shown = [
            textwrap.shorten(text, 180, placeholder=" ...") for text in warnings[:_MAX_WARNINGS]
        ]
        if len(warnings) > _MAX_WARNINGS:
            shown.append(f"and {len(warnings) - _MAX_WARNINGS} more in the summary")
        figure.supxlabel("Warning: " + "\n".join(shown), fontsize=8, color="#A33A00", ha="center")
