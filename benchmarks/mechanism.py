"""Is the mechanism that is named the right one, and is one named where the data can tell?

    python benchmarks/mechanism.py [--quick] [--workers 4] [--cell clean] [--write]

Dots with an exciton and one or two dim states: trions drawn by radiative scaling, quantum yield and
Auger rate (lifetimes of 0.1 to 3 ns), hot-carrier states, band-edge states and background. Bright
states of 2 to 50 kcps, dwells of 20 ms to 2 s, excitons of 3 to 20 ns with one or two exponentials,
responses of 50 to 400 ps, 0.05 to 0.5 excitons per pulse with a biexciton, 60 s. Each mechanism is
equally probable. Cells: `clean`; `response`, given 20 % too wide or too narrow; `background`, given
30 % too high or too low; `drift`, brightness falls by 3 %; `charging`, a dim state that is a trion
for a part of the time, switching in microseconds: to be called hot carrier would be wrong;
`beliefs`, as far off as the priors believe: the response in width (10 %) and place (a tenth of its
width), the dim states off the brightness or lifetime of their mechanism by the slack. In `clean`
these are exact, which the priors do not know, so that intervals of the Auger rate are too wide.

A state found stands for the true state nearest in brightness and lifetime. `confident` is a
probability above 0.8; `named` needs the radiative rate as well, as `fit.state_mechanisms` does.
A state can be named if its mechanism would have P > 0.8 with infinite photons - places of all
states known, but not which of them is the exciton -, and if it holds 300 photons and 20 visits.
"""

from __future__ import annotations

import common
import numpy as np
import pandas as pd
from mechanism_dots import DRAWN, DURATION_S, Dim, recorded

import pncbayes as pnc
from pncbayes.inference.label_counts import label_counts, label_probabilities, sum_over_labels
from pncbayes.physics.mechanism_kernels import (
    N_LABELS,
    U_HIGH,
    U_LOW,
    V_HIGH,
    V_LOW,
    log_allowed,
    log_prior_given_brightness,
)
from pncbayes.physics.mechanisms import MECHANISMS
from pncbayes.physics.modelfile import load_model

MOST_STATES = 4
N_TRACES, N_QUICK = 400, 8
CELLS = ("clean", "response", "background", "drift", "charging", "beliefs")
N_OF_CELL = {
    "clean": N_TRACES, "response": 60, "background": 60, "drift": 60, "charging": 60, "beliefs": 80,
}  # fmt: skip
CODE = (
    "inference/label_counts.py", "inference/label_kernels.py", "inference/labels.py",
    "inference/mechanism_group.py", "inference/mechanism_tables.py", "inference/shared_kernels.py",
    "inference/shared_parameters.py", "inference/state_evidence.py", "physics/mechanism_kernels.py",
    "physics/mechanisms.py", "physics/tied_decay.py", "physics/tied_kernels.py",
)  # fmt: skip
SURE, LEAST_PHOTONS, LEAST_VISITS = 0.8, 300, 20
WANTED_RIGHT, WANTED_NAMED, WANTED_WRONG = 0.97, 0.95, 0.03
WANTED_COVERAGE = 0.85, 0.95
ON = 0.5
# Mechanisms that nothing else looks like where photons are many.
CERTAIN = ("background", "unresolved_charging")
NEVER = -1e300


def at_best(dims: list[Dim]) -> list[float]:
    """Probability of each true mechanism with infinite photons: all places in the plane are known.

    As in a fit, the states have mechanisms together, which state is the exciton is summed over, and
    so are slack and weights. An unresolved charging, of which the decay has two parts, and a mere
    background are then beyond doubt.
    """
    priors = load_model("free").mechanism
    packed = priors.packed()
    u = np.log([1.0, *(max(dim.brightness, 1e-300) for dim in dims)])
    v = np.log([1.0, *(dim.lifetime for dim in dims)])
    kinds = ["", *(dim.mechanism for dim in dims)]
    counts = label_counts(len(dims), priors.concentrations())
    logs, shares = [], []
    for node, weight in zip(*np.polynomial.hermite_e.hermegauss(21), strict=True):
        packed[0] = priors.slack_median * np.exp(priors.slack_sigma * node)
        for reference in np.flatnonzero(u > u.max() + np.log(1.0 / 3.0)):
            evidence = np.full((len(u), N_LABELS), NEVER)
            for state, kind in enumerate(kinds):
                if kind in CERTAIN:
                    evidence[state, MECHANISMS.index(kind)] = 0.0
                    continue
                x, y = u[state] - u[reference], v[state] - v[reference]
                if not (U_LOW < x < U_HIGH and V_LOW < y < V_HIGH):
                    continue
                for label in range(N_LABELS):
                    if MECHANISMS[label] not in CERTAIN:
                        evidence[state, label] = log_allowed(label, x, packed)
                        evidence[state, label] += log_prior_given_brightness(label, x, y, packed)
            logs.append(np.log(weight) + sum_over_labels(evidence, reference, counts))
            shares.append(label_probabilities(evidence, reference, counts)[0])
    total = np.exp(np.array(logs) - np.logaddexp.reduce(logs))
    found = np.einsum("i,isl->sl", total, np.array(shares))
    return [float(found[k, MECHANISMS.index(kind)]) for k, kind in enumerate(kinds) if kind]


def work(task: common.Task) -> common.Row:
    """Fit one dot, and set the mechanisms found beside the true ones."""
    one = recorded(task)
    dims, dot, exits = one.dims, one.dot, one.exits
    fit = pnc.fit(
        one.trace, max_states=MOST_STATES, random_seed=task.trace, dynamics=False, progressbar=False
    )
    rates = true_rates(np.array([1.0, *(dim.brightness for dim in dims)]), dot, exits)
    found = answer(fit, dims, one.bright, one.exciton)
    return {**truth(dims, dot, exits), **found, **covered(fit, rates)}


def truth(dims: list[Dim], dot: object, exits: np.ndarray) -> common.Row:
    """What is true of the dim states."""
    seconds = dot.path.occupancy * DURATION_S
    states = range(1, 1 + len(dims))
    return {
        "true": [dim.mechanism for dim in dims],
        "brightness": [dim.brightness for dim in dims],
        "lifetime": [dim.lifetime for dim in dims],
        "at_best": at_best(dims),
        "photons": [float(seconds[s] * (dot.settings.states[s].rate_per_s or 0.0)) for s in states],
        "visits": [int((dot.path.jump_states == s).sum()) for s in states],
        "true_auger_rate_per_ns": [dim.auger_rate_per_ns for dim in dims],
        "true_n_states": 1 + len(dims),
        "exits_per_s": exits.tolist(),
    }


def true_rates(brightness: np.ndarray, dot: object, exits: np.ndarray) -> dict[str, float]:
    """True trapping and de-trapping rate per s: from the states of half brightness to others."""
    on = brightness >= ON * brightness.max()
    occupancy = dot.path.occupancy
    switches = np.repeat(exits[:, None] / (len(exits) - 1), len(exits), axis=1)
    rates = {}
    for name, here in (("k_trap_per_s", on), ("k_detrap_per_s", ~on)):
        leaving = (occupancy[here, None] * switches[here][:, ~here]).sum()
        rates[name] = leaving / occupancy[here].sum() if here.any() and not here.all() else np.nan
    return rates


def covered(fit: pnc.Fit, rates: dict[str, float]) -> common.Row:
    """Whether the 90 % intervals of the switching rates hold the true ones; NaN without a rate."""
    row: common.Row = {}
    for name, true in rates.items():
        found = getattr(fit, name)
        known = found is not None and np.isfinite(true)
        row[f"inside_{name}"] = float(found["q05"] <= true <= found["q95"]) if known else np.nan
    return row


def answer(
    fit: pnc.Fit, dims: list[Dim], bright: float, exciton: dict[str, np.ndarray]
) -> common.Row:
    """What the fit says of each true dim state: of the state found that is nearest to it."""
    table = fit.state_mechanisms
    rate = fit.states["rate_per_s_mean"].to_numpy() / bright
    lifetime = fit.states["lifetime_ns_mean"].to_numpy() / float(exciton["lifetime_ns"])
    row: common.Row = {"n_states": fit.most_probable_n_states, "named": [], "most": []}
    row.update(likely=[], reason=[], inside=[])
    for dim in dims:
        apart = np.abs(np.log((rate + 0.01) / (dim.brightness + 0.01)))
        if np.isfinite(dim.lifetime):
            apart = apart + np.where(
                np.isfinite(lifetime), np.abs(np.log(lifetime / dim.lifetime)), 0.0
            )
        state = int(np.argmin(apart))
        shares = table[list(MECHANISMS)].iloc[state]
        row["named"].append(str(table["named_mechanism"].iloc[state]))
        row["most"].append(float(shares.max()))
        row["likely"].append(str(shares.idxmax()))
        row["reason"].append(str(table["reason"].iloc[state]))
        rate_of = fit.mechanism_rates
        own = rate_of[(rate_of["state"] == state) & (rate_of["quantity"] == "auger_rate_per_ns")]
        known = dim.mechanism == "auger" and len(own) == 1
        low, high = (own["q05"].iloc[0], own["q95"].iloc[0]) if known else (np.nan, np.nan)
        row["inside"].append(float(low <= dim.auger_rate_per_ns <= high) if known else np.nan)
    return row


def report(rows: pd.DataFrame) -> list[str]:
    """Tables of what was named, and what was wanted."""
    lines: list[str] = []
    good = rows[rows["error"] == ""]
    for cell in [c for c in CELLS if (good["cell"] == c).any()]:
        columns = ["true", "at_best", "photons", "visits", "named", "most", "likely", "inside"]
        dots = good[good["cell"] == cell]
        states = dots[columns].explode(columns).reset_index(drop=True)
        confident = states[states["most"] > SURE]
        named = states[~states["named"].isin(["undetermined", "reference"])]
        right = confident["likely"] == confident["true"]
        can = states[
            (states["at_best"].astype(float) > SURE)
            & (states["photons"].astype(float) >= LEAST_PHOTONS)
            & (states["visits"].astype(int) >= LEAST_VISITS)
        ]
        was = can["named"] == can["true"]
        found_k = (dots["n_states"] == dots["true_n_states"]).mean()
        lines += [
            f"## {cell}", "",
            f"{len(dots)} dots, {len(states)} dim states; number of states right in "
            f"{100 * found_k:.0f} %.", "",
            f"- confident (P > {SURE}): {len(confident)}; right {interval(right)}"
            + limit(right, WANTED_RIGHT if cell == "clean" else 1.0 - WANTED_WRONG),
            f"- named: {len(named)}; right {interval(named['named'] == named['true'])}",
        ]  # fmt: skip
        if cell == "clean":
            lines.append(
                f"- could be named: {len(can)}; named rightly {interval(was)}"
                + limit(was, WANTED_NAMED)
            )
        if cell in ("clean", "beliefs"):
            inside = states["inside"].astype(float).dropna()
            lines += [
                f"- 90 % intervals of the Auger rate: {interval(inside > 0.5)}" + between(inside),
            ]
            for name in ("k_trap_per_s", "k_detrap_per_s"):
                inside = dots[f"inside_{name}"].dropna()
                lines.append(f"- of `{name}`: {interval(inside > 0.5)}" + between(inside))
        lines += ["", *confusion(states), ""]
    return lines


def interval(right: pd.Series) -> str:
    """Share with its 95 % interval, in per cent."""
    n, k = len(right), int(right.sum())
    low, high = common.interval(k, n)
    return f"{k} of {n}, {100 * k / max(n, 1):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def limit(right: pd.Series, wanted: float) -> str:
    """Verdict against a share that is wanted: FAIL where the whole interval lies below."""
    if not len(right):
        return ""
    share = right.mean()
    return f"; wanted {100 * wanted:.0f} %: {common.verdict(bool(share >= wanted))}"


def between(inside: pd.Series) -> str:
    """Verdict on a coverage: FAIL unless it lies where it is wanted."""
    if not len(inside):
        return ""
    low, high = WANTED_COVERAGE
    verdict = common.verdict(bool(low <= inside.mean() <= high))
    return f"; wanted {100 * low:.0f} to {100 * high:.0f} %: {verdict}"


def confusion(states: pd.DataFrame) -> list[str]:
    """Names given, by true mechanism."""
    names = [*MECHANISMS, "undetermined", "reference"]
    lines = ["| true | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for kind in (*DRAWN, "unresolved_charging"):
        own = states[states["true"] == kind]
        if len(own):
            cells = [str(int((own["named"] == name).sum())) for name in names]
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    options = common.parser(__doc__).parse_args()
    cells = common.chosen_cells(CELLS, options)
    tasks = [
        common.Task(trace, cell)
        for cell in cells
        for trace in range(options.traces or (N_QUICK if options.quick else N_OF_CELL[cell]))
    ]
    rows = common.run("mechanism", sorted(tasks), work, options, also=CODE)
    if rows.empty or (rows["error"] != "").all():
        raise SystemExit("nothing has been run yet, or every task failed")
    lines = common.head("Mechanisms of simulated dots", rows)
    common.publish("mechanism", [*lines, *report(rows)], options)


if __name__ == "__main__":
    main()
