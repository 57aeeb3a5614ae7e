"""The command line: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from pncbayes import cli
from pncbayes.cli import app
from pncbayes.errors import PhotonFileError, PncbayesWarning
from pncbayes.inference import shared_kernels
from pncbayes.photons.stream import Photons
from pncbayes.physics.exciton import Exciton

RESULTS = {"summary.json", "fit.nc", "overview.png"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_fails(result: Result, *parts: str) -> None:
    """One line on stderr, status 2, nothing on stdout."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    for part in parts:
        assert part in result.stderr


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A table of photons with microsecond times and nanosecond delays."""
    rng = np.random.default_rng(1)
    file = tmp_path / "dot.csv"
    times, delays = np.sort(rng.integers(0, 10**6, 500)), rng.integers(0, 100, 500)
    lines = ["time_ticks,delay_ticks", *(f"{t},{d}" for t, d in zip(times, delays, strict=True))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


UNITS = ("--tick-s", "1e-6", "--delay-tick-ns", "1", "--period-ns", "100")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, make_fit: Callable[..., Any]) -> list[dict[str, Any]]:
    """Put a made-up fit in place of the real one; return what it was asked for."""
    seen: list[dict[str, Any]] = []

    def fit(data: Photons, **settings: Any) -> Any:
        seen.append({"data": data, **settings})
        return make_fit(2, warnings=("may be more than one dot",))

    module = types.ModuleType("pncbayes.inference.fit")
    module.fit = fit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pncbayes.inference.fit", module)
    return seen


def test_fit_writes_three_files_and_prints_a_table(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "a" / "b"
    result = run("fit", recording, "--out", out, "--width-ms", 5, *UNITS)
    assert result.exit_code == 0, result.stderr
    assert names(out) == RESULTS
    assert names(out.parent) == {"b"}
    assert json.loads((out / "summary.json").read_text())["most_probable_n_states"] == 2
    assert (out / "overview.png").read_bytes().startswith(b"\x89PNG")
    for part in ("Number of states", "counts per s", "Switching", "may be more than one dot"):
        assert part in result.stdout
    (call,) = calls
    assert call.pop("data").n_photons == 500
    assert call == {
        "width_s": pytest.approx(0.005),
        "max_states": None,
        "model": "free",
        "response": None,
        "exciton": None,
        "dynamics": True,
        "exposure": True,
        "random_seed": 1,
        "progressbar": False,
    }


def test_fit_passes_its_options_on(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = ("--max-states", 3, "--model", "steady", "--response", "irf.ptu", "--seed", 7)
    assert run("fit", recording, "--out", tmp_path / "out", *options, *UNITS).exit_code == 0
    (call,) = calls
    assert call["width_s"] is None
    assert (call["max_states"], call["model"]) == (3, "steady")
    assert (call["response"], call["random_seed"]) == ("irf.ptu", 7)


def test_fit_is_told_of_the_exciton(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = ("--exciton-rate", 2e4, 1e3, "--exciton-lifetime", 5, 0.3)
    assert run("fit", recording, "--out", tmp_path / "a", *options, *UNITS).exit_code == 0
    assert calls[-1]["exciton"] == Exciton((2e4, 1e3), (5.0, 0.3))
    assert run("fit", recording, "--out", tmp_path / "b", *options[3:], *UNITS).exit_code == 0
    assert calls[-1]["exciton"] == Exciton(lifetime_ns=(5.0, 0.3))
    wrong = run("fit", recording, "--out", tmp_path / "c", "--exciton-rate", 5, 9, *UNITS)
    assert wrong.exit_code == 2
    assert "sd of `rate_per_s` of the exciton must be below its mean" in wrong.stderr


def test_fit_into_a_folder_that_exists_keeps_other_files(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "summary.json").write_text("old")
    assert run("fit", recording, "--out", out, *UNITS).exit_code == 0
    assert names(out) == RESULTS | {"notes.txt"}
    assert (out / "notes.txt").read_text() == "mine"
    assert json.loads((out / "summary.json").read_text())["schema"] == 1


def test_a_failed_write_leaves_nothing(
    recording: Path,
    calls: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "overview.png")

    monkeypatch.setattr("pncbayes.report.files.save_overview", fail)
    before = names(tmp_path)
    result = run("fit", recording, "--out", tmp_path / "out", *UNITS)
    assert_fails(result, "overview.png", "No space left on device")
    assert names(tmp_path) == before


def test_numbers_that_json_lacks_become_null(
    recording: Path,
    calls: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = {"states": [{"lifetime_ns": {"mean": float("nan")}}], 1: np.float64("inf")}
    monkeypatch.setattr("fake_fit.FakeFit.summary", lambda _: summary)
    assert run("fit", recording, "--out", tmp_path / "out", *UNITS).exit_code == 0
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found == {"states": [{"lifetime_ns": {"mean": None}}], "1": None}


@pytest.mark.parametrize("width", ["0", "-1", "nan", "inf"])
def test_a_width_must_be_positive(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path, width: str
) -> None:
    result = run("fit", recording, "--out", tmp_path / "out", "--width-ms", width)
    assert_fails(result, "--width-ms", "positive")
    assert not calls
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_a_file(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert_fails(run("fit", recording, "--out", recording), "is a file", "give a folder")
    assert_fails(run("fit", recording, "--out", recording / "below"), "is a file")
    assert not calls


@pytest.mark.parametrize("content", [b"", b"garbage\0\1\2" * 50, b"%PDF-1.7 and so on"])
@pytest.mark.parametrize("command", ["info", "fit"])
def test_a_foreign_file_is_one_line(tmp_path: Path, command: str, content: bytes) -> None:
    file = tmp_path / "foreign.ptu"
    file.write_bytes(content)
    out = () if command == "info" else ("--out", tmp_path / "out")
    assert_fails(run(command, file, *out), "foreign.ptu")
    assert names(tmp_path) == {"foreign.ptu"}


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert_fails(run("info", tmp_path / "nowhere.ptu"), "nowhere.ptu")


@pytest.mark.parametrize("width", [(), ("--width-ms", 5)])
def test_too_few_photons_are_refused_by_their_number(
    calls: list[dict[str, Any]], tmp_path: Path, width: tuple[Any, ...]
) -> None:
    file, out = tmp_path / "dim.csv", ("--out", tmp_path / "out")
    file.write_text("time_ticks\n5\n", encoding="utf-8")
    result = run("fit", file, *out, "--tick-s", 1e-6, *width)
    assert_fails(result, "dim.csv: holds 1 photon, too few to fit", "at least 2 are needed")
    assert "width" not in result.stderr
    assert run("info", file, "--tick-s", 1e-6).exit_code == 0
    file.write_text("counts\n0\n1\n0\n", encoding="utf-8")
    assert_fails(run("fit", file, *out, "-o", "width_s=0.01"), "dim.csv: holds 1 photon, too few")
    assert names(tmp_path) == {"dim.csv"}
    assert not calls
    file.write_text("time_ticks\n5\n900\n", encoding="utf-8")
    assert run("fit", file, *out, "--tick-s", 1e-6, *width).exit_code == 0


def test_a_truncated_file_is_salvaged_when_asked(
    calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    file, out = tmp_path / "dot.ptu", ("--out", tmp_path / "out")
    assert run("simulate", file, "--preset", "auger", "--duration-s", 0.2).exit_code == 0
    file.write_bytes(file.read_bytes()[:-10])
    for command in (("info", file), ("fit", file, *out)):
        result = run(*command)
        assert_fails(result, "dot.ptu: the file is truncated", "whole records with `--salvage`")
        assert "salvage=True" not in result.stderr
        result = run(*command, "--salvage")
        assert result.exit_code == 0, result.stderr
        assert result.stderr.startswith("warning: the file is truncated: its header promises ")
        promised, whole = (int(word) for word in result.stderr.split() if word.isdigit())
        assert promised - whole == 3
        assert "the rest is lost" in result.stderr
    assert names(tmp_path / "out") == RESULTS
    assert len(calls) == 1


def test_a_table_without_units_is_refused(recording: Path) -> None:
    assert_fails(run("info", recording), "tick_s")


def test_a_reading_option_must_have_a_value(recording: Path) -> None:
    assert_fails(run("info", recording, "-o", "frame_s"), "NAME=VALUE", "frame_s")
    assert_fails(run("info", recording, *UNITS, "-o", "nonsense=1"), "nonsense")


@pytest.mark.parametrize("option", ["width_s=abc", "width_s=true", "gain=[1]", "period_ns=nan"])
def test_a_unit_must_be_a_number(tmp_path: Path, option: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("counts\n" + "3\n" * 20, encoding="utf-8")
    name, value = option.split("=")
    assert_fails(run("info", file, "-o", option), f"{name} must be a number, got {value!r}")


@pytest.mark.parametrize("command", ["simulate", "demo", "fit"])
def test_a_seed_must_not_be_negative(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path, command: str
) -> None:
    out = ("--out", tmp_path / "out")
    arguments = {"simulate": (tmp_path / "dot.ptu",), "demo": out, "fit": (recording, *out, *UNITS)}
    before = names(tmp_path)
    assert_fails(run(command, *arguments[command], "--seed", -1), "--seed", "0 or more, got -1")
    assert names(tmp_path) == before
    assert not calls


def test_reading_options_reach_the_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def read(path: Path, **options: Any) -> None:
        seen.update(options)
        raise PhotonFileError("two\nlines")

    monkeypatch.setattr("pncbayes.photons.formats.read", read)
    options = ("-o", "frame_s=0.05", "-o", "trace=3", "-o", "record_format=spc-130")
    assert_fails(run("info", "x", "--salvage", *options, *UNITS), "two lines")
    assert seen == {
        "salvage": True,
        "tick_s": 1e-6,
        "delay_tick_ns": 1.0,
        "period_ns": 100.0,
        "frame_s": 0.05,
        "trace": 3,
        "record_format": "spc-130",
    }


def test_info_of_a_table(recording: Path) -> None:
    result = run("info", recording, *UNITS)
    assert result.exit_code == 0, result.stderr
    assert "500" in result.stdout


def test_a_response_needs_photons(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("counts\n" + "3\n" * 20, encoding="utf-8")
    options = ("-o", "width_s=0.01", "--response", "irf.ptu")
    assert_fails(run("fit", file, "--out", tmp_path / "out", *options), "--response", "trace.csv")
    assert not calls


def test_only_our_warnings_are_shown(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["pncbayes.inference.fit"]
    plain = module.fit

    def fit(*arguments: Any, **settings: Any) -> Any:
        warnings.warn("rates may be too fast", PncbayesWarning, stacklevel=1)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("for developers", DeprecationWarning, stacklevel=1)
        return plain(*arguments, **settings)

    monkeypatch.setattr(module, "fit", fit)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = run("fit", recording, "--out", tmp_path / "out", *UNITS)
    assert "warning: rates may be too fast" in result.stderr
    assert "for developers" not in result.stderr


def test_a_fault_of_the_library_is_not_blamed_on_the_input(
    recording: Path, calls: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: Any, **__: Any) -> None:
        np.random.default_rng(1).choice(2, p=[np.nan, 1.0])

    monkeypatch.setattr(sys.modules["pncbayes.inference.fit"], "fit", fit)
    result = run("fit", recording, "--out", tmp_path / "out", *UNITS)
    assert result.exit_code == 1
    assert isinstance(result.exception, ValueError)
    assert not (tmp_path / "out").exists()


def test_simulate_writes_photons_and_truth(tmp_path: Path) -> None:
    file = tmp_path / "dot.ptu"
    result = run("simulate", file, "--preset", "auger", "--duration-s", 0.5, "--seed", 3)
    assert result.exit_code == 0, result.stderr
    truth = json.loads((tmp_path / "dot.truth.json").read_text())
    assert truth["duration_s"] == 0.5
    facts = run("info", file)
    assert facts.exit_code == 0, facts.stderr
    assert f"{truth['n_photons']:,}" in facts.stdout


def test_simulate_names_the_presets(tmp_path: Path) -> None:
    result = run("simulate", tmp_path / "dot.ptu", "--preset", "nonsense")
    assert_fails(result, "nonsense", "demo", "auger")
    assert names(tmp_path) == set()
    assert "Auger loss" in run("simulate", "--presets").stdout


def test_simulate_into_no_folder(tmp_path: Path) -> None:
    result = run("simulate", tmp_path / "nowhere" / "dot.ptu")
    assert_fails(result, "there is no folder", "make it first")


def test_usage_errors_have_the_same_status() -> None:
    assert run("fit", "x.ptu").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("info").exit_code == 2


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--max-states", 0), ("`max_states` must be a whole number from 1 to 12", "got 0")),
        (("--model", "fre"), ("no model named 'fre'", "auger, flicker, free, ")),
        (("--width-ms", 1e9), ("`width_s` must be at most", "got 1000000.0 s")),
        (("--response", "nowhere.ptu"), ("nowhere.ptu", "no such file")),
    ],
)
def test_what_the_fit_refuses_is_one_line(
    recording: Path, tmp_path: Path, options: tuple[Any, ...], parts: tuple[str, ...]
) -> None:
    assert_fails(run("fit", recording, "--out", tmp_path / "out", *UNITS, *options), *parts)
    assert names(tmp_path) == {"dot.csv"}


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("pncbayes 0")


def test_the_module_is_the_command_and_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "empty.ptu").touch()
    done = subprocess.run(
        [sys.executable, "-m", "pncbayes", "info", "empty.ptu"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: empty.ptu")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_demo_finds_what_it_simulated(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = run("demo", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert names(out) >= RESULTS | {"dot.ptu", "dot.truth.json"}
    summary = json.loads((out / "summary.json").read_text())
    truth = json.loads((out / "dot.truth.json").read_text())
    assert summary["most_probable_n_states"] == truth["n_states"]
    assert summary["file"].endswith("dot.ptu")


def test_the_helper_stays_away_where_all_is_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not cli._is_compiled()
    left = tmp_path / "inference_1" / "shared_kernels.log_density-10.py312.nbi"
    left.parent.mkdir()
    left.touch()
    assert cli._is_compiled()
    os.utime(left, (1.0, 1.0))
    assert not cli._is_compiled()
    # the name is that of the function whose compiled code is looked for
    assert hasattr(shared_kernels, "log_density")
