"""Compiled loops of the photon-by-photon likelihood: `pncbayes.hmm.photon_by_photon` calls them.

A gap between photons is an integer; its propagator is a product of one entry per base-`BASE` digit
from tables of the powers of a few seeds. Every factor is non-negative, so no sum cancels.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["BASE", "LARGEST_EXPONENT", "backward", "fill_tables", "fold_tables", "forward"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_BITS = 7
BASE = 1 << _BITS
# One table entry may shrink a row by up to exp(-LARGEST_EXPONENT), on top of `_SMALL`, and still
# be a normal float.
LARGEST_EXPONENT = 300.0
_SMALL, _LARGE = 1e-100, 1e100


@njit(cache=True, nogil=True)
def fill_tables(seeds: Array) -> Array:
    """Powers 0 to ``BASE - 1`` of each seed, shape ``(n_levels, BASE, n_states, n_states)``."""
    n_levels, n_states = seeds.shape[0], seeds.shape[1]
    tables = np.zeros((n_levels, BASE, n_states, n_states))
    for level in range(n_levels):
        table = tables[level]
        for i in range(n_states):
            table[0, i, i] = 1.0
        table[1] = seeds[level]
        for power in range(2, BASE):
            left = table[power - 1] if power & 1 else table[power >> 1]
            right = table[1] if power & 1 else table[power >> 1]
            for i in range(n_states):
                for j in range(n_states):
                    for k in range(n_states):
                        table[power, i, k] += left[i, j] * right[j, k]
    return tables


@njit(cache=True, nogil=True)
def fold_tables(tables: Array, cotangent: Array) -> Array:
    """Carry derivatives by each power back to the seeds; overwrites `cotangent`."""
    n_levels = tables.shape[0]
    seeds = np.zeros((n_levels, tables.shape[2], tables.shape[2]))
    for level in range(n_levels):
        table, by = tables[level], cotangent[level]
        for power in range(BASE - 1, 1, -1):
            left, right = (power - 1, 1) if power & 1 else (power >> 1, power >> 1)
            by[left] += by[power] @ table[right].T
            by[right] += table[left].T @ by[power]
        seeds[level] = by[1]
    return seeds


@njit(cache=True, nogil=True)
def _times(row: Array, matrix: Array, product: Array) -> float:
    """Write ``row @ matrix`` to `product` and return its sum."""
    total = 0.0
    for j in range(row.size):
        value = 0.0
        for i in range(row.size):
            value += row[i] * matrix[i, j]
        product[j] = value
        total += value
    return total


@njit(cache=True, nogil=True)
def _steps(gap: int, n_levels: int, cap: int, level_of: Integers, power_of: Integers) -> int:
    """Write the tables and powers whose product spans `gap`; return how many."""
    n_steps, level = 0, 0
    while gap > 0:
        if level < n_levels - 1:
            power = gap & (BASE - 1)
            gap >>= _BITS
        else:
            power = min(gap, cap)
            gap -= power
        if power > 0:
            level_of[n_steps], power_of[n_steps] = level, power
            n_steps += 1
        level = min(level + 1, n_levels - 1)
    return n_steps


@njit(cache=True, nogil=True)
def forward(
    gap_ticks: Integers,
    gate: Integers,
    starts: Integers,
    weight: Array,
    initial: Array,
    tables: Array,
    cap: int,
    rows: Array,
) -> tuple[float, Array]:
    """Log of the weight of all photons, and the row of state probabilities after the last.

    `starts` are the photons before which the row is set to `initial`. Rows after each photon,
    summing to 1, are kept in `rows` unless it is empty.
    """
    n_states, last = initial.size, tables.shape[0] - 1
    keep = rows.shape[0] > 0
    row, product = initial.copy(), np.empty(n_states)
    log_weight, total, i_start = 0.0, 1.0, 0
    for n in range(gap_ticks.size):
        if i_start < starts.size and starts[i_start] == n:
            log_weight += np.log(total)
            row[:] = initial
            i_start += 1
        gap, level = gap_ticks[n], 0
        while gap > 0 and level < last:
            if gap & (BASE - 1):
                _times(row, tables[level, gap & (BASE - 1)], product)
                row, product = product, row
            gap >>= _BITS
            level += 1
        while gap > 0:
            power = min(gap, cap)
            gap -= power
            total = _times(row, tables[last, power], product)
            row, product = product, row
            if total < _SMALL:
                row /= total
                log_weight += np.log(total)
        total = 0.0
        for i in range(n_states):
            row[i] *= weight[gate[n], i]
            total += row[i]
        if not total > 0.0:
            return -np.inf, row
        if keep or total < _SMALL or total > _LARGE:
            log_weight += np.log(total)
            inverse = 1.0 / total
            for i in range(n_states):
                row[i] *= inverse
            total = 1.0
            if keep:
                rows[n] = row
    return log_weight, row


@njit(cache=True, nogil=True)
def backward(
    gap_ticks: Integers,
    gate: Integers,
    weight: Array,
    initial: Array,
    tables: Array,
    cap: int,
    rows: Array,
    last_column: Array,
    most_steps: int,
    posterior: Array,
) -> tuple[Array, Array, Array]:
    """Return derivatives by `tables`, `weight` and `initial`; fill `posterior` at the photons.

    `last_column`, shape ``(n_states,)``: probability of what follows the last photon.
    """
    n_states = initial.size
    by_tables, by_weight = np.zeros_like(tables), np.zeros_like(weight)
    path, column, before = (
        np.empty((most_steps + 1, n_states)),
        last_column.copy(),
        np.empty(n_states),
    )
    level_of, power_of = np.empty(most_steps, np.int64), np.empty(most_steps, np.int64)
    for n in range(gap_ticks.size - 1, -1, -1):
        path[0] = rows[n - 1] if n > 0 else initial
        n_steps = _steps(gap_ticks[n], tables.shape[0], cap, level_of, power_of)
        for s in range(n_steps):
            total = _times(path[s], tables[level_of[s], power_of[s]], path[s + 1])
            for i in range(n_states):
                path[s + 1, i] /= total
        norm = 0.0
        for i in range(n_states):
            norm += path[n_steps, i] * weight[gate[n], i] * column[i]
        for i in range(n_states):
            share = path[n_steps, i] * column[i] / norm
            by_weight[gate[n], i] += share
            posterior[n, i] = share * weight[gate[n], i]
            column[i] *= weight[gate[n], i]
        for s in range(n_steps - 1, -1, -1):
            matrix, by_matrix = (
                tables[level_of[s], power_of[s]],
                by_tables[level_of[s], power_of[s]],
            )
            norm, size = 0.0, 0.0
            for i in range(n_states):
                value = 0.0
                for j in range(n_states):
                    value += matrix[i, j] * column[j]
                before[i] = value
                norm += path[s, i] * value
                size += value
            for i in range(n_states):
                share = path[s, i] / norm
                for j in range(n_states):
                    by_matrix[i, j] += share * column[j]
            for i in range(n_states):
                column[i] = before[i] / size
        size = column.sum()
        for i in range(n_states):
            column[i] /= size
    return by_tables, by_weight, column / (initial @ column)
