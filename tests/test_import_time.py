"""Importing the package and asking for help must be quick: no heavy import on the way."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = {"pymc", "pytensor", "jax", "matplotlib", "arviz", "nutpie", "numba", "xarray", "pandas"}

# CPU time of the child, not wall time: the test runs beside others on busy machines.
REPORT = """
import json, sys, time
print(json.dumps({"modules": sorted({m.split(".")[0] for m in sys.modules}),
                  "cpu_s": time.process_time()}), file=sys.stderr)
"""


def run(code: str) -> dict[str, object]:
    environment = {**os.environ, "COLUMNS": "100"}
    best: dict[str, object] = {}
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code + REPORT],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=environment,
        )
        report = json.loads(done.stderr.splitlines()[-1])
        report["stdout"] = done.stdout
        if not best or report["cpu_s"] < best["cpu_s"]:
            best = report
    return best


@pytest.mark.parametrize(
    ("code", "limit_s"),
    [
        pytest.param("import pncbayes", 1.5, id="import"),
        pytest.param("import pncbayes; dir(pncbayes); pncbayes.__version__", 1.5, id="version"),
        pytest.param(
            "import sys\nfrom pncbayes.cli import main\nsys.argv = ['pncbayes', '--help']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n",
            1.0,
            id="help",
        ),
    ],
)
def test_light_and_quick(code: str, limit_s: float) -> None:
    report = run(code)
    assert HEAVY.isdisjoint(report["modules"])
    # the first of three runs also writes the bytecode; a factor of two is left for slow machines
    assert report["cpu_s"] < 2 * limit_s
    if "--help" in code:
        for command in ("info", "simulate", "fit", "demo"):
            assert command in report["stdout"]
