"""Fixtures and settings that all tests share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Set before anything imports matplotlib: tests run where there is no display.
os.environ["MPLBACKEND"] = "Agg"

# The first example of a property test often pays for a numba compilation.
settings.register_profile("pncbayes", deadline=None, print_blob=True)
settings.load_profile("pncbayes")

# Files whose tests take longest: begun first, or one process is left alone with them at the end.
LONGEST = ("test_notebooks.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the longest files first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings: ``$PNCBAYES_DATA``, or ``../shared/data`` from the root.

    Skips when the folder is missing, but fails in CI: a skip would hide that nothing was read.
    """
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("PNCBAYES_DATA") or root.parent / "shared" / "data")
    if folder.is_dir():
        return folder
    message = f"no recordings in {folder}; set PNCBAYES_DATA to the folder that holds them"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def make_fit() -> Callable[..., Any]:
    """Make a made-up fit; the arguments are those of `fake_fit.make_fake_fit`."""
    from fake_fit import make_fake_fit

    return make_fake_fit
