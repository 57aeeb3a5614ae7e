"""How many photons does a fit need to name a mechanism, beside what `detection_limit` says?

    python benchmarks/detection_check.py [--quick] [--workers 4] [--write]

The limit takes it to be known which photons are of the dim state, and that it lies exactly where
its mechanism puts it. Here whole recordings are fitted, in which the dim state is seen about five
times: 20 s, an exciton of 20 kcps and 6 ns, 200 ns period, a response of 150 ps known exactly,
a background of 200 per s. Photons of the dim state, 0.5 to 16 times the limit but for no more than
half of the time, are those expected of its true dwells.
"""

from __future__ import annotations

import functools
import itertools

import common
import numpy as np
import pandas as pd

import pncbayes as pnc
from pncbayes.inference.detection import detection_limit
from pncbayes.photons.delays import delay_clock
from pncbayes.photons.response import gaussian_on_clock
from pncbayes.physics.simulate import SimulatedState, simulate

DURATION_S, WIDTH_S, N_VISITS = 20.0, 0.01, 5.0
PERIOD_NS, DELAY_TICK_NS, PULSE_NS, RESPONSE_FWHM_NS = 200.0, 0.016, 5.0, 0.15
EXCITON_RATE_PER_S, EXCITON_NS, BACKGROUND_PER_S = 2.0e4, 6.0, 200.0
# brightness and lifetime over the exciton's
PLACES = {"auger": (2.0 * 0.2 / 6.0, 0.2 / 6.0), "hot_carrier": (0.5, 1.0), "nbc": (0.2, 0.2)}
N_TRACES, N_QUICK = 60, 4
TIMES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
CODE = (
    "inference/detection.py", "inference/naming.py", "inference/label_kernels.py",
    "inference/labels.py", "inference/mechanism_tables.py", "inference/state_evidence.py",
    "physics/mechanism_kernels.py", "physics/mechanisms.py", "physics/tied_kernels.py",
)  # fmt: skip


@functools.cache
def limit_photons(mechanism: str) -> float:
    """Photons at which `detection_limit` names it among all others."""
    brightness, lifetime = PLACES[mechanism]
    place = (
        {"relative_brightness": brightness} if mechanism == "hot_carrier"
        else {"relative_lifetime": lifetime}
    )  # fmt: skip
    return detection_limit(
        mechanism, exciton_lifetime_ns=EXCITON_NS, exciton_rate_per_s=EXCITON_RATE_PER_S,
        exciton_photons=EXCITON_RATE_PER_S * DURATION_S, background_rate_per_s=BACKGROUND_PER_S,
        response_fwhm_ns=RESPONSE_FWHM_NS, period_ns=PERIOD_NS, delay_tick_ns=DELAY_TICK_NS,
        random_seed=common.ROOT_SEED, **place,
    ).photons  # fmt: skip


def work(task: common.Task) -> common.Row:
    """Fit one recording."""
    (rng,) = task.generators(1)
    brightness, lifetime = PLACES[task.cell]
    limit, rate = limit_photons(task.cell), EXCITON_RATE_PER_S * brightness
    wanted = limit * float(np.exp(rng.uniform(np.log(TIMES[0]), np.log(TIMES[-1]))))
    dim_s = min(wanted / rate, 0.5 * DURATION_S)
    dwell_s = dim_s / N_VISITS
    states = [
        SimulatedState(EXCITON_RATE_PER_S, (EXCITON_NS,)),
        SimulatedState(rate, (EXCITON_NS * lifetime,)),
    ]
    dot = simulate(
        states, [N_VISITS / (DURATION_S - dim_s), 1.0 / dwell_s], DURATION_S, period_ns=PERIOD_NS,
        delay_tick_ns=DELAY_TICK_NS, pulse_ns=PULSE_NS, response_fwhm_ns=RESPONSE_FWHM_NS,
        background_rate_per_s=BACKGROUND_PER_S, random_seed=rng,
    )  # fmt: skip
    response = gaussian_on_clock(PULSE_NS, RESPONSE_FWHM_NS / 2.3548, delay_clock(dot.photons))
    trace = pnc.bin_photons(
        dot.photons, WIDTH_S, response=response,
        background_rate_per_s=(BACKGROUND_PER_S, 0.1 * BACKGROUND_PER_S),
    )  # fmt: skip
    fit = pnc.fit(trace, max_states=3, random_seed=task.trace, dynamics=False, progressbar=False)
    row: common.Row = {
        "limit": limit, "photons": float(dot.path.occupancy[1] * DURATION_S * rate),
        "n_states": fit.most_probable_n_states, "named": "one state", "dwell_s": dwell_s,
    }  # fmt: skip
    if row["n_states"] > 1:
        found = fit.states["rate_per_s_mean"].to_numpy()
        state = int(np.argmin(np.abs(np.log((found + 10.0) / (rate + 10.0)))))
        row["named"] = str(fit.state_mechanisms["named_mechanism"].iloc[state])
    return row


def lines_of(rows: pd.DataFrame) -> list[str]:
    """Shares of the recordings in which the state was named, by photons over the limit."""
    good = rows[rows["error"] == ""]
    times = good["photons"] / good["limit"]
    header = ["mechanism", "limit"]
    header += [f"{a:g} to {b:g} x" for a, b in itertools.pairwise(TIMES)]
    header += ["named wrongly", "one state found"]
    body = []
    for mechanism in PLACES:
        own = good["cell"] == mechanism
        if not own.any():
            continue
        cells = [mechanism, f"{good.loc[own, 'limit'].iloc[0]:.0f} photons"]
        for low, high in itertools.pairwise(TIMES):
            there = good[own & (times >= low) & (times < high)]
            cells.append(f"{int((there['named'] == mechanism).sum())} of {len(there)}")
        names = good.loc[own, "named"]
        wrong = ~names.isin([mechanism, "undetermined", "reference", "one state"])
        cells += [str(int(wrong.sum())), str(int((names == "one state").sum()))]
        body.append(cells)
    return common.table(header, body)


def main() -> None:
    options = common.parser(__doc__).parse_args()
    n_traces = options.traces or (N_QUICK if options.quick else N_TRACES)
    tasks = [
        common.Task(trace, cell)
        for cell in common.chosen_cells(PLACES, options)
        for trace in range(n_traces)
    ]
    rows = common.run("detection_check", sorted(tasks), work, options, also=CODE)
    if rows.empty or (rows["error"] != "").all():
        raise SystemExit("nothing has been run yet, or every task failed")
    lines = common.head("Photons that a fit needs to name a mechanism", rows)
    common.publish("detection_check", [*lines, *lines_of(rows)], options)


if __name__ == "__main__":
    main()
