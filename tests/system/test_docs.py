"""The code of the documentation and its notebooks run, and its tables are made from results."""

import json
import re
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
from conftest import KERAS_3, run_python

import tf_leaky
from benchmarks import pages
from benchmarks.figure import BLOCKS

pytestmark = pytest.mark.skipif(not KERAS_3, reason="the pages show Keras 3")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUN = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.filterwarnings("ignore")  # those of the converters of other packages
@pytest.mark.parametrize(
    "page", [page for page in DOCS.glob("*.md") if blocks(page)], ids=lambda page: page.stem
)
def test_python_of_a_page_runs_in_order(page, tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), namespace)


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


@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_and_is_kept_with_its_outputs(path, tmp_path):
    made = tmp_path / "made.ipynb"
    run_python("-c", RUN, path, made, cwd=tmp_path)
    assert outputs(nbformat.read(made, 4)) == outputs(nbformat.read(path, 4))


def test_reference_has_every_public_name():
    documented = re.findall(
        r"^\.\. .*:: tf_leaky\.(\w+)$", (DOCS / "reference.md").read_text(), re.M
    )
    assert sorted(documented) == sorted(tf_leaky.__all__)


def test_tables_and_picture_of_the_documentation_are_made_from_results(tmp_path):
    figures = {"MiB": dict.fromkeys(BLOCKS, 10.0), "MiB / BN + ReLU": dict.fromkeys(BLOCKS, 0.5)}
    machine = dict.fromkeys(("date", "cpu", "logical cpus", "python", "tensorflow", "keras"), "2")
    for name, ratio in (("old", 3.0), ("new", 2.0)):
        results = {
            "machine": machine,
            "batch_norm": {"graph": figures},
            "serving": {"ratios": {"frozen / Keras": ratio}},
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(results))
    runs = [str(tmp_path / f"{name}.json") for name in ("old", "new")]
    pages.main([*runs, "--docs", str(tmp_path)])
    written = (tmp_path / "performance_tables.md").read_text()
    assert "| frozen / Keras | 2 |" in written
    assert "| BatchNormLeakyReLU | 10 | 0.5 |" in written
    assert "2 logical CPUs of an 2, Python 2" in written
    assert (tmp_path / "pictures/memory.png").read_bytes().startswith(b"\x89PNG")
