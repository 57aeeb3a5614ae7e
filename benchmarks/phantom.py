"""Do bins that straddle a switch become false states, and are fast rates right?

    python benchmarks/phantom.py [--quick] [--workers 4] [--cell '*counts*'] [--write]

Dots with two states, 600 s long, with 10 switches per s; 20,000 counts per s in the bright state,
a fifth or a twentieth of that in the dim one. Reported on bins of 1, 10 and 50 ms, each with the
photons at hand (the likelihood then chooses its own grid) and without them: the likelihood has to
live with those bins, in which up to half an exit is expected. Wanted: P(3 or more states) below
0.05 in each dot, and rates whose 90 % intervals, given two states, hold the truth. `z` is the error
of the posterior mean in posterior standard deviations, averaged: systematic errors show there.
"""

from __future__ import annotations

import time

import common
import numpy as np
import pandas as pd

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.gibbs import posterior_draws
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.photons.binning import bin_photons
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.simulate import SimulatedState, simulate

BRIGHT_PER_S = 2e4
EXIT_RATE_PER_S = 10.0
DURATION_S = 600.0
MOST_STATES = 4
N_TRACES, N_QUICK = 5, 1
CONTRASTS = (5, 20)
WIDTHS_MS = (1, 10, 50)
CELLS = {
    f"contrast{contrast}_{width}ms_{source}": (contrast, width, source)
    for source in ("photons", "counts")
    for contrast in CONTRASTS
    for width in WIDTHS_MS
}


def work(task: common.Task) -> common.Row:
    """Simulate one dot and fit it."""
    return analyse(task, DURATION_S)


def analyse(task: common.Task, duration_s: float, most: int = MOST_STATES) -> common.Row:
    """Row of one dot."""
    contrast, width_ms, source = CELLS[task.cell]
    model = load_model("free")
    # the same dot on all widths, with and without photons
    (for_dot,) = common.Task(task.trace, f"contrast{contrast}").generators(1)
    (for_fit,) = task.generators(1)
    dot = simulate(
        [SimulatedState(rate_per_s=BRIGHT_PER_S / factor) for factor in (1, contrast)],
        [EXIT_RATE_PER_S] * 2,
        duration_s,
        period_ns=None,
        tick_s=1e-7,
        n_detectors=1,
        random_seed=for_dot,
    )
    started = time.perf_counter()
    trace = bin_photons(dot.photons, width_ms * 1e-3, response=False, background_rate_per_s=0.0)
    if source == "counts":
        trace.attrs.update(digest="unknown", path="")
    grid = choose_grid(trace, model, for_fit)
    likelihood = BinnedLikelihood(grid.counts, grid.width_s)
    numbers = range(1, most + 1)
    evidences = scan_n_states(likelihood, grid.counts, model, numbers, for_fit)
    probability = probabilities(evidences)
    two = evidences[1]
    posterior = working_posterior(likelihood, model, 2)
    drawn = posterior_draws(two, posterior, for_fit)
    exits = np.stack([draw.ordered().exit_rate_per_s for draw in drawn.draws])
    row: common.Row = {
        "probability": probability.tolist(),
        "p_three_or_more": float(probability[2:].sum()),
        "evidence_method": [one.method for one in evidences],
        "draws_from": drawn.source,
        "likelihood_width_s": grid.width_s,
        "loss_nats": grid.loss_nats,
        "exits_per_bin": EXIT_RATE_PER_S * grid.width_s,
        "n_jumps": dot.path.n_jumps,
        "seconds": time.perf_counter() - started,
    }
    for state, name in enumerate(("bright", "dim")):
        low, high = np.quantile(exits[:, state], [0.05, 0.95])
        mean, sd = exits[:, state].mean(), exits[:, state].std()
        row.update({
            f"{name}_mean": float(mean),
            f"{name}_z": float((mean - EXIT_RATE_PER_S) / sd),
            f"{name}_covered": bool(low <= EXIT_RATE_PER_S <= high),
        })  # fmt: skip
    return row


def lines_of(rows: pd.DataFrame) -> list[str]:
    """Table and acceptance lines."""
    fine = rows[rows["error"] == ""]
    lines, beyond = [], []
    covered = fine["bright_covered"].astype(int) + fine["dim_covered"].astype(int)
    for name, some in fine.groupby("cell", sort=False):
        bad = int((some["p_three_or_more"] >= 0.05).sum())
        if bad:
            beyond.append(f"{name} ({bad} of {len(some)})")
        lines.append([
            str(name),
            str(len(some)),
            f"{1e3 * some['likelihood_width_s'].median():g} ms",
            f"{some['exits_per_bin'].median():.3g}",
            f"{some['p_three_or_more'].max():.2g}",
            f"{int(covered[some.index].sum())} of {2 * len(some)}",
            f"{some['bright_mean'].mean():.2f}, {some['dim_mean'].mean():.2f}",
            f"{some['bright_z'].mean():+.1f}, {some['dim_z'].mean():+.1f}",
            f"{some['seconds'].median():.0f}",
        ])  # fmt: skip
    header = [
        "cell", "dots", "bin of the likelihood", "exits per bin", "largest P(3 or more)",
        "rates covered", "exit rates per s (truth 10, 10)", "z", "seconds",
    ]  # fmt: skip
    n = 2 * len(fine)
    inside = int(covered.sum())
    listed = f": {', '.join(beyond)}" if beyond else ""
    return [
        *common.table(header, lines),
        f"- P(3 or more states) below 0.05 in every dot: {common.verdict(not beyond)}{listed}",
        f"- rates within their 90 % intervals: {common.verdict(inside >= 0.8 * n)}: {inside} of "
        f"{n}; all cells of one contrast have the same dots, so these are not independent",
    ]


def main() -> None:
    options = common.parser(__doc__).parse_args()
    names = common.chosen_cells(CELLS, options)
    n_traces = options.traces or (N_QUICK if options.quick else N_TRACES)
    tasks = [common.Task(trace, name) for name in names for trace in range(n_traces)]
    rows = common.run("phantom", tasks, work, options)
    if rows.empty or (rows["error"] != "").all():
        raise SystemExit("nothing has been run yet, or every task failed")
    lines = common.head("Phantom states and fast rates", rows)
    common.publish("phantom", [*lines, *lines_of(rows)], options)


if __name__ == "__main__":
    main()
