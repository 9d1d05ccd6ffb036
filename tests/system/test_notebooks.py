"""The notebooks of the documentation run from start to end, and are kept with what they print."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import KERAS_3

pytestmark = pytest.mark.skipif(not KERAS_3, reason="the notebooks show Keras 3")
NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs/notebooks").glob("*.ipynb"))
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def outputs(notebook):
    """What each cell shows: its kinds of data, without what TensorFlow logs."""
    return [
        [
            sorted(output.get("data", {"text": 0}))
            for output in cell.get("outputs", [])
            if output.get("name") != "stderr"
        ]
        for cell in notebook.cells
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_is_kept_with_its_outputs(path, tmp_path):
    made = tmp_path / "made.ipynb"
    command = [sys.executable, "-c", RUN, path, made]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert outputs(nbformat.read(made, 4)) == outputs(nbformat.read(path, 4))


def test_there_are_two():
    assert len(NOTEBOOKS) == 2
