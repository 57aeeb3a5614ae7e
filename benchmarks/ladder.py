"""Do 90 % intervals of power-law dwell times hold the truth, and what does a threshold say?

    python benchmarks/ladder.py [--quick] [--workers 4] [--cell sharp] [--write]

Dots of two levels are drawn with exponents of 1.2 to 2, truncation times of 0.1 to 20 s, records of
60 to 300 s and 2 to 20 kcps in ON, in bins of 10 ms; the shortest dwell time is 0.2 to 1 bins, and
inferred. In the cell ``exponential`` the law is t^-a exp(-t/T); in ``sharp`` it is t^-a up to T and
nothing beyond (`PowerLawDwell`), which no ladder can be: there the truth is the truncated power law
closest to it (least divergence), whose exponent is smaller, and one line has the exponent of the
cut law itself. Neither law is the ladder: both begin at the shortest dwell time at once. The fit
warns of a law that is cut off at once where it prefers the ladder; how often is beside each cell.

Beside it a threshold at the midpoint and, from its dwells, the truncated power law of the highest
likelihood and the straight line through the log-log histogram; and the prior, as if nothing had
been seen. Error: of the posterior median, in the exponent and in ln(truncation). A truncation that
the threshold's dwells do not show is taken as the length of the record. Binomial intervals take the
two levels of a dot for independent. A third cell has exponential dwells: how often the evidence
prefers a ladder.
"""

from __future__ import annotations

import math
import time

import common
import numpy as np
import pandas as pd
from scipy.optimize import minimize

from pncbayes.inference.ladder import fit_ladder
from pncbayes.photons.dwell_times import fit_power_law, fit_straight_line, threshold_dwell_times
from pncbayes.physics.ladder import TruncatedPowerLaw
from pncbayes.physics.simulate import PowerLawDwell, StatePath
from pncbayes.physics.state_path import simulate_jumps

CELLS = ("exponential", "sharp", "no_power_law")
N_TRACES, N_QUICK = 100, 10
WIDTH_S = 0.01
EXPONENT = (1.2, 2.0)
TRUNCATION_S = (0.1, 20.0)
DURATION_S = (60.0, 300.0)
ON_PER_S = (2e3, 20e3)
OFF_SHARE = (0.02, 0.2)
SHORTEST_BINS = (0.2, 1.0)
BURN_IN_S = 60.0
PRIOR_EXPONENT = (1.0, 2.5)
PRIOR_TRUNCATION = (2.0, 1.5)
ALLOWED = (0.85, 0.95)
LEVELS = ("on", "off")
CUT_OFF = "cut off at once"
CUT_EXPONENT = "exponent of the cut law"
ALSO = (
    "inference/ladder.py", "inference/ladder_draws.py", "inference/ladder_posterior.py",
    "hmm/ladder_kernels.py", "physics/ladder.py",
)  # fmt: skip
Floats = common.Floats


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def path_of(
    laws: list[TruncatedPowerLaw], duration_s: float, rng: np.random.Generator
) -> StatePath:
    """Alternating dwells of two laws."""
    state, times, states, now = int(rng.integers(2)), [0.0], [], 0.0
    pools = [law.draw(1024, rng) for law in laws]
    places = [0, 0]
    while now < duration_s:
        states.append(state)
        if places[state] == pools[state].size:
            pools[state], places[state] = laws[state].draw(1024, rng), 0
        now += float(pools[state][places[state]])
        places[state] += 1
        times.append(now)
        state = 1 - state
    return StatePath(np.array(times[:-1]), np.array(states, np.int64), duration_s, 2)


def closest(law: PowerLawDwell) -> tuple[float, float]:
    """Exponent and truncation (s) of the truncated law closest to a sharply cut one."""
    logs = np.linspace(math.log(law.shortest_s), math.log(law.longest_s), 2001)
    times = np.exp(logs)
    density = times ** (1.0 - law.exponent)
    density /= density.sum()
    mean_log, mean = density @ logs, density @ times

    def cost(point: Floats) -> float:
        exponent, truncation_s = float(point[0]), math.exp(point[1])
        grid = np.linspace(logs[0], math.log(60.0 * truncation_s + law.shortest_s), 4001)
        mass = np.exp((1.0 - exponent) * grid - np.exp(grid) / truncation_s)
        whole = np.trapezoid(mass, grid)
        return float(exponent * mean_log + mean / truncation_s + math.log(whole))

    found = minimize(cost, [law.exponent, math.log(law.longest_s)], method="Nelder-Mead")
    return float(found.x[0]), math.exp(found.x[1])


def work(task: common.Task) -> common.Row:
    """Simulate one dot and compare all answers with its truth."""
    for_dot, for_fit = task.generators(2)
    duration_s = float(for_dot.uniform(*DURATION_S))
    on_per_s = log_uniform(*ON_PER_S, for_dot)
    off_per_s = on_per_s * log_uniform(*OFF_SHARE, for_dot)
    shortest_s = WIDTH_S * log_uniform(*SHORTEST_BINS, for_dot)
    exponents = [float(for_dot.uniform(*EXPONENT)) for _ in LEVELS]
    truncations = [log_uniform(*TRUNCATION_S, for_dot) for _ in LEVELS]
    cut_exponents = None
    whole_s = duration_s + BURN_IN_S
    if task.cell == "exponential":
        laws = [
            TruncatedPowerLaw(exponent, truncation_s, shortest_s)
            for exponent, truncation_s in zip(exponents, truncations, strict=True)
        ]
        path = path_of(laws, whole_s, for_dot)
    elif task.cell == "sharp":
        cut = [
            PowerLawDwell(exponent, shortest_s, truncation_s)
            for exponent, truncation_s in zip(exponents, truncations, strict=True)
        ]
        path = simulate_jumps(np.zeros((2, 2)), whole_s, dwell_laws=cut, random_seed=for_dot)
        nearest = [closest(law) for law in cut]
        cut_exponents = exponents
        exponents = [one[0] for one in nearest]
        truncations = [one[1] for one in nearest]
    else:
        rates = np.zeros((2, 2))
        rates[0, 1], rates[1, 0] = (log_uniform(0.3, 10.0, for_dot) for _ in LEVELS)
        path = simulate_jumps(rates, whole_s, random_seed=for_dot)
    on_share = path.occupancy_per_bin(WIDTH_S)[round(BURN_IN_S / WIDTH_S) :, 0]
    means = (on_share * on_per_s + (1.0 - on_share) * off_per_s) * WIDTH_S
    counts = for_dot.poisson(means)
    n_switches = int((path.jump_times_s > BURN_IN_S).sum())

    # of the processor, which other programs do not lengthen
    started = time.process_time()
    fit = fit_ladder(counts, WIDTH_S, random_seed=for_fit)
    row: common.Row = {
        "seconds": time.process_time() - started,
        "log_bayes_factor": fit.log_bayes_factor(),
        "laplace_gap": fit.posteriors["ladder"].laplace - fit.posteriors["ladder"].log_evidence,
        "pareto_k": fit.posteriors["ladder"].pareto_k,
        "effective": fit.posteriors["ladder"].effective,
        "n_switches": n_switches,
        "duration_s": duration_s,
        "on_per_s": on_per_s,
        "shortest_s": shortest_s,
        "shortest_median_s": float(fit.table().loc["shortest_s", "median"]),
        "warnings": "; ".join(fit.warnings),
        **{f"abrupt_{level}": fit.abrupt.get(level, math.nan) for level in LEVELS},
    }
    if task.cell != "no_power_law":
        entries = compare(fit.table(), counts, exponents, truncations, duration_s)
        if cut_exponents is not None:
            # the same answers, against the exponent of the law that was cut
            truth = dict(zip(LEVELS, cut_exponents, strict=True))
            entries += [
                entry | {"quantity": CUT_EXPONENT, "truth": truth[entry["level"]]}
                for entry in entries
                if entry["quantity"] == "exponent"
            ]
        row["entries"] = entries
    return row


def compare(
    table: pd.DataFrame,
    counts: Floats,
    exponents: list[float],
    truncations: list[float],
    duration_s: float,
) -> list[common.Row]:
    """Truth, interval and the threshold's answers, of each level."""
    dwells = threshold_dwell_times(counts, WIDTH_S)
    entries = []
    for level, exponent, truncation_s in zip(LEVELS, exponents, truncations, strict=True):
        complete = getattr(dwells, f"{level}_s")
        cut_off = getattr(dwells, f"{level}_censored_s")
        own = table.loc[[f"alpha_{level}", f"truncation_{level}_s"], ["q05", "median", "q95"]]
        likely, likely_s, sd, log_sd, line = math.nan, math.nan, math.nan, math.nan, math.nan
        if complete.size >= 20:
            found = fit_power_law(complete, WIDTH_S, censored_s=cut_off)
            likely, likely_s = found.exponent, min(found.truncation_s, duration_s)
            sd, log_sd = found.exponent_sd, found.log_truncation_sd
            line = fit_straight_line(complete)[0]
        for quantity, truth, low, middle, high, ml, ml_sd, straight in (
            ("exponent", exponent, *own.iloc[0], likely, sd, line),
            ("ln truncation", math.log(truncation_s), *np.log(own.iloc[1]), math.log(likely_s),
             log_sd, math.nan),
        ):  # fmt: skip
            entries.append({
                "level": level, "quantity": quantity, "truth": truth, "q05": float(low),
                "median": float(middle), "q95": float(high), "likely": ml, "likely_sd": ml_sd,
                "line": straight, "n_dwells": int(complete.size),
            })  # fmt: skip
    return entries


def entries_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per level and quantity of every dot."""
    good = rows[rows["error"] == ""]
    return pd.concat([pd.DataFrame(list(entries)) for entries in good["entries"]])


def coverage_table(entries: pd.DataFrame) -> list[str]:
    """Coverage, bias and error of each answer."""
    lines = []
    normal = 1.6449
    exponent_prior = tuple(np.quantile(PRIOR_EXPONENT, (0.05, 0.5, 0.95)))
    prior = {
        "exponent": exponent_prior,
        CUT_EXPONENT: exponent_prior,
        "ln truncation": tuple(
            math.log(PRIOR_TRUNCATION[0]) + z * PRIOR_TRUNCATION[1] for z in (-normal, 0.0, normal)
        ),
    }
    for quantity in prior:
        some = entries[entries["quantity"] == quantity]
        if some.empty:
            continue
        truth = some["truth"].to_numpy()
        answers = {
            "ladder": (some["q05"], some["median"], some["q95"]),
            "threshold, likelihood": (
                some["likely"] - normal * some["likely_sd"], some["likely"],
                some["likely"] + normal * some["likely_sd"],
            ),
            "threshold, straight line": (None, some["line"], None),
            "prior": tuple(np.full(len(some), value) for value in prior[quantity]),
        }  # fmt: skip
        for name, (low, middle, high) in answers.items():
            error = np.asarray(middle, float) - truth
            there = np.isfinite(error)
            if not there.any():
                continue
            told = ["", "", ""]
            if low is not None and high is not None:
                inside = (np.asarray(low) <= truth) & (truth <= np.asarray(high))
                ends = common.interval(int(inside.sum()), len(some))
                told = [
                    f"{100 * inside.mean():.0f} %",
                    f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f} %",
                    common.verdict(ALLOWED[0] <= inside.mean() <= ALLOWED[1])
                    if name == "ladder" and quantity != CUT_EXPONENT else "",
                ]  # fmt: skip
            lines.append([
                quantity, name, str(int(there.sum())), *told,
                f"{error[there].mean():+.3f}", f"{math.sqrt((error[there] ** 2).mean()):.3f}",
            ])  # fmt: skip
    header = ["quantity", "answer", "N", "covered", "95 %", "85 to 95 %", "bias", "rms error"]
    return common.table(header, lines)


def cell_lines(name: str, rows: pd.DataFrame) -> list[str]:
    """Tables of one cell."""
    good = rows[rows["error"] == ""]
    factor = good["log_bayes_factor"]
    lines = [
        f"## {name}",
        "",
        f"{len(good)} dots, median {good['n_switches'].median():.0f} switches; "
        f"{good['seconds'].median():.1f} s of the processor each "
        f"(90 %: {good['seconds'].quantile(0.9):.1f} s). "
        f"Log Bayes factor of the ladder over exponential dwells: "
        f"median {factor.median():.1f}, {int((factor > 0).sum())} positive, "
        f"{int((factor > math.log(20)).sum())} above 3 nats. Pareto k above 0.7: "
        f"{int((good['pareto_k'] > 0.7).sum())}; with a warning: "
        f"{int((good['warnings'] != '').sum())}, of a law cut off at once: "
        f"{int(good['warnings'].str.contains(CUT_OFF).sum())}.",
        "",
    ]
    if name == "sharp":
        lines += [
            "A declared misfit: the law ends at T, a ladder cannot, and what it answers is not the "
            "exponent of the law that was cut. The numbers say how far off that is; nothing is "
            "tuned on them.",
            "",
        ]
    if name == "no_power_law":
        return lines
    return [*lines, *coverage_table(entries_of(rows))]


def main() -> None:
    options = common.parser(__doc__).parse_args()
    names = common.chosen_cells(CELLS, options)
    n_traces = options.traces or (N_QUICK if options.quick else N_TRACES)
    tasks = [common.Task(trace, name) for name in names for trace in range(n_traces)]
    rows = common.run("ladder", tasks, work, options, also=ALSO)
    if rows.empty:
        raise SystemExit("nothing has been run yet")
    lines = common.head("Power-law dwell times", rows)
    for name in names:
        some = rows[rows["cell"] == name]
        if (some["error"] == "").any():
            lines += cell_lines(name, some)
    common.publish("ladder", lines, options)


if __name__ == "__main__":
    main()
