"""The command line: parses, calls the library, prints. No science here.

Imports of the library are inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pncbayes.errors import PhotonFileError, PncbayesWarning

__all__ = ["app", "main"]

app = typer.Typer(
    name="pncbayes",
    help="Bayesian analysis of the light of single perovskite nanocrystals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Exit status of bad input, the same as that of a wrong option.
_BAD_INPUT = 2
# One photon does not tell a rate.
_FEWEST_PHOTONS = 2
# Warnings that this command has printed.
_shown: list[str] = []

File = Annotated[
    Path,
    typer.Argument(
        help="Recording: .ptu .pt2 .pt3 .ht2 .ht3 .t3r .spc .h5 .parquet .csv .npz",
    ),
]
Salvage = Annotated[bool, typer.Option("--salvage", help="Read what is left of a truncated file.")]
TickS = Annotated[float | None, typer.Option(help="Tables: unit of the arrival times, in s.")]
DelayTickNs = Annotated[float | None, typer.Option(help="Tables: unit of the delays, in ns.")]
PeriodNs = Annotated[float | None, typer.Option(help="Tables: time between laser pulses, in ns.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="Anything else that the file does not hold, as `pncbayes.read` takes it: "
        "-o frame_s=0.05. May be repeated.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same numbers.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")]


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal without Unicode shows question marks, and the command goes on
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Turn errors a user can act on into one line and exit status 2, and shorten warnings."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _shown.clear()
            try:
                function(*args, **kwargs)
            except BrokenPipeError:
                raise
            except OSError as error:
                name = f"{error.filename}: " if error.filename else ""
                _fail(f"{name}{error.strerror or error}")
            except ValueError as error:
                if not _is_ours(error):
                    raise
                _fail(str(error))

    return wrapped


def _is_ours(error: ValueError) -> bool:
    """Whether the library said this to the user; what NumPy says is a fault of the library."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    here = str(Path(__file__).parent)
    ours = frame is not None and frame.tb_frame.f_code.co_filename.startswith(here)
    return ours or type(error) is not ValueError


def _fail(message: str) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(_BAD_INPUT)


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    # warnings of other packages are for developers; ours are about the data
    if issubclass(category, PncbayesWarning):
        _warn(str(message))


def _warn(message: str) -> None:
    text = " ".join(message.split())
    # readers warn, and keep the warning with the data: once is enough
    if not any(text in shown for shown in _shown):
        _shown.append(text)
        typer.echo(f"warning: {text}", err=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        import pncbayes

        typer.echo(f"pncbayes {pncbayes.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
@_command
def info(
    file: File,
    salvage: Salvage = False,
    tick_s: TickS = None,
    delay_tick_ns: DelayTickNs = None,
    period_ns: PeriodNs = None,
    option: Options = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="PNG", help="Draw what the screening found."),
    ] = None,
) -> None:
    """Say what a recording holds, without fitting anything, and what is not the dot in it."""
    from pncbayes.photons.facts import photon_facts
    from pncbayes.report.tables import facts_table

    data = _read(
        file, salvage, option, tick_s=tick_s, delay_tick_ns=delay_tick_ns, period_ns=period_ns
    )
    facts = photon_facts(data) if _is_photons(data) else _trace_facts(data)
    for elsewhere in ("path", "warnings"):
        facts.pop(elsewhere, None)
    if figure is not None and not _is_photons(data):
        raise ValueError(f"--figure needs photons, but {file} holds counts per bin")
    _print(facts_table(str(file), facts).rich())
    for text in _warnings_of(data):
        _warn(text)
    if not _is_photons(data):
        return
    from pncbayes.photons.screening import screen

    screening = screen(data)
    typer.echo("Screening:")
    for sentence in screening.words():
        typer.echo(f"- {sentence}")
    if figure is not None:
        from pncbayes.report.screening import save_screening

        save_screening(screening, figure)
        typer.echo(f"wrote {figure}")


def _show_presets(wanted: bool) -> None:
    if wanted:
        from pncbayes.physics.presets import PRESETS
        from pncbayes.report.tables import Table

        rows = tuple((name, preset.claim) for name, preset in PRESETS.items())
        _print(Table("Simulated dots", ("name", "claim"), rows, numeric=False).rich())
        raise typer.Exit


@app.command()
@_command
def simulate(
    file: Annotated[Path, typer.Argument(help="Where to: .ptu .h5 .parquet")],
    preset: Annotated[str, typer.Option(help="Name of a simulated dot.")] = "demo",
    duration_s: Annotated[
        float | None,
        typer.Option(help="Length of the recording, in s.", show_default="that of the preset"),
    ] = None,
    seed: Seed = 1,
    presets: Annotated[
        bool, typer.Option("--presets", callback=_show_presets, is_eager=True, help="List them.")
    ] = False,
) -> None:
    """Simulate a dot; write its photons to FILE and the truth beside it."""
    from pncbayes.physics.presets import preset as find_preset
    from pncbayes.physics.simulate import simulate_to_file

    _check_seed(seed)
    settings = find_preset(preset).settings
    truth = simulate_to_file(file, settings, duration_s=duration_s, random_seed=seed)
    typer.echo(f"wrote {file}: {truth['n_photons']:,} photons, with the truth beside it")


@app.command()
@_command
def fit(
    file: File,
    out: Out,
    width_ms: Annotated[
        float | None,
        typer.Option("--width-ms", help="Width of a bin, in ms.", show_default="by rule"),
    ] = None,
    max_states: Annotated[
        int | None,
        typer.Option(help="Most states to consider.", show_default="that of the model: 6 if free"),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Name of a shipped model, or a .toml file.")
    ] = "free",
    response: Annotated[
        Path | None, typer.Option("--response", metavar="FILE", help="Instrument response.")
    ] = None,
    exciton_rate: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--exciton-rate", metavar="MEAN SD", help="Counts per s of the neutral exciton."
        ),
    ] = None,
    exciton_lifetime: Annotated[
        tuple[float, float] | None,
        typer.Option("--exciton-lifetime", metavar="MEAN SD", help="Its lifetime, in ns."),
    ] = None,
    dynamics: Annotated[
        bool, typer.Option(help="Compare with flicker and noise, and give a verdict.")
    ] = True,
    exposure: Annotated[
        bool, typer.Option(help="Take out lines of the instrument that modulate the light.")
    ] = True,
    seed: Seed = 1,
    salvage: Salvage = False,
    tick_s: TickS = None,
    delay_tick_ns: DelayTickNs = None,
    period_ns: PeriodNs = None,
    option: Options = None,
) -> None:
    """Fit a recording: how many states, their brightness and lifetime, and the switching rates.

    Writes summary.json, fit.nc, overview.png and dynamics.png to the folder given by --out.
    """
    if width_ms is not None and not (math.isfinite(width_ms) and width_ms > 0):
        raise ValueError(f"`--width-ms` must be a positive time in ms, got {width_ms}")
    _check_seed(seed)
    _check_out(out)
    data = _read(
        file, salvage, option, tick_s=tick_s, delay_tick_ns=delay_tick_ns, period_ns=period_ns
    )
    if response is not None and not _is_photons(data):
        raise ValueError(f"--response needs photons, but {file} holds counts per bin")
    _check_enough(file, data)
    for text in _warnings_of(data):
        _warn(text)
    from pncbayes.inference.fit import fit as fit_states
    from pncbayes.physics.exciton import Exciton
    from pncbayes.report.files import write_results
    from pncbayes.report.tables import fit_report

    known = exciton_rate is not None or exciton_lifetime is not None
    result = fit_states(
        data,
        exciton=Exciton(exciton_rate, exciton_lifetime) if known else None,
        width_s=None if width_ms is None else 1e-3 * width_ms,
        max_states=max_states,
        model=model,
        response=None if response is None else str(response),
        dynamics=dynamics,
        exposure=exposure,
        random_seed=seed,
        progressbar=sys.stderr.isatty(),
    )
    write_results(result, out)
    _print(fit_report(result))
    typer.echo(f"wrote {out}/summary.json, fit.nc, overview.png")


@app.command()
@_command
def demo(out: Out = Path("demo"), seed: Seed = 1) -> None:
    """Simulate a blinking dot, write it as PTU, read it back, fit it, compare with the truth."""
    _check_seed(seed)
    _check_out(out)
    from pncbayes.inference.fit import fit as fit_states
    from pncbayes.photons.formats import read
    from pncbayes.physics.presets import preset
    from pncbayes.physics.simulate import simulate_to_file
    from pncbayes.report.files import write_results
    from pncbayes.report.tables import fit_report, truth_table

    dot = preset("demo")
    typer.echo(f"simulating: {dot.claim}")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "dot.ptu"
    with _compiling_ahead():
        truth = simulate_to_file(file, dot.settings, random_seed=seed)
        photons = read(file)
        typer.echo(f"wrote and read back {photons.n_photons:,} photons: {file}")
        result = fit_states(
            photons, dynamics=False, random_seed=seed, progressbar=sys.stderr.isatty()
        )
    write_results(result, out)
    _print(fit_report(result))
    _print(truth_table(result, truth).rich())
    typer.echo(f"wrote {out}/summary.json, fit.nc, overview.png: open overview.png")


@contextlib.contextmanager
def _compiling_ahead() -> Iterator[None]:
    """Use a second core, where there is one, for a part of what the first fit has to compile."""
    if (os.cpu_count() or 1) < 2 or _is_compiled():
        yield
        return
    command = [sys.executable, "-m", "pncbayes.inference.compile_ahead"]
    with open(os.devnull, "wb") as nowhere:
        helper = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        try:
            yield
        finally:
            helper.terminate()
            helper.wait()


def _is_compiled() -> bool:
    """Whether an earlier run left the last of what the helper compiles: then it is in the way.

    Compiled code of another version of a package is found out later, and made anew.
    """
    source = Path(__file__).parent / "inference" / "shared_kernels.py"
    elsewhere = os.environ.get("NUMBA_CACHE_DIR")
    folders = Path(elsewhere).glob("*") if elsewhere else [source.parent / "__pycache__"]
    left = (file for folder in folders for file in folder.glob("shared_kernels.log_density-*.nbi"))
    return any(file.stat().st_mtime >= source.stat().st_mtime for file in left)


def _read(file: Path, salvage: bool, option: list[str] | None, **units: float | None) -> Any:
    from pncbayes.photons.counts import CAMERA_OPTIONS
    from pncbayes.photons.formats import read

    given: dict[str, Any] = {name: value for name, value in units.items() if value is not None}
    for text in option or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"`--option` must be NAME=VALUE, got {text!r}")
        try:
            given[name] = json.loads(value)
        except json.JSONDecodeError:
            given[name] = value
        number = isinstance(given[name], int | float) and not isinstance(given[name], bool)
        if not number and (name.endswith(("_s", "_ns")) or name in CAMERA_OPTIONS):
            raise ValueError(f"`--option` {name} must be a number, got {value!r}")
    try:
        return read(file, salvage=salvage, **given)
    except PhotonFileError as error:
        # the reader gives its advice in Python
        text = str(error).replace("`salvage=True`", "`--salvage`")
        raise PhotonFileError(text) from error


def _warnings_of(data: Any) -> list[str]:
    found = data.warnings if _is_photons(data) else json.loads(data.attrs.get("warnings", "[]"))
    return [str(text) for text in found]


def _is_photons(data: Any) -> bool:
    from pncbayes.photons.stream import Photons

    return isinstance(data, Photons)


def _check_enough(file: Path, data: Any) -> None:
    """Refuse too few photons here: the fit would blame the width of bins that it chose itself."""
    if not _is_photons(data) and data.attrs.get("kind") != "photons":
        return
    n_photons = len(data) if _is_photons(data) else int(data["counts"].sum())
    if n_photons < _FEWEST_PHOTONS:
        raise PhotonFileError(
            f"{file}: holds {n_photons} photon{'' if n_photons == 1 else 's'}, too few to fit; at "
            f"least {_FEWEST_PHOTONS} are needed: record for longer or choose another file"
        )


def _trace_facts(trace: Any) -> dict[str, Any]:
    counts = trace["counts"].sum("gate")
    return {
        "kind": trace.attrs.get("kind", ""),
        "bins": trace.sizes["time"],
        "width_s": trace.attrs.get("width_s"),
        "duration_s": trace.attrs.get("duration_s"),
        "counts_per_bin": {
            "mean": float(counts.mean()),
            "smallest": float(counts.min()),
            "largest": float(counts.max()),
        },
    }


def _print(renderable: Any) -> None:
    from rich.console import Console

    # a pipe or a file has no width; tables must not be cut there
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(renderable)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"`--seed` must be a whole number, 0 or more, got {seed}")


def _check_out(out: Path) -> None:
    """Refuse a folder that cannot be written, before hours of work and not after."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise ValueError(f"--out {out}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK):
        raise ValueError(f"--out {out}: no permission to write in {there}")
