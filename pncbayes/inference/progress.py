"""Progress of long work on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["progress"]


@contextlib.contextmanager
def progress(total: int, show: bool) -> Iterator[Callable[[str], None]]:
    """Progress bar on standard error; a function that moves it on and says what comes next."""
    if not show:
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<16}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fit", total=total)

        def step(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield step
