"""Is the number of levels right, and are the bins assigned to the right level?

    python benchmarks/accuracy.py [--quick] [--workers 4] [--cell 'm3_*'] [--no-peers] [--write]

Photon streams with 2 to 6 equidistant levels, background included: 5 % to 100 % of the brightest;
exponential dwells, the next level uniform among the others, arrival times in ticks of 100 ns. Also
streams of constant rate, and four levels with power-law dwells. A trace is right when the most
probable number of levels, of 1 to 8, is the true one. A bin of 10 ms is mis-assigned when the
level that holds most of it is not the one assigned; a fitted state stands for the true level
nearest in the square root of the rate, in which counts have equal errors.

The oracle is the Poisson hidden Markov model on bins of 10 ms, one state per bin, with the true
parameters; its states are the most probable one of each bin. hmmlearn's PoissonHMM with BIC over 1
to 7 states runs on the first 10 traces of a cell. The numbers of CPA (AMOLF, photon-by-photon
change points, grouping, BIC) were measured once on traces of the same kind and are copied here.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from typing import Any

import common
import numpy as np
import pandas as pd
from accuracy_cells import (
    BRIGHTNESSES,
    CELLS,
    CPA_CONSTANT,
    CPA_POWER_LAW,
    CPA_RIGHT,
    CPA_WRONG_BINS,
    DWELLS,
    LEVELS,
    WIDTH_S,
    Cell,
    bin_counts,
    grid_name,
    simulate_cell,
)
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import gammaln

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.assemble import states_group
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.photons.binning import bin_photons
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import Simulation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_STATES = 8
N_TRACES, N_PEER = 50, 10
N_QUICK, N_PEER_QUICK = 10, 2
HMMLEARN = "hmmlearn"


def nearest_levels(rates_per_s: Floats, truth_per_s: Floats) -> Integers:
    """True level nearest to each rate, in the square root, shape ``(n_states,)``."""
    apart = np.abs(np.sqrt(rates_per_s)[:, None] - np.sqrt(truth_per_s)[None, :])
    return np.asarray(apart.argmin(axis=1), dtype=np.int64)


def decode_with_truth(counts: Integers, cell: Cell) -> tuple[Integers, Integers]:
    """Oracle: most probable state of each bin, and the most probable path, at the truth."""
    m = cell.n_levels
    if m == 1:
        return np.zeros(counts.size, np.int64), np.zeros(counts.size, np.int64)
    exit_rate = 1.0 / (cell.dwell_s or (cell.law.mean_s if cell.law else np.inf))
    generator = np.full((m, m), exit_rate / (m - 1))
    np.fill_diagonal(generator, -exit_rate)
    transition = expm(generator * WIDTH_S)
    means = np.array(cell.rates_per_s) * WIDTH_S
    log_emission = counts[:, None] * np.log(means) - means - gammaln(counts + 1.0)[:, None]
    emission = np.exp(log_emission - log_emission.max(axis=1, keepdims=True))
    forward, backward = np.empty_like(emission), np.ones_like(emission)
    score, came_from = np.zeros(m), np.zeros((counts.size, m), np.int64)
    log_transition = np.log(transition)
    state = np.full(m, 1.0 / m)
    for n in range(counts.size):
        forward[n] = emission[n] * (state if n == 0 else state @ transition)
        forward[n] /= forward[n].sum()
        state = forward[n]
        if n:
            steps = score[:, None] + log_transition
            came_from[n] = steps.argmax(axis=0)
            score = steps.max(axis=0)
        score = score + log_emission[n]
    path = np.empty(counts.size, np.int64)
    path[-1] = score.argmax()
    for n in range(counts.size - 1, 0, -1):
        backward[n - 1] = transition @ (emission[n] * backward[n])
        backward[n - 1] /= backward[n - 1].sum()
        path[n - 1] = came_from[n, path[n]]
    return np.asarray((forward * backward).argmax(axis=1), dtype=np.int64), path


def work_ours(
    cell: Cell, dot: Simulation, rng: np.random.Generator, most: int = MOST_STATES
) -> common.Row:
    """Analyse one trace with pncbayes, and decode it with the oracle."""
    started = time.perf_counter()
    model = load_model("free")
    trace = bin_photons(dot.photons, WIDTH_S, response=False, background_rate_per_s=0.0)
    grid = choose_grid(trace, model, rng)
    likelihood = BinnedLikelihood(grid.counts, grid.width_s)
    evidences = scan_n_states(likelihood, grid.counts, model, range(1, most + 1), rng)
    probability = probabilities(evidences)
    best = int(np.argmax(probability))
    posterior = working_posterior(likelihood, model, best + 1)
    point = posterior.unpack(evidences[best].mode.vector).ordered()
    path = states_group(point, likelihood, trace, excess_noise=False)["path"].to_numpy()
    seconds = time.perf_counter() - started
    truth = dot.states_per_bin(WIDTH_S)
    levels = nearest_levels(point.rate_per_s, np.array(cell.rates_per_s))
    smoothed, viterbi = decode_with_truth(bin_counts(dot), cell)
    return {
        "probability": probability.tolist(),
        "n_found": best + 1,
        "right": best + 1 == cell.n_levels,
        "p_true": float(probability[cell.n_levels - 1]) if cell.n_levels <= most else 0.0,
        "wrong_bins": float(np.mean(levels[path] != truth)),
        "oracle_wrong_bins": float(np.mean(smoothed != truth)),
        "oracle_viterbi_wrong_bins": float(np.mean(viterbi != truth)),
        "seconds": seconds,
        "width_s": grid.width_s,
        "loss_nats": grid.loss_nats,
        "rate_per_s": point.rate_per_s.tolist(),
        "evidence_method": [one.method for one in evidences],
        "n_visited": int(np.unique(dot.jump_states).size),
        "n_jumps": dot.path.n_jumps,
        "n_photons": len(dot.photons),
    }


def work_hmmlearn(
    cell: Cell, dot: Simulation, rng: np.random.Generator, most: int = 7, n_starts: int = 3
) -> common.Row:
    """hmmlearn's PoissonHMM, the number of states by BIC."""
    # by name: it is an extra, and has no types
    poisson_hmm = import_module("hmmlearn.hmm").PoissonHMM
    started = time.perf_counter()
    counts = bin_counts(dot)
    mean = counts.mean()
    value = float((counts * np.log(mean) - mean - gammaln(counts + 1.0)).sum())
    bic = [-2.0 * value + np.log(counts.size)]
    for n_states in range(2, most + 1):
        best = -np.inf
        for seed in rng.integers(2**31, size=n_starts):
            hmm = poisson_hmm(n_states, n_iter=300, tol=1e-3, random_state=int(seed))
            hmm.fit(counts[:, None])
            best = max(best, float(hmm.score(counts[:, None])))
        bic.append(-2.0 * best + (n_states**2 + n_states - 1) * np.log(counts.size))
    found = int(np.argmin(bic)) + 1
    return {
        "bic": [float(number) for number in bic],
        "n_found": found,
        "right": found == cell.n_levels,
        "seconds": time.perf_counter() - started,
    }


def work(task: common.Task) -> common.Row:
    """Do one task."""
    cell = CELLS[task.cell]
    for_dot, for_fit, for_peer = task.generators(3)
    dot = simulate_cell(cell, for_dot)
    if task.method == HMMLEARN:
        return work_hmmlearn(cell, dot, for_peer)
    return work_ours(cell, dot, for_fit)


class Summary:
    """Figures of the rows, by cell and method."""

    def __init__(self, rows: pd.DataFrame) -> None:
        columns = ["right", "p_true", "wrong_bins", "oracle_wrong_bins", "seconds"]
        known = rows.reindex(columns=rows.columns.union(columns))
        # a row with an error has no answer, which is not a right one
        self.rows = known.assign(right=known["right"].eq(True))

    def of(self, names: list[str], method: str = common.OURS) -> pd.DataFrame:
        """Rows of some cells and one method."""
        chosen = self.rows["cell"].isin(names) & (self.rows["method"] == method)
        return self.rows[chosen]

    def right(self, names: list[str], method: str = common.OURS) -> tuple[int, int]:
        """Traces with the right number of levels, and all."""
        some = self.of(names, method)
        return int(some["right"].sum()), len(some)

    def share(self, names: list[str], method: str = common.OURS) -> float:
        """Per cent of traces with the right number of levels; NaN without any."""
        right, n = self.right(names, method)
        return 100.0 * right / n if n else float("nan")

    def median(self, name: str, column: str) -> float:
        """Median of a column over the traces of a cell; NaN without any."""
        some = self.of([name])
        return float(some[column].median()) if len(some) else float("nan")


def _number(value: float, digits: int = 0) -> str:
    return "-" if not np.isfinite(value) else f"{value:.{digits}f}"


def grid_tables(summary: Summary) -> list[str]:
    """Tables of right numbers, mis-assigned bins, and of certainty and time."""
    header = ["counts per 10 ms", "mean dwell", *(f"{m} levels" for m in LEVELS)]
    right, bins, sure = [], [], []
    for dwell_s in DWELLS:
        for cb in BRIGHTNESSES:
            start = [str(cb), f"{dwell_s:g} s"]
            names = [grid_name(m, cb, dwell_s) for m in LEVELS]
            right.append([
                *start,
                *(
                    f"**{_number(summary.share([name]))}** / {cpa:g} / "
                    f"{_number(summary.share([name], HMMLEARN))}"
                    for name, cpa in zip(names, CPA_RIGHT[cb, dwell_s], strict=True)
                ),
            ])  # fmt: skip
            bins.append([
                *start,
                *(
                    f"**{_number(100 * summary.median(name, 'wrong_bins'), 2)}** / "
                    f"{_number(100 * summary.median(name, 'oracle_wrong_bins'), 2)} / {cpa:g}"
                    for name, cpa in zip(names, CPA_WRONG_BINS[cb, dwell_s], strict=True)
                ),
            ])  # fmt: skip
            sure.append([
                *start,
                *(
                    f"{int((summary.of([name])['p_true'] < 0.01).sum())} of "
                    f"{len(summary.of([name]))}, {_number(summary.median(name, 'seconds'), 1)} s"
                    for name in names
                ),
            ])  # fmt: skip
    return [
        "Per cent of traces with the right number of levels: **pncbayes** / CPA / hmmlearn + BIC "
        f"(first {N_PEER} traces at most).",
        "",
        *common.table(header, right),
        "Mis-assigned bins, median, per cent: **pncbayes** / oracle / CPA.",
        "",
        *common.table(header, bins),
        "Traces in which the true number of levels got less than 1 %, and the median time.",
        "",
        *common.table(header, sure),
    ]


def other_table(summary: Summary) -> list[str]:
    """Table of the cells beside the grid."""
    lines = []
    for name, cell in CELLS.items():
        if cell.on_grid:
            continue
        published = CPA_CONSTANT if cell.n_levels == 1 else CPA_POWER_LAW
        some = summary.of([name])
        lines.append([
            name,
            str(len(some)),
            _number(summary.share([name])),
            f"{published:g}",
            _number(summary.share([name], HMMLEARN)),
            _number(100 * summary.median(name, "wrong_bins"), 2),
            _number(100 * summary.median(name, "oracle_wrong_bins"), 2),
            _number(summary.median(name, "seconds"), 1),
        ])  # fmt: skip
    header = ["cell", "N", "right %", "CPA %", "hmmlearn + BIC %"]
    header += ["mis-assigned %", "oracle %", "seconds"]
    return ["Other cells.", "", *common.table(header, lines)]


def _grid_cells(counts: range = range(2, 7)) -> list[tuple[str, int, float, float, float]]:
    """Name, counts, dwell and the two numbers of CPA of the cells with some numbers of levels."""
    return [
        (grid_name(m, cb, dwell_s), cb, dwell_s, right[m - 2], CPA_WRONG_BINS[cb, dwell_s][m - 2])
        for (cb, dwell_s), right in CPA_RIGHT.items()
        for m in counts
    ]


def _share_line(summary: Summary, label: str, names: list[str], wanted: float) -> str:
    """One acceptance line: pooled share, and cells whose interval lies below."""
    right, n = summary.right(names)
    if not n:
        return f"- {label}: {common.verdict(None)}"
    below = [
        name
        for name in names
        if summary.right([name])[1] and common.interval(*summary.right([name]))[1] < wanted
    ]
    low, high = common.interval(right, n)
    ok = right / n >= wanted and not below
    listed = f"; wholly below: {', '.join(below)}" if below else "; no cell wholly below"
    return (
        f"- {label}: {common.verdict(ok)}: {right} of {n}, {100 * right / n:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}); {len(names)} cells{listed}"
    )


def acceptance(summary: Summary) -> list[str]:
    """What was promised, and whether it holds."""
    few = _grid_cells(range(2, 5))
    strong = [name for name, _, _, cpa, _ in few if cpa >= 60]
    weak = [name for name, cb, dwell, *_ in few if cb >= 20 and dwell >= 0.4 and name not in strong]
    lines = [
        _share_line(summary, "(a) 2 to 4 levels where CPA has 60 % or more, 95 %", strong, 0.95),
        _share_line(summary, "(b) other cells of 2 to 4 levels, 20 counts, 0.4 s, 90 %", weak, 0.9),
    ]
    many = [(name, cpa) for name, _, _, cpa, _ in _grid_cells(range(5, 7))]
    run = [(name, cpa) for name, cpa in many if summary.right([name])[1]]
    if run:
        names = [name for name, _ in run]
        ours, cpa = summary.share(names), float(np.mean([number for _, number in run]))
        bic = summary.share(names, HMMLEARN)
        ok = ours >= np.nanmax([cpa, bic])
        lines.append(
            f"- (c) 5 and 6 levels, pooled over {len(names)} cells: {common.verdict(bool(ok))}: "
            f"{ours:.1f} %, CPA {cpa:.1f} %, hmmlearn + BIC {_number(bic, 1)} %"
        )
    else:
        lines.append(f"- (c) 5 and 6 levels: {common.verdict(None)}")
    return [*lines, *_bins_lines(summary, few)]


def _bins_lines(summary: Summary, cells: list[tuple[str, int, float, float, float]]) -> list[str]:
    """Acceptance lines of mis-assigned bins, against the oracle and against CPA."""
    beyond: dict[str, list[str]] = {"oracle": [], "CPA": []}
    n_run = {"oracle": 0, "CPA": 0}
    worst = {"oracle": -np.inf, "CPA": -np.inf}
    for name, cb, dwell, _, cpa in cells:
        own = 100 * summary.median(name, "wrong_bins")
        if not np.isfinite(own):
            continue
        if cb <= 20 and dwell >= 0.4:
            oracle = 100 * summary.median(name, "oracle_wrong_bins")
            # a median of few bins can be zero
            ratio = own / oracle if oracle > 0 else (1.0 if own == 0 else np.inf)
            n_run["oracle"] += 1
            worst["oracle"] = max(worst["oracle"], ratio)
            if ratio > 1.25:
                beyond["oracle"].append(f"{name} {ratio:.2f}")
        if cb == 400:
            n_run["CPA"] += 1
            worst["CPA"] = max(worst["CPA"], own - cpa)
            if own > cpa + 0.1:
                beyond["CPA"].append(f"{name} {own:.2f} against {cpa:g}")
    labels = {
        "oracle": "(d) mis-assigned bins at most 1.25 times the oracle's, 2 to 4 levels, 5 and 20 "
        "counts, 0.4 s and more",
        "CPA": "(d) mis-assigned bins at most 0.1 points above CPA, 2 to 4 levels, 400 counts",
    }
    lines = []
    for key, label in labels.items():
        ok = not beyond[key] if n_run[key] else None
        figure = f": worst {worst[key]:.2f}" if n_run[key] else ""
        listed = f"; beyond: {', '.join(beyond[key])}" if beyond[key] else ""
        lines.append(f"- {label}: {common.verdict(ok)}{figure}{listed}")
    return lines


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--no-peers", action="store_true", help="without hmmlearn")
    options: argparse.Namespace = parser.parse_args()
    n_traces = options.traces or (N_QUICK if options.quick else N_TRACES)
    names = common.chosen_cells(CELLS, options)
    tasks = [common.Task(trace, name) for name in names for trace in range(n_traces)]
    if not options.no_peers:
        n_peer = min(n_traces, N_PEER_QUICK if options.quick else N_PEER)
        tasks += [common.Task(trace, name, HMMLEARN) for name in names for trace in range(n_peer)]
    rows = common.run("accuracy", tasks, work, options)
    if rows.empty:
        raise SystemExit("nothing has been run yet")
    summary = Summary(rows)
    lines: list[Any] = common.head("Accuracy on simulated photon streams", rows, "hmmlearn")
    lines += [*grid_tables(summary), *other_table(summary), "Acceptance.", ""]
    common.publish("accuracy", [*lines, *acceptance(summary)], options)


if __name__ == "__main__":
    main()
