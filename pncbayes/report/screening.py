"""Figure of a screening: what the instrument, and not the dot, does to the light."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from pncbayes.report.drawing import DARK, GREY, LIGHT, STYLE, plain_log_ticks, state_colours

__all__ = ["plot_screening", "save_screening"]

_PANELS = ("spectrum", "waveform", "rate", "lags")
_MOST_MARKS = 8
# Shares of the tallest powers and rates that the axes leave room above.
_HEADROOM = 4.0


def plot_screening(screening: Any, axes: Mapping[str, Axes] | None = None) -> dict[str, Axes]:
    """Draw a screening: spectrum, waveform of the strongest line, rate over time, correlations.

    Parameters
    ----------
    screening
        As `pncbayes.screen` returns it.
    axes
        Where to draw, by the names ``"spectrum"``, ``"waveform"``, ``"rate"``, ``"lags"``; those
        that are missing are not drawn. A new figure if not given.

    Returns
    -------
    dict of str to Axes
        The axes drawn on.
    """
    if axes is None:
        with plt.rc_context(STYLE):
            figure, new = plt.subplot_mosaic(
                [["spectrum", "spectrum", "waveform"], ["rate", "rate", "lags"]],
                figsize=(11.0, 6.4),
                layout="constrained",
            )
            axes = {str(name): ax for name, ax in new.items()}
            if screening.problem:
                figure.suptitle(screening.problem)
            return _draw(screening, axes)
    unknown = sorted(set(axes) - set(_PANELS))
    if unknown:
        raise ValueError(f"`axes` has {unknown}; the panels are {', '.join(_PANELS)}")
    with plt.rc_context(STYLE):
        return _draw(screening, dict(axes))


def save_screening(screening: Any, path: str | Path) -> None:
    """Write the figure of a screening as PNG, aside and renamed."""
    path = Path(path)
    axes = plot_screening(screening)
    figure: Any = axes["spectrum"].figure
    aside = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(aside, format="png", dpi=150)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
        plt.close(figure)


def _draw(screening: Any, axes: dict[str, Axes]) -> dict[str, Axes]:
    drawers = {
        "spectrum": _draw_spectrum,
        "waveform": _draw_waveform,
        "rate": _draw_rate,
        "lags": _draw_lags,
    }
    for name, ax in axes.items():
        if screening.curves is None:
            _nothing(ax, "too short to screen")
        else:
            drawers[name](screening, ax)
    return axes


def _nothing(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=ax.transAxes)
    ax.set_axis_off()


def _draw_spectrum(screening: Any, ax: Axes) -> None:
    frequency_hz, mean, largest = screening.curves.spectrum
    if not frequency_hz.size:
        _nothing(ax, "too short for a spectrum")
        return
    ax.fill_between(frequency_hz, mean, largest, color=LIGHT, lw=0, label="largest")
    ax.plot(frequency_hz, mean, color=DARK, lw=0.8, label="mean")
    ax.axhline(1.0, color=GREY, lw=0.8, ls=":")
    ax.set_xscale("log")
    ax.set_yscale("log")
    top = float(np.max(largest))
    for number, line in enumerate(screening.lines[:_MOST_MARKS]):
        colour = f"C{number}"
        all_hz = [line.frequency_hz, *line.harmonics_hz]
        inside = [one for one in all_hz if one <= 1.1 * frequency_hz[-1]]
        if not inside:
            text = f"{line.frequency_hz:.4g} Hz (beyond the axis)"
            ax.text(1, 0.97, text, ha="right", va="top", color=colour, transform=ax.transAxes)
            continue
        near = [largest[np.argmin(np.abs(frequency_hz - one))] for one in inside]
        ax.plot(inside, [2.0 * one for one in near], "v", ms=5, color=colour)
        label = f"{line.frequency_hz:.4g} Hz\n{100 * line.depth:.2g} %"
        high = 2.8 * near[0]
        ax.text(inside[0], high, label, ha="center", va="bottom", fontsize=8, color=colour)
    ax.set_ylim(max(0.1, 0.5 * float(mean.min())), top * _HEADROOM * (5 if screening.lines else 1))
    plain_log_ticks(ax.xaxis)
    ax.set_xlabel("Frequency (Hz)")
    ax.set_ylabel("Power over shot noise")
    ax.set_title("Spectrum" if screening.lines else "Spectrum: no line")
    ax.legend(loc="lower left")


def _draw_waveform(screening: Any, ax: Axes) -> None:
    waveform = screening.curves.waveform
    if not waveform:
        _nothing(ax, "no line to fold at")
        return
    bright, dim = state_colours(2)
    colours = {"bright": bright, "dim": dim, "all": DARK}
    for name, (height, sd) in waveform.items():
        phase = (np.arange(2 * height.size) + 0.5) / height.size
        ax.errorbar(
            phase,
            np.tile(height, 2),
            np.tile(sd, 2),
            fmt="o-",
            ms=2.5,
            lw=0.8,
            color=colours[name],
            label=f"{name} windows",
        )
    ax.axhline(1.0, color=GREY, lw=0.8, ls=":")
    ax.set_xlabel("Phase (cycles)")
    ax.set_ylabel("Rate over mean")
    ax.set_title(f"Folded at {screening.lines[0].frequency_hz:.5g} Hz")
    ax.legend()


def _draw_rate(screening: Any, ax: Axes) -> None:
    curves = screening.curves
    kcps = curves.rate_per_s / 1e3
    edges = np.append(curves.time_s, screening.duration_s)
    ax.stairs(kcps, edges, baseline=None, color=GREY, lw=0.6)
    drift = screening.drift
    if drift is not None and drift.time_s.size:
        label = f"brightest level: {100 * drift.change:+.2g} ± {100 * drift.sd:.1g} %"
        level = drift.level_per_s / 1e3
        ax.plot(drift.time_s, level, "o-", ms=3, lw=0.8, color=state_colours(2)[0], label=label)
    for number, gap in enumerate(screening.gaps):
        stop_s = gap.start_s + gap.duration_s
        named = "gap" if number == 0 else None
        ax.axvspan(gap.start_s, stop_s, color=state_colours(2)[1], alpha=0.3, lw=0.8, label=named)
    if screening.bursts:
        start_s = [burst.start_s for burst in screening.bursts]
        top = 1.05 * float(kcps.max())
        ax.plot(start_s, np.full(len(start_s), top), "v", ms=5, color="C3", label="burst")
    ax.set_xlim(0, screening.duration_s)
    # room for the legend
    ax.set_ylim(0, 1.2 * float(kcps.max()))
    ax.set_xlabel("Time (s)")
    ax.set_ylabel("Counts (kcps)")
    ax.set_title("Rate, and the brightest level")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper right", ncols=3)


def _draw_lags(screening: Any, ax: Axes) -> None:
    lags = screening.curves.lags
    if lags is None:
        _nothing(ax, "the clock is too coarse for microseconds")
        return
    shown = []
    for number, same in lags.same.items():
        known = np.isfinite(same)
        if known.any():
            ax.plot(lags.lag_ns / 1e3, same, lw=1, label=f"detector {number}")
            shown.append(same[known])
    if np.all(np.isfinite(lags.other)):
        ax.plot(lags.lag_ns / 1e3, lags.other, color=DARK, lw=1, ls="--", label="different ones")
    if not shown:
        _nothing(ax, "too few pairs of photons")
        return
    ax.axhline(1.0, color=GREY, lw=0.8, ls=":")
    ax.set_xscale("log")
    # the largest values of a few pairs are noise
    ax.set_ylim(0, max(2.0, 1.2 * float(np.quantile(np.concatenate(shown), 0.95))))
    plain_log_ticks(ax.xaxis)
    ax.set_xlabel("Lag (us)")
    ax.set_ylabel("Pairs over those at 50 to 200 us")
    ax.set_title("Afterpulses and dead time")
    ax.legend()
