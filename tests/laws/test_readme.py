"""The README's code runs as it stands, and so do the examples of the docstrings."""

import doctest
import importlib
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    for made in ("model.keras", "saved_models/mine/1", "saved_models/mine/2", "slopes.png"):
        assert (tmp_path / made).exists()
    assert "[-1. -4.]" in capsys.readouterr().out


def test_first_block_is_eight_lines_beyond_the_imports():
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    lines = [line for line in block.splitlines() if line and "import" not in line]
    assert len(lines) <= 8


def test_linked_files_are_there():
    for path in re.findall(r"`((?:tests|examples|tf_leaky)/[\w./]+)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", ["ops", "layer", "models", "export", "plot", "monitor", "native"])
def test_docstring_examples(name):
    mpl.use("Agg")
    module = importlib.import_module(f"tf_leaky.{name}")
    names = {**vars(module), "np": np, "LeakyReLU": importlib.import_module("tf_leaky").LeakyReLU}
    results = doctest.testmod(module, extraglobs=names, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
    assert results.attempted > 0 or name == "native"
