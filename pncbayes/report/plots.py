"""Figures of a fit. They draw what the fit holds and infer nothing.

Every function takes a `Fit` (or its `tree`), draws on `ax`, or on a new figure without it, and
returns the axes.
States are coloured from bright (orange) to dim (blue) in every panel, in colours that readers
with any colour vision tell apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from scipy.stats import poisson

from pncbayes.report.drawing import (
    DARK,
    GREY,
    LIGHT,
    axes_or_new,
    count_label,
    count_scale,
    draws,
    gates,
    has_delays,
    is_camera,
    mean,
    plain_log_ticks,
    replicated,
    segments,
    state_colours,
    state_levels,
    state_names,
    total_counts,
    tree_of,
    variable,
)

__all__ = [
    "plot_autocorrelation",
    "plot_counts",
    "plot_decays",
    "plot_n_states",
    "plot_rates",
    "plot_trace",
    "state_colours",
]

_MAX_COLUMNS = 1500  # what a slide resolves: longer traces are drawn as their envelope
_MAX_BOXES = 110
_MAX_RATES = 12
_ALONE = 0.999  # share of a bin from which its light counts as that of one state


def plot_trace(
    fit: Any, ax: Axes | None = None, *, start_s: float | None = None, stop_s: float | None = None
) -> Axes:
    """Draw counts per bin and the most probable state of each bin.

    Long traces are drawn as the envelope of their counts (smallest to largest per column), with
    the states present in each column; the more of the column a state fills, the more opaque.

    Parameters
    ----------
    fit
        A `Fit` or its tree.
    ax
        Where to draw.
    start_s, stop_s
        The part to draw, in s; all of it if not given.

    Returns
    -------
    Axes
        Time in s against thousands of counts per s.
    """
    tree = tree_of(fit)
    ax = axes_or_new(ax)
    width_s, scale = float(tree.attrs["width_s"]), count_scale(tree)
    path = np.asarray(tree["states"]["path"].values)
    time, counts = (one[: path.size] for one in total_counts(tree))
    first = 0 if start_s is None else int(np.searchsorted(time, start_s))
    last = time.size if stop_s is None else int(np.searchsorted(time, stop_s))
    time, kcps, path = time[first:last], scale * counts[first:last], path[first:last]
    levels = state_levels(tree)
    colours = state_colours(levels.size)
    edges = np.append(time, time[-1] + width_s)
    if time.size <= 2 * _MAX_COLUMNS:
        ax.stairs(kcps, edges, baseline=None, color=GREY, linewidth=0.6, alpha=0.8)
        turns = np.flatnonzero(np.diff(path)) + 1
        begins = np.concatenate([[0], turns])
        ends = np.concatenate([turns, [path.size]])
        states = path[begins]
        lines = segments(edges[begins], edges[ends], levels[states])
        rgba = [to_rgba(colours[state]) for state in states]
    else:
        starts = np.linspace(0, time.size, _MAX_COLUMNS + 1).astype(int)[:-1]
        low, high = np.minimum.reduceat(kcps, starts), np.maximum.reduceat(kcps, starts)
        column_edges = np.append(time[starts], edges[-1])
        ax.stairs(high, column_edges, baseline=low, fill=True, color=LIGHT)
        lines, rgba = [], []
        lengths = np.diff(np.append(starts, time.size))
        for state, colour in enumerate(colours):
            share = np.add.reduceat(path == state, starts, dtype=float) / lengths
            seen = np.flatnonzero(share)
            level = np.full(seen.size, levels[state])
            lines += segments(column_edges[seen], column_edges[seen + 1], level)
            rgba += [to_rgba(colour, 0.25 + 0.75 * share[column]) for column in seen]
    ax.add_collection(LineCollection(lines, colors=rgba, linewidths=1.8, capstyle="butt"))
    ax.set_xlim(edges[0], edges[-1])
    highest = float(np.nanmax([kcps.max(), levels[0]]))
    lowest = float(kcps.min()) if is_camera(tree) else 0.0
    margin = 0.05 * (highest - lowest)
    ax.set_ylim(lowest - margin if is_camera(tree) else 0.0, highest + margin)
    ax.set_xlabel("Time (s)")
    ax.set_ylabel(count_label(tree))
    return ax


def plot_counts(fit: Any, ax: Axes | None = None, *, horizontal: bool = False) -> Axes:
    """Draw the histogram of the counts per bin, each state's distribution, and the replicated one.

    A state's distribution is Poisson at its total rate, averaged over the posterior and scaled
    to its occupancy. Bins with a switch inside lie between the states: they are in the
    replicated histogram (grey), not in any state's. Camera counts have no such distribution.

    Parameters
    ----------
    fit
        A `Fit` or its tree.
    ax
        Where to draw.
    horizontal
        With the count rate along y, to stand beside a trace.

    Returns
    -------
    Axes
        Thousands of counts per s against the number of bins.
    """
    tree = tree_of(fit)
    ax = axes_or_new(ax)
    width_s, counts = float(tree.attrs["width_s"]), total_counts(tree)[1]
    orientation: Any = {"orientation": "horizontal" if horizontal else "vertical"}
    predicted = replicated(tree, "count_histogram", "count_value")
    if predicted is None:
        step = max(1.0, np.ceil(np.ptp(counts) / _MAX_BOXES))
        edges = np.arange(np.floor(counts.min()) - 0.5, counts.max() + 1.5 * step, step)
        height = np.histogram(counts, edges)[0].astype(float)
        peak = float(height.max())
    else:
        value, (low, _, high) = predicted
        half = 0.5 * float(value[1] - value[0]) if value.size > 1 else 0.5
        edges = np.append(value - half, value[-1] + half)
        height = np.asarray(tree["predictive"]["count_histogram"].values, float)
        peak = max(float(height.max()), float(high.max()))
        style: Any = {"fill": True, "color": LIGHT, "label": "model, 90 %", **orientation}
        ax.stairs(high, edges * count_scale(tree), baseline=low, **style)
    drawn_edges = edges * count_scale(tree)
    if not is_camera(tree):
        total, occupancy = draws(tree, "total_rate_per_s"), draws(tree, "occupancy")
        for state, colour in enumerate(state_colours(total.shape[1])):
            below = poisson.cdf(edges[:, None], total[:, state] * width_s)
            shape = np.diff(below, axis=0) @ occupancy[:, state] / total.shape[0] * counts.size
            ax.stairs(shape, drawn_edges, fill=True, color=colour, alpha=0.3, **orientation)
            ax.stairs(shape, drawn_edges, color=colour, linewidth=1.4, **orientation)
    ax.stairs(height, drawn_edges, color=DARK, linewidth=0.8, label="observed", **orientation)
    ax.legend(loc="best", frameon=True, framealpha=0.8, edgecolor="none")
    if horizontal:
        ax.set_xlim(0, 1.05 * peak)
        ax.set_xlabel("Bins")
    else:
        ax.set_ylim(0, 1.05 * peak)
        ax.set_xlabel(count_label(tree))
        ax.set_ylabel("Bins")
    return ax


def plot_decays(fit: Any, ax: Axes | None = None) -> Axes:
    """Draw each state's decay: counts in its gates (points) and the posterior (line, 90 %).

    Points are of bins spent in the state alone, where there are enough: a bin with a switch has
    light of two. Heights are count rates per ns of delay: states dimmer at time zero start lower.

    Raises
    ------
    ValueError
        If the fit is of data without delays.
    """
    tree = tree_of(fit)
    if not has_delays(tree):
        raise ValueError("`plot_decays` needs delays: this fit is of data without them")
    ax = axes_or_new(ax)
    start, stop = gates(tree)
    width_ns, centre = stop - start, 0.5 * (start + stop)
    probability = draws(tree, "gate_probability")
    density = probability * draws(tree, "total_rate_per_s")[:, :, None] / width_ns
    share = np.asarray(tree["states"]["probability"].transpose("time", "state").values)
    counts = np.asarray(tree["observed_data"]["counts"].transpose("time", "gate").values, float)
    edges = np.append(start, stop[-1])
    lifetime_ns = mean(tree, "lifetime_ns") if "lifetime_ns" in tree["posterior"] else None
    for state, colour in enumerate(state_colours(density.shape[1])):
        low, middle, high = np.quantile(density[:, state], [0.05, 0.5, 0.95], axis=0)
        label = "" if lifetime_ns is None else f"{lifetime_ns[state]:.3g} ns"
        label = label.replace("nan ns", "none")
        ax.stairs(middle, edges, baseline=None, color=colour, linewidth=1.2, label=label)
        ax.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.25)
        alone = np.flatnonzero(share[:, state] > _ALONE)
        # few whole bins of a state are those that happen to look like it
        if alone.size < 0.2 * share[:, state].sum():
            continue
        seen = counts[alone].sum(axis=0)
        filled = seen > 0
        scale = 1 / (alone.size * float(tree.attrs["width_s"]) * width_ns[filled])
        height, error = seen[filled] * scale, np.sqrt(seen[filled]) * scale
        ax.errorbar(centre[filled], height, error, fmt="o", ms=2.6, lw=0.8, color=colour)
    ax.set_yscale("log")
    highest = float(np.median(density, axis=0).max())
    # down to the background, not to the noise of a dark state
    lowest = float(np.quantile(np.median(density, axis=0), 0.1))
    ax.set_ylim(max(lowest / 3, highest * 1e-5), highest * 2)
    ax.set_xlim(edges[0], edges[-1])
    if lifetime_ns is not None:
        ax.legend(title="lifetime", title_fontsize=8.5, loc="upper right")
    ax.set_xlabel("Delay after the laser pulse (ns)")
    ax.set_ylabel("Counts per s and ns")
    return ax


def plot_n_states(fit: Any, ax: Axes | None = None) -> Axes:
    """Draw P(number of states | data); the last bar stands for that many or more."""
    ax = axes_or_new(ax)
    evidence = tree_of(fit)["evidence"]
    probability = np.asarray(evidence["probability"].values, float)
    numbers = np.asarray(evidence["n_states"].values, int)
    best = int(np.nanargmax(probability))
    colours = [DARK if i == best else LIGHT for i in range(numbers.size)]
    ax.bar(numbers, probability, color=colours, width=0.75)
    for number, value in zip(numbers, probability, strict=True):
        if value >= 0.005:
            text = f"{100 * value:.0f} %" if value < 0.995 else "> 99 %"
            ax.text(number, value + 0.02, text, ha="center", va="bottom", fontsize=8)
    labels = [str(number) for number in numbers]
    labels[-1] = f"≥ {labels[-1]}" if numbers.size > 1 else labels[-1]
    ax.set_xticks(numbers, labels)
    ax.set_ylim(0, 1.12)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xlabel("Number of states")
    ax.set_ylabel("Probability")
    return ax


def plot_rates(fit: Any, ax: Axes | None = None) -> Axes:
    """Draw the switching rates with their 90 % intervals, named "from → to".

    Of more than twelve, those that are used most often (occupancy times rate) are drawn.
    """
    tree = tree_of(fit)
    ax = axes_or_new(ax)
    rates, occupancy = draws(tree, "transition_rate_per_s"), mean(tree, "occupancy")
    names, colours = state_names(tree), state_colours(occupancy.size)
    pairs = [(i, j) for i in range(occupancy.size) for j in range(occupancy.size) if i != j]
    if not pairs:
        ax.text(0.5, 0.5, "one state: no switching", ha="center", va="center", color=GREY)
        ax.set_axis_off()
        return ax
    use = [occupancy[i] * np.median(rates[:, i, j]) for i, j in pairs]
    kept = sorted(np.argsort(use)[::-1][:_MAX_RATES])
    shown = [pairs[k] for k in kept]
    for row, (i, j) in enumerate(shown):
        low, middle, high = np.quantile(rates[:, i, j], [0.05, 0.5, 0.95])
        ax.plot([low, high], [row, row], color=colours[i], lw=2, solid_capstyle="round")
        ax.plot(middle, row, "o", ms=6.5, mfc=colours[j], mec=colours[i], mew=1.8)
    ax.set_xscale("log")
    plain_log_ticks(ax.xaxis)
    ax.set_yticks(range(len(shown)), [f"{names[i]} → {names[j]}" for i, j in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.grid(axis="x", color=LIGHT, lw=0.5)
    ax.set_xlabel("Switching rate (per s)")
    ax.set_ylabel("From → to state")
    if len(shown) < len(pairs):
        ax.set_title(
            f"the {len(shown)} most used of {len(pairs)}", fontsize=8, weight="normal", loc="right"
        )
    return ax


def plot_autocorrelation(fit: Any, ax: Axes | None = None) -> Axes:
    """Draw the autocorrelation of the counts: observed, and replicated by the fit (90 %).

    Raises
    ------
    ValueError
        If the fit holds no predictive autocorrelation.
    """
    tree = tree_of(fit)
    predicted = replicated(tree, "autocorrelation", "lag_s")
    observed = variable(tree, "predictive", "autocorrelation")
    if predicted is None or observed is None:
        raise ValueError("`plot_autocorrelation` needs the predictive checks, which this fit lacks")
    ax = axes_or_new(ax)
    lag_s, (low, middle, high) = predicted
    ax.fill_between(lag_s, low, high, color=LIGHT, lw=0, label="model, 90 %")
    ax.plot(lag_s, middle, color=GREY, lw=1)
    ax.plot(lag_s, observed.values, "o", ms=3, color=DARK, label="observed")
    ax.set_xscale("log")
    ax.set_xlabel("Lag (s)")
    ax.set_ylabel("Autocorrelation of counts")
    ax.legend()
    return ax
