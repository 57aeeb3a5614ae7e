"""Where to begin the search for the modes of a structured posterior: from levels of the counts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.structured import OWN, StructuredPosterior, coordinate_of, value_of
from pncbayes.inference.structured_compiled import CompiledPosterior
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.structures import Part

__all__ = ["SeenLevels", "exchanged", "levels_seen", "smaller", "starts"]

Array = NDArray[np.float64]

# Bins of the data that are searched, their widest, and the stretches of what is still too long.
_SEARCH_BINS, _WIDEST_S, _STRETCHES = 3000, 0.01, 10
_MOST_LEVELS, _WORTH_NATS = 6, 10.0
_LIFETIMES_NS = np.exp(np.linspace(np.log(0.3), np.log(60.0), 24))
# Share of the looks for which the exciton is the brightest level.
_BRIGHTEST = 0.6
# Coordinates that start nearer the middle of their priors.
_NARROW = {
    "log_lifetime_spread": 0.3, "scatter_share": 0.3, "response_shift": 0.3, "response_width": 0.3,
    "biexciton_share": 0.6,
}  # fmt: skip
_MOST_COORDINATE = 4.0
# Brightness over the exciton's from which a level may change places with it.
_ALIKE = 0.6
_FAINT = 1e-3


@dataclass(frozen=True, eq=False)
class SeenLevels:
    """Levels of the total counts, bright to dim, of a quick fit that knows nothing of physics.

    Attributes
    ----------
    rate_per_s
        Counts per s, shape ``(n_levels,)``.
    transition_rate_per_s
        Shape ``(n_levels, n_levels)``.
    lifetime_ns
        Of the single exponential nearest to the decay of each level, shape ``(n_levels,)``.
    """

    rate_per_s: Array
    transition_rate_per_s: Array
    lifetime_ns: Array


def smaller(posterior: CompiledPosterior) -> CompiledPosterior:
    """The same on coarser bins, and on a few stretches of what is still long."""
    counts, width_s = posterior.counts, posterior.width_s
    merged = int(min(_WIDEST_S / width_s * (1.0 + 1e-9), len(counts) / _SEARCH_BINS))
    if merged > 1:
        n_bins = len(counts) // merged
        counts = counts[: n_bins * merged].reshape(n_bins, merged, -1).sum(axis=1)
        width_s *= merged
    if len(counts) > 1.5 * _SEARCH_BINS:
        stretch = _SEARCH_BINS // _STRETCHES
        first = np.linspace(0, len(counts) - stretch, _STRETCHES).astype(np.int64)
        counts = counts[(first[:, None] + np.arange(stretch)).ravel()]
    if counts is posterior.counts:
        return posterior
    own = {name: posterior.priors[name] for name in OWN}
    less = StructuredPosterior(posterior.model, counts, width_s, posterior.recorder, own)
    return CompiledPosterior(less)


def levels_seen(posterior: StructuredPosterior, rng: np.random.Generator) -> SeenLevels:
    """Levels of the total counts: as many as pay, no more than the hypothesis has states."""
    totals = posterior.counts.sum(axis=1)
    likelihood, model = BinnedLikelihood(totals, posterior.width_s), load_model("free")
    best, found, simpler = -np.inf, None, None
    for n_states in range(1, min(posterior.model.n_states, _MOST_LEVELS) + 1):
        free = Posterior(likelihood, model, n_states)
        mode = find_modes(
            free, totals[:, None], posterior.width_s, simpler, rng, n_starts=3, n_climbs=1
        )[0]
        simpler = free.unpack(mode.vector)
        if mode.log_density < best + _WORTH_NATS:
            break
        best, found = mode.log_density, simpler
    if found is None:
        raise ValueError("the counts have no likelihood under any number of levels; check them")
    found = found.ordered()
    rates = found.transition_rate_per_s
    shares, _ = likelihood.smooth(found.gate_rate_per_s, rates)
    decays = shares.T @ posterior.counts
    seconds = shares.sum(axis=0) * posterior.width_s
    lifetimes = [
        _lifetime(posterior, decay, own_s) for decay, own_s in zip(decays, seconds, strict=True)
    ]
    return SeenLevels(found.rate_per_s, rates, np.array(lifetimes))


def _lifetime(posterior: StructuredPosterior, decay: Array, seconds: float) -> float:
    """Lifetime of the exponential nearest to a decay over its background."""
    table = posterior.recorder.table
    flat = _background(posterior) * seconds * table.background
    signal = max(decay.sum() - flat.sum(), 1.0)
    shapes = np.array([table.quenched(np.ones(1), np.array([t])) for t in _LIFETIMES_NS])
    expected = signal * shapes / shapes.sum(axis=1, keepdims=True) + flat
    logs = np.log(np.maximum(expected, 1e-9)) @ decay - expected.sum(axis=1)
    return float(_LIFETIMES_NS[int(np.argmax(logs))])


def _background(posterior: StructuredPosterior) -> float:
    return float(value_of(posterior.priors["background_rate_per_s"], np.zeros(())))


def starts(
    posterior: StructuredPosterior, levels: SeenLevels, n: int, rng: np.random.Generator
) -> list[Array]:
    """Points to look at, of three kinds, each of shape ``(n, size)``.

    In the first one level is the exciton and each part on its own makes another level; in the
    second the exciton is brighter than all levels, hardly ever seen (not without parts); in the
    third the parts are drawn from their priors.
    """
    kinds = [(True, False), (True, True), (False, False)]
    if not posterior.model.parts:
        kinds.remove((True, True))
    return [
        np.array([_start(posterior, levels, by_levels, unseen, rng) for _ in range(n)])
        for by_levels, unseen in kinds
    ]


def exchanged(posterior: StructuredPosterior, z: Array) -> list[Array]:
    """Points at which two levels of nearly the same brightness have changed places.

    Which of the two is the exciton is then said by the decays alone, and no climb leads across.

    Parameters
    ----------
    posterior
        The posterior.
    z
        A point, shape ``(size,)``.
    """
    model, names, values = posterior.model, posterior.names, posterior.values(z)
    points = [z]
    for emitter, part in itertools.product(range(model.n_emitters), model.parts):
        if part.mechanism != "other" or part.n_levels != 2:
            continue
        of_part = {
            key: model.part_parameter(part, key, emitter)
            for key in ("relative_brightness", "relative_lifetime", *part.rate_keys())
        }
        own = {key: float(values[name]) for key, name in of_part.items()}
        if own["relative_brightness"] < _ALIKE:
            continue
        rate, lifetime = (
            model.exciton_parameter(key, emitter)
            for key in ("exciton_rate_per_s", "exciton_lifetime_ns")
        )
        up, down = part.rate_keys()
        new = {
            rate: float(values[rate]) * own["relative_brightness"],
            lifetime: float(values[lifetime]) * own["relative_lifetime"],
            of_part["relative_brightness"]: 0.5 * (1.0 + own["relative_brightness"]),
            of_part["relative_lifetime"]: 1.0 / own["relative_lifetime"],
            of_part[up]: own[down],
            of_part[down]: own[up],
        }
        places = [names.index(name) for name in new]
        coordinates = [coordinate_of(posterior.priors[name], value) for name, value in new.items()]
        for point in list(points):
            turned = point.copy()
            turned[places] = coordinates
            points.append(np.clip(turned, -_MOST_COORDINATE, _MOST_COORDINATE))
    return points[1:]


def _start(
    posterior: StructuredPosterior,
    levels: SeenLevels,
    by_levels: bool,
    unseen: bool,
    rng: np.random.Generator,
) -> Array:
    names, model = posterior.names, posterior.model
    point = rng.standard_normal(posterior.size)
    point[len(names) :] *= 0.3
    for place, name in enumerate(names):
        point[place] *= next((f for key, f in _NARROW.items() if name.endswith(key)), 1.0)
    signal = np.maximum(levels.rate_per_s - _background(posterior), _FAINT * levels.rate_per_s)
    at = 0 if unseen or rng.random() < _BRIGHTEST else int(rng.integers(signal.size))
    total = float(signal[at] * np.exp(0.05 * rng.standard_normal()))
    if unseen:
        total *= float(np.exp(rng.exponential(0.7)))
    # level that each part of each emitter makes on its own, and the light it takes away
    made = rng.integers(signal.size, size=(model.n_emitters, len(model.parts)))
    lost = total - signal[made]
    if unseen:
        # one part hides the exciton: the brightest level is what is left, where the others start
        hidden = (int(rng.integers(model.n_emitters)), int(rng.integers(len(model.parts))))
        scale = total / signal[0] if model.n_emitters == 1 else 1.0
        lost = scale * (signal[0] - signal[made])
        made[hidden], lost[hidden] = 0, total - signal[0]
    lost = np.maximum(lost, 0.0)
    most_lost = lost.max(axis=1, initial=0.0)
    split = rng.dirichlet(np.ones(model.n_emitters))
    free = total - most_lost.sum()
    exciton = most_lost + split * free if by_levels and free > 0.0 else split * total
    for emitter in range(model.n_emitters):
        lifetime = float(levels.lifetime_ns[at] * np.exp(0.2 * rng.standard_normal()))
        chosen = {
            model.exciton_parameter("exciton_rate_per_s", emitter): float(exciton[emitter]),
            model.exciton_parameter("exciton_lifetime_ns", emitter): lifetime,
        }
        for part, level, less in zip(model.parts, made[emitter], lost[emitter], strict=True):
            if not by_levels:
                continue
            share = 1.0 - less / max(exciton[emitter], 1e-9)
            own = _part(part, max(share, 0.01), lifetime, rng)
            if level != at:
                own |= _switching(part, levels.transition_rate_per_s, at, level, rng)
            elif unseen and part.n_levels > 2 and signal.size > 1:
                further = int(rng.integers(1, signal.size))
                own |= _further(part, levels.transition_rate_per_s, level, further)
            for key, value in own.items():
                chosen[model.part_parameter(part, key, emitter)] = value
        for name, value in chosen.items():
            place = names.index(name)
            point[place] = coordinate_of(posterior.priors[name], max(value, 1e-9))
    return np.clip(point, -_MOST_COORDINATE, _MOST_COORDINATE)


def _part(
    part: Part, share: float, lifetime_ns: float, rng: np.random.Generator
) -> dict[str, float]:
    """Parameters with which the first level of a part has a share of the light of the exciton."""
    share *= float(np.exp(0.1 * rng.standard_normal()))
    if part.mechanism == "auger":
        # without the little that a faster radiative decay alone adds
        return {"k_auger_per_ns": max(2.0 / share - 2.0, 0.05) / lifetime_ns}
    if part.mechanism == "hot_carrier":
        return {"hot_carrier_yield": min(share, 0.99)}
    if part.mechanism == "nbc":
        return {"k_centre_per_ns": max(1.0 / share - 1.0, 0.02) / lifetime_ns}
    if part.mechanism == "other":
        return {"relative_brightness": min(share, 0.99)}
    return {}


def _switching(
    part: Part, rates: Array, at: int, level: int, rng: np.random.Generator
) -> dict[str, float]:
    """Rates up and down of a part, from those between two levels."""
    up, down = part.rate_keys()
    times = part.n_levels - 1 if part.is_counted else 1
    factor = np.exp(0.3 * rng.standard_normal(2))
    return {
        up: float(max(rates[at, level], 0.05) * factor[0]) / times,
        down: float(max(rates[level, at], 0.05) * factor[1]),
    }


def _further(part: Part, rates: Array, first: int, second: int) -> dict[str, float]:
    """Rates up and down of a part of which two levels are its first and second above the lowest."""
    up, down = part.rate_keys()
    n_up, n_down = (part.n_levels - 2, 2) if part.is_counted else (1, 1)
    return {
        up: float(max(rates[first, second], 0.05)) / n_up,
        down: float(max(rates[second, first], 0.05)) / n_down,
    }
