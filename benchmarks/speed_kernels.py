"""Time the hidden Markov kernels against other programs, interleaved in one process.

    python benchmarks/speed_kernels.py [--quick] [--gates 1 24] [--seconds 2] [--write]

Prints a table; ``--write`` also writes it to ``benchmarks/results/speed_kernels.md``. One thread,
one CPU. Each program is called once to compile and warm up; then, in random order, all programs
are called again and again, in turns of 30 ms, and medians are compared. What a program can prepare
once per recording (compiling, counting equal bins, constants) is not timed; what it must do for
every new set of parameters is. Ours, one JAX scan and one PyTensor scan have the switches inside
bins; the others compute the plain chain, one state per bin, which is less work. Programs of one
kind must agree, or the run fails.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from speed_kernels_peers import (
    WIDTH_S,
    Problem,
    Task,
    dynamax,
    hmmlearn_core,
    hmmlearn_public,
    jax_same_work,
    jax_scan,
    pytensor_same_work,
    pytensor_scan,
    simulate,
)

CELLS = ((2, 6_000), (3, 6_000), (5, 6_000), (3, 600_000))
TURN_S = 0.03
TASKS = ("log-likelihood", "+ gradient", "posterior", "Viterbi")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "1",
}
RESULT = Path(__file__).parent / "results" / "speed_kernels.md"


def ours(problem: Problem) -> dict[str, Task]:
    """Return the four tasks of this project's kernel."""
    from pncbayes.hmm.likelihood import BinnedLikelihood

    likelihood = BinnedLikelihood(problem.counts, WIDTH_S)
    arguments = problem.gate_rate_per_s, problem.transition_rate_per_s
    return {
        "log-likelihood": lambda: likelihood.value(*arguments),
        "+ gradient": lambda: likelihood.gradient(*arguments),
        "posterior": lambda: likelihood.smooth(*arguments),
        "Viterbi": lambda: likelihood.most_probable_path(*arguments),
    }


def ours_active(problem: Problem) -> dict[str, Task]:
    """Return what our samplers call with many gates: bins that may hold a switch, chosen once."""
    from pncbayes.hmm.likelihood import BinnedLikelihood

    likelihood = BinnedLikelihood(problem.counts, WIDTH_S)
    arguments = problem.gate_rate_per_s, problem.transition_rate_per_s
    active = likelihood.active_rows(*arguments)
    if active is None:
        return {}
    return {
        "log-likelihood": lambda: likelihood.value(*arguments, active=active),
        "+ gradient": lambda: likelihood.gradient(*arguments, active=active),
    }


PROGRAMS: dict[str, Callable[[Problem], dict[str, Task]]] = {
    "pncbayes": ours,
    "pncbayes, active bins": ours_active,
    "JAX scan, switches inside bins": jax_same_work,
    "PyTensor scan, switches inside bins": pytensor_same_work,
    "hmmlearn": hmmlearn_public,
    "hmmlearn core": hmmlearn_core,
    "dynamax": dynamax,
    "JAX scan": jax_scan,
    "PyTensor scan": pytensor_scan,
}
# Programs of the likelihood with switches inside bins; the others have one state per bin.
SAME_WORK = (
    "pncbayes",
    "pncbayes, active bins",
    "JAX scan, switches inside bins",
    "PyTensor scan, switches inside bins",
)


def interleaved(tasks: dict[str, Task], seconds: float) -> dict[str, float]:
    """Median seconds of each task, called in turns, each round in another order.

    A turn is as many calls as fit in `TURN_S`: a sampler calls one likelihood again and again, so
    the first call after another program, with that one's data in the cache, is not typical.
    """
    random, times = np.random.default_rng(0), {name: list[float]() for name in tasks}
    for task in tasks.values():
        task()
    end, n_rounds = time.perf_counter() + seconds, 0
    while n_rounds < 5 or (time.perf_counter() < end and n_rounds < 1_000):
        for name in random.permutation(list(tasks)):
            turn_ends = time.perf_counter() + TURN_S
            while True:
                start = time.perf_counter()
                tasks[name]()
                now = time.perf_counter()
                times[name].append(now - start)
                if now > turn_ends:
                    break
        n_rounds += 1
    return {name: float(np.median(found)) for name, found in times.items()}


def run_cell(n_states: int, n_bins: int, n_gates: int, seconds: float) -> list[str]:
    """Return the table of one problem as Markdown lines."""
    problem = simulate(n_states, n_bins, n_gates, seed=n_states)
    programs = {name: make(problem) for name, make in PROGRAMS.items()}
    programs = {name: tasks for name, tasks in programs.items() if tasks}
    values = {name: float(tasks["log-likelihood"]()) for name, tasks in programs.items()}
    same = {name: values.pop(name) for name in SAME_WORK if name in values}
    mine = same["pncbayes"]
    middle = float(np.median(list(values.values())))
    apart = max(abs(value - middle) for value in values.values())
    if apart > 1e-9 * abs(middle):
        raise RuntimeError(f"the plain programs disagree: {values}")
    if any(abs(value - mine) > 1e-9 * abs(mine) for value in same.values()):
        raise RuntimeError(f"the programs with switches inside bins disagree: {same}")
    medians: dict[str, dict[str, float]] = {name: {} for name in programs}
    for task in TASKS:
        entries = {name: tasks[task] for name, tasks in programs.items() if task in tasks}
        for name, median in interleaved(entries, seconds).items():
            medians[name][task] = median
    lines = [
        f"### {n_states} states, {n_bins} bins, {n_gates} {'gate' if n_gates == 1 else 'gates'}",
        "",
        f"Log-likelihood: plain programs {middle:.6f} (apart by {apart:.1e}), "
        f"with switches inside bins {mine - middle:+.3f}.",
        "",
        "| program | " + " | ".join(TASKS) + " |",
        "|---|" + "---|" * len(TASKS),
    ]
    for name, found in medians.items():
        cells = [
            f"{found[task] * 1e3:.3f} ms"
            + ("" if name == "pncbayes" else f", {found[task] / medians['pncbayes'][task]:.1f}x")
            if task in found
            else "-"
            for task in TASKS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def heading(command: str) -> list[str]:
    """Say what was run, when and on what."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    packages = ("numba", "hmmlearn", "dynamax", "jax", "pytensor", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return [
        "# Speed of the hidden Markov kernels",
        "",
        f"`{command}`, {datetime.date.today().isoformat()}, {processor}, one thread; {versions}.",
        "Medians of calls in interleaved turns of 30 ms; multiples of the time of pncbayes, which",
        "also has the switches inside bins. So have the programs that say so; the others have one",
        "state per bin, which is less work and another log-likelihood, as stated above each table.",
        "`active bins`: as the samplers call it with many gates, mixed columns only in the bins",
        "that may hold a switch. They are chosen beforehand, which is not timed; the value is the",
        "same at these parameters, the slopes are so within the tolerance of the choice.",
        "`hmmlearn core`: its compiled loops behind one matrix product, not its public interface.",
        "",
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only the problems of 6,000 bins")
    parser.add_argument("--gates", type=int, nargs="+", default=[1, 24], help="delay gates")
    parser.add_argument("--seconds", type=float, default=2.0, help="per task and problem, at least")
    parser.add_argument("--write", action="store_true", help=f"also write {RESULT.name}")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # libraries read these when they are imported, which has happened: start over
        os.environ.update(ONE_THREAD)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    command = " ".join(["python", "benchmarks/speed_kernels.py", *sys.argv[1:]])
    lines = heading(command)
    print("\n".join(lines), flush=True)
    for n_states, n_bins in CELLS:
        for n_gates in arguments.gates:
            if arguments.quick and n_bins > 6_000:
                continue
            table = run_cell(n_states, n_bins, n_gates, arguments.seconds)
            print("\n".join(table), flush=True)
            lines += table
    if arguments.write:
        RESULT.parent.mkdir(exist_ok=True)
        beside = RESULT.with_suffix(".part")
        beside.write_text("\n".join(lines))
        beside.replace(RESULT)


if __name__ == "__main__":
    main()
