"""How long the whole answer takes, against a scan of hmmlearn's Poisson model.

    python benchmarks/speed.py [--repeats 3] [--dots 12] [--write]

A 60 s dot at 20 kcps with three states, 10 ms bins, 24 delay gates. Ours: P(number of states) for
K = 1..6, states and rates with intervals, from the trace and its photons. Theirs: `PoissonHMM` on
the counts alone (no delays), K = 1..6 with 10 starts each, the best by BIC, a point estimate. Both
on one core, in turn, in one process; compilation is done before. Kernels alone are timed in
`speed_kernels.py`.

What the mechanisms cost on top is timed on those dots, and on dots of `mechanism_dots.py`, which
have up to three states, 2 to 50 kcps, and references that have to be compared.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings

import common
import mechanism_dots
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

import pncbayes as pnc
from pncbayes.physics.presets import preset

MOST_FOR_MECHANISMS = 2.0


def hmmlearn_scan(counts: NDArray[np.int64], random_seed: int) -> int:
    """Number of states of least BIC, 1 to 6 with 10 starts each."""
    from hmmlearn.hmm import PoissonHMM

    best = (np.inf, 0)
    for n_states in range(1, 7):
        scores = []
        for start in range(10):
            model = PoissonHMM(n_states, n_iter=200, random_state=random_seed + start)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(counts[:, None])
                scores.append(model.score(counts[:, None]))
        n_parameters = n_states * n_states + n_states - 1
        best = min(best, (-2 * max(scores) + n_parameters * np.log(counts.size), n_states))
    return best[1]


def timed(trace: xr.Dataset, random_seed: int, **settings: object) -> tuple[pnc.Fit, float]:
    """Fit, and the seconds it took."""
    start = time.perf_counter()
    fit = pnc.fit(trace, random_seed=random_seed, dynamics=False, progressbar=False, **settings)
    return fit, time.perf_counter() - start


def mechanisms_on_top(n_dots: int) -> list[str]:
    """Lines on what mechanisms cost beside the number of states."""
    ratios = []
    for number in range(n_dots):
        one = mechanism_dots.recorded(common.Task(number, "clean"))
        _, without = timed(one.trace, number, max_states=4, mechanisms=False)
        _, whole = timed(one.trace, number, max_states=4)
        ratios.append(whole / without)
        print(f"mechanisms, dot {number}: {without:.1f} s without, {whole:.1f} s with", flush=True)
    low, middle, high = np.quantile(ratios, [0.0, 0.5, 1.0])
    return [
        "",
        f"Number of states and mechanisms over number of states alone, {n_dots} dots of "
        f"`mechanism_dots.py`: median {middle:.2f}, range {low:.2f} to {high:.2f}; wanted at most "
        f"{MOST_FOR_MECHANISMS:.0f}: {common.verdict(bool(middle <= MOST_FOR_MECHANISMS))}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dots", type=int, default=12, help="dots that time the mechanisms")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/speed.md")
    options = parser.parse_args()
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    rows = []
    for repeat in range(options.repeats + 1):
        dot = pnc.simulate(preset("demo").settings, duration_s=60.0, random_seed=repeat)
        trace = pnc.bin_photons(dot.photons, 0.01)
        counts = trace["counts"].values.sum(axis=1).astype(np.int64)
        fit, ours = timed(trace, repeat, mechanisms=False)
        _, with_mechanisms = timed(trace, repeat)
        if repeat == 0:  # the first one compiles
            continue
        start = time.perf_counter()
        theirs_states = hmmlearn_scan(counts, repeat)
        theirs = time.perf_counter() - start
        rows.append(
            {
                "dot": repeat,
                "pncbayes, s": round(ours, 1),
                "with mechanisms, s": round(with_mechanisms, 1),
                "hmmlearn scan, s": round(theirs, 1),
                "ratio": round(ours / theirs, 3),
                "pncbayes states": fit.most_probable_n_states,
                "hmmlearn states": theirs_states,
                "true states": 3,
            }
        )
        print(rows[-1], flush=True)
    frame = pd.DataFrame(rows)
    runs = frame.assign(method=common.OURS, code=common.code_digest(), error="")
    ratio = frame["ratio"].median()
    lines = [
        *common.head("Speed of the whole answer", runs, "hmmlearn"),
        *common.table([str(c) for c in frame.columns], frame.astype(str).values.tolist()),
        "",
        f"Median ratio {ratio:.2f}; wanted at most 0.3: {common.verdict(bool(ratio <= 0.3))}. "
        "Time and ratio are of number of states, states and intervals; mechanisms come on top.",
        *mechanisms_on_top(options.dots),
    ]
    common.publish("speed", lines, options)


if __name__ == "__main__":
    main()
