"""Emitters and parts of a structured hypothesis that are alike: one order of them is taken."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from pncbayes.inference.structured import StructuredPosterior
from pncbayes.physics.structures import PART_KEYS

__all__ = ["alike_pairs", "in_order"]

Array = NDArray[np.float64]

EXCITON = "exciton_rate_per_s"


def alike_pairs(posterior: StructuredPosterior) -> list[tuple[int, int]]:
    """Places of coordinates of which the first is to be the larger one.

    Of two emitters, those of their brightness; of two parts of the same priors, those of the first
    parameter of their own (of the first rate of switching where they have none).

    Parameters
    ----------
    posterior
        The posterior.
    """
    model = posterior.model
    emitters = [(model.exciton_parameter(EXCITON, e),) for e in range(model.n_emitters)]
    pairs = [(one, other) for (one,), (other,) in itertools.pairwise(emitters)]
    for emitter, (one, other) in itertools.product(
        range(model.n_emitters), _neighbouring_parts(posterior)
    ):
        parts = model.parts[one], model.parts[other]
        key = (*PART_KEYS[parts[0].mechanism][2:], PART_KEYS[parts[0].mechanism][0])[0]
        first, second = (model.part_parameter(part, key, emitter) for part in parts)
        pairs.append((first, second))
    return [(posterior.names.index(one), posterior.names.index(other)) for one, other in pairs]


def in_order(
    posterior: StructuredPosterior, z: Array, photons: Array | None = None
) -> tuple[Array, Array | None]:
    """Return the same point with what is alike in order, and photons of its states likewise.

    Parameters
    ----------
    posterior
        The posterior.
    z
        Coordinates, shape ``(size,)``; returned as they are if they are in order.
    photons
        Of each state and gate, shape ``(n_states, n_gates)``.
    """
    model, pairs = posterior.model, alike_pairs(posterior)
    n_pairs = model.n_emitters - 1
    for first, second in pairs[:n_pairs]:
        if z[first] < z[second]:
            z, photons = _emitters_exchanged(posterior, z, photons)
    parts = list(itertools.product(range(model.n_emitters), _neighbouring_parts(posterior)))
    # neighbours, until all of them are in order
    for _ in parts:
        for (first, second), (emitter, both) in zip(pairs[n_pairs:], parts, strict=True):
            if z[first] < z[second]:
                z, photons = _parts_exchanged(posterior, z, photons, emitter, both)
    return z, photons


def _neighbouring_parts(posterior: StructuredPosterior) -> list[tuple[int, int]]:
    """Numbers of parts of the same priors, each with the next one like it."""
    parts = posterior.model.parts
    pairs = []
    for one, other in itertools.combinations(range(len(parts)), 2):
        between = parts[one + 1 : other]
        if parts[one].is_like(parts[other]) and not any(parts[one].is_like(p) for p in between):
            pairs.append((one, other))
    return pairs


def _emitters_exchanged(
    posterior: StructuredPosterior, z: Array, photons: Array | None
) -> tuple[Array, Array | None]:
    names, swapped = posterior.names, z.copy()
    for place, name in enumerate(names):
        for one, other in (("emitter_1_", "emitter_2_"), ("emitter_2_", "emitter_1_")):
            if name.startswith(one):
                swapped[names.index(name.replace(one, other))] = z[place]
    swapped[len(names) :] = posterior.deviations(z)[::-1].ravel()
    if photons is not None:
        states = posterior.model.configurations.tolist()
        photons = photons[[states.index(state[::-1]) for state in states]]
    return swapped, photons


def _parts_exchanged(
    posterior: StructuredPosterior,
    z: Array,
    photons: Array | None,
    emitter: int,
    both: tuple[int, int],
) -> tuple[Array, Array | None]:
    model, names, swapped = posterior.model, posterior.names, z.copy()
    one, other = (model.parts[number] for number in both)
    for key in PART_KEYS[one.mechanism]:
        places = [names.index(model.part_parameter(part, key, emitter)) for part in (one, other)]
        swapped[places] = z[places[::-1]]
    levels = [tuple(level) for level in model.levels]

    def turned(level: int) -> int:
        own = list(levels[level])
        own[both[0]], own[both[1]] = own[both[1]], own[both[0]]
        return levels.index(tuple(own))

    deviations = posterior.deviations(z).copy()
    deviations[emitter] = deviations[emitter][[turned(k) - 1 for k in range(1, len(levels))]]
    swapped[len(names) :] = deviations.ravel()
    if photons is not None:
        states = model.configurations.tolist()
        order = []
        for state in states:
            own = list(state)
            own[emitter] = turned(own[emitter])
            order.append(states.index(own))
        photons = photons[order]
    return swapped, photons
