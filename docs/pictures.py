"""Draws the pictures of docs/watching.md with the code of that page, into docs/pictures.

python docs/pictures.py
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
mpl.rcParams["savefig.dpi"] = 160

DOCS = Path(__file__).resolve().parent
PICTURES = ("leaky_relu.png", "monitor.png", "activations.png")


def code(page):
    """The Python of a page, in order."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))


def main():
    """Runs the page in a folder of its own, and keeps what it drew."""
    page = DOCS / "watching.md"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        exec(compile(code(page), page.name, "exec"), {})
        for name in PICTURES:
            shutil.copyfile(name, DOCS / "pictures" / name)
        os.chdir(DOCS)


if __name__ == "__main__":
    main()
