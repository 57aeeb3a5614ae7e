"""The benchmarks run, on recordings far shorter than theirs."""

import argparse
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import accuracy
import accuracy_cells
import calibration
import common
import dots
import interval_coverage
import phantom


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(common, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    return tmp_path


def options(*arguments: str) -> argparse.Namespace:
    return common.parser("").parse_args(arguments)


def doubled(task: common.Task) -> common.Row:
    if task.trace == 3:
        raise ValueError("not this one")
    return {"value": 2 * task.trace}


def test_rows_resume_and_a_failure_is_a_row(runs: Path) -> None:
    tasks = [common.Task(trace, "cell") for trace in range(4)]
    half = common.run("toy", tasks, doubled, options("--shard", "1/2"))
    assert sorted(half["trace"]) == [0, 2]
    rows = common.run("toy", tasks, doubled, options())
    assert rows["value"].tolist()[:3] == [0, 2, 4]
    assert rows["error"].tolist() == ["", "", "", "ValueError: not this one"]
    written = {path: path.stat().st_mtime_ns for path in (runs / "runs").rglob("*.parquet")}
    common.run("toy", tasks, doubled, options())
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_rows_of_other_code_are_done_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [common.Task(0, "cell"), common.Task(0, "cell", "peer")]
    monkeypatch.setattr(common, "code_digest", lambda also: "old")
    common.run("toy", tasks, doubled, options())
    monkeypatch.setattr(common, "code_digest", lambda also: "new")
    kept = common.run("toy", tasks, doubled, options("--no-run"))
    assert kept["method"].tolist() == ["peer"]
    assert len(common.run("toy", tasks, doubled, options("--no-run", "--any-code"))) == 2
    assert common.run("toy", tasks, doubled, options())["code"].tolist() == ["new", "old"]


@pytest.mark.parametrize("text", ["2", "0/3", "4/3", "a/b"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="--shard must be"):
        common.shard([], text)


def test_seeds_depend_on_cell_and_trace_alone() -> None:
    first = common.Task(3, "one").generators(2)[1].random()
    assert common.Task(3, "one", "peer").generators(3)[1].random() == first
    assert common.Task(4, "one").generators(2)[1].random() != first
    assert common.Task(3, "two").generators(2)[1].random() != first


def test_levels_repel_as_the_prior_says() -> None:
    rng = np.random.default_rng(1)
    levels = np.array([dots.draw_levels(3, 1.0, rng) for _ in range(2000)])

    def density(x: float) -> float:
        # of one of the two levels, the other integrated out
        return (1 - x) * quad(lambda y: (1 - y) * abs(x - y), 0, 1, points=[x])[0]

    norm = quad(density, 0, 1)[0]
    mean = quad(lambda x: x * density(x), 0, 1)[0] / norm
    both = levels[:, 1:].mean(axis=1)
    assert abs(both.mean() - mean) < 4 * both.std() / np.sqrt(len(both))
    assert np.all(levels[:, 0] == 1.0)
    assert np.all(np.diff(levels, axis=1) <= 0.0)


def test_delays_follow_the_state() -> None:
    dot = dots.draw_dot(np.random.default_rng(2), 2, 20.0, n_gates=8)
    trace = dot.trace()
    counts = trace["counts"].to_numpy().sum(axis=0)
    expected = dot.path.occupancy @ dot.gate_rate_per_s * dot.path.duration_s
    assert counts.sum() == len(dot.photons)
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected + 1.0))


def test_oracle_knows_an_easy_path() -> None:
    cell = accuracy_cells.Cell("easy", (200.0, 10000.0), 0.5, 5.0)
    dot = accuracy_cells.simulate_cell(cell, np.random.default_rng(3))
    truth = dot.states_per_bin(accuracy_cells.WIDTH_S)
    for path in accuracy.decode_with_truth(accuracy_cells.bin_counts(dot), cell):
        assert np.mean(path != truth) < 0.05


def test_accuracy_of_a_short_trace(runs: Path) -> None:
    cell = accuracy_cells.Cell(accuracy_cells.grid_name(2, 100, 0.4), (500.0, 10000.0), 0.4, 4.0)
    dot = accuracy_cells.simulate_cell(cell, np.random.default_rng(4))
    row = accuracy.work_ours(cell, dot, np.random.default_rng(5), most=2)
    assert row["right"]
    assert row["wrong_bins"] < 0.02
    named = {"cell": cell.name, "trace": 0, "method": common.OURS, "code": "", "error": ""}
    failed = {**named, "trace": 1, "error": "ValueError: none"}
    summary = accuracy.Summary(pd.DataFrame([{**named, **row}, failed]))
    assert summary.right([cell.name]) == (1, 2)
    text = "\n".join([*accuracy.grid_tables(summary), *accuracy.acceptance(summary)])
    assert "**50** / 92 / -" in text
    assert "(c) 5 and 6 levels: not run" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hmmlearn_counts_states() -> None:
    pytest.importorskip("hmmlearn")
    cell = accuracy_cells.Cell("easy", (500.0, 5000.0), 0.5, 5.0)
    dot = accuracy_cells.simulate_cell(cell, np.random.default_rng(6))
    row = accuracy.work_hmmlearn(cell, dot, np.random.default_rng(7), most=2, n_starts=1)
    assert row["n_found"] == 2


def test_figures_lie_in_their_intervals_where_the_stated_p_is_true() -> None:
    rng = np.random.default_rng(8)
    stated = rng.dirichlet([0.5] * 4, 400)
    truth = (rng.random(400)[:, None] > np.cumsum(stated, axis=1)).sum(axis=1) + 1
    intervals = calibration.resampled(stated, rng, 100)
    inside = [low <= value <= high for value, (low, high) in both(stated, truth, intervals)]
    assert sum(inside) >= len(inside) - 1
    sure = np.where(stated == stated.max(axis=1, keepdims=True), 0.97, 0.01)
    assert calibration.figures(sure, truth)["expected calibration error"] > 0.2
    assert calibration.figures(sure, truth)["right, share"] < 0.9


def both(
    stated: np.ndarray, truth: np.ndarray, intervals: dict[str, tuple[float, float]]
) -> list[tuple[float, tuple[float, float]]]:
    figures = calibration.figures(stated, truth)
    return [(figures[name], intervals[name]) for name in figures]


def test_calibration_of_one_dot() -> None:
    rng = np.random.default_rng(9)
    dot = dots.draw_dot(rng, 1, 2.0)
    row = calibration.analyse(dot, rng, most=2)
    named = {"cell": "intensity", "trace": 0, "method": common.OURS, "code": "", "error": ""}
    rows = pd.DataFrame([{**named, **row, "probability": [*row["probability"], 0.0]}] * 2)
    assert "hard, share" in "\n".join(calibration.cell_lines("intensity", rows))


def test_coverage_of_one_dot() -> None:
    rng = np.random.default_rng(10)
    row = interval_coverage.analyse(dots.draw_dot(rng, 2, 3.0), rng)
    names = [entry["quantity"] for entry in row["entries"]]
    assert names.count("brightness") == names.count("exit rate") == 2
    assert names.count("transition rate") == 2
    named = {"cell": "intensity", "trace": 0, "method": common.OURS, "code": "", "error": ""}
    rows = pd.DataFrame([{**named, **row}])
    assert "| brightness | 2 |" in "\n".join(interval_coverage.cell_lines("intensity", rows))


def test_phantom_of_a_short_dot() -> None:
    task = common.Task(0, "contrast5_10ms_counts")
    row = phantom.analyse(task, 5.0, most=3)
    assert row["likelihood_width_s"] == 0.01
    assert row["p_three_or_more"] < 0.2
    rows = pd.DataFrame([{"cell": task.cell, "error": "", **row}])
    assert "P(3 or more states) below 0.05" in "\n".join(phantom.lines_of(rows))


@pytest.mark.parametrize("module", [accuracy, calibration, interval_coverage, phantom])
def test_tasks_can_be_sent_to_another_process(module: ModuleType) -> None:
    import pickle

    assert pickle.loads(pickle.dumps(module.work)) is module.work
