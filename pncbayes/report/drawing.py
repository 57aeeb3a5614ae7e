"""What the plots share: colours, style, and access to the tree of a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

__all__ = [
    "DARK",
    "GREY",
    "LIGHT",
    "STYLE",
    "Array",
    "axes_or_new",
    "count_label",
    "count_scale",
    "draws",
    "gates",
    "has_delays",
    "is_camera",
    "mean",
    "plain_log_ticks",
    "replicated",
    "segments",
    "state_colours",
    "state_levels",
    "state_names",
    "total_counts",
    "tree_of",
    "variable",
]

Array = NDArray[np.float64]

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/) ordered from warm to cold; their
# yellow is left out because it cannot be read on white.
_BRIGHT_TO_DIM = ("#D55E00", "#E69F00", "#009E73", "#56B4E9", "#0072B2", "#3B2F6B")
GREY, LIGHT, DARK = "#7F7F7F", "#C9C9C9", "#262626"
STYLE: Any = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
# More draws than this change no picture.
_MAX_DRAWS = 200


def state_colours(n_states: int) -> list[str]:
    """Return a colour for each state, from bright to dim, as far apart as the palette allows."""
    if n_states <= len(_BRIGHT_TO_DIM):
        # two or three states end in blue, which stands out more than the last, darkest colour
        last = len(_BRIGHT_TO_DIM) - (2 if n_states <= 3 else 1)
        picks = np.linspace(0, last, max(n_states, 2)).round().astype(int)[:n_states]
        return [_BRIGHT_TO_DIM[i] for i in picks]
    mixed = LinearSegmentedColormap.from_list("bright_to_dim", list(_BRIGHT_TO_DIM))
    return [to_hex(mixed(x)) for x in np.linspace(0, 1, n_states)]


def tree_of(fit: Any) -> Any:
    """Return the tree of a fit, or the tree itself."""
    return getattr(fit, "tree", fit)


def axes_or_new(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def variable(tree: Any, group: str, name: str) -> Any:
    """Return a variable of a group, or None where the fit does not have it."""
    if group not in tree.children or name not in tree[group].data_vars:
        return None
    return tree[group][name]


def draws(tree: Any, name: str) -> Array:
    """Posterior draws of `name`, shape ``(n_draws, ...)``: chains joined, thinned for drawing."""
    stacked = tree["posterior"][name].stack(sample=("chain", "draw"))
    values = np.asarray(stacked.transpose("sample", ...).values, float)
    return values[:: max(1, values.shape[0] // _MAX_DRAWS)]


def mean(tree: Any, name: str) -> Array:
    """Posterior mean of `name` over all draws."""
    return np.asarray(tree["posterior"][name].mean(("chain", "draw")).values, float)


def state_names(tree: Any) -> list[str]:
    """Names of the states, as the tree numbers them."""
    posterior = tree["posterior"]
    if "state" in posterior.coords:
        return [str(value) for value in posterior["state"].values]
    return [str(number) for number in range(posterior.sizes["state"])]


def is_camera(tree: Any) -> bool:
    """Whether the counts are those of a camera, which are not photons."""
    return bool(tree["observed_data"].attrs.get("kind") == "camera")


def count_scale(tree: Any) -> float:
    """Thousands of counts per s for one count in a bin; camera counts are drawn as they are."""
    return 1.0 if is_camera(tree) else 1e-3 / float(tree.attrs["width_s"])


def count_label(tree: Any) -> str:
    """Label of an axis of counts."""
    return "Counts per frame" if is_camera(tree) else "Counts per bin (kcps)"


def total_counts(tree: Any) -> tuple[Array, Array]:
    """Bin starts in s, and counts of each bin over all gates, both of shape ``(n_bins,)``."""
    counts = tree["observed_data"]["counts"]
    return np.asarray(counts["time"].values, float), np.asarray(counts.sum("gate").values, float)


def state_levels(tree: Any) -> Array:
    """Where to draw each state beside the counts, shape ``(n_states,)``.

    For photons that is the posterior mean of the total rate; for a camera, whose counts have an
    offset and a gain, the mean of the frames in the state (NaN for a state that holds none).
    """
    if not is_camera(tree):
        return mean(tree, "total_rate_per_s") / 1e3
    path = np.asarray(tree["states"]["path"].values)
    n_states = tree["posterior"].sizes["state"]
    frames = np.bincount(path, minlength=n_states)
    total = np.bincount(path, total_counts(tree)[1][: path.size], minlength=n_states)
    return np.where(frames > 0, total / np.maximum(frames, 1), np.nan)


def has_delays(tree: Any) -> bool:
    """Whether the gates of the fit are delay gates."""
    edges = tree["observed_data"]["gate_start_ns"].values
    return bool(np.all(np.isfinite(edges)) and np.size(edges) > 1)


def gates(tree: Any) -> tuple[Array, Array]:
    """Edges of the gates in ns after the laser pulse (after the period's start if unknown)."""
    observed = tree["observed_data"]
    pulse_ns = float(observed.attrs.get("pulse_ns", np.nan))
    pulse_ns = pulse_ns if np.isfinite(pulse_ns) else 0.0
    start, stop = (
        np.asarray(observed[name].values, float) for name in ("gate_start_ns", "gate_stop_ns")
    )
    return start - pulse_ns, stop - pulse_ns


def replicated(tree: Any, name: str, dim: str) -> tuple[Array, Array] | None:
    """Abscissa, shape ``(n,)``, and 5, 50, 95 % of a replicated quantity, shape ``(3, n)``."""
    values = variable(tree, "predictive", f"{name}_replicated")
    if values is None:
        return None
    bands = values.sel(quantile=[0.05, 0.5, 0.95], method="nearest").transpose("quantile", dim)
    return np.asarray(values[dim].values, float), np.asarray(bands.values, float)


def plain_log_ticks(axis: Any) -> None:
    """Label a logarithmic axis as 1, 2, 5, 10, or by decades where there are many."""
    low, high = axis.get_view_interval()
    subs = (1.0,) if high > 2e3 * low else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def segments(begin: Array, end: Array, level: Array) -> list[Array]:
    """Horizontal lines from `begin` to `end` at `level`, all of shape ``(n,)``."""
    return list(np.stack([np.stack([begin, level], -1), np.stack([end, level], -1)], axis=1))
