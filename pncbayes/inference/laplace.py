"""Laplace's approximation around the modes, and the densities to draw from that it gives."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.coordinates import Coordinates
from pncbayes.inference.mixture import Component
from pncbayes.inference.optimum import Mode, climb, curvature_at, settle
from pncbayes.inference.posterior import Posterior

__all__ = [
    "all_visited",
    "bright_to_dim",
    "component_at",
    "exchanges",
    "laplace_sum",
    "near_modes",
    "quick_log_evidence",
]

Array = NDArray[np.float64]

_MOST_PERMUTATIONS = 24
# states, at most, all of whose exchanges are summed over with excess noise
_ALL_EXCHANGED = 4
# bins that a state must hold, in the mean, for its parameters to be set by data
_VISITED_BINS = 5.0


def quick_log_evidence(posterior: Posterior, mode: Mode) -> float:
    """Laplace with the curvature of the complete data: a lower, cheap figure for screening."""
    settle(posterior, mode)
    curvature = posterior.curvature(mode.vector, mode.parts)
    value = mode.log_density + 0.5 * mode.vector.size * np.log(2 * np.pi)
    return float(value - 0.5 * np.log(curvature).sum() + gammaln(posterior.n_states + 1))


def component_at(posterior: Posterior, mode: Mode) -> tuple[Component, Mode]:
    """Density to draw from around a mode; and the mode, which is another if it was a saddle."""
    hessian, slope, third = curvature_at(posterior, mode)
    values, vectors = np.linalg.eigh(hessian)
    if values[0] < 1e-3 * np.median(np.diag(hessian)) and values[0] < 0:
        # a saddle: leave it downhill on the negative side and climb again
        direction = vectors[:, 0]
        better = max(
            (
                climb(posterior, mode.vector + sign * 0.5 * direction, fixed=True)
                for sign in (-1.0, 1.0)
            ),
            key=lambda found: found.log_density,
        )
        if better.log_density > mode.log_density + 1e-3:
            mode = better
            hessian, slope, third = curvature_at(posterior, mode)
    coordinates = Coordinates.around(mode.vector, np.diag(hessian), third)
    tilt, bend = coordinates.tilt_and_curvature()
    curved = hessian + np.diag(bend - slope * coordinates.warp)
    values, vectors = np.linalg.eigh(curved)
    # no curvature, or the wrong one: about the width of the widest prior
    values = np.where(values > 1e-4, values, 0.03)
    shift = -(vectors / values) @ (vectors.T @ (slope + tilt))
    if not np.isfinite(coordinates.from_z(shift[None])).all():
        shift = np.zeros_like(shift)
    root = vectors / np.sqrt(values)
    inverse_root = (vectors * np.sqrt(values)).T
    log_determinant = -0.5 * float(np.log(values).sum())
    top = coordinates.from_z(shift[None])
    # at the concentration of the mode: summed over all, the density has a spike of no mass
    height = posterior.gradient(top[0])[0] - float(coordinates.to_z(top)[1][0])
    laplace = height + log_determinant + 0.5 * shift.size * np.log(2 * np.pi)
    return Component(coordinates, shift, root, inverse_root, log_determinant, laplace), mode


def bright_to_dim(posterior: Posterior, mode: Mode) -> Mode:
    """Return the same mode with its states in order: all densities must label states alike."""
    settle(posterior, mode)
    rate = posterior.unpack(mode.vector).rate_per_s
    order = np.argsort(-rate, kind="stable")
    if (order == np.arange(order.size)).all():
        return mode
    vector = mode.vector[posterior.permutation(order)]
    posterior.focus(vector)
    return replace(mode, vector=vector, parts=posterior.gradient(vector)[2])


def near_modes(posterior: Posterior, mode: Mode, *, only: bool) -> list[Mode]:
    """Return the mode at each concentration of the decays that matters, found from one of them.

    `only`: the most probable one alone.
    """
    if not isinstance(posterior, CollapsedPosterior):
        return [mode]
    settle(posterior, mode)
    log_grid = posterior.decays.log_grid
    photons = posterior.expected_photons(mode.vector, mode.parts)
    logs, base, _ = posterior.decays.given_photons(photons)
    best = int(np.argmax(logs))
    picked = [best]
    if not only:
        # as far apart as the mass of the concentration is wide
        mass = np.exp(logs - logs[best])
        mean = (mass * log_grid).sum() / mass.sum()
        spread = np.sqrt((mass * (log_grid - mean) ** 2).sum() / mass.sum())
        if spread > 0.4:
            for target in (mean - 1.2 * spread, mean + 1.2 * spread):
                picked.append(int(np.argmin(np.abs(log_grid - target))))
    near = []
    for index in dict.fromkeys(picked):
        posterior.fix(float(log_grid[index]), base[index])
        near.append(climb(posterior, mode.vector, max_steps=25, fixed=True))
    return near


def all_visited(posterior: Posterior, mode: Mode) -> bool:
    """Whether every state is entered at a mode: else nothing there is close to normal."""
    settle(posterior, mode)
    occupied_s = mode.parts.occupied_s
    entries = occupied_s @ posterior.unpack(mode.vector).transition_rate_per_s
    lowest_s = _VISITED_BINS * posterior.likelihood.width_s
    return bool((occupied_s >= lowest_s).all() and (entries >= 1.0).all())


def laplace_sum(
    posterior: Posterior, pairs: list[tuple[Component, Mode]], parts: Array, n_modes: int
) -> float:
    """Sum of the modes' Laplace figures; with delays, base and concentration integrated out."""
    if not isinstance(posterior, CollapsedPosterior):
        return float(logsumexp(parts))
    figures = []
    for (_, mode), part in zip(pairs, parts, strict=True):
        settle(posterior, mode)
        figures.append(part + posterior.integrated_over_fixed(mode.vector, mode.parts))
    # components of one mode at several concentrations are figures of one integral
    repeated = len(pairs) / n_modes
    return float(logsumexp(figures) - np.log(repeated))


def exchanges(posterior: Posterior, component: Component) -> list[NDArray[np.intp]]:
    """Permutations of the states under which the component overlaps its own copy."""
    n_states = posterior.n_states
    top = component.draw(np.zeros((1, component.shift.size)))
    peak = component.log_density(top)[0]
    size = component.shift.size
    reach = 0.5 * (size + 6.0 * np.sqrt(size)) + 8.0
    while True:
        partner = list(range(n_states))
        for i, j in itertools.combinations(range(n_states), 2):
            order = np.arange(n_states)
            order[[i, j]] = order[[j, i]]
            swapped = component.log_density(top[:, posterior.permutation(order)])[0]
            if swapped > peak - reach:
                one, other = partner[i], partner[j]
                partner = [one if group == other else group for group in partner]
        groups = [
            [k for k in range(n_states) if partner[k] == group] for group in sorted(set(partner))
        ]
        if posterior.has_excess and n_states <= _ALL_EXCHANGED:
            # tails and components added later reach copies that the top does not overlap
            groups = [list(range(n_states))]
        if np.prod([float(math.factorial(len(group))) for group in groups]) <= _MOST_PERMUTATIONS:
            break
        reach *= 0.7
    found = []
    for arrangement in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = np.empty(n_states, dtype=np.intp)
        for group, permuted in zip(groups, arrangement, strict=True):
            order[group] = permuted
        found.append(posterior.permutation(order))
    return found
