"""What is said of real recordings, and does it depend on the width of the bins?

    python benchmarks/real_light.py [--workers 2] [--cell 'qd*'] [--write]

Recordings of single emitters, none of which is a documented perovskite nanocrystal, in
``../shared/data`` or ``PNCBAYES_DATA``. Of each, at bins of 2, 5 and 10 ms: the lines that were
taken out, the verdict with its reasons, the number of levels, the flicker, and the rate at which
levels are left (mean over the time spent in all, 90 % interval of draws around the mode). Rates
that agree within their intervals at all widths are marked. Nobody knows the truth.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import common
import numpy as np
import pandas as pd

from pncbayes.inference.dynamics import Dynamics
from pncbayes.inference.dynamics_checks import draw_points
from pncbayes.inference.find_dynamics import correct_instrument, dynamics_of_trace
from pncbayes.inference.trace import trace_to_fit
from pncbayes.photons.formats import read
from pncbayes.physics.modelfile import load_model

DATA = Path(os.environ.get("PNCBAYES_DATA", common.ROOT.parent / "shared" / "data"))
FILES = {
    "qd": "qd_hydraharp_t3/v10_t3.ptu",
    "nc_126": "nc_hydraharp_t2/DotD_run_one126.stream",
    "nc_52": "nc_hydraharp_t2/DotD_run_one52.stream",
    **{f"lhcii_{n}": f"lhcii_picoharp_pt3/trace{n}.pt3" for n in (1, 2, 4, 5, 6)},
}
WIDTHS_MS = (2, 5, 10)
MOST_STATES = 6
ALSO = [
    "inference/dynamics.py", "inference/dynamics_checks.py", "inference/dynamics_data.py",
    "inference/dynamics_families.py", "inference/dynamics_hidden.py",
    "inference/dynamics_point.py", "inference/dynamics_posterior.py",
    "inference/dynamics_search.py", "inference/find_dynamics.py", "hmm/flicker_grid.py",
    "hmm/product_emission.py", "hmm/product_kernels.py", "hmm/product_likelihood.py",
    "physics/flicker.py", "physics/dynamics_file.py",
]  # fmt: skip


def exit_rates(found: Dynamics, rng: np.random.Generator) -> tuple[float, float, float]:
    """Exits from levels per s, mean over time: median, 5 and 95 % of draws around the mode."""
    best = found.best
    posterior = best.posterior
    if best.n_levels == 1:
        return 0.0, 0.0, 0.0
    time_in = posterior.gradient(best.vector)[2].occupied.sum(axis=1)
    elsewhere = posterior.level_of[:, None] != posterior.level_of
    values = []
    for vector in draw_points(best, 200, rng):
        rates = posterior.unpack(vector).transition_rate_per_s * elsewhere
        values.append(float(time_in @ rates.sum(axis=1) / time_in.sum()))
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return float(middle), float(low), float(high)


def work(task: common.Task) -> common.Row:
    """One recording at one width; the number of the trace is the width in ms."""
    started = time.perf_counter()
    trace, _ = trace_to_fit(read(DATA / FILES[task.cell]), None, None)
    corrected = correct_instrument(trace)
    rng = task.generators(1)[0]
    found = dynamics_of_trace(
        corrected.trace, load_model("free"), MOST_STATES, rng, width_s=1e-3 * task.trace
    )
    middle, low, high = exit_rates(found, rng)
    lines = () if corrected.exposure is None else corrected.exposure.lines
    return {
        "lines": ", ".join(f"{line.frequency_hz:.4g} Hz ({line.depth:.2f})" for line in lines),
        "verdict": found.verdict,
        "reasons": "; ".join(found.reasons),
        "family": found.best.posterior.family.name,
        "n_levels": found.best.n_levels,
        "log_sd": float(found.log_sd[0]),
        "relaxation_rate_per_s": float(found.best.point.relaxation_rate_per_s),
        "exit_rate_per_s": middle,
        "exit_q05": low,
        "exit_q95": high,
        **{f"p_{name}": value for name, value in found.checks.p_values.items()},
        "seconds": time.perf_counter() - started,
    }


def report(rows: pd.DataFrame) -> list[str]:
    """Lines of the table."""
    lines = common.head("Real recordings at three widths of bins", rows)
    good = rows[rows["error"] == ""]
    table = []
    for cell in FILES:
        own = good[good["cell"] == cell].sort_values("trace")
        if not len(own):
            continue
        agree = own["exit_q05"].max() <= own["exit_q95"].min()
        for _, row in own.iterrows():
            checks = [
                f"{name} {row[f'p_{name}']:.2g}"
                for name in ("counts", "autocorrelation", "dwell_times", "decay")
                if f"p_{name}" in row and np.isfinite(row[f"p_{name}"])
            ]
            flicker = f"{row['log_sd']:.3f}, {row['relaxation_rate_per_s']:.2g}"
            table.append(
                (
                    cell, str(row["trace"]), row["lines"] or "none", row["verdict"],
                    row["family"], str(row["n_levels"]),
                    flicker if row["log_sd"] > 0 else "none",
                    "{exit_rate_per_s:.2f} ({exit_q05:.2f} to {exit_q95:.2f})".format(**row),
                    "yes" if agree else "no", ", ".join(checks), f"{row['seconds']:.0f}",
                )
            )  # fmt: skip
    head = (
        "recording", "bins (ms)", "lines taken out", "verdict", "family", "levels",
        "flicker: log sd, per s", "exits per s", "rates agree", "p of checks", "s",
    )  # fmt: skip
    return lines + common.table(head, table)


def main() -> None:
    """Run what is missing and print the table."""
    options = common.parser(__doc__).parse_args()
    cells = [name for name in common.chosen_cells(FILES, options) if (DATA / FILES[name]).exists()]
    if not cells:
        raise SystemExit(f"no recordings at {DATA}; set PNCBAYES_DATA to their folder")
    tasks = [common.Task(width, cell) for width in reversed(WIDTHS_MS) for cell in cells]
    rows = common.run("real_light", tasks, work, options, also=ALSO)
    if len(rows):
        common.publish("real_light", report(rows), options)


if __name__ == "__main__":
    main()
