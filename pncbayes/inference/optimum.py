"""Modes of the posterior: starts, expectation-maximisation, quasi-Newton steps, curvature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.optimize import minimize

from pncbayes.hmm.likelihood import BinnedLikelihood, Gradient
from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.posterior import Parameters, Posterior

__all__ = [
    "MODE_GAP",
    "Mode",
    "climb",
    "curvature_at",
    "distinct_modes",
    "find_modes",
    "settle",
    "starts_from_counts",
    "starts_from_simpler",
]

Array = NDArray[np.float64]

# Windows, in bins, over which counts are averaged before levels are guessed: dim dots show their
# levels only in the mean of many bins.
_WINDOWS = (1, 5, 25)
_SCREEN_STEPS = 8
# The same, and steps of the climb, where a number of states has little hope.
_QUICK_STEPS, _QUICK_CLIMB = 3, 12
# Starts are ranked on about this many bins where bins are many and hold many gates.
_SCREEN_BINS = 3000
# Rounds of quasi-Newton steps, each with the bins that matter chosen anew.
_REFOCUS = 4
# Modes within this many nats of the best take part in the evidence.
MODE_GAP = 8.0


@dataclass(frozen=True)
class Mode:
    """A maximum of the posterior density in log coordinates.

    Attributes
    ----------
    vector
        Where, shape ``(size,)``.
    log_density
        How high. With delays, at the concentration and the base shape of the mode, times what
        integrating over both makes of its evidence: so that modes of different ones compare.
    parts
        The likelihood's gradient there.
    log_concentration, base
        What the concentration and the base shape of the decays are fixed at, with delays.
    """

    vector: Array
    log_density: float
    parts: Gradient
    log_concentration: float = float("nan")
    base: Array | None = None


def starts_from_counts(
    posterior: Posterior, counts: Array, width_s: float, rng: np.random.Generator, n_starts: int
) -> list[Parameters]:
    """Guess levels by k-means++ on square roots of smoothed counts.

    Parameters
    ----------
    counts
        Shape ``(n_bins, n_gates)``.
    """
    starts = []
    n_gates = counts.shape[1]
    centre = np.arange(n_gates) - (n_gates - 1) / 2
    for attempt in range(n_starts):
        window = _WINDOWS[attempt % len(_WINDOWS)]
        smooth = uniform_filter1d(counts, min(window, counts.shape[0]), axis=0)
        total = smooth.sum(axis=1)
        features = np.sqrt(total + 0.1)[:, None] * np.sqrt(window)
        if n_gates > 1 and attempt % 2:
            # a shift of the decay, in units of its own scatter, finds levels of equal brightness
            mean_gate = (smooth @ centre) / (total + 1.0)
            scatter = np.sqrt(np.mean(total) * window) / (n_gates / np.sqrt(12.0))
            features = np.column_stack([features, mean_gate * scatter])
        labels = _k_means(features, posterior.n_states, rng)
        starts.append(_from_labels(posterior, counts, labels, width_s))
    return starts


def _k_means(features: Array, n_clusters: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Cluster by k-means++ and a few Lloyd steps; plain, since it only feeds starts."""
    sample = features
    if len(sample) > 20_000:
        sample = sample[:: len(sample) // 20_000 + 1]
    centres = sample[rng.integers(len(sample))][None]
    for _ in range(n_clusters - 1):
        distance = ((sample[:, None] - centres) ** 2).sum(-1).min(1) + 1e-12
        pick = rng.choice(len(sample), p=distance / distance.sum())
        centres = np.vstack([centres, sample[pick]])
    for _ in range(15):
        labels = ((sample[:, None] - centres) ** 2).sum(-1).argmin(1)
        for k in range(n_clusters):
            if (labels == k).any():
                centres[k] = sample[labels == k].mean(0)
    distances = np.stack([((features - centre) ** 2).sum(-1) for centre in centres], axis=1)
    return distances.argmin(1)


def _from_labels(
    posterior: Posterior, counts: Array, labels: NDArray[np.intp], width_s: float
) -> Parameters:
    n_states = posterior.n_states
    gate_rate = np.empty((n_states, counts.shape[1]))
    mean = counts.mean(axis=0).sum()
    for k in range(n_states):
        own = counts[labels == k]
        total = own.sum() if len(own) else mean * (0.3 + rng_free_spread(k))
        level = (total + 0.5) / max(len(own), 1)
        shape = own.sum(axis=0) + 20.0 * posterior.pooled
        gate_rate[k] = level * shape / shape.sum() / width_s
    jumps = np.full((n_states, n_states), 0.3)
    np.add.at(jumps, (labels[:-1], labels[1:]), 1.0)
    occupied_s = jumps.sum(axis=1) * width_s
    rates = jumps / occupied_s[:, None]
    np.fill_diagonal(rates, 0.0)
    # bins mislabelled by shot noise look like fast switching: no faster than half a bin's worth
    rates *= np.minimum(1.0, 0.3 / width_s / np.maximum(rates.sum(axis=1), 1e-12))[:, None]
    return Parameters(gate_rate, rates, posterior.model.decay_concentration.median, None)


def rng_free_spread(k: int) -> float:
    """Spread empty clusters deterministically over brightness (golden-ratio sequence)."""
    return (0.618034 * (k + 1)) % 1.0


def starts_from_simpler(
    simpler: Parameters, width_s: float, *, duration_s: float
) -> list[Parameters]:
    """Make starts with one state more than a fitted model.

    Each state is split in two; a mid-level with an exit rate of one per bin is put between each
    neighbouring pair (what bins that straddle a switch would look like, so that the comparison
    meets its worst case), and a rare level above and below.
    """
    starts = []
    ordered = simpler.ordered()
    rate = ordered.rate_per_s
    n_states = ordered.n_states
    for k in range(n_states):
        spread = np.clip(3.0 / np.sqrt(rate[k] * max(width_s, 1e-3) + 1.0), 0.08, 0.4)
        starts.append(_with_state(ordered, k, 1.0 - spread, 0.5, k, 1.0 + 0.5 * spread))
    for k in range(n_states - 1):
        middle = 0.5 * (rate[k] + rate[k + 1]) / rate[k]
        starts.append(_with_state(ordered, k, middle, 1.0 / width_s, None, 1.0))
    rare = 3.0 / duration_s
    starts.append(_with_state(ordered, 0, 1.4, max(1.0, rare), None, 1.0))
    starts.append(_with_state(ordered, n_states - 1, 0.4, max(1.0, rare), None, 1.0))
    return starts


def _with_state(
    base: Parameters, parent: int, factor: float, exit_rate: float, split: int | None, up: float
) -> Parameters:
    n_states = base.n_states
    gates = np.vstack([base.gate_rate_per_s, base.gate_rate_per_s[parent] * factor])
    rates = np.zeros((n_states + 1, n_states + 1))
    rates[:n_states, :n_states] = base.transition_rate_per_s
    if split is not None:
        gates[split] *= up
        rates[n_states, :n_states] = base.transition_rate_per_s[parent]
        rates[:, n_states] = rates[:, parent] * 0.5
        rates[:, parent] *= 0.5
        mutual = max(exit_rate, 0.3 * float(base.transition_rate_per_s.sum(axis=1).max()))
        rates[parent, n_states] = mutual
        rates[n_states, parent] = mutual
    else:
        entry = 0.1 * base.transition_rate_per_s.sum(axis=1) + 0.05
        rates[:n_states, n_states] = entry
        rates[n_states, :n_states] = exit_rate / n_states
    np.fill_diagonal(rates, 0.0)
    return Parameters(gates, np.maximum(rates, 1e-4), base.concentration, None)


def _em_step(posterior: Posterior, point: Parameters, parts: Gradient) -> Parameters:
    """Expectation-maximisation from the gradient: photons and jumps that each state explains."""
    occupied = np.maximum(parts.occupied_s, 1e-9)
    photons = parts.gate_rate * point.gate_rate_per_s
    photons = np.maximum(photons + point.gate_rate_per_s * occupied[:, None], 0.0)
    total = photons.sum(axis=1)
    gate_rate = photons
    if posterior.n_gates > 1:
        prior = point.concentration * posterior.base
        gate_rate = photons + prior
        gate_rate = gate_rate / gate_rate.sum(axis=1, keepdims=True) * total[:, None]
    gate_rate = (gate_rate + 1e-3 * posterior.pooled) / occupied[:, None]
    jumps = parts.transition_rate * point.transition_rate_per_s
    jumps = np.maximum(jumps + point.transition_rate_per_s * occupied[:, None], 0.0)
    rates = (jumps + 0.1) / (occupied[:, None] + 0.1)
    np.fill_diagonal(rates, 0.0)
    return Parameters(gate_rate, rates, point.concentration, point.excess)


def _coarser(
    posterior: Posterior, counts: Array, width_s: float, simpler: Parameters | None
) -> Posterior:
    """The same posterior on wider bins, where that is good enough to rank starts."""
    if posterior.n_gates == 1 or len(counts) < 2 * _SCREEN_BINS:
        return posterior
    fastest = 0.0 if simpler is None else float(simpler.exit_rate_per_s.max())
    widest_s = min(0.02, 0.3 / max(fastest, 1e-9))
    group = int(min(len(counts) // _SCREEN_BINS, widest_s / width_s))
    if group < 2:
        return posterior
    whole = len(counts) // group * group
    merged = counts[:whole].reshape(-1, group, counts.shape[1]).sum(axis=1)
    likelihood = BinnedLikelihood(
        merged, width_s * group, excess_noise=posterior.likelihood.emission.has_excess
    )
    return type(posterior)(likelihood, posterior.model, posterior.n_states)


def _screen(posterior: Posterior, start: Parameters, n_steps: int) -> tuple[float, Array]:
    vector = posterior.pack(start)
    best = (-np.inf, vector)
    for step in range(n_steps):
        if step % 4 == 0:
            posterior.focus(vector, tolerance=1.0)
        value, _, parts = posterior.gradient(vector)
        if not np.isfinite(value):
            break
        if value > best[0]:
            best = (value, vector)
        if value < best[0] - 50.0:
            break
        vector = posterior.pack(_em_step(posterior, posterior.unpack(vector), parts))
    return best


def climb(
    posterior: Posterior,
    vector: Array,
    *,
    max_steps: int = 60,
    fixed: bool = False,
    rounds: int = _REFOCUS,
) -> Mode:
    """Climb to a maximum by L-BFGS, scaled by the curvature of the complete data.

    Concentration and base shape of the decays are chosen anew on the way, unless `fixed`.
    """
    for _ in range(rounds):
        posterior.focus(vector)
        start, _, parts = posterior.gradient(vector)
        if isinstance(posterior, CollapsedPosterior) and not fixed:
            posterior.choose_concentration(vector, parts)
            start, _, parts = posterior.gradient(vector)
        vector, steps = _quasi_newton(posterior, vector, parts, max_steps)
        value, _, _ = posterior.gradient(vector)
        if steps < max_steps and value < start + 1e-3:
            break
    posterior.focus(vector)
    value, _, parts = posterior.gradient(vector)
    if not isinstance(posterior, CollapsedPosterior):
        return Mode(vector, value, parts)
    value += posterior.integrated_over_fixed(vector, parts)
    return Mode(vector, value, parts, posterior.log_concentration, posterior.base)


def settle(posterior: Posterior, mode: Mode) -> None:
    """Fix concentration and base shape of the decays as they are at a mode."""
    if isinstance(posterior, CollapsedPosterior) and mode.base is not None:
        posterior.fix(mode.log_concentration, mode.base)


def _quasi_newton(
    posterior: Posterior, origin: Array, parts: Gradient, max_steps: int
) -> tuple[Array, int]:
    scale = 1.0 / np.sqrt(posterior.curvature(origin, parts))

    def objective(step: Array) -> tuple[float, Array]:
        value, slope, _ = posterior.gradient(origin + step * scale)
        if not np.isfinite(value):
            return 1e30, np.zeros_like(step)
        return -value, -slope * scale

    # bounds keep a line search from wandering to where exponentials overflow
    reach = 12.0 / scale
    low, high = ((bound - origin) / scale for bound in posterior.bounds())
    lower = np.minimum(np.maximum(-reach, low), -1e-9)
    upper = np.maximum(np.minimum(reach, high), 1e-9)
    found = minimize(
        objective,
        np.zeros_like(origin),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(lower, upper, strict=True)),
        options={"maxiter": max_steps, "maxcor": 20, "ftol": 1e-10, "gtol": 3e-3},
    )
    return origin + found.x * scale, int(found.nit)


def curvature_at(posterior: Posterior, mode: Mode) -> tuple[Array, Array, Array]:
    """Hessian of the negative log density, its gradient, and third derivatives on the diagonal.

    By central differences of the exact gradient for brightness and rates; the third derivative
    of a gate intensity is that of a gamma density, equal to the second.

    Returns
    -------
    hessian : ndarray
        Shape ``(size, size)``.
    slope : ndarray
        Shape ``(size,)``.
    third : ndarray
        Shape ``(size,)``.
    """
    size = mode.vector.size
    settle(posterior, mode)
    posterior.focus(mode.vector)
    scale = 1.0 / np.sqrt(posterior.curvature(mode.vector, mode.parts))
    _, centre, _ = posterior.gradient(mode.vector)
    hessian = np.empty((size, size))
    third = np.empty(size)
    gates = posterior.n_states * posterior.n_gates if posterior.n_gates > 1 else 0
    for i in range(size):
        step = (0.02 if i < gates else 0.2) * scale[i]
        ahead = mode.vector.copy()
        ahead[i] += step
        _, up, _ = posterior.gradient(ahead)
        if i < gates:
            hessian[i] = -(up - centre) / step
            third[i] = hessian[i, i]
        else:
            ahead[i] -= 2 * step
            _, down, _ = posterior.gradient(ahead)
            hessian[i] = -(up - down) / (2 * step)
            third[i] = -(up[i] + down[i] - 2 * centre[i]) / step**2
    return 0.5 * (hessian + hessian.T), -centre, third


def _same(posterior: Posterior, one: Mode, other: Mode) -> bool:
    """Whether two modes are one, up to the order of states."""
    if abs(one.log_density - other.log_density) > 0.05:
        return False
    first, second = posterior.unpack(one.vector).ordered(), posterior.unpack(other.vector).ordered()
    return bool(np.allclose(np.log(first.rate_per_s), np.log(second.rate_per_s), atol=0.02))


def find_modes(
    posterior: Posterior,
    counts: Array,
    width_s: float,
    simpler: Parameters | None,
    rng: np.random.Generator,
    *,
    n_starts: int = 6,
    n_climbs: int = 3,
    thorough: bool = True,
    most_starts: int | None = None,
) -> list[Mode]:
    """Modes of the posterior, best first.

    Parameters
    ----------
    posterior
        The density.
    counts
        Shape ``(n_bins, n_gates)``.
    width_s
        Bin width in s.
    simpler
        Best point with one state fewer, or None.
    rng
        Source of the k-means++ starts.
    n_starts
        Starts from the counts; those from the simpler model come on top.
    n_climbs
        How many of the screened starts are climbed to the top.
    thorough
        Otherwise only see whether there is a point that comes near the best of other numbers of
        states: fewer starts and steps, and one climb that may end below the top.
    most_starts
        Starts to look at, of all; all if not given.

    Returns
    -------
    list of Mode
        Within a few nats of the best, distinct up to the order of states.
    """
    if posterior.n_states == 1:
        start = Parameters(
            (counts.sum(axis=0, keepdims=True) + posterior.pooled) / (len(counts) * width_s),
            np.zeros((1, 1)),
            posterior.model.decay_concentration.median,
            None,
        )
        return [climb(posterior, posterior.pack(start))]
    starts = starts_from_counts(posterior, counts, width_s, rng, n_starts if thorough else 2)
    if simpler is not None:
        starts += starts_from_simpler(simpler, width_s, duration_s=len(counts) * width_s)
    starts = starts[:most_starts]
    coarse = _coarser(posterior, counts, width_s, simpler)
    steps = _SCREEN_STEPS if thorough else _QUICK_STEPS
    screened = sorted((_screen(coarse, start, steps) for start in starts), key=lambda s: -s[0])
    if not thorough:
        return [climb(posterior, screened[0][1], max_steps=_QUICK_CLIMB, rounds=1)]
    modes: list[Mode] = []
    taken: list[float] = []
    for value, vector in screened:
        # screened twins lead to the same top
        if any(abs(value - other) < 0.5 for other in taken):
            continue
        taken.append(value)
        modes.append(climb(posterior, vector))
        if len(taken) == n_climbs:
            break
    return distinct_modes(posterior, modes)


def distinct_modes(posterior: Posterior, modes: list[Mode]) -> list[Mode]:
    """Modes within a few nats of the best, best first, without repeats."""
    ranked = sorted(modes, key=lambda mode: -mode.log_density)
    distinct: list[Mode] = []
    for mode in ranked:
        if mode.log_density < ranked[0].log_density - MODE_GAP:
            break
        if not any(_same(posterior, mode, other) for other in distinct):
            distinct.append(mode)
    return distinct
