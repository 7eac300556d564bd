"""Runs the notebooks of examples/notebooks from top to bottom. Their own assertions are what is tested."""

import base64
import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[3] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

#: How many plots a notebook shows at least.
PLOTS = {"02-mining-and-difficulty.ipynb": 3}
#: An empty plot of this size is smaller.
PLOT_BYTES_MIN = 10_000
CELL_TIMEOUT_S = 120


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Makes "python3" the interpreter that runs this test, whatever kernels and start-up files the user has."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    kernels = tmp_path / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # Plots are to be shown in the notebook.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return "python3"


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_at_least_four():
    assert len(NOTEBOOKS) >= 4, f"notebooks in {FOLDER}: {[path.name for path in NOTEBOOKS]}"
    assert PLOTS.keys() <= {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None, f"{cell.id}: clear all outputs, then save"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, kernel, tmp_path):
    notebook = read(path)
    folder = tmp_path / "work"
    folder.mkdir()
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name=kernel,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()

    cells = code_cells(notebook)
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    pictures = [base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})]
    assert len([picture for picture in pictures if len(picture) > PLOT_BYTES_MIN]) >= PLOTS.get(path.name, 0)
    assert list(folder.iterdir()) == [], "a notebook keeps its files in a temporary folder"
