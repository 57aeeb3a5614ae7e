"""Do the 90 % intervals of brightness, decay and switching rates hold the truth in 90 %?

    python benchmarks/interval_coverage.py [--quick] [--workers 4] [--cell gates] [--write]

Dots are drawn from the model's own priors, as in `calibration.py`, and fitted with the right number
of states. States are matched by brightness: the truth and every posterior draw are put in the order
bright to dim. The first table has the states that the dot visited (a transition: both of its
states); of the others the data say nothing, and their intervals repeat the prior. The second has
all states. Decay: the probability of the middle gate. Binomial intervals take the entries of one
dot for independent.
"""

from __future__ import annotations

import time

import common
import dots
import numpy as np
import pandas as pd

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.evidence import estimate_evidence
from pncbayes.inference.gibbs import posterior_draws
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Parameters

CELLS = {"gates": 24, "intensity": 1}
N_TRACES, N_QUICK = 300, 15
MOST_STATES = 6
DURATION_S = (5.0, 30.0)
QUANTILES = (0.05, 0.95)
ALLOWED = (0.85, 0.95)


def work(task: common.Task) -> common.Row:
    """Draw one dot and compare its truth with the intervals."""
    for_dot, for_fit = task.generators(2)
    n_states = int(for_dot.integers(1, MOST_STATES + 1))
    duration_s = float(for_dot.uniform(*DURATION_S))
    dot = dots.draw_dot(for_dot, n_states, duration_s, n_gates=CELLS[task.cell])
    return analyse(dot, for_fit)


def analyse(dot: dots.Dot, rng: np.random.Generator) -> common.Row:
    """Row of one dot."""
    started = time.perf_counter()
    grid = choose_grid(dot.trace(), dot.model, rng)
    likelihood = BinnedLikelihood(grid.counts, grid.width_s)
    simpler: Parameters | None = None
    for number in range(1, dot.n_states + 1):
        # the simpler models are only there for their warm starts
        posterior = working_posterior(likelihood, dot.model, number)
        modes = find_modes(posterior, grid.counts, grid.width_s, simpler, rng)
        simpler = posterior.unpack(modes[0].vector)
    evidence = estimate_evidence(posterior, modes, rng)
    found = posterior_draws(evidence, posterior, rng)
    draws = [draw.ordered() for draw in found.draws]
    return {
        "n_states": dot.n_states,
        "entries": compare(dot, draws),
        "method_of_draws": found.source,
        "effective_draws": found.effective,
        "r_hat": found.r_hat,
        "seconds": time.perf_counter() - started,
        "width_s": grid.width_s,
        "n_photons": len(dot.photons),
    }


def compare(dot: dots.Dot, draws: list[Parameters]) -> list[common.Row]:
    """Truth and interval of every quantity; both have their states from bright to dim."""
    n_states, n_gates = dot.gate_rate_per_s.shape
    visited = dot.path.occupancy > 0
    gate_rate = np.stack([draw.gate_rate_per_s for draw in draws])
    rates = np.stack([draw.transition_rate_per_s for draw in draws])
    entries: list[common.Row] = []

    def add(quantity: str, state: int, values: np.ndarray, truth: float, seen: bool) -> None:
        low, high = np.quantile(values, QUANTILES)
        entries.append({
            "quantity": quantity,
            "state": state,
            "truth": float(truth),
            "q05": float(low),
            "q95": float(high),
            "mean": float(values.mean()),
            "visited": bool(seen),
        })  # fmt: skip

    middle = n_gates // 2
    for i in range(n_states):
        total = dot.gate_rate_per_s[i].sum()
        add("brightness", i, gate_rate[:, i].sum(axis=1), total, visited[i])
        if n_gates > 1:
            share = gate_rate[:, i, middle] / gate_rate[:, i].sum(axis=1)
            add("decay", i, share, dot.gate_rate_per_s[i, middle] / total, visited[i])
        if n_states > 1:
            truth = dot.transition_rate_per_s[i]
            add("exit rate", i, rates[:, i].sum(axis=1), truth.sum(), visited[i])
            for j in range(n_states):
                if j != i:
                    both = visited[i] and visited[j]
                    add("transition rate", i, rates[:, i, j], truth[j], both)
    return entries


def entries_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per quantity, state and dot."""
    parts = []
    for _, row in rows[rows["error"] == ""].iterrows():
        part = pd.DataFrame(list(row["entries"]))
        parts.append(part.assign(method=row["method_of_draws"], n_states=row["n_states"]))
    return pd.concat(parts, ignore_index=True)


def coverage_table(entries: pd.DataFrame) -> list[str]:
    """Coverage by quantity."""
    lines = []
    for name in ("brightness", "decay", "exit rate", "transition rate"):
        some = entries[entries["quantity"] == name]
        if some.empty:
            continue
        below = int((some["truth"] < some["q05"]).sum())
        above = int((some["truth"] > some["q95"]).sum())
        n = len(some)
        share = 1.0 - (below + above) / n
        low, high = common.interval(n - below - above, n)
        lines.append([
            name,
            str(n),
            f"{100 * share:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f} %",
            f"{100 * below / n:.1f} %",
            f"{100 * above / n:.1f} %",
            common.verdict(ALLOWED[0] <= share <= ALLOWED[1]),
        ])  # fmt: skip
    header = ["quantity", "N", "covered", "95 %", "truth below", "truth above", "85 to 95 %"]
    return common.table(header, lines)


def cell_lines(name: str, rows: pd.DataFrame) -> list[str]:
    """Tables of one cell."""
    entries = entries_of(rows)
    methods = rows["method_of_draws"].value_counts()
    told = ", ".join(f"{count} {method}" for method, count in methods.items())
    lines = [
        f"## {name}",
        "",
        f"{len(rows)} dots, median {rows['seconds'].median():.1f} s each; draws from: {told}.",
        "",
        "States that were visited.",
        "",
        *coverage_table(entries[entries["visited"]]),
        "All states.",
        "",
        *coverage_table(entries),
    ]
    for source in methods.index:
        some = entries["visited"] & (entries["method"] == source)
        lines += [f"Visited states of the dots whose draws are from: {source}.", ""]
        lines += coverage_table(entries[some])
    return lines


def main() -> None:
    options = common.parser(__doc__).parse_args()
    names = common.chosen_cells(CELLS, options)
    n_traces = options.traces or (N_QUICK if options.quick else N_TRACES)
    tasks = [common.Task(trace, name) for name in names for trace in range(n_traces)]
    rows = common.run("interval_coverage", tasks, work, options)
    if rows.empty:
        raise SystemExit("nothing has been run yet")
    lines = common.head("Coverage of 90 % intervals", rows)
    for name in names:
        some = rows[rows["cell"] == name]
        if (some["error"] == "").any():
            lines += cell_lines(name, some)
    common.publish("interval_coverage", lines, options)


if __name__ == "__main__":
    main()
