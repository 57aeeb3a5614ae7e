"""Kernels of the lifetime fit: two exponentials and a background, by Poisson maximum likelihood."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["fit_rows"]

# Log-likelihood that a second exponential has to bring.
_WORTH_A_SECOND = 3.0


@njit(cache=True)
def _interpolate(
    shares: NDArray[np.float64],
    log_lifetimes: NDArray[np.float64],
    log_lifetime: float,
    value: NDArray[np.float64],
    slope: NDArray[np.float64],
) -> None:
    # cubic through the four nearest entries (Lagrange), with its derivative
    n = log_lifetimes.size
    h = log_lifetimes[1] - log_lifetimes[0]
    position = (log_lifetime - log_lifetimes[0]) / h
    first = min(max(int(np.floor(position)) - 1, 0), n - 4)
    t = position - first
    w0 = -(t - 1) * (t - 2) * (t - 3) / 6
    w1 = t * (t - 2) * (t - 3) / 2
    w2 = -t * (t - 1) * (t - 3) / 2
    w3 = t * (t - 1) * (t - 2) / 6
    d0 = -((t - 2) * (t - 3) + (t - 1) * (t - 3) + (t - 1) * (t - 2)) / 6
    d1 = ((t - 2) * (t - 3) + t * (t - 3) + t * (t - 2)) / 2
    d2 = -((t - 1) * (t - 3) + t * (t - 3) + t * (t - 1)) / 2
    d3 = ((t - 1) * (t - 2) + t * (t - 2) + t * (t - 1)) / 6
    for g in range(value.size):
        a, b = shares[first, g], shares[first + 1, g]
        c, d = shares[first + 2, g], shares[first + 3, g]
        value[g] = w0 * a + w1 * b + w2 * c + w3 * d
        slope[g] = (d0 * a + d1 * b + d2 * c + d3 * d) / h


@njit(cache=True)
def _log_likelihood(counts: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    total = 0.0
    for g in range(counts.size):
        m = max(mean[g], 1e-12)
        total += counts[g] * np.log(m) - m
    return total


@njit(cache=True)
def _solve_non_negative(
    gram: NDArray[np.float64], target: NDArray[np.float64], x: NDArray[np.float64]
) -> float:
    """Least squares with x >= 0 for up to three unknowns, by trying every set; gain of the fit."""
    n = target.size
    best = 0.0
    x[:] = 0.0
    trial = np.zeros(n)
    for subset in range(1, 1 << n):
        size = 0
        index = np.zeros(n, np.int64)
        for i in range(n):
            if subset >> i & 1:
                index[size] = i
                size += 1
        a = np.zeros((size, size))
        b = np.zeros(size)
        for i in range(size):
            b[i] = target[index[i]]
            for j in range(size):
                a[i, j] = gram[index[i], index[j]]
            a[i, i] *= 1.0 + 1e-10
        if not _solve_in_place(a, b):
            continue
        gain = 0.0
        positive = True
        for i in range(size):
            positive = positive and b[i] >= 0.0
            gain += b[i] * target[index[i]]
        if positive and gain > best:
            best = gain
            trial[:] = 0.0
            for i in range(size):
                trial[index[i]] = b[i]
            x[:] = trial
    return best


@njit(cache=True)
def _solve_in_place(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    # Gauss elimination of a positive definite matrix; the solution is left in b
    n = b.size
    for i in range(n):
        if not a[i, i] > 1e-300:
            return False
        for j in range(i + 1, n):
            factor = a[j, i] / a[i, i]
            for k in range(i, n):
                a[j, k] -= factor * a[i, k]
            b[j] -= factor * b[i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    return True


@njit(cache=True)
def _start(
    counts: NDArray[np.float64],
    shares: NDArray[np.float64],
    background: NDArray[np.float64],
    prior_mean: float,
    prior_information: float,
    stride: int,
    single: bool,
) -> tuple[int, int]:
    """Best pair (or one, twice) of the coarse grid by weighted least squares."""
    n_coarse = (shares.shape[0] + stride - 1) // stride
    n_gates = counts.size
    # weights from lightly smoothed counts: empty gates must not weigh infinitely
    total = counts.sum()
    weight = np.empty(n_gates)
    for g in range(n_gates):
        weight[g] = 1.0 / (counts[g] + 0.5 + 0.01 * total / n_gates)
    rows = np.empty((n_coarse + 1, n_gates))
    for i in range(n_coarse):
        rows[i] = shares[i * stride]
    rows[n_coarse] = background
    gram = (rows * weight) @ rows.T
    target = (rows * weight) @ counts
    gram[n_coarse, n_coarse] += prior_information
    target[n_coarse] += prior_information * prior_mean
    best, first, second = -1.0, 0, 0
    size = 2 if single else 3
    a, b, x = np.empty((size, size)), np.empty(size), np.empty(size)
    index = np.empty(size, np.int64)
    index[0] = n_coarse
    for i in range(n_coarse):
        for j in range(i, i + 1) if single else range(i + 1, n_coarse):
            index[1] = i
            if not single:
                index[2] = j
            for k in range(size):
                b[k] = target[index[k]]
                for m in range(size):
                    a[k, m] = gram[index[k], index[m]]
            gain = _gain(a, b, x)
            if gain > best:
                best, first, second = gain, i * stride, j * stride
    return first, second


@njit(cache=True)
def _gain(a: NDArray[np.float64], b: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    """Gain of the non-negative least squares; the unconstrained one first, as it mostly holds."""
    n = b.size
    l00 = a[0, 0]
    if n == 2:
        det = l00 * a[1, 1] - a[0, 1] * a[0, 1]
        if det > 1e-10 * l00 * a[1, 1]:
            x[0] = (b[0] * a[1, 1] - b[1] * a[0, 1]) / det
            x[1] = (b[1] * l00 - b[0] * a[0, 1]) / det
            if x[0] >= 0.0 and x[1] >= 0.0:
                return float(x[0] * b[0] + x[1] * b[1])
        return _solve_non_negative(a, b, x)
    c11 = a[1, 1] - a[0, 1] * a[0, 1] / l00
    c12 = a[1, 2] - a[0, 1] * a[0, 2] / l00
    c22 = a[2, 2] - a[0, 2] * a[0, 2] / l00
    d1 = b[1] - a[0, 1] * b[0] / l00
    d2 = b[2] - a[0, 2] * b[0] / l00
    det = c11 * c22 - c12 * c12
    if det > 1e-10 * c11 * c22:
        x[1] = (d1 * c22 - d2 * c12) / det
        x[2] = (d2 * c11 - d1 * c12) / det
        x[0] = (b[0] - a[0, 1] * x[1] - a[0, 2] * x[2]) / l00
        if x[0] >= 0.0 and x[1] >= 0.0 and x[2] >= 0.0:
            return float(x[0] * b[0] + x[1] * b[1] + x[2] * b[2])
    # a pair that needs a negative part is no better than its single members, tried elsewhere;
    # only "no background" is a pair of its own
    det = a[1, 1] * a[2, 2] - a[1, 2] * a[1, 2]
    if det > 1e-10 * a[1, 1] * a[2, 2]:
        x[0] = 0.0
        x[1] = (b[1] * a[2, 2] - b[2] * a[1, 2]) / det
        x[2] = (b[2] * a[1, 1] - b[1] * a[1, 2]) / det
        if x[1] >= 0.0 and x[2] >= 0.0:
            return float(x[1] * b[1] + x[2] * b[2])
    return -1.0


@njit(cache=True)
def _refine(
    counts: NDArray[np.float64],
    shares: NDArray[np.float64],
    log_lifetimes: NDArray[np.float64],
    background: NDArray[np.float64],
    prior_mean: float,
    prior_information: float,
    first: int,
    second: int,
    single: bool,
    out: NDArray[np.float64],
) -> float:
    """Fisher scoring with damping from a start on the grid; fills lifetimes, photons, error."""
    n_gates = counts.size
    n = 3 if single else 5
    low, high = log_lifetimes[0], log_lifetimes[-1]
    # parameters: background, log lifetime and photons of the first, of the second
    p = np.zeros(5)
    p[1], p[3] = log_lifetimes[first], log_lifetimes[second]
    total = counts.sum()
    one, two = np.empty(n_gates), np.empty(n_gates)
    d_one, d_two = np.empty(n_gates), np.empty(n_gates)
    mean = np.empty(n_gates)
    p[0] = prior_mean if prior_information > 0 else 0.2 * total
    p[2] = max(total - p[0], 0.05 * total) * (1.0 if single else 0.5)
    p[4] = 0.0 if single else p[2]
    _expectation_maximisation(counts, shares[first], shares[second], background, p, single)
    trial = p.copy()
    value = -np.inf
    damping = 1e-3
    jacobian = np.zeros((5, n_gates))
    information = np.zeros((5, 5))
    gradient = np.zeros(5)
    for _ in range(60):
        _interpolate(shares, log_lifetimes, trial[1], one, d_one)
        _interpolate(shares, log_lifetimes, trial[3], two, d_two)
        for g in range(n_gates):
            mean[g] = max(trial[0] * background[g] + trial[2] * one[g] + trial[4] * two[g], 1e-12)
        new = _log_likelihood(counts, mean)
        new -= 0.5 * prior_information * (trial[0] - prior_mean) ** 2
        if new >= value or not np.isfinite(value):
            gained = new - value
            value = new
            p[:] = trial
            damping = max(damping * 0.2, 1e-9)
            jacobian[0], jacobian[1], jacobian[2] = background, p[2] * d_one, one
            jacobian[3], jacobian[4] = p[4] * d_two, two
            for i in range(n):
                gradient[i] = 0.0
                for g in range(n_gates):
                    gradient[i] += jacobian[i, g] * (counts[g] / mean[g] - 1.0)
                for j in range(i + 1):
                    s = 0.0
                    for g in range(n_gates):
                        s += jacobian[i, g] * jacobian[j, g] / mean[g]
                    information[i, j] = s
                    information[j, i] = s
            gradient[0] -= prior_information * (p[0] - prior_mean)
            information[0, 0] += prior_information
            if gained < 1e-5 and np.isfinite(gained):
                break
        else:
            damping *= 10.0
            if damping > 1e6:
                break
        step = _step(information, gradient, damping, p, low, high, n)
        for i in range(n):
            trial[i] = p[i] + step[i]
        trial[0] = max(trial[0], 0.0)
        trial[2] = max(trial[2], 0.0)
        trial[1] = min(max(trial[1], low), high)
        if not single:
            trial[4] = max(trial[4], 0.0)
            trial[3] = min(max(trial[3], low), high)
    out[0], out[1], out[2], out[3], out[4] = p[1], p[3], p[2], p[4], p[0]
    if single:
        out[1] = p[1]
    out[5] = _relative_error(information, p, low, high, n)
    return value


@njit(cache=True)
def _expectation_maximisation(
    counts: NDArray[np.float64],
    one: NDArray[np.float64],
    two: NDArray[np.float64],
    background: NDArray[np.float64],
    p: NDArray[np.float64],
    single: bool,
) -> None:
    # photons of each part at fixed lifetimes
    for _ in range(10):
        b, s, t = 0.0, 0.0, 0.0
        for g in range(counts.size):
            mean = max(p[0] * background[g] + p[2] * one[g] + p[4] * two[g], 1e-12)
            ratio = counts[g] / mean
            b += p[0] * background[g] * ratio
            s += p[2] * one[g] * ratio
            t += p[4] * two[g] * ratio
        p[0], p[2] = b, s
        if not single:
            p[4] = t


@njit(cache=True)
def _step(
    information: NDArray[np.float64],
    gradient: NDArray[np.float64],
    damping: float,
    p: NDArray[np.float64],
    low: float,
    high: float,
    n: int,
) -> NDArray[np.float64]:
    """Damped Newton step in which parameters that push against their bound stay."""
    step = np.zeros(5)
    free = np.empty(5, np.int64)
    size = 0
    for i in range(n):
        if i == 1 or i == 3:
            held = (p[i] <= low and gradient[i] < 0) or (p[i] >= high and gradient[i] > 0)
            held = held or p[i + 1] <= 0.0
        else:
            held = p[i] <= 0.0 and gradient[i] <= 0
        if not held:
            free[size] = i
            size += 1
    a = np.empty((size, size))
    b = np.empty(size)
    for i in range(size):
        b[i] = gradient[free[i]]
        for j in range(size):
            a[i, j] = information[free[i], free[j]]
        a[i, i] = a[i, i] * (1.0 + damping) + 1e-14
    if _solve_in_place(a, b):
        for i in range(size):
            step[free[i]] = b[i]
    for i in (1, 3):
        # a lifetime does not move by more than a factor of e at once
        step[i] = min(max(step[i], -1.0), 1.0)
    return step


@njit(cache=True)
def _relative_error(
    information: NDArray[np.float64], p: NDArray[np.float64], low: float, high: float, n: int
) -> float:
    """Relative standard error of the average lifetime, from the Fisher information."""
    amplitude = p[2] * np.exp(-p[1]) + p[4] * np.exp(-p[3])
    signal = p[2] + p[4]
    if not (amplitude > 0 and signal > 0):
        return np.nan
    # slope of ln(signal / amplitude)
    slope = np.zeros(5)
    slope[1] = p[2] * np.exp(-p[1]) / amplitude
    slope[2] = 1.0 / signal - np.exp(-p[1]) / amplitude
    slope[3] = p[4] * np.exp(-p[3]) / amplitude
    slope[4] = 1.0 / signal - np.exp(-p[3]) / amplitude
    a = information[:n, :n].copy()
    for i in range(n):
        at_bound = (i == 1 or i == 3) and (p[i] <= low or p[i] >= high or p[i + 1] <= 0.0)
        if at_bound:
            # a parameter that cannot move has no error of its own
            a[i, i] += 1e12 * (1.0 + a[i, i])
        a[i, i] = a[i, i] * (1.0 + 1e-12) + 1e-14
    b = slope[:n].copy()
    if not _solve_in_place(a, b):
        return np.nan
    variance = 0.0
    for i in range(n):
        variance += slope[i] * b[i]
    return np.sqrt(variance) if variance > 0 else np.nan


@njit(cache=True, nogil=True)
def fit_rows(
    counts: NDArray[np.float64],
    shares: NDArray[np.float64],
    log_lifetimes: NDArray[np.float64],
    background: NDArray[np.float64],
    prior_mean: NDArray[np.float64],
    prior_information: NDArray[np.float64],
    stride: int,
) -> NDArray[np.float64]:
    """Fit every row of gate counts.

    Parameters
    ----------
    counts
        Gate counts, shape ``(n, n_gates)``.
    shares
        Gate shares of the dictionary, shape ``(n_lifetimes, n_gates)``.
    log_lifetimes
        Natural logarithm of its lifetimes in ns, evenly spaced, shape ``(n_lifetimes,)``.
    background
        Gate shares of the background, shape ``(n_gates,)``.
    prior_mean, prior_information
        Photons of background expected in each row, and one over their variance, shape ``(n,)``.
    stride
        Pairs are searched on every so-manieth lifetime.

    Returns
    -------
    numpy.ndarray, shape ``(n, 7)``
        Two log lifetimes, their photons, photons of background, relative error of the average
        lifetime, log-likelihood.
    """
    result = np.full((counts.shape[0], 7), np.nan)
    pair = np.empty(6)
    for r in range(counts.shape[0]):
        row = counts[r]
        mean, information = prior_mean[r], prior_information[r]
        if not row.sum() > 0:
            result[r, :2] = log_lifetimes[0]
            result[r, 2:5] = 0.0
            continue
        first, _ = _start(row, shares, background, mean, information, stride, True)
        value = _refine(
            row, shares, log_lifetimes, background, mean, information, first, first, True, result[r]
        )
        first, second = _start(row, shares, background, mean, information, stride, False)
        result[r, 6] = value
        if first == second:
            continue
        better = _refine(
            row, shares, log_lifetimes, background, mean, information, first, second, False, pair
        )
        if better > value + _WORTH_A_SECOND:
            if pair[0] > pair[1]:
                pair[0], pair[1] = pair[1], pair[0]
                pair[2], pair[3] = pair[3], pair[2]
            result[r, :6] = pair
            result[r, 6] = better
    return result
