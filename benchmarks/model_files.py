"""Are the structured model files calibrated: their parameters, and P(model)?

    python benchmarks/model_files.py [--quick] [--workers 4] [--cell recovery] [--write]

Dots are drawn from the model files themselves, with narrower priors of brightness, lifetime and
switching (`structured_dots.py`), which simulation and inference share; 30 s, switches anywhere,
decays scattered around their shapes, photons binned on the grid that `choose_grid` picks.

Cells `ranks_MODEL`: each number of levels is equally probable; the posterior is that of the true
number. The rank of the truth among the draws is uniform if intervals are right
(simulation-based calibration, doi:10.48550/arXiv.1804.06788); of two emitters, parameters belong to
the brighter and the dimmer one. `search` compares the best mode found with the one found from the
truth. Cell `recovery`: each of the six models is true equally often; all are compared by
`compare_models`.
"""

from __future__ import annotations

import re
import time

import calibration
import common
import numpy as np
import pandas as pd
import structured_dots
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from pncbayes.inference.compare_models import compare_models
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.structured import StructuredPosterior
from pncbayes.inference.structured_evidence import structured_evidence
from pncbayes.inference.structured_search import mode_near
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.structured_file import structured_names

Floats = NDArray[np.float64]

MODELS = structured_names()
CELLS = (*(f"ranks_{name}" for name in MODELS), "recovery")
N_TRACES, N_RECOVERY, N_QUICK = 100, 300, 6
CODE = (
    "inference/alike.py", "inference/checks.py", "inference/compare_models.py",
    "inference/straight.py",
    "inference/structured.py", "inference/structured_assigned.py",
    "inference/structured_compiled.py", "inference/structured_evidence.py",
    "inference/structured_search.py", "inference/structured_starts.py", "inference/walkers.py",
    "physics/structures.py", "physics/structured_emission.py", "physics/structured_kernels.py",
    "physics/tied_decay.py",
)  # fmt: skip
QUANTILES, ALLOWED, LEVEL = (0.05, 0.95), (0.85, 0.95), 0.05
RANK_BINS, AS_GOOD_NATS, SURE, N_RESAMPLED = 5, 1.0, 0.8, 1000
RATES = re.compile(r"k_(de)?trap_per_s|k_(de)?activate_per_s")
STRENGTHS = re.compile(r"k_auger_per_ns|k_centre_per_ns|hot_carrier_yield|relative_brightness")
EXCITON = re.compile(r"exciton_rate_per_s|exciton_lifetime_ns")


def work(task: common.Task) -> common.Row:
    """Draw one dot, and compare its truth with what is found."""
    if task.cell == "recovery":
        return recovered(task)
    return ranked(task)


def ranked(task: common.Task) -> common.Row:
    """Rank of the truth of each parameter among the draws."""
    for_dot, for_fit = task.generators(2)
    variants = structured_dots.narrowed(task.cell.removeprefix("ranks_")).variants()
    dot = structured_dots.draw_structured_dot(variants[for_dot.integers(len(variants))], for_dot)
    started = time.perf_counter()
    grid = choose_grid(dot.trace, load_model("free"), for_fit)
    posterior = StructuredPosterior(
        dot.posterior.model, grid.counts, grid.width_s, dot.posterior.recorder,
        structured_dots.instrument()[1],
    )  # fmt: skip
    found = structured_evidence(posterior, for_fit)
    seconds = time.perf_counter() - started
    _, from_truth = mode_near(posterior, dot.z, for_fit)
    return {
        "n_states": posterior.model.n_states,
        "entries": entries(posterior, dot.z, found.draws, for_fit),
        "above_truth_nats": found.mode.value - from_truth.value,
        "log_evidence": found.log_evidence, "laplace": found.laplace, "error_nats": found.error,
        "effective": found.effective, "pareto_k": found.pareto_k,
        "seconds": seconds, "width_s": grid.width_s, "loss_nats": grid.loss_nats,
        "n_photons": int(grid.counts.sum()), "n_jumps": dot.path.n_jumps,
    }  # fmt: skip


def entries(
    posterior: StructuredPosterior, z: Floats, draws: Floats, rng: np.random.Generator
) -> list[common.Row]:
    """Truth, interval and rank of each parameter; emitters by brightness, in truth and draws."""
    truth, values = by_brightness(posterior, z[None]), by_brightness(posterior, draws)
    rows = []
    for name, own in values.items():
        true = float(truth[name][0])
        low, high = np.quantile(own, QUANTILES)
        below = int((own < true).sum())
        rows.append({
            "quantity": name, "truth": true, "q05": float(low), "q95": float(high),
            "rank": float((below + rng.random()) / (own.size + 1)),
        })  # fmt: skip
    return rows


def by_brightness(posterior: StructuredPosterior, points: Floats) -> dict[str, Floats]:
    """Values of the parameters; those of two emitters are of the brighter and of the dimmer one."""
    values = {name: np.asarray(own) for name, own in posterior.values(points).items()}
    if posterior.model.n_emitters == 1:
        return values
    first = values["emitter_1_exciton_rate_per_s"] >= values["emitter_2_exciton_rate_per_s"]
    sorted_values = {}
    for name, own in values.items():
        if not name.startswith("emitter_"):
            sorted_values[name] = own
        elif name.startswith("emitter_1_"):
            key = name.removeprefix("emitter_1_")
            other = values[f"emitter_2_{key}"]
            sorted_values[f"brighter_{key}"] = np.where(first, own, other)
            sorted_values[f"dimmer_{key}"] = np.where(first, other, own)
    return sorted_values


def recovered(task: common.Task) -> common.Row:
    """P(model) of a dot from one of the models."""
    (for_dot,) = task.generators(1)
    true = MODELS[task.trace % len(MODELS)]
    variants = structured_dots.narrowed(true).variants()
    variant = variants[int(for_dot.integers(len(variants)))]
    dot = structured_dots.draw_structured_dot(variant, for_dot)
    started = time.perf_counter()
    found = compare_models(
        dot.trace, [structured_dots.narrowed(name) for name in MODELS], random_seed=task.trace,
        progressbar=False,
    )  # fmt: skip
    table = found.variants
    return {
        "true": true, "true_n_states": variant.n_states,
        "probability": found.probability.reindex(MODELS).tolist(),
        "model": table["model"].tolist(), "n_states": table["n_states"].tolist(),
        "log_evidence": table["log_evidence"].tolist(),
        "laplace": table["log_evidence_laplace"].tolist(), "error_nats": table["error"].tolist(),
        "pareto_k": table["pareto_k"].tolist(), "effective": table["effective_draws"].tolist(),
        "warnings": found.warnings, "seconds": time.perf_counter() - started,
        "n_jumps": dot.path.n_jumps, "occupancy": dot.path.occupancy.tolist(),
        "n_photons": int(dot.trace["counts"].sum()),
    }  # fmt: skip


def ranks_lines(name: str, rows: pd.DataFrame) -> list[str]:
    """Tables of one model file."""
    table = entries_of(rows)
    at_least = int((rows["above_truth_nats"] > -AS_GOOD_NATS).sum())
    weak = int(((rows["pareto_k"] > 0.7) | (rows["effective"] < 30)).sum())
    lines = [
        f"## {name}", "",
        f"{len(rows)} dots, median {rows['seconds'].median():.1f} s each. Search: the best mode is "
        f"within {AS_GOOD_NATS:.0f} nat of the one found from the truth, or above it, in "
        f"{at_least} of {len(rows)}. Draws: median {rows['effective'].median():.0f} effective; "
        f"Pareto k above 0.7 or fewer than 30 effective in {weak}.", "",
    ]  # fmt: skip
    quantities = list(dict.fromkeys(table["quantity"]))
    body = []
    for quantity in quantities:
        own = table[table["quantity"] == quantity]
        p, p_bins = uniformity(own["rank"].to_numpy())
        ok = min(p, p_bins) * 2 * len(quantities) > LEVEL
        body.append([
            quantity, coverage(own), f"{own['rank'].mean():.2f}", f"{p:.2f}", f"{p_bins:.2f}",
            common.verdict(ok),
        ])  # fmt: skip
    header = ["parameter", "in the 90 % interval", "mean rank", "p (ECDF)", "p (chi2)", "uniform"]
    return [*lines, *common.table(header, body)]


def entries_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per parameter and dot."""
    return pd.concat([pd.DataFrame(list(row)) for row in rows["entries"]], ignore_index=True)


def uniformity(ranks: Floats) -> tuple[float, float]:
    """How probable such ranks are if they are uniform: by the largest step, and by chi squared."""
    counts = np.histogram(ranks, RANK_BINS, (0.0, 1.0))[0]
    return float(kstest(ranks, "uniform").pvalue), float(chisquare(counts).pvalue)


def inside(entries: pd.DataFrame) -> pd.Series:
    """Whether the truth lies in the 90 % interval."""
    return (entries["truth"] >= entries["q05"]) & (entries["truth"] <= entries["q95"])


def coverage(entries: pd.DataFrame) -> str:
    """How many truths lie in their intervals."""
    own = inside(entries)
    low, high = common.interval(int(own.sum()), len(own))
    return f"{int(own.sum())} of {len(own)} ({100 * low:.0f} to {100 * high:.0f} %)"


def pooled_lines(rows: pd.DataFrame) -> list[str]:
    """Coverage of the parameters that matter most, all model files together."""
    table = entries_of(rows)
    body = []
    for label, pattern in (
        ("rates of switching", RATES), ("k_auger, k_centre, yield, relative brightness", STRENGTHS),
        ("brightness and lifetime of the exciton", EXCITON), ("all parameters", re.compile("")),
    ):  # fmt: skip
        own = table[table["quantity"].map(lambda name, p=pattern: p.search(name) is not None)]
        if len(own):
            share = float(inside(own).mean())
            body.append([
                label, coverage(own), f"{100 * share:.1f} %",
                common.verdict(ALLOWED[0] <= share <= ALLOWED[1]),
            ])  # fmt: skip
    header = ["all model files", "in the 90 % interval", "share", "85 to 95 %"]
    note = "Intervals (95 %) take the parameters of one dot for independent."
    return [note, "", *common.table(header, body)]


def recovery_lines(rows: pd.DataFrame) -> list[str]:
    """Reliability of P(model), and who is taken for whom."""
    probability = np.stack(rows["probability"].tolist())
    true = rows["true"].map(MODELS.index).to_numpy()
    top, chosen = probability.max(axis=1), probability.argmax(axis=1)
    right = chosen == true
    sure = top > SURE
    error = calibration.calibration_error(top, right.astype(float))
    errors, shares = resampled(probability, np.random.default_rng(common.ROOT_SEED))
    low, high = common.interval(int(right[sure].sum()), int(sure.sum()))
    lines = [
        "## recovery", "",
        f"{len(rows)} dots, median {rows['seconds'].median():.0f} s each.", "",
    ]  # fmt: skip
    stated = f"mean stated {top[sure].mean():.3f}; " if sure.any() else ""
    lines += common.table(["figure", "value", "if the stated P were true (95 %)", ""], [
        ["expected calibration error", f"{error:.3f}", f"{errors[0]:.3f} to {errors[1]:.3f}",
         common.verdict(error <= errors[1])],
        ["most probable is right", f"{right.mean():.3f}", f"{shares[0]:.3f} to {shares[1]:.3f}",
         common.verdict(bool(shares[0] <= right.mean() <= shares[1]))],
        [f"right where P > {SURE}", f"{int(right[sure].sum())} of {int(sure.sum())}",
         f"{stated}95 % interval of the share {low:.2f} to {high:.2f}", ""],
    ])  # fmt: skip
    body = []
    for number, name in enumerate(MODELS):
        own = true == number
        if own.any():
            counts = [str(int((chosen[own] == k).sum())) for k in range(len(MODELS))]
            body.append([name, *counts, f"{probability[own, number].mean():.2f}"])
    return [*lines, *common.table(["true / most probable", *MODELS, "mean P(true)"], body)]


def resampled(
    probability: Floats, rng: np.random.Generator, n: int = N_RESAMPLED
) -> tuple[Floats, Floats]:
    """95 % ranges of the calibration error and of the share right, if every stated P were true."""
    cumulative = np.cumsum(probability, axis=1)
    cumulative /= cumulative[:, -1:]
    top, chosen = probability.max(axis=1), probability.argmax(axis=1)
    errors, shares = [], []
    for _ in range(n):
        drawn = (rng.random(len(top))[:, None] > cumulative).sum(axis=1)
        right = (drawn == chosen).astype(float)
        errors.append(calibration.calibration_error(top, right))
        shares.append(right.mean())
    limits = [0.025, 0.975]
    return np.quantile(errors, limits), np.quantile(shares, limits)


def n_traces(cell: str, quick: bool) -> int:
    """Traces of a cell."""
    return N_QUICK if quick else N_RECOVERY if cell == "recovery" else N_TRACES


def main() -> None:
    options = common.parser(__doc__).parse_args()
    cells = common.chosen_cells(CELLS, options)
    tasks = [
        common.Task(trace, cell)
        for cell in cells
        for trace in range(options.traces or n_traces(cell, options.quick))
    ]
    rows = common.run("model_files", tasks, work, options, also=CODE)
    if rows.empty or (rows["error"] != "").all():
        raise SystemExit("nothing has been run yet, or every task failed")
    lines = common.head("Calibration of the structured model files", rows)
    good = rows[rows["error"] == ""]
    of_ranks = good[good["cell"].str.startswith("ranks_")]
    if len(of_ranks):
        lines += pooled_lines(of_ranks)
    for cell in cells:
        own = good[good["cell"] == cell]
        if len(own):
            lines += recovery_lines(own) if cell == "recovery" else ranks_lines(cell[6:], own)
    common.publish("model_files", lines, options)


if __name__ == "__main__":
    main()
