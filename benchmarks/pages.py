"""`python -m benchmarks.pages RESULTS.json [...]`: the tables and pictures of the documentation.

It writes `docs/performance_tables.md`, `docs/pictures/memory.png` and `docs/pictures/accuracy.png`.
Where several runs have one part, the last one counts, for Keras 3 and for tf_keras.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks import learning
from benchmarks.__main__ import PARTS
from benchmarks.figure import draw_blocks

DOCS = Path(__file__).parents[1] / "docs"
TITLES = {
    "op": "The operation alone",
    "call": "One eager call",
    "kernels": "Kernel by kernel",
    "peers": "PyTorch and JAX",
    "memory": "Memory of activations",
    "xla": "Memory of activations under XLA",
    "batch_norm": "Batch normalisation: memory and time",
    "kept": "What `activation_memory` counts, and what is measured",
    "learning": "Does it learn the same",
    "precision": "Precision of small gammas",
    "batch": "The largest batch in 1 GiB",
    "training": "Time of a training step",
    "serving": "Requests in a session",
    "latency": "Requests to a server, LiteRT and ONNX",
    "rows": "Rows scored in batches",
    "monitor": "ActivationMonitor",
    "import": "Import",
}
KERAS = {"keras": "Keras", "tf_keras": "tf_keras"}  # as the results and the pages call them
HEAD = """\
% Written by `python -m benchmarks.pages {names}`
"""


def markdown(report: str) -> str:
    """The tables of a part's report, in Markdown. In the text, two spaces separate the cells."""
    blocks = []
    for lines in _tables(report):
        title, head, *rows = lines
        cells = [["", *_cells(head.strip())], *map(_cells, rows)]
        width = len(cells[0])
        ruled = [cells[0], ["---", *["---:"] * (width - 1)], *cells[1:]]
        table = "\n".join(f"| {' | '.join(row)} |" for row in ruled)
        blocks.append(f"**{title}**\n\n{table}")
    return "\n\n".join(blocks)


def _tables(report: str) -> list[list[str]]:
    """The lines of each table: its title, a head that begins with a space, rows."""
    lines = [line for line in report.splitlines() if line.strip()]
    starts = [i for i, line in enumerate(lines[1:]) if line.startswith(" ")]
    if not starts:
        return []
    return [lines[i:j] for i, j in zip(starts, [*starts[1:], len(lines)], strict=True)]


def _cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def page(runs: list[dict[str, Any]]) -> str:
    """All tables of the runs, part by part, each with its date and machine."""
    sections = []
    for part, (module, _) in PARTS.items():
        title = f"## {TITLES[part]}"
        for keras in KERAS:
            run = _last(runs, part, keras)
            if run is None or not (tables := markdown(module.report(run[part]))):
                continue
            machine = run["machine"]
            where = (
                f"{machine['date']}, {machine['logical cpus']} logical CPUs of an "
                f"{machine['cpu']}, Python {machine['python']}, "
                f"TensorFlow {machine['tensorflow']}, {KERAS[keras]} {machine[keras]}. "
                f"`python -m benchmarks {part}` measures it again."
            )
            sections += [title, where, tables]
            title = f"### {TITLES[part]}, under tf_keras"
    return "\n\n".join(sections) + "\n"


def _last(runs: list[dict[str, Any]], part: str, keras: str) -> dict[str, Any] | None:
    """The last run with a part, under one Keras."""
    return next((x for x in reversed(runs) if part in x and keras in x["machine"]), None)


def main(arguments: list[str] | None = None) -> None:
    """Writes the tables and draws the picture of the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("results", nargs="+", type=Path, help="what `--json` wrote")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to write to")
    given = parser.parse_args(arguments)
    runs = [json.loads(path.read_text()) for path in given.results]
    names = " ".join(f"benchmarks/results/{path.name}" for path in given.results)
    (given.docs / "pictures").mkdir(parents=True, exist_ok=True)
    (given.docs / "performance_tables.md").write_text(HEAD.format(names=names) + "\n" + page(runs))
    if blocks := _last(runs, "batch_norm", "keras"):
        draw_blocks(blocks, given.docs / "pictures" / "memory.png")
    if learned := _last(runs, "learning", "keras"):
        learning.draw(learned["learning"], given.docs / "pictures" / "accuracy.png")


if __name__ == "__main__":
    main()
