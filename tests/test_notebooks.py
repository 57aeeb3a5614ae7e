"""Notebooks run from top to bottom, with few draws and no errors."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# what each notebook must have printed: that it went through, and what its truth makes it say
PRINTED = {
    "01_one_dot": ["a trion has about 2"],
    "02_which_mechanism": ["Auger rate: ", "mechanisms: None", "undetermined: ", "best: auger"],
    "03_real_light": [
        "124 Hz",
        "truth blinking, verdict: blinking",
        "truth flickering, verdict: flickering",
        "truth both, verdict: both",
        "power laws: ",
    ],
}
NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def test_every_notebook_has_something_to_print():
    assert {path.stem for path in NOTEBOOKS} == set(PRINTED)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "strip the outputs"
    monkeypatch.setenv("PNCBAYES_NOTEBOOK_SECONDS", "8")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": os.fspath(path.parent)}}
    )
    client.execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    for wanted in PRINTED[path.stem]:
        assert wanted in text
