"""What the pairwise kernel loses to paths through a third state in a bin, and what that buys.

    python benchmarks/grid_loss.py [--workers 2] [--cell 'seen*'] [--write]

The kernel of a bin is exact for two states; with more, paths that visit a third state within the
bin keep their probability but not their own mixture. Measured here, in nats per 600 s, at the
truth and given all other bins, is the mean log ratio of the exact probability of the data to the
kernel's:

- `alike`: total counts of equidistant levels; exact matrices by counting, along a simulated path,
  summed over the counts that each bin could have had;
- `seen`, `hidden`: 24 delay gates, of exciton, trion and dark state, or of two states that differ
  in their decay alone beside a dim one; the exact matrices to second order in the exits per bin, in
  windows around a bin that holds a path through three states. With r the ratio of exact to kernel,
  ln r is averaged as ln r - 1 + 1/r, which has the same mean and no cancellation.

Beside it stands the rule that sets the bin width, `expected_loss_nats`. `gain`: how much more a
false fourth state gains over the true three, in log posterior density at the maximum, on these bins
than on fine ones; several dots, since the difference is noisy.
"""

from __future__ import annotations

import itertools

import common
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import gammaln

from pncbayes.hmm import reference
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.switching import pair_nodes
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.grid import Decays, expected_loss_nats
from pncbayes.inference.optimum import climb, find_modes
from pncbayes.inference.posterior import Parameters
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.state_path import simulate_jumps

Array = NDArray[np.float64]

DURATION_S = 600.0
# gates of a pulse period of 200 ns; brightness relative to the brightest, and lifetime in ns
_GATE_EDGES_NS = np.concatenate([[0.0], np.geomspace(0.3, 200.0, 24)])
_BACKGROUND_PER_S = 200.0
_STATES = {
    "seen": ((1.0, 20.0), (0.2, 2.0), (0.005, 1.0)),
    "hidden": ((1.0, 20.0), (1.0, 4.0), (0.1, 1.0)),
}
N_BINS, N_WINDOWS, REACH = 20_000, 400, 5
EXITS_PER_S = {"alike": (1.0, 5.0, 20.0), "seen": (2.0, 10.0), "hidden": (2.0, 10.0)}
BRIGHTNESSES = {"alike": (5, 20, 100, 400), "seen": (20, 100, 400), "hidden": (20, 100, 400)}
WIDTHS_MS = (1, 2, 5, 10)
# kind, states, exits per s, counts per 10 ms of the brightest, width in ms, duration in s
GAINS: dict[str, tuple[Decays, float, int, int, float]] = {
    "gain_alike_q20_cb100_10ms": ("alike", 20.0, 100, 10, 600.0),
    "gain_alike_q10_cb400_10ms": ("alike", 10.0, 400, 10, 600.0),
    "gain_hidden_q10_cb200_10ms": ("hidden", 10.0, 200, 10, 60.0),
}
FINE_MS = 2
CELLS: dict[str, tuple[Decays, int, float, int, int]] = {
    f"{kind}_{n_states}_q{exits:g}_cb{cb}_{width}ms": (kind, n_states, exits, cb, width)
    for kind in EXITS_PER_S
    for n_states in ((3, 4) if kind == "alike" else (3,))
    for exits in EXITS_PER_S[kind]
    for cb in BRIGHTNESSES[kind]
    for width in WIDTHS_MS
}


def gate_rates(kind: Decays, n_states: int, cb: int) -> Array:
    """Counts per s of each state in each gate, shape ``(n_states, n_gates)``."""
    bright_per_s = cb / 0.01
    if kind == "alike":
        return bright_per_s * (0.05 + 0.95 * np.arange(n_states)[:, None] / (n_states - 1))
    rates = np.empty((n_states, _GATE_EDGES_NS.size - 1))
    for own, (share, lifetime_ns) in zip(rates, _STATES[kind], strict=True):
        decay = -np.diff(np.exp(-_GATE_EDGES_NS / lifetime_ns))
        own[:] = bright_per_s * share * decay / decay.sum()
    return rates + _BACKGROUND_PER_S * np.diff(_GATE_EDGES_NS) / _GATE_EDGES_NS[-1]


def even_rates(n_states: int, exits_per_s: float) -> Array:
    """Transition rates per s with equal exits to all other states."""
    rates = np.full((n_states, n_states), exits_per_s / (n_states - 1))
    np.fill_diagonal(rates, 0.0)
    return rates


def predicted(matrices: Array, rows: NDArray[np.int64]) -> Array:
    """State probabilities before each bin given those before, ``(n_bins, n_states)``."""
    n_states = matrices.shape[1]
    found = np.empty((rows.size, n_states))
    state = np.full(n_states, 1.0 / n_states)
    for t, row in enumerate(rows):
        found[t] = state
        state = state @ matrices[row]
        state /= state.sum()
    return found


def loss_of_totals(task: common.Task) -> tuple[float, float]:
    """Nats per bin lost in total counts, and the standard error."""
    kind, n_states, exits, cb, width_ms = CELLS[task.cell]
    width_s = width_ms * 1e-3
    levels = gate_rates(kind, n_states, cb)
    rates = even_rates(n_states, exits)
    (rng,) = task.generators(1)
    most = levels.max() * width_s
    n_max = int(most + 9.0 * np.sqrt(most) + 15)
    exact = reference.exact_count_matrices(n_max, width_s, levels[:, 0], rates)
    kernel = reference.bin_matrices(np.arange(n_max + 1.0)[:, None], width_s, levels, rates, 48)
    path = simulate_jumps(rates, N_BINS * width_s, random_seed=rng)
    means = path.occupancy_per_bin(width_s) @ levels[:, 0] * width_s
    rows = np.minimum(rng.poisson(means), n_max)
    # every count that the bin could have had, given the bins before it
    true = predicted(exact, rows) @ exact.sum(axis=2).T
    claimed = predicted(kernel, rows) @ kernel.sum(axis=2).T
    seen = true > 1e-200
    terms = np.zeros_like(true)
    terms[seen] = true[seen] * np.log(true[seen] / claimed[seen])
    blocks = terms.sum(axis=1).reshape(20, -1).mean(axis=1)
    return float(blocks.mean()), float(blocks.std() / np.sqrt(blocks.size))


def windows(
    gates: Array, rates: Array, width_s: float, n_windows: int, rng: np.random.Generator
) -> Array:
    """Counts of windows whose middle bin goes through three states, ``(n, n_bins, n_gates)``."""
    n_states = rates.shape[0]
    shares = np.zeros((n_windows, 2 * REACH + 1, n_states))
    for own in shares:
        first, middle, last = rng.permutation(n_states)[:3]
        left, right = np.sort(rng.random(2))
        own[REACH, [first, middle, last]] = left, right - left, 1.0 - right
        # even rates: the path looks alike backwards in time
        for state, part in ((first, own[REACH - 1 :: -1]), (last, own[REACH + 1 :])):
            path = simulate_jumps(rates, REACH * width_s, initial_state=int(state), random_seed=rng)
            part[:] = path.occupancy_per_bin(width_s)
    return rng.poisson(shares @ gates * width_s).astype(np.float64)


def exact_matrices(
    counts: Array, width_s: float, gates: Array, rates: Array
) -> tuple[Array, Array]:
    """Matrices of bins to second order in the exits per bin, and those of the kernel."""
    n_nodes = 20
    kernel = reference.bin_matrices(counts, width_s, gates, rates, n_nodes)
    n_states = rates.shape[0]
    leave = rates.sum(axis=1)
    nodes, weights = pair_nodes(n_nodes)
    generator = reference.generator(rates)
    transitions = expm(generator * width_s)
    # times of both switches as shares of the bin
    second = np.repeat(nodes, n_nodes)
    first = second * np.tile(nodes, n_nodes)
    measure = np.repeat(weights, n_nodes) * np.tile(weights, n_nodes) * second
    exact = kernel.copy()
    for i, j in itertools.permutations(range(n_states), 2):
        through, mass = np.zeros(len(counts)), 0.0
        for k in set(range(n_states)) - {i, j}:
            times = np.stack([first, second - first, 1.0 - second], axis=1)
            means = times @ gates[[i, k, j]] * width_s
            density = measure * np.exp(-times @ leave[[i, k, j]] * width_s)
            density *= rates[i, k] * rates[k, j] * width_s**2
            through += _poisson(counts, means) @ density
            mass += float(density.sum())
        # paths that never leave the pair
        pair = expm(generator[np.ix_([i, j], [i, j])] * width_s)[0, 1]
        left = max(float(transitions[i, j]) - pair, 0.0)
        exact[:, i, j] *= 1.0 - left / transitions[i, j]
        exact[:, i, j] += through * left / mass
    return exact, kernel


def _poisson(counts: Array, means: Array) -> Array:
    """Probability of the counts of each bin at each mean, ``(n_bins, n_means)``."""
    constant = gammaln(counts + 1.0).sum(axis=1)
    logs = counts @ np.log(means).T - means.sum(axis=1) - constant[:, None]
    return np.asarray(np.exp(logs))


def loss_of_gates(task: common.Task) -> tuple[float, float]:
    """Nats per bin lost in counts per gate, and the standard error."""
    kind, n_states, exits, cb, width_ms = CELLS[task.cell]
    width_s = width_ms * 1e-3
    gates = gate_rates(kind, n_states, cb)
    rates = even_rates(n_states, exits)
    (rng,) = task.generators(1)
    counts = windows(gates, rates, width_s, N_WINDOWS, rng)
    shape = (*counts.shape[:2], n_states, n_states)
    both = exact_matrices(counts.reshape(-1, counts.shape[2]), width_s, gates, rates)
    values = []
    for matrices in both:
        state = np.full((N_WINDOWS, n_states), 1.0 / n_states)
        value = np.zeros(N_WINDOWS)
        for t in range(shape[1]):
            state = np.einsum("ni,nij->nj", state, matrices.reshape(shape)[:, t])
            norm = state.sum(axis=1)
            value += np.log(norm)
            state /= norm[:, None]
        values.append(value)
    log_ratio = values[0] - values[1]
    terms = log_ratio - 1.0 + np.exp(-log_ratio)
    paths = 0.5 * (exits * width_s) ** 2 * (n_states - 2) / (n_states - 1)
    return paths * float(terms.mean()), paths * float(terms.std() / np.sqrt(terms.size))


def gain_of_a_false_state(task: common.Task) -> common.Row:
    """Row of one dot with three states, fitted with three and four on two widths."""
    kind, exits, cb, width_ms, duration_s = GAINS[task.cell]
    model = load_model("free")
    rng, for_fit = task.generators(2)
    gates, rates = gate_rates(kind, 3, cb), even_rates(3, exits)
    fine_s = FINE_MS * 1e-3
    shares = simulate_jumps(rates, duration_s, random_seed=rng).occupancy_per_bin(fine_s)
    counts = rng.poisson(shares @ gates * fine_s).astype(np.float64)
    gains = []
    for group in (width_ms // FINE_MS, 1):
        merged = counts[: len(counts) // group * group]
        merged = merged.reshape(-1, group, counts.shape[1]).sum(axis=1)
        likelihood = BinnedLikelihood(merged, group * fine_s)
        three, four = (working_posterior(likelihood, model, number) for number in (3, 4))
        # from the truth, so that no gain is that of a maximum missed before
        truth = Parameters(gates, rates, model.decay_concentration.median, None)
        low = climb(three, three.pack(truth))
        simpler = three.unpack(low.vector)
        high = find_modes(four, merged, group * fine_s, simpler, for_fit)[0]
        gains.append(four.log_density(high.vector) - three.log_density(low.vector))
    rule = expected_loss_nats(width_ms * 1e-3, exits, cb / 0.01, duration_s, decays=kind)
    return {"gain_wide": gains[0], "gain_fine": gains[1], "rule_nats": rule}


def work(task: common.Task) -> common.Row:
    """Row of one cell."""
    if task.cell in GAINS:
        return gain_of_a_false_state(task)
    kind, _, exits, cb, width_ms = CELLS[task.cell]
    width_s = width_ms * 1e-3
    loss, error = (loss_of_totals if kind == "alike" else loss_of_gates)(task)
    n_bins = DURATION_S / width_s
    rule = expected_loss_nats(width_s, exits, cb / 0.01, DURATION_S, decays=kind)
    return {"loss_nats": loss * n_bins, "error_nats": error * n_bins, "rule_nats": rule}


def lines_of(rows: pd.DataFrame) -> list[str]:
    """Tables and acceptance lines."""
    fine = rows[rows["error"] == ""]
    lines: list[str] = []
    for kind in EXITS_PER_S:
        some = fine[fine["cell"].str.startswith(f"{kind}_")]
        if some.empty:
            continue
        table = [
            [row.cell, f"{row.loss_nats:.3g}", f"{row.error_nats:.1g}", f"{row.rule_nats:.3g}",
             f"{row.rule_nats / row.loss_nats:.2f}"]
            for row in some.itertuples()
            if row.loss_nats > 1e-3
        ]  # fmt: skip
        # below, nothing depends on it; and errors of the measurement are no errors of the rule
        weighty = some[(some["loss_nats"] > 0.1) & (some["error_nats"] < 0.2 * some["loss_nats"])]
        ratio = weighty["rule_nats"] / weighty["loss_nats"]
        inside = bool(ratio.between(0.5, 2.0).all())
        lines += [
            f"## {kind}",
            "",
            *common.table(["cell", "loss per 600 s", "error", "rule", "rule / loss"], table),
            f"- rule within a factor 2 where 0.1 nats or more are lost: {common.verdict(inside)}: "
            f"{ratio.min():.2f} to {ratio.max():.2f}, median {ratio.median():.2f}, "
            f"{len(ratio)} cells",
            "",
        ]
    gains = fine[fine["cell"].isin(GAINS)]
    if not gains.empty:
        excess = gains["gain_wide"] - gains["gain_fine"]
        table = [
            [str(cell), str(len(some)), f"{some['rule_nats'].mean():.1f}",
             f"{some['gain_wide'].mean():+.1f}", f"{some['gain_fine'].mean():+.1f}",
             f"{excess[some.index].mean():+.1f}",
             f"{excess[some.index].std() / np.sqrt(max(len(some), 1)):.1f}"]
            for cell, some in gains.groupby("cell", sort=False)
        ]  # fmt: skip
        header = [
            "cell", "dots", "rule", "gain of a fourth state", f"on {FINE_MS} ms", "excess", "error",
        ]  # fmt: skip
        lines += ["## What a false state gains, in nats", "", *common.table(header, table)]
    return lines


def main() -> None:
    options = common.parser(__doc__).parse_args()
    names = common.chosen_cells([*CELLS, *GAINS], options)
    n_gains = options.traces or (1 if options.quick else 3)
    tasks = [
        common.Task(trace, name)
        for name in names
        for trace in range(n_gains * (name in GAINS) or 1)
    ]
    rows = common.run("grid_loss", tasks, work, options)
    if rows.empty or (rows["error"] != "").all():
        raise SystemExit("nothing has been run yet, or every task failed")
    lines = common.head("What wide bins lose to paths through a third state", rows)
    common.publish("grid_loss", [*lines, *lines_of(rows)], options)


if __name__ == "__main__":
    main()
