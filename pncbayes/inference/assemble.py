"""From posterior draws to the tree of a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.sparse import Active
from pncbayes.inference.found_evidence import Evidence
from pncbayes.inference.grid import decode_width_s
from pncbayes.inference.posterior import Parameters
from pncbayes.photons.binning import photons_of, rebin
from pncbayes.physics.decay import lifetime_fitter

__all__ = [
    "camera_numbers",
    "evidence_group",
    "ordered_draws",
    "posterior_group",
    "states_group",
]

Array = NDArray[np.float64]

# Rounds in which draws are matched to the medians of the round before.
_ORDERINGS = 2
# Draws at which bins that may hold a switch are looked for.
_LOOKS = 8


def camera_numbers(trace: xr.Dataset) -> tuple[float, float, float, float] | None:
    """Gain, offset, read noise and excess factor of a camera trace; None for photon counts."""
    if trace.attrs["kind"] != "camera":
        return None
    names = ("gain", "offset", "read_noise", "excess_factor")
    gain, offset, read_noise, factor_squared = (float(trace.attrs[name]) for name in names)
    return gain, offset, read_noise, factor_squared**0.5


def ordered_draws(draws: list[Parameters], point: Parameters) -> list[Parameters]:
    """Put the states of all draws in one order, by brightness, decay and exit rate.

    Draws from around one mode share their labels, those from around another may not. First each
    draw is matched to a point by brightness and decay; then to the medians of what that gives,
    each quantity measured by its own scatter: states that are close in brightness but not in how
    long they last keep their names.
    """
    centre = np.sqrt(point.gate_rate_per_s)
    light = np.sqrt([draw.gate_rate_per_s for draw in draws])
    exits = np.log(np.maximum([draw.exit_rate_per_s for draw in draws], 1e-290))
    # of each draw and of each state of the point, to all states of the draw
    far = ((centre[:, None, :] - light[:, None, :, :]) ** 2).sum(axis=3)
    order = _matched(far)
    for _ in range(_ORDERINGS if point.n_states > 1 else 0):
        own_light = np.take_along_axis(light, order[:, :, None], axis=1)
        own_exits = np.take_along_axis(exits, order, axis=1)
        far = _in_scatters(own_light, light) + _in_scatters(own_exits[..., None], exits[..., None])
        order = _matched(far)
    mean = np.mean([draw.rate_per_s[own] for draw, own in zip(draws, order, strict=True)], axis=0)
    by_brightness = np.argsort(-mean, kind="stable")
    return [draw.permuted(own[by_brightness]) for draw, own in zip(draws, order, strict=True)]


def _matched(far: Array) -> NDArray[np.intp]:
    """State of each draw that stands for each label, shape ``(n_draws, n_states)``."""
    return np.array([linear_sum_assignment(cost)[1] for cost in far])


def _in_scatters(own: Array, every: Array) -> Array:
    """Squared distance of every state of a draw from the median of a label, over its scatter.

    Both of shape ``(n_draws, n_states, n_features)``; returns ``(n_draws, label, state)``.
    """
    centre = np.median(own, axis=0)
    squares = ((every[:, None, :, :] - centre[:, None, :]) ** 2).sum(axis=3)
    within = ((own - centre) ** 2).sum(axis=2)
    scatter = np.median(within, axis=0) + 1e-12
    scaled: Array = own.shape[2] * squares / scatter[:, None]
    return scaled


def evidence_group(
    evidences: list[Evidence], probability: Array, wide: Array, narrow: Array
) -> xr.Dataset:
    """Evidence per number of states."""

    def column(name: str) -> tuple[str, Array]:
        return "n_states", np.array([getattr(one, name) for one in evidences], dtype=float)

    return xr.Dataset(
        {
            "probability": ("n_states", probability),
            "probability_wide_priors": ("n_states", wide),
            "probability_narrow_priors": ("n_states", narrow),
            "log_evidence": column("log_evidence"),
            "log_evidence_laplace": column("laplace"),
            "log_evidence_importance": column("importance"),
            "log_evidence_error": column("error"),
            "pareto_k": column("pareto_k"),
            "effective_draws": column("effective_draws"),
            "method": ("n_states", np.array([one.method for one in evidences], dtype="U12")),
        },
        coords={"n_states": [one.n_states for one in evidences]},
    )


def posterior_group(
    draws: list[Parameters],
    likelihood: BinnedLikelihood,
    trace: xr.Dataset,
    rng: np.random.Generator,
    warnings: list[str],
) -> xr.Dataset:
    """Physical quantities of every draw.

    Parameters
    ----------
    draws
        Posterior draws, states ordered.
    likelihood
        For the time spent in each state.
    trace
        The trace, for background and response.
    rng
        Source of the background's uncertainty.
    warnings
        Extended by what a reader has to know.
    """
    n_draws, n_states = len(draws), draws[0].n_states
    gate_rate = np.stack([draw.gate_rate_per_s for draw in draws])
    total = gate_rate.sum(axis=2)
    background = _background_draws(trace, n_draws, rng)
    occupancy = _occupancy(draws, likelihood, rng)
    rates = np.stack([draw.transition_rate_per_s for draw in draws])

    def variable(dims: str, values: Array) -> tuple[list[str], Array]:
        return ["chain", "draw", *dims.split()], values[None]

    variables: dict[str, Any] = {
        "rate_per_s": variable("state", np.maximum(total - background[:, None], 0.0)),
        "total_rate_per_s": variable("state", total),
        "background_rate_per_s": variable("", background),
        "occupancy": variable("state", occupancy),
        "exit_rate_per_s": variable("state", rates.sum(axis=2)),
        "transition_rate_per_s": variable("state to_state", rates),
    }
    if gate_rate.shape[2] > 1:
        variables["gate_probability"] = variable("state gate", gate_rate / total[:, :, None])
        variables["decay_concentration"] = variable(
            "", np.array([draw.concentration for draw in draws])
        )
        lifetimes = _lifetimes(gate_rate, occupancy, background, trace, warnings)
        if lifetimes is not None:
            variables["lifetime_ns"] = variable("state", lifetimes)
    if draws[0].excess is not None:
        excess = np.stack([np.asarray(draw.excess) for draw in draws])
        variables["excess_variance_ratio"] = variable("state", excess)
    return xr.Dataset(
        variables,
        coords={
            "chain": [0],
            "draw": np.arange(n_draws),
            "state": np.arange(n_states),
            "to_state": np.arange(n_states),
        },
    )


def _occupancy(
    draws: list[Parameters], likelihood: BinnedLikelihood, rng: np.random.Generator
) -> Array:
    """Share of the time spent in each state, of a path of each draw, ``(n_draws, n_states)``."""
    active: Active | None = None
    for draw in draws[:: max(len(draws) // _LOOKS, 1)]:
        if draw.occupied_s is None:
            active = likelihood.active_rows(
                draw.gate_rate_per_s, draw.transition_rate_per_s, draw.excess,
                tolerance=0.01, besides=active,
            )  # fmt: skip
    occupancy = np.empty((len(draws), draws[0].n_states))
    for own, draw in zip(occupancy, draws, strict=True):
        own[:] = _occupied(draw, likelihood, active, rng)
        own /= own.sum()
    return occupancy


def _occupied(
    draw: Parameters, likelihood: BinnedLikelihood, active: Active | None, rng: np.random.Generator
) -> Array:
    """Time in each state of a path of a draw, in any unit, shape ``(n_states,)``."""
    if draw.occupied_s is not None:
        return draw.occupied_s
    path = likelihood.sample_paths(
        draw.gate_rate_per_s,
        draw.transition_rate_per_s,
        draw.excess,
        random_seed=rng,
        active=active,
    )[0]
    # a bin whose edges differ is taken to be shared evenly
    at_edges = np.bincount(path, minlength=draw.n_states).astype(np.float64)
    at_edges[path[0]] -= 0.5
    at_edges[path[-1]] -= 0.5
    return at_edges


def _background_draws(trace: xr.Dataset, n_draws: int, rng: np.random.Generator) -> Array:
    mean = float(trace.attrs.get("background_rate_per_s", np.nan))
    sd = float(trace.attrs.get("background_sd_per_s", np.nan))
    if not np.isfinite(mean):
        return np.zeros(n_draws)
    if not np.isfinite(sd) or sd == 0.0 or mean == 0.0:
        return np.full(n_draws, mean)
    # a gamma density keeps the background positive
    return rng.gamma((mean / sd) ** 2, sd**2 / mean, size=n_draws)


def _lifetimes(
    gate_rate: Array,
    occupancy: Array,
    background: Array,
    trace: xr.Dataset,
    warnings: list[str],
) -> Array | None:
    """Amplitude-averaged lifetimes, shape ``(n_draws, n_states)``; NaN where they mean nothing."""
    if "response" not in trace:
        return None
    fitter = lifetime_fitter(trace)
    duration_s = float(trace.attrs["duration_s"])
    n_draws, n_states, n_gates = gate_rate.shape
    seconds = (occupancy * duration_s).reshape(-1)
    known = np.repeat(background, n_states) * seconds
    relative = float(np.std(background) / max(np.mean(background), 1e-12))
    # the draws carry the uncertainty of the photons; the background of each is its own draw
    found = fitter.fit(
        gate_rate.reshape(-1, n_gates) * seconds[:, None],
        background_counts=known,
        background_counts_sd=np.maximum(known * relative, np.sqrt(known) + 1.0),
    )
    lifetimes = found.lifetime_ns.reshape(n_draws, n_states).copy()
    lifetimes[found.too_few.reshape(n_draws, n_states)] = np.nan
    for state in range(n_states):
        # said for all draws or for none: half a posterior would look surer than it is
        if np.isnan(lifetimes[:, state]).mean() > 0.5:
            lifetimes[:, state] = np.nan
            warnings.append(f"state {state}: too few photons above the background for a lifetime")
        elif found.at_bound.reshape(n_draws, n_states)[:, state].mean() > 0.5:
            warnings.append(
                f"state {state}: a component of its decay is beyond what response and laser "
                "period resolve; its lifetime is a rough figure"
            )
    return lifetimes


def states_group(
    point: Parameters, likelihood: BinnedLikelihood, trace: xr.Dataset, *, excess_noise: bool
) -> xr.Dataset:
    """Probability of each state in each bin of the report, and the most probable state.

    The probability is the expected share of the bin spent in the state, at the best parameters,
    worked out on a finer grid where the photons are at hand.
    """
    counts = np.asarray(trace["counts"].values)
    n_bins, width_s = counts.shape[0], float(trace.attrs["width_s"])
    camera = camera_numbers(trace)
    parts = 1
    fine = counts
    if camera is None and photons_of(trace) is not None:
        width = decode_width_s(width_s, float(point.rate_per_s.max()), n_bins * width_s)
        parts = round(width_s / width)
        if parts > 1:
            fine = np.asarray(rebin(trace, width)["counts"].values)[: n_bins * parts]
    if parts == 1 and n_bins == likelihood.n_bins:
        decoder = likelihood
    else:
        decoder = BinnedLikelihood(fine, width_s / parts, excess_noise=excess_noise, camera=camera)
    occupancy, _ = decoder.smooth(point.gate_rate_per_s, point.transition_rate_per_s, point.excess)
    occupancy = occupancy.reshape(-1, parts, point.n_states).mean(axis=1)
    return xr.Dataset(
        {
            "probability": (("time", "state"), occupancy.astype(np.float32)),
            "path": ("time", occupancy.argmax(axis=1).astype(np.int16)),
        },
        coords={"time": trace["time"].values[: occupancy.shape[0]]},
    )
