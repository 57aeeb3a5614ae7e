"""States in the plane of lifetime and intensity, and where the mechanisms of losing light lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from scipy.special import ndtri
from scipy.stats import rankdata

from pncbayes.errors import ModelFileError
from pncbayes.inference.mechanism_tables import UNDETERMINED, MechanismTables
from pncbayes.physics import loci
from pncbayes.physics.mechanisms import MechanismPriors
from pncbayes.physics.modelfile import parse_model
from pncbayes.report.drawing import (
    DARK,
    GREY,
    Array,
    axes_or_new,
    draws,
    plain_log_ticks,
    state_colours,
    state_names,
    tree_of,
)
from pncbayes.report.placing import FreePlaces

__all__ = ["MECHANISM_COLOURS", "plot_intensity_lifetime"]

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/): one for each mechanism, everywhere.
MECHANISM_COLOURS = {
    "auger": "#D55E00",
    "hot_carrier": "#0072B2",
    "nbc": "#009E73",
    "unresolved_charging": "#CC79A7",
    "background": "#56B4E9",
    "other": "#E69F00",
    UNDETERMINED: "#8C8C8C",
    "reference": DARK,
}
_BRIEF = {
    "auger": "Auger",
    "hot_carrier": "hot carrier",
    "nbc": "NBC",
    "unresolved_charging": "charging",
    "reference": "exciton",
}
# Mahalanobis distance within which two normal numbers lie with 90 % probability.
_RADIUS_90 = float(np.sqrt(-2.0 * np.log(0.1)))
# A state dimmer than this share of the brightest has no place on logarithmic axes.
_DARK_SHARE = 2e-3
_TEXT_SIZE = 8.0
_HALO = withStroke(linewidth=2.2, foreground="white")
# Natural logarithms of lifetime or brightness by which scatter has to move a state to be shown.
_MOVED = 0.3
# Natural logarithms of lifetime or brightness within which a state is in the way of a name.
_NEAR = 0.6


@dataclass(frozen=True)
class _State:
    """What is drawn of a state."""

    lifetime_ns: float
    kcps: float
    ellipse: Array
    colour: str
    label: str
    tied: Array | None

    @property
    def placed(self) -> bool:
        return bool(np.isfinite(self.lifetime_ns))


def plot_intensity_lifetime(fit: Any, ax: Axes | None = None) -> Axes:
    """Draw the states in the plane of lifetime and intensity, and where each mechanism lies.

    A state is an outline that holds 90 % of its posterior, from the draws of its rate and its
    amplitude-averaged lifetime (an ellipse where these are normal), with its median. Its colour is
    that of the mechanism named for it, grey where none is; beside it stand its number, the most
    probable mechanism with a question mark where that is not named, and its probability.

    Bands are the places of the mechanisms as seen from the exciton, one standard deviation wide
    (`pncbayes.physics.loci`): they are priors, not fitted. ``Auger``: a trion, R = m; ``NBC``:
    R = 1; ``hot carrier``: the lifetime of the exciton; ``charging``: a trion for part of the time,
    faster than a bin. Mechanisms are named with scatter and biexcitons taken out of the decays,
    which the ellipses leave in: a ring stands where a state lies without them, given the most
    probable mechanism, if that is elsewhere. Without mechanisms the brightest state stands for the
    exciton, and colours are those of states.

    Parameters
    ----------
    fit
        A `Fit` or its tree.
    ax
        Where to draw; a new figure if not given.

    Returns
    -------
    Axes
        Lifetime in ns against thousands of counts per s, both logarithmic.

    Raises
    ------
    ValueError
        If the fit is of data without delays.
    """
    tree = tree_of(fit)
    if "lifetime_ns" not in tree["posterior"].data_vars:
        raise ValueError(
            "`plot_intensity_lifetime` needs lifetimes, which this fit has not: its data have no "
            "delays, or these show no laser pulse"
        )
    ax = axes_or_new(ax)
    states, reference = _states(tree)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("Lifetime (ns)")
    ax.set_ylabel("Intensity (kcps)")
    shown = [state for state in states if state.placed]
    notes = _notes(ax, states)
    if not shown:
        return ax
    exciton = states[reference] if states[reference].placed else shown[0]
    _set_limits(ax, shown, exciton, room_below=bool(notes))
    texts = notes + _draw_loci(ax, shown, exciton, _priors(tree))
    for state in shown:
        _draw_state(ax, state)
    _label(ax, shown, texts)
    return ax


def _states(tree: Any) -> tuple[list[_State], int]:
    """What is drawn of each state, and which is the exciton."""
    lifetime_ns, kcps = draws(tree, "lifetime_ns"), draws(tree, "rate_per_s") / 1e3
    names, colours = state_names(tree), state_colours(kcps.shape[1])
    labels, reference = list(names), 0
    tied: list[Array | None] = [None] * len(names)
    if "mechanisms" in tree.children:
        tables = MechanismTables(tree["mechanisms"].to_dataset())
        # where no state is the exciton the bands are drawn from the likeliest
        found_reference = tables.reference_state()
        likeliest = int(np.argmax(tables.group["reference"].values))
        reference = likeliest if found_reference is None else found_reference
        for state, (colour, text) in enumerate(_verdicts(tables)):
            colours[state], labels[state] = colour, f"{names[state]} {text}"
            tied[state] = _tied(tables.group, state)
    brightest = float(np.median(kcps, axis=0).max())
    found = []
    for state, (colour, label) in enumerate(zip(colours, labels, strict=True)):
        own = np.log(np.maximum(np.stack([lifetime_ns[:, state], kcps[:, state]]), 1e-12))
        # some draws cannot say a lifetime; a state of which none can has no place
        own = own[:, np.isfinite(own).all(axis=0)]
        middle = np.exp(np.median(own, axis=1)) if own.size else np.full(2, np.nan)
        if not middle[1] > _DARK_SHARE * brightest:
            middle = np.full(2, np.nan)
        away = tied[state]
        if away is not None and not np.abs(np.log(away / middle)).max() > _MOVED:
            away = None
        found.append(_State(middle[0], middle[1], _ellipse(own), colour, label, away))
    return found, reference


def _tied(group: Any, state: int) -> Array | None:
    """Lifetime in ns and kcps of a state under its most probable mechanism, from tied decays."""
    needed = {"label", "exciton_lifetime_ns", "exciton_rate_per_s", "relative_lifetime"}
    if not needed <= set(group.data_vars):
        return None
    label = group["label"].values[:, state]
    lifetime_ns, rate = group["exciton_lifetime_ns"].values, group["exciton_rate_per_s"].values
    if state == np.argmax(group["reference"].values):
        use = label < 0
    else:
        use = label == np.argmax(group["probability"].values[state])
        lifetime_ns = lifetime_ns * group["relative_lifetime"].values[:, state]
        rate = rate * group["relative_brightness"].values[:, state]
    both = np.stack([lifetime_ns[use], rate[use] / 1e3])
    both = both[:, np.isfinite(both).all(axis=0)]
    if both.shape[1] == 0:
        return None
    middle: Array = np.median(both, axis=1)
    return middle if (middle > 0.0).all() else None


def _verdicts(tables: MechanismTables) -> list[tuple[str, str]]:
    """Colour and label of each state."""
    found = []
    shares = tables.of_states
    names = list(tables.takes_part.index)
    for _, row in shares.iterrows():
        named = str(row["named_mechanism"])
        if named == "reference":
            likely, share = named, float(row["reference"])
        else:
            likely = str(row[names].astype(float).idxmax())
            share = float(row[likely])
        text = _BRIEF.get(likely, likely) + ("?" if named == UNDETERMINED else "")
        percent = " > 99 %" if share > 0.995 else f" {100 * share:.0f} %"
        if named == "reference" and share > 0.995:
            percent = ""
        found.append((MECHANISM_COLOURS[named], text + percent))
    return found


def _ellipse(logs: Array) -> Array:
    """Outline around 90 % of draws of two logarithms of shape ``(2, n_draws)``, ``(n, 2)``.

    For normal draws it is an ellipse. Others are made normal by their ranks, one by one, and back:
    a lifetime that may be shorter, but not longer, than its median has an outline that says so.
    """
    n_draws = logs.shape[1]
    if n_draws < 3:
        return np.empty((0, 2))
    scores = ndtri((rankdata(logs, axis=1) - 0.5) / n_draws)
    x, y = scores - scores.mean(axis=1, keepdims=True)
    correlation = float(x @ y / max(np.sqrt((x @ x) * (y @ y)), 1e-12))
    angle = np.linspace(0.0, 2.0 * np.pi, 73)
    across, up = _RADIUS_90 * np.cos(angle), _RADIUS_90 * np.sin(angle)
    up = correlation * across + np.sqrt(max(1.0 - correlation**2, 0.0)) * up
    outline = [
        np.interp(at, np.sort(own_scores), np.sort(own))
        for at, own_scores, own in zip((across, up), scores, logs, strict=True)
    ]
    return np.asarray(np.exp(np.stack(outline, axis=1)))


def _priors(tree: Any) -> MechanismPriors:
    """Priors that the fit was made with; the default where it does not say."""
    try:
        return parse_model(str(tree.attrs["model_text"])).mechanism
    except (KeyError, ModelFileError):
        return MechanismPriors()


def _set_limits(
    ax: Axes, shown: list[_State], exciton: _State, *, room_below: bool = False
) -> None:
    """Room for all ellipses, for the bands above the exciton, and for notes below."""
    outlines = [state.ellipse for state in shown if len(state.ellipse)]
    middles = np.array([[state.lifetime_ns, state.kcps] for state in shown])
    tied = [state.tied[None] for state in shown if state.tied is not None]
    middles = np.vstack([middles, *tied])
    points = np.vstack([middles, *outlines])
    # one wild ellipse shall not shrink all the others
    low = np.maximum(points.min(axis=0), middles.min(axis=0) / 3.0)
    high = np.minimum(points.max(axis=0), middles.max(axis=0) * 3.0)
    at = np.array([exciton.lifetime_ns, exciton.kcps])
    low, high = np.minimum(low, at / 6.0) / 1.6, np.maximum(high, at) * np.array([2.8, 2.2])
    low[1] /= 2.0 if room_below else 1.0
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    plain_log_ticks(ax.xaxis)
    plain_log_ticks(ax.yaxis)


def _draw_state(ax: Axes, state: _State) -> None:
    """Draw the ellipse and the median of a state, and where it lies without scatter."""
    at, colour = (state.lifetime_ns, state.kcps), state.colour
    if state.tied is not None:
        path = np.stack([at, state.tied], axis=1)
        ax.plot(*path, color=colour, lw=0.8, ls=":")
        ax.plot(*state.tied, "o", ms=5, mfc="white", mec=colour, mew=1.1)
    ellipse = Polygon(state.ellipse, facecolor=colour, edgecolor=colour, alpha=0.45, zorder=2.5)
    ellipse.set_gid(f"state {state.label}")
    if len(state.ellipse):
        ax.add_patch(ellipse)
    ax.plot(*at, "o", ms=5, color=colour, mec="white", mew=0.7, zorder=3)


def _notes(ax: Axes, states: list[_State]) -> list[Text]:
    """Say in the corner which states have no place, and what a ring is."""
    dark = [state.label for state in states if not state.placed]
    notes = ["dark: " + ", ".join(dark)] if dark else []
    if any(state.tied is not None for state in states if state.placed):
        notes.append("ring: scatter taken out")
    if not notes:
        return []
    style: dict[str, Any] = {"ha": "right", "va": "bottom", "color": GREY, "fontsize": _TEXT_SIZE}
    text = "\n".join(notes)
    return [ax.text(0.99, 0.02, text, transform=ax.transAxes, path_effects=[_HALO], **style)]


def _draw_loci(
    ax: Axes, shown: list[_State], exciton: _State, priors: MechanismPriors
) -> list[Text]:
    """Draw the bands of the mechanisms as seen from the exciton; return their names."""
    states = [[state.lifetime_ns, state.kcps] for state in shown]
    scale = np.array([exciton.lifetime_ns, exciton.kcps])
    bands = (
        ("unresolved_charging", loci.charging_region(priors), 0.28),
        ("auger", loci.auger_band(priors), 0.25),
        ("nbc", loci.nbc_band(priors), 0.3),
        ("hot_carrier", loci.hot_carrier_band(priors), 0.3),
    )
    for name, outline, alpha in bands:
        colour = MECHANISM_COLOURS[name]
        band = Polygon(outline * scale, facecolor=colour, alpha=alpha, lw=0, zorder=0.5)
        band.set_gid(name)
        ax.add_patch(band)
    return _name_bands(ax, scale, priors.scaling_median, np.array(states))


def _name_bands(ax: Axes, scale: Array, m: float, states: Array) -> list[Text]:
    """Write the names of the bands on them, away from states, of shape ``(n, 2)``."""

    def write(name: str, x: float, y: float, text: str, **others: Any) -> Text:
        colour = 0.75 * np.array(to_rgb(MECHANISM_COLOURS[name]))
        size = _TEXT_SIZE - 0.5
        return ax.text(x, y, text, color=colour, fontsize=size, clip_on=True, zorder=1, **others)

    found = []
    for name, text, ratio in (("auger", f"Auger, R = {m:.2g}", m), ("nbc", "NBC, R = 1", 1.0)):
        slope = ratio * scale[1] / scale[0]
        at_ns = _free_along(ax, slope, 0.4 * scale[0] / ratio, states)
        along = {"rotation": float(np.degrees(np.arctan(slope))), "rotation_mode": "anchor"}
        found.append(
            write(
                name, at_ns, slope * at_ns, text, va="center", transform_rotates_text=True, **along
            )
        )
    centred: dict[str, Any] = {"ha": "center", "va": "center", "rotation": 90.0}
    upright = ax.get_xaxis_transform()
    found.append(write("hot_carrier", scale[0], 0.42, "hot carrier", transform=upright, **centred))
    # above the brightest that charging within bins makes, between trion and exciton
    middle_ns = scale[0] / float(np.sqrt(m))
    above = {"ha": "center", "va": "bottom"}
    found.append(write("unresolved_charging", middle_ns, 1.04 * scale[1], "charging", **above))
    return found


def _free_along(ax: Axes, slope: float, last_ns: float, states: Array) -> float:
    """Lifetime in ns where a line through the origin comes in, or, if a state is there, later."""
    first_ns = 1.12 * max(ax.get_xlim()[0], ax.get_ylim()[0] / slope)
    along_ns = np.geomspace(first_ns, max(first_ns, last_ns), 5)
    along = np.log(np.stack([along_ns, slope * along_ns], axis=1))
    away = np.abs(along[:, None] - np.log(states)).max(axis=2).min(axis=1)
    return float(along_ns[np.argmax(np.minimum(away, _NEAR))])


def _label(ax: Axes, shown: list[_State], texts: list[Text]) -> None:
    """Write the label of each state where it covers neither another nor a state."""
    shapes, labels = [], []
    for state in shown:
        at = (state.lifetime_ns, state.kcps)
        shapes.append(np.vstack([at, state.ellipse]))
        shapes += [] if state.tied is None else [state.tied[None]]
        label = ax.annotate(
            state.label, at, xytext=(8.0, 0.0), textcoords="offset points", va="center",
            color=state.colour, weight="bold", fontsize=_TEXT_SIZE, path_effects=[_HALO], zorder=4,
        )  # fmt: skip
        label.set_in_layout(False)
        labels.append(label)
    ax.add_artist(FreePlaces(ax, labels, shapes, list(texts)))
