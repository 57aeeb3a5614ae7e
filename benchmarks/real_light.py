"""What is said of real recordings, and do rates depend on the width of the bins?

    python benchmarks/real_light.py [--workers 2] [--cell 'qd*'] [--write]

Recordings of single emitters, none of which is a documented perovskite nanocrystal, in
``../shared/data`` or ``PNCBAYES_DATA``. Of each: the lines and afterpulses that were taken out and,
in bins of 10 ms, the verdict with its reasons, the number of levels, the flicker and the checks.
The family found there is then fitted to bins of 5 and of 2 ms, beginning at its parameters; for
each width the table has the rate at which levels are left (mean over the time spent in all, 90 %
interval of draws around the mode). Rates agree where all three intervals share a value. Nobody
knows the truth.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import common
import numpy as np
import pandas as pd
import xarray as xr

from pncbayes.inference.dynamics_checks import draw_points
from pncbayes.inference.dynamics_data import dynamics_data
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import Optimum, climb, evidence_at
from pncbayes.inference.find_dynamics import correct_instrument, dynamics_of_trace
from pncbayes.inference.trace import trace_to_fit
from pncbayes.photons.binning import rebin
from pncbayes.photons.formats import read
from pncbayes.physics.modelfile import load_model

DATA = Path(os.environ.get("PNCBAYES_DATA", common.ROOT.parent / "shared" / "data"))
FILES = {
    "qd": "qd_hydraharp_t3/v10_t3.ptu",
    "nc_126": "nc_hydraharp_t2/DotD_run_one126.stream",
    "nc_52": "nc_hydraharp_t2/DotD_run_one52.stream",
    **{f"lhcii_{n}": f"lhcii_picoharp_pt3/trace{n}.pt3" for n in (1, 2, 4, 5, 6)},
}
WIDTHS_MS = (10, 5, 2)
MOST_STATES = 6
ALSO = [
    "inference/dynamics.py", "inference/dynamics_checks.py", "inference/dynamics_data.py",
    "inference/dynamics_families.py", "inference/dynamics_hidden.py",
    "inference/dynamics_flickers.py", "inference/dynamics_store.py",
    "inference/dynamics_verdict.py", "inference/dynamics_widths.py",
    "photons/afterpulse_removal.py",
    "inference/dynamics_point.py", "inference/dynamics_posterior.py",
    "inference/dynamics_search.py", "inference/find_dynamics.py", "hmm/flicker_grid.py",
    "hmm/product_emission.py", "hmm/product_kernels.py", "hmm/product_likelihood.py",
    "physics/flicker.py", "physics/dynamics_file.py",
]  # fmt: skip


def exit_rates(best: Optimum, rng: np.random.Generator) -> tuple[float, float, float]:
    """Exits from levels per s, mean over time: median, 5 and 95 % of draws around the mode."""
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


def at_width(best: Optimum, trace: xr.Dataset, width_s: float) -> Optimum:
    """The same family in bins of another width."""
    old = best.posterior
    counts = np.asarray(rebin(trace, width_s)["counts"].values, dtype=np.float64)
    lowest = float(best.point.signal_per_s.sum(axis=1).min() + old.data.background_per_s.sum())
    data = dynamics_data(
        trace, counts, width_s, darkest_per_s=lowest, concentration=old.data.concentration
    )
    posterior = DynamicsPosterior(
        data, old.model, old.family, old.n_levels, old.grid.n_points, priors=old.priors
    )
    return evidence_at(climb(posterior, posterior.pack(best.point), exact=True))


def work(task: common.Task) -> common.Row:
    """One recording."""
    started = time.perf_counter()
    trace, _ = trace_to_fit(read(DATA / FILES[task.cell]), None, None)
    corrected = correct_instrument(trace)
    rng = task.generators(1)[0]
    found = dynamics_of_trace(
        corrected.trace,
        load_model("free"),
        MOST_STATES,
        rng,
        width_s=1e-3 * WIDTHS_MS[0],
        recorded=corrected.recorded,
    )
    seconds = time.perf_counter() - started
    rates = {}
    for width_ms in WIDTHS_MS:
        best = found.best
        if width_ms != WIDTHS_MS[0]:
            best = at_width(best, corrected.trace, 1e-3 * width_ms)
        middle, low, high = exit_rates(best, rng)
        rates |= {f"exits_{width_ms}": middle, f"low_{width_ms}": low, f"high_{width_ms}": high}
    lines = () if corrected.exposure is None else corrected.exposure.lines
    return {
        "lines": ", ".join(f"{line.frequency_hz:.4g} Hz ({line.depth:.2f})" for line in lines),
        "notes": "; ".join(corrected.notes),
        "verdict": found.verdict,
        "reasons": "; ".join(found.reasons),
        "remarks": "; ".join(found.remarks),
        "family": found.best.posterior.family.name,
        "n_levels": found.best.n_levels,
        "p_levels": float(found.n_levels.max()),
        "log_sd": float(found.log_sd[0]),
        "relaxation_rate_per_s": float(found.best.point.relaxation_rate_per_s),
        **rates,
        **{f"p_{name}": value for name, value in found.checks.p_values.items()},
        "seconds": seconds,
    }


def agree(row: pd.Series) -> str:
    """Whether intervals at all widths share a value."""
    if row["n_levels"] == 1:
        return "no switches"
    lows = [row[f"low_{width_ms}"] for width_ms in WIDTHS_MS]
    highs = [row[f"high_{width_ms}"] for width_ms in WIDTHS_MS]
    return "yes" if max(lows) <= min(highs) else "no"


def report(rows: pd.DataFrame) -> list[str]:
    """Lines of the table."""
    lines = common.head("Real recordings", rows)
    good = rows[rows["error"] == ""].set_index("cell")
    table, rates, said = [], [], []
    for cell in FILES:
        if cell not in good.index:
            continue
        row = good.loc[cell]
        checks = [
            f"{name.replace('_', ' ')} {row[f'p_{name}']:.2g}"
            for name in ("counts", "autocorrelation", "dwell_times", "decay")
            if f"p_{name}" in row and np.isfinite(row[f"p_{name}"])
        ]
        flicker = f"{row['log_sd']:.3f}, {row['relaxation_rate_per_s']:.2g}"
        table.append(
            (
                cell, row["lines"] or "none", row["verdict"], row["family"], str(row["n_levels"]),
                flicker if row["log_sd"] > 0 else "none", ", ".join(checks),
                f"{row['seconds']:.0f}",
            )
        )  # fmt: skip
        every = [
            f"{row[f'exits_{w}']:.3g} ({row[f'low_{w}']:.3g} to {row[f'high_{w}']:.3g})"
            for w in WIDTHS_MS
        ]
        rates.append((cell, *every, agree(row)))
        for name in ("reasons", "remarks", "notes"):
            if row[name]:
                # without the folder, which is that of one machine
                text = re.sub(r"\S*/(?=\S+\.(ptu|pt3|stream))", "", row[name])
                said.append(f"- {cell}, {name}: {text}")
    head = (
        "recording", "lines taken out", "verdict", "family", "levels", "flicker: log sd, per s",
        "p of checks", "s",
    )  # fmt: skip
    widths = [f"{width_ms} ms" for width_ms in WIDTHS_MS]
    return [
        *lines, *common.table(head, table), "## Exits from levels, per s", "",
        *common.table(("recording", *widths, "agree"), rates), "## What was said", "", *said,
    ]  # fmt: skip


def main() -> None:
    """Run what is missing and print the table."""
    options = common.parser(__doc__).parse_args()
    cells = [name for name in common.chosen_cells(FILES, options) if (DATA / FILES[name]).exists()]
    if not cells:
        raise SystemExit(f"no recordings at {DATA}; set PNCBAYES_DATA to their folder")
    tasks = [common.Task(0, cell) for cell in cells]
    rows = common.run("real_light", tasks, work, options, also=ALSO)
    if len(rows):
        common.publish("real_light", report(rows), options)


if __name__ == "__main__":
    main()
