"""The notebook runs from its first cell to its last, and shows what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_edit.ipynb"


def test_the_notebook_runs_and_shows_its_pictures() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "stored without outputs"
    for cell in notebook.cells:
        cell.source = cell.source.replace("STEPS = 20", "STEPS = 4")
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [
        any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in code
    ]
    assert pictures == [False, True, True, True, True]
    said = "".join(o.get("text", "") for cell in code for o in cell.outputs)
    assert "middle_of_two: two sites in the middle of the run" in said
    assert "best site: up_blocks" in said
    bars = [o for o in code[1].outputs if "denoise" in str(o)]
    assert bars, "no progress is shown"
