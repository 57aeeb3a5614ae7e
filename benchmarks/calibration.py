"""When P(number of states) says 80 %, is it right in 80 %?

    python benchmarks/calibration.py [--quick] [--workers 4] [--cell intensity] [--write]

Dots are drawn from the model's own priors: the number of states uniform from 1 to 6, brightness,
repelling levels, exit rates, jumps, first state; recordings of 5 to 30 s. With gates, where a few
hundred photons tell states apart, dots are dimmer and recordings 2 to 10 s. The fit has the same
priors and the same limit of 6 states. Cells: `intensity` (arrival times alone), `gates` (24 delay
gates; decays drawn around that of one exponential and a flat background), `gates_prior` (around a
shape that is drawn from its prior, too: nothing there is off the priors), and three kinds of dots
off the priors, which tell how robust the answer is.

Each figure stands beside the interval that it would have if the stated probabilities were true: the
number of states is drawn from every stated P again and again. Probabilities below 1e-6 count as
1e-6, the accuracy of the evidence.
"""

from __future__ import annotations

import time

import common
import dots
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.scan import probabilities, scan_n_states

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_STATES = 6
N_GATES = 24
DURATION_S = (5.0, 30.0)
DURATION_GATES_S = (2.0, 10.0)
FLOOR = 1e-6
N_RESAMPLED = 1000
N_RELIABILITY = 10
HARD = (0.3, 0.95)
# name: traces, traces with --quick, gates, off prior
CELLS: dict[str, tuple[int, int, int, str]] = {
    "intensity": (1000, 60, 1, ""),
    "gates": (200, 10, N_GATES, ""),
    "gates_prior": (200, 10, N_GATES, ""),
    "off_levels": (200, 10, 1, "levels"),
    "off_power_law": (200, 10, 1, "power_law"),
    "off_drift": (200, 10, 1, "drift"),
}


def work(task: common.Task) -> common.Row:
    """Draw one dot and find P(number of states)."""
    _, _, n_gates, off_prior = CELLS[task.cell]
    for_dot, for_fit = task.generators(2)
    n_states = int(for_dot.integers(1, MOST_STATES + 1))
    duration_s = float(for_dot.uniform(*(DURATION_S if n_gates == 1 else DURATION_GATES_S)))
    model = dots.MODEL if n_gates == 1 else dots.DIM_MODEL
    dot = dots.draw_dot(
        for_dot, n_states, duration_s, n_gates=n_gates, model=model, off_prior=off_prior,
        any_base=task.cell == "gates_prior",
    )  # fmt: skip
    return analyse(dot, for_fit)


def analyse(dot: dots.Dot, rng: np.random.Generator, *, most: int = MOST_STATES) -> common.Row:
    """Row of one dot.

    Parameters
    ----------
    dot
        The dot.
    rng
        Source of starts and draws.
    most
        Most states.
    """

    started = time.perf_counter()
    grid = choose_grid(dot.trace(), dot.model, rng)
    likelihood = BinnedLikelihood(grid.counts, grid.width_s)
    evidences = scan_n_states(likelihood, grid.counts, dot.model, range(1, most + 1), rng)
    probability = probabilities(evidences)
    return {
        "n_states": dot.n_states,
        "probability": probability.tolist(),
        "seconds": time.perf_counter() - started,
        "width_s": grid.width_s,
        "loss_nats": grid.loss_nats,
        "evidence_method": [one.method for one in evidences],
        "log_evidence": [one.log_evidence for one in evidences],
        "laplace": [one.laplace for one in evidences],
        "pareto_k": [one.pareto_k for one in evidences],
        "n_visited": int(np.unique(dot.path.jump_states).size),
        "n_jumps": dot.path.n_jumps,
        "n_photons": len(dot.photons),
        "duration_s": dot.path.duration_s,
        "rate_per_s": dot.gate_rate_per_s.sum(axis=1).tolist(),
        "exit_rate_per_s": dot.transition_rate_per_s.sum(axis=1).tolist(),
        "occupancy": dot.path.occupancy.tolist(),
    }


def calibration_error(top: Floats, right: Floats) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((top * N_RELIABILITY).astype(np.int64), N_RELIABILITY - 1)
    gap = np.bincount(bins, weights=right - top, minlength=N_RELIABILITY)
    return float(np.abs(gap).sum() / top.size)


def reliability_slope(top: Floats, right: Floats) -> float:
    """Slope of a logistic regression of being right on the log odds of the stated P; ideally 1."""
    odds = np.log(np.clip(top, FLOOR, 1 - FLOOR) / np.clip(1 - top, FLOOR, 1 - FLOOR))
    design = np.column_stack([np.ones_like(odds), odds])
    # a whisper of a prior around the ideal keeps separable outcomes finite
    ideal, weight = np.array([0.0, 1.0]), 1e-2
    beta = ideal.copy()
    for _ in range(30):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -30, 30)))
        slope = design.T @ (right - chance) - weight * (beta - ideal)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + weight * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        beta = beta + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-8:
            break
    return float(beta[1])


def figures(probability: Floats, n_states: Integers) -> dict[str, float]:
    """Figures of calibration.

    Parameters
    ----------
    probability
        Stated P, shape ``(n_dots, n_numbers)``.
    n_states
        True numbers of states, shape ``(n_dots,)``.
    """
    top = probability.max(axis=1)
    right = (probability.argmax(axis=1) + 1 == n_states).astype(float)
    stated = probability[np.arange(n_states.size), n_states - 1]
    expected = probability @ np.arange(1, probability.shape[1] + 1)
    return {
        "expected calibration error": calibration_error(top, right),
        "reliability slope": reliability_slope(top, right),
        "log score (mean log P of the truth)": float(np.log(np.maximum(stated, FLOOR)).mean()),
        "right, share": float(right.mean()),
        "mean stated minus true number": float((expected - n_states).mean()),
        "truth given less than 0.01, share": float((stated < 0.01).mean()),
    }


def resampled(
    probability: Floats, rng: np.random.Generator, n: int = N_RESAMPLED
) -> dict[str, tuple[float, float]]:
    """95 % interval of each figure if every stated P were true."""
    cumulative = np.cumsum(probability, axis=1)
    cumulative /= cumulative[:, -1:]
    found = []
    for _ in range(n):
        draws = (rng.random(len(probability))[:, None] > cumulative).sum(axis=1) + 1
        found.append(figures(probability, draws))
    return {
        name: tuple(np.quantile([one[name] for one in found], [0.025, 0.975]).tolist())
        for name in found[0]
    }


def _stack(rows: pd.DataFrame) -> tuple[Floats, Integers]:
    fine = rows[rows["error"] == ""]
    return np.stack(fine["probability"].tolist()), fine["n_states"].to_numpy(np.int64)


def cell_lines(name: str, rows: pd.DataFrame) -> list[str]:
    """Tables of one cell."""
    probability, n_states = _stack(rows)
    top = probability.max(axis=1)
    right = probability.argmax(axis=1) + 1 == n_states
    on_prior = not CELLS[name][3]
    intervals = resampled(probability, np.random.default_rng(common.ROOT_SEED))
    hard = float(np.mean((top > HARD[0]) & (top < HARD[1])))
    lines = [
        f"## {name}",
        "",
        f"{len(rows)} dots; {100 * hard:.0f} % of them hard (largest P between {HARD[0]} and "
        f"{HARD[1]}); median {rows['n_photons'].median():.0f} photons, "
        f"{rows['seconds'].median():.1f} s of work a dot.",
        "",
    ]
    table = []
    for figure, value in figures(probability, n_states).items():
        low, high = intervals[figure]
        is_error = figure == "expected calibration error"
        ok = value <= high if is_error else low <= value <= high
        table.append([figure, f"{value:.3f}", f"{low:.3f} to {high:.3f}", common.verdict(ok)])
    if on_prior:
        table.append(["hard, share", f"{hard:.2f}", "0.40 or more", common.verdict(hard >= 0.4)])
    lines += common.table(["figure", "value", "if the stated P were true (95 %)", ""], table)
    return [*lines, *_reliability(top, right), *_by_number(probability, n_states)]


def _reliability(top: Floats, right: NDArray[np.bool_]) -> list[str]:
    bins = np.minimum((top * N_RELIABILITY).astype(np.int64), N_RELIABILITY - 1)
    lines = []
    for b in np.unique(bins):
        some = bins == b
        n_right, n = int(right[some].sum()), int(some.sum())
        low, high = common.interval(n_right, n)
        lines.append([
            f"{b / N_RELIABILITY:.1f} to {(b + 1) / N_RELIABILITY:.1f}",
            str(n),
            f"{top[some].mean():.3f}",
            f"{n_right / n:.3f}",
            f"{low:.3f} to {high:.3f}",
        ])  # fmt: skip
    return common.table(["largest P", "dots", "mean stated", "right", "95 %"], lines)


def _by_number(probability: Floats, n_states: Integers) -> list[str]:
    """Stated against true frequency of each number of states."""
    lines = []
    for k in range(probability.shape[1]):
        stated, true = probability[:, k].sum(), int((n_states == k + 1).sum())
        sd = np.sqrt((probability[:, k] * (1 - probability[:, k])).sum())
        surely = int(((probability[:, k] > 0.9) & (n_states != k + 1)).sum())
        lines.append([
            str(k + 1),
            f"{stated:.1f}",
            str(true),
            f"{(true - stated) / max(sd, 1e-9):+.1f}",
            str(surely),
        ])  # fmt: skip
    header = ["states", "stated (sum of P)", "true", "z", "stated above 0.9 and wrong"]
    return common.table(header, lines)


def n_traces(name: str, quick: bool) -> int:
    """Traces of a cell."""
    usual, few, *_ = CELLS[name]
    return few if quick else usual


def main() -> None:
    options = common.parser(__doc__).parse_args()
    names = common.chosen_cells(CELLS, options)
    tasks = [
        common.Task(trace, name)
        for name in names
        for trace in range(options.traces or n_traces(name, options.quick))
    ]
    rows = common.run("calibration", tasks, work, options)
    if rows.empty:
        raise SystemExit("nothing has been run yet")
    lines = common.head("Calibration of P(number of states)", rows)
    for name in names:
        some = rows[rows["cell"] == name]
        if (some["error"] == "").sum() > 1:
            lines += cell_lines(name, some)
    common.publish("calibration", lines, options)


if __name__ == "__main__":
    main()
