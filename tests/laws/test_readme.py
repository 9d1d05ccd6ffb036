"""The README's code runs as it stands, and so do the examples of the docstrings."""

import doctest
import importlib
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import tf_leaky

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    for made in ("model.keras", "saved_models/mine/1", "saved_models/mine/2", "monitor.png"):
        assert (tmp_path / made).exists()


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name
)
def test_linked_files_are_there(page):
    """A path in code, and a link that is none of the web."""
    text = page.read_text()
    paths = re.findall(r"`((?:docs|tests|examples|tf_leaky)/[\w./*]+)`", text)
    links = re.findall(r"\]\((?!\w+:)([^)#]+)", text)
    missing = [path for path in paths if not list(ROOT.glob(path))]
    assert missing + [link for link in links if not (page.parent / link).exists()] == []


MODULES = sorted(Path(tf_leaky.__file__).parent.rglob("*.py"))
DOCTESTED = [path for path in MODULES if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", DOCTESTED, ids=lambda path: path.stem)
def test_docstring_examples(path):
    mpl.use("Agg")
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(name)
    names = {**vars(module), "np": np, "LeakyReLU": tf_leaky.LeakyReLU}
    results = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert results.attempted > results.failed == 0
