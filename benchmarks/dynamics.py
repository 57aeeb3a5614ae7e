"""Is it said rightly whether a dot is steady, blinks, flickers or both, and with how many levels?

    python benchmarks/dynamics.py [--quick] [--workers 2] [--cell 'flicker*'] [--write]

Dots whose dynamics are known (`dynamics_dots.py`): discrete levels; a flicker of the brightness or
of the lifetime with it; excess noise; power-law dwell times; a slow drift; a line of 50 to 400 Hz;
bleaching; two emitters in one spot. Signals of 2 to 20 kcps, 30 to 120 s. None is drawn from the
models that are fitted. Verdict and number of levels of `pncbayes.dynamics`; beside them what
hmmlearn's PoissonHMM with BIC (1 to 8 states, bins of 10 ms, 2 starts) says of the first dots.

A number of levels is stated where the verdict is not "not identified" and its probability is
above 0.9. The level at which a bleached dot ends counts as one.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module

import common
import numpy as np
import pandas as pd
from dynamics_dots import CELLS, DynamicsDot, draw
from scipy.special import gammaln

from pncbayes.inference.dynamics import VERDICTS
from pncbayes.inference.find_dynamics import dynamics

N_DOTS, N_QUICK, N_PEER = 40, 4, 3
MOST_STATES, MOST_BIC = 6, 8
HMMLEARN = "hmmlearn"
ALSO = [
    "hmm/flicker_grid.py", "hmm/product_kernels.py", "hmm/product_emission.py",
    "hmm/product_likelihood.py", "physics/flicker.py", "inference/dynamics.py",
    "inference/dynamics_checks.py", "inference/dynamics_data.py",
    "inference/dynamics_families.py", "inference/dynamics_hidden.py",
    "inference/dynamics_flickers.py", "inference/dynamics_store.py",
    "inference/dynamics_pair.py", "inference/dynamics_verdict.py", "inference/dynamics_widths.py",
    "photons/afterpulse_removal.py", "photons/afterpulse_search.py",
    "inference/dynamics_point.py", "inference/dynamics_posterior.py",
    "physics/dynamics_file.py",
    "inference/dynamics_search.py", "inference/find_dynamics.py",
]  # fmt: skip


def work_ours(dot: DynamicsDot, rng: np.random.Generator) -> common.Row:
    """Verdict and number of levels."""
    started = time.perf_counter()
    found = dynamics(dot.photons, max_states=MOST_STATES, random_seed=rng, progressbar=False)
    levels = found.n_levels
    best = found.best
    return {
        "verdict": found.verdict,
        "likeliest": max(found.verdict_probability, key=lambda k: found.verdict_probability[k]),
        "verdict_probability": float(max(found.verdict_probability.values())),
        "n_levels": int(levels.idxmax()),
        "p_levels": float(levels.max()),
        "family": best.posterior.family.name,
        "log_sd": float(found.log_sd[0]),
        "relaxation_rate_per_s": float(best.point.relaxation_rate_per_s),
        "p_flicker": found.flicker_probability["any"],
        "p_k_nr": found.flicker_probability["k_nr"],
        "reasons": "; ".join(found.reasons),
        "remarks": "; ".join(found.remarks),
        "width_s": best.posterior.data.width_s,
        **{f"p_{name}": value for name, value in found.checks.p_values.items()},
        "seconds": time.perf_counter() - started,
    }


def work_hmmlearn(dot: DynamicsDot, rng: np.random.Generator) -> common.Row:
    """hmmlearn's PoissonHMM on bins of 10 ms, the number of states by BIC."""
    poisson_hmm = import_module("hmmlearn.hmm").PoissonHMM
    started = time.perf_counter()
    counts = np.bincount((dot.photons.time_s / 0.01).astype(np.int64))
    mean = counts.mean()
    value = float((counts * np.log(mean) - mean - gammaln(counts + 1.0)).sum())
    bic = [-2.0 * value + np.log(counts.size)]
    for n_states in range(2, MOST_BIC + 1):
        best = -np.inf
        for seed in rng.integers(2**31, size=2):
            hmm = poisson_hmm(n_states, n_iter=100, tol=1e-2, random_state=int(seed))
            hmm.fit(counts[:, None])
            best = max(best, float(hmm.score(counts[:, None])))
        bic.append(-2.0 * best + (n_states**2 + n_states - 1) * np.log(counts.size))
    return {"n_levels": int(np.argmin(bic)) + 1, "seconds": time.perf_counter() - started}


def work(task: common.Task) -> common.Row:
    """Do one task."""
    for_dot, for_fit, for_peer = task.generators(3)
    dot = draw(task.cell, for_dot)
    truth = {"true_verdict": dot.verdict, "true_levels": dot.n_levels, **dot.facts}
    if task.method == HMMLEARN:
        return truth | work_hmmlearn(dot, for_peer)
    return truth | work_ours(dot, for_fit)


def share(good: int, n: int) -> str:
    """A share with its 95 % interval, in per cent."""
    low, high = common.interval(good, n)
    return f"{good} of {n}, {100 * good / max(n, 1):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def confusion(rows: pd.DataFrame) -> list[str]:
    """Verdicts of each cell."""
    lines = []
    for cell in CELLS:
        some = rows[rows["cell"] == cell]
        for truth in VERDICTS[:4]:
            own = some[some["true_verdict"] == truth]
            if len(own):
                counts = [str(int((own["verdict"] == name).sum())) for name in VERDICTS]
                lines.append((cell, truth, str(len(own)), *counts))
    return common.table(("cell", "truth", "dots", *VERDICTS), lines)


def levels_table(rows: pd.DataFrame, peers: pd.DataFrame) -> list[str]:
    """Numbers of levels of each cell."""
    lines = []
    for cell in CELLS:
        own = rows[rows["cell"] == cell]
        if not len(own):
            continue
        told = own[own["verdict"] != "not identified"]
        right = told["n_levels"] == told["true_levels"]
        above = (told["n_levels"] > told["true_levels"]) & (told["p_levels"] > 0.9)
        peer = peers[peers["cell"] == cell] if len(peers) else peers
        bic = "not run"
        if len(peer):
            over = int((peer["n_levels"] > peer["true_levels"]).sum())
            good = int((peer["n_levels"] == peer["true_levels"]).sum())
            bic = f"{good} of {len(peer)}; {over} too many"
        lines.append(
            (
                cell, str(len(own)), str(len(told)), str(int(right.sum())), str(int(above.sum())),
                bic, f"{own['seconds'].median():.0f}",
            )
        )  # fmt: skip
    head = (
        "cell", "dots", "identified", "levels right", "too many with P > 0.9",
        "hmmlearn + BIC right", "median s",
    )  # fmt: skip
    return common.table(head, lines)


def report(rows: pd.DataFrame) -> list[str]:
    """Lines of the table."""
    every = rows
    ours = rows[(rows["method"] == common.OURS) & (rows["error"] == "")]
    peers = rows[(rows["method"] == HMMLEARN) & (rows["error"] == "")]
    n = len(ours)
    right = int((ours["verdict"] == ours["true_verdict"]).sum())
    silent = int((ours["verdict"] == "not identified").sum())
    told = ours[ours["verdict"] != "not identified"]
    above = int(((told["n_levels"] > told["true_levels"]) & (told["p_levels"] > 0.9)).sum())
    good = int((told["n_levels"] == told["true_levels"]).sum())
    lines = common.head("Verdicts on simulated dots whose dynamics are known", every, "hmmlearn")
    lines += [
        f'- verdict right or "not identified": {share(right + silent, n)}; wanted 97 %: '
        f"{common.verdict((right + silent) >= 0.97 * n)}",
        f"- verdict right: {share(right, n)}; wanted 85 %: {common.verdict(right >= 0.85 * n)}",
        f"- more levels than there are, with P > 0.9: {share(above, n)}; wanted at most 2 %: "
        f"{common.verdict(above <= 0.02 * n)}",
        f"- number of levels right where the verdict was given: {share(good, len(told))}",
        "",
        "## Verdicts",
        "",
        *confusion(ours),
        "## Numbers of levels",
        "",
        *levels_table(ours, peers),
    ]
    wrong = ours[(ours["verdict"] != ours["true_verdict"]) & (ours["verdict"] != "not identified")]
    if len(wrong):
        lines += ["## Wrong verdicts", ""]
        for _, row in wrong.iterrows():
            lines.append(
                f"- {row['cell']} {row['trace']}: {row['true_verdict']}, said {row['verdict']} "
                f"(P {row['verdict_probability']:.2f}), {row['family']}, log sd {row['log_sd']:.3f}"
            )
        lines.append("")
    reasons = ours[ours["verdict"] == "not identified"]
    if len(reasons):
        lines += ["## Why not identified", ""]
        for _, row in reasons.iterrows():
            lines.append(f"- {row['cell']} {row['trace']}: {row['reasons']}")
    return lines


def main() -> None:
    """Run what is missing and print the table."""
    options: argparse.Namespace = common.parser(__doc__).parse_args()
    number = options.traces or (N_QUICK if options.quick else N_DOTS)
    cells = common.chosen_cells(CELLS, options)
    # one dot of each cell after the other: a run that is cut short has some of all
    tasks = [common.Task(trace, cell) for trace in range(number) for cell in cells]
    tasks += [
        common.Task(trace, cell, HMMLEARN) for trace in range(min(N_PEER, number)) for cell in cells
    ]
    tasks = [task for task in tasks if options.method in (None, task.method)]
    rows = common.run("dynamics", tasks, work, options, also=ALSO)
    if len(rows):
        common.publish("dynamics", report(rows), options)


if __name__ == "__main__":
    main()
