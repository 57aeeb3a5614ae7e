"""The folder of results: what a fit leaves on disk, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pncbayes.report.dynamics import save_dynamics
from pncbayes.report.overview import save_overview

__all__ = ["write_results"]


def write_results(result: Any, out: Path) -> None:
    """Write ``summary.json``, ``fit.nc``, ``overview.png`` and ``dynamics.png`` to a folder.

    The last only where the fit holds dynamics.

    A new folder appears whole. In one that exists files are replaced one by one, the summary last,
    and other files stay. After an error nothing is left and the folder is as before.

    Parameters
    ----------
    result
        A fit.
    out
        The folder; made if it does not exist.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    with _written_aside(out) as folder:
        result.save(folder / "fit.nc")
        save_overview(result, folder / "overview.png")
        if getattr(result, "dynamics", None) is not None:
            save_dynamics(result, folder / "dynamics.png")
        text = json.dumps(_without_nan(result.summary()), indent=2, allow_nan=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """Return what JSON can hold: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def _written_aside(out: Path) -> Iterator[Path]:
    """Give a folder beside `out`; when all is written, move what it holds to `out`.

    A new `out` appears whole. In one that exists files are replaced one by one, the summary
    last, and other files stay. After an error nothing is left and `out` is as before.
    """
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    folder = out.absolute().parent / f".{out.absolute().name}.{os.getpid()}.partial"
    folder.mkdir()
    try:
        yield folder
        if out.exists():
            for file in sorted(folder.iterdir(), key=lambda one: one.name == "summary.json"):
                file.replace(out / file.name)
        else:
            folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
