"""Shared by the benchmarks: tasks, seeds, rows on disk, processes, heads of tables.

A benchmark is a list of tasks. Each task leaves one row, a Parquet file of its own in
``benchmarks/runs/NAME/`` (not in git), written aside and renamed, so that a run killed at any
moment resumes. A row remembers the digest of the code whose answer it is; rows of other code are
done again. Import this module before NumPy and pncbayes: it sets one thread per process, and takes
the package from the checkout that it is in, whichever is installed.
"""

from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
for _variable in THREADS:
    os.environ[_variable] = "1"

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import argparse  # noqa: E402
import ast  # noqa: E402
import datetime  # noqa: E402
import fnmatch  # noqa: E402
import hashlib  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import multiprocessing  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402
import tomllib  # noqa: E402
import warnings  # noqa: E402
import zlib  # noqa: E402
from collections.abc import Callable, Iterable, Sequence  # noqa: E402
from concurrent.futures import ProcessPoolExecutor, as_completed  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.stats import binomtest  # noqa: E402

RUNS = ROOT / "benchmarks" / "runs"
RESULTS = ROOT / "benchmarks" / "results"
ROOT_SEED = 20_260_701
OURS = "pncbayes"
# what has no part in the number of states and the intervals
_NOT_COUNTED = {
    "__init__.py", "alike.py", "arguments.py", "build.py", "checks.py", "compare_models.py",
    "comparison.py", "compile_ahead.py", "detection.py", "detection_arguments.py", "dynamics.py",
    "dynamics_checks.py", "dynamics_data.py", "dynamics_families.py", "dynamics_flickers.py",
    "dynamics_group.py", "dynamics_pair.py", "dynamics_store.py", "dynamics_verdict.py",
    "dynamics_widths.py",
    "dynamics_hidden.py", "dynamics_point.py", "dynamics_posterior.py", "dynamics_search.py",
    "find_dynamics.py", "fit.py", "flicker_grid.py", "intervals.py", "jax_kernels.py", "jax_op.py",
    "judge.py", "label_counts.py", "label_kernels.py", "labels.py", "ladder.py", "ladder_draws.py",
    "ladder_kernels.py", "ladder_posterior.py", "levels.py", "mechanism_group.py",
    "mechanism_tables.py", "naming.py", "naming_surface.py", "numba_likelihood.py", "nuts.py",
    "op.py", "photon_by_photon.py", "photon_kernels.py", "photon_propagators.py",
    "product_emission.py", "product_kernels.py", "product_likelihood.py", "progress.py",
    "pymc_model.py", "rate_tables.py", "reference.py", "results.py", "sensitivity.py",
    "shared_kernels.py", "shared_parameters.py", "state_evidence.py", "straight.py",
    "structured.py", "structured_assigned.py", "structured_compiled.py", "structured_evidence.py",
    "structured_pymc.py", "structured_search.py", "structured_starts.py", "trace.py", "walkers.py",
}  # fmt: skip

Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Task:
    """One trace of one cell, analysed by one method."""

    trace: int
    cell: str
    method: str = OURS

    def path(self, benchmark: str) -> Path:
        """Where its row is kept."""
        return RUNS / benchmark / self.cell / f"{self.trace:05d}.{self.method}.parquet"

    def generators(self, n: int) -> list[np.random.Generator]:
        """Sources of random numbers that depend on cell and trace alone, not on order or method."""
        key = (zlib.crc32(self.cell.encode()), self.trace)
        seeds = np.random.SeedSequence(ROOT_SEED, spawn_key=key).spawn(n)
        return [np.random.default_rng(seed) for seed in seeds]


Work = Callable[[Task], Row]


def code_digest(also: Sequence[str] = ()) -> str:
    """Hash of the code behind the answers: comments, docstrings and layout do not count.

    `also` are files of the package that have no part in the number of states and the intervals,
    but in the answer at hand; with them counts all of the model file.
    """
    state = hashlib.blake2b(digest_size=6)
    package = ROOT / "pncbayes"
    others = [package / name for name in also if not name.startswith("inference/")]
    for path in sorted([*package.glob("hmm/*.py"), *package.glob("inference/*.py"), *others]):
        if path.name in _NOT_COUNTED and f"{path.parent.name}/{path.name}" not in also:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        state.update(ast.dump(tree).encode())
    model = tomllib.loads((ROOT / "models" / "free.toml").read_text(encoding="utf-8"))
    # mechanisms come after the number of states
    if not also:
        model.pop("mechanism")
    state.update(json.dumps(model, sort_keys=True).encode())
    return state.hexdigest()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Arguments that all benchmarks take."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="few traces per cell")
    made.add_argument("--traces", type=int, help="traces per cell")
    made.add_argument(
        "--cell", action="append", metavar="PATTERN", help="only these cells; may be repeated"
    )
    made.add_argument("--method", help="only this one of the methods that are compared")
    made.add_argument("--shard", default="1/1", metavar="I/N", help="the I-th of N parts")
    made.add_argument("--workers", type=int, default=1, help="processes, one thread each")
    made.add_argument("--write", action="store_true", help="write benchmarks/results/NAME.md")
    made.add_argument("--name", help="with --write: write benchmarks/results/NAME.md")
    made.add_argument("--no-run", action="store_true", help="only the table of what is there")
    made.add_argument(
        "--any-code", action="store_true", help="keep rows of other versions of the code"
    )
    return made


def chosen_cells(names: Iterable[str], options: argparse.Namespace) -> list[str]:
    """Names that match ``--cell``, all if it was not given."""
    every = list(names)
    if not options.cell:
        return every
    found = [n for n in every if any(fnmatch.fnmatch(n, pattern) for pattern in options.cell)]
    if not found:
        raise SystemExit(f"no cell matches {options.cell}; there are {', '.join(every)}")
    return found


def shard(tasks: Sequence[Task], text: str) -> list[Task]:
    """Part ``i`` of ``n`` of the tasks, from the text ``"i/n"``."""
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise SystemExit(f"--shard must be I/N, got {text!r}")
    index, number = int(parts[0]), int(parts[1])
    if not 1 <= index <= number:
        raise SystemExit(f"--shard must be 1/{number} to {number}/{number}, got {text}")
    return list(tasks[index - 1 :: number])


def read_row(path: Path) -> Row | None:
    """Row of a finished task; None where there is none."""
    try:
        rows: list[Row] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return None
    return rows[0]


def write_row(path: Path, row: Row) -> None:
    """Write a row aside and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(pa.Table.from_pylist([row]), aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _perform(benchmark: str, work: Work, task: Task, code: str) -> Row:
    """Do one task and write its row; what goes wrong is a row with a reason."""
    logging.disable(logging.WARNING)
    started = time.perf_counter()
    row: Row = {"cell": task.cell, "trace": task.trace, "method": task.method, "code": code}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            row.update(error="", **work(task))
        except (ValueError, ArithmeticError, RuntimeError, IndexError, KeyError) as error:
            row.update(error=f"{type(error).__name__}: {error}")
    row["wall_s"] = time.perf_counter() - started
    write_row(task.path(benchmark), row)
    return row


def run(
    benchmark: str,
    tasks: Sequence[Task],
    work: Work,
    options: argparse.Namespace,
    also: Sequence[str] = (),
) -> pd.DataFrame:
    """Do what is not done yet, and return the rows of all tasks that are done.

    Parameters
    ----------
    benchmark
        Name of the folder of rows.
    tasks
        All tasks of the benchmark.
    work
        Function of one task, at the top level of its module; returns the row.
    options
        Of `parser`.
    also
        As in `code_digest`.
    """
    own = code_digest(also)

    def finished(task: Task) -> Row | None:
        row = read_row(task.path(benchmark))
        if row is None:
            return None
        # other programs do not change with our code
        current = task.method != OURS or row["code"] == own or options.any_code
        return row if current else None

    rows = {task: row for task in tasks if (row := finished(task)) is not None}
    missing = [task for task in shard(sorted(tasks), options.shard) if task not in rows]
    if options.no_run:
        missing = []
    for task, row in _perform_all(benchmark, missing, work, own, options.workers):
        rows[task] = row
    return pd.DataFrame([rows[task] for task in tasks if task in rows])


def _perform_all(
    benchmark: str, tasks: list[Task], work: Work, code: str, workers: int
) -> Iterable[tuple[Task, Row]]:
    started = time.perf_counter()

    def tell(number: int, task: Task, row: Row) -> None:
        left = (time.perf_counter() - started) / number * (len(tasks) - number)
        note = f"  {row['error']}" if row["error"] else ""
        sys.stderr.write(
            f"{number}/{len(tasks)}  {task.cell} {task.trace} {task.method}  "
            f"{row['wall_s']:.1f} s, about {left / 60:.0f} min left{note}\n"
        )

    if workers <= 1 or len(tasks) <= 1:
        for number, task in enumerate(tasks, 1):
            row = _perform(benchmark, work, task, code)
            tell(number, task, row)
            yield task, row
        return
    # spawned, not forked: numba's and OpenBLAS's state does not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        futures = {pool.submit(_perform, benchmark, work, task, code): task for task in tasks}
        for number, future in enumerate(as_completed(futures), 1):
            task, row = futures[future], future.result()
            tell(number, task, row)
            yield task, row


def interval(successes: int, n: int) -> tuple[float, float]:
    """95 % Clopper-Pearson interval of a share."""
    if n == 0:
        return 0.0, 1.0
    found = binomtest(successes, n).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def verdict(ok: bool | None) -> str:
    """PASS, FAIL, or that nothing was run."""
    return "not run" if ok is None else "PASS" if ok else "FAIL"


def head(title: str, rows: pd.DataFrame, *packages: str) -> list[str]:
    """First lines of a table: command, date, machine, versions, code."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("pncbayes", "numpy", "numba", *packages)
        if _installed(name)
    )
    ours = rows[rows["method"] == OURS]
    codes = sorted(set(ours["code"]))
    failed = int((rows["error"] != "").sum())
    return [
        f"# {title}",
        "",
        f"`{command}`, {datetime.datetime.now(tz=datetime.UTC).date()}, {os.cpu_count()} CPUs, one "
        f"thread per process; Python {platform.python_version()}, {versions}; digest of the "
        f"inference code {', '.join(codes)}; root seed {ROOT_SEED}. {len(rows)} rows, "
        f"{failed} with an error.",
        "",
    ]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Markdown table."""
    made = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    made += ["| " + " | ".join(line) + " |" for line in lines]
    return [*made, ""]


def publish(
    name: str, lines: list[str], options: argparse.Namespace, folder: Path = RESULTS
) -> None:
    """Print a table, and write it where ``--write`` asks for it."""
    name = getattr(options, "name", None) or name
    text = "\n".join(lines).rstrip() + "\n"
    sys.stdout.write(text)
    if options.write:
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
