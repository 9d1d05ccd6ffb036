"""`python -m benchmarks [op] [memory] [import]`: tables on the terminal, figures in JSON."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks import imports, memory, op

PARTS = ("op", "memory", "import")


class Progress:
    """A bar of Keras's for each measurement, under its name."""

    def start(self, name: str, rounds: int) -> None:
        """Begins the bar of a measurement of so many rounds."""
        print(name)
        self._bar = tf.keras.utils.Progbar(rounds)

    def step(self) -> None:
        """Notes that a round is done."""
        self._bar.add(1)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpu.read_text().splitlines() if cpu.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": models[0] if models else platform.processor(),
        "logical cpus": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "keras": tf.keras.layers.Layer.__module__.partition(".")[0],
    } | {
        package: importlib.metadata.version(package)
        for package in ("tf_leaky", "tensorflow", "keras", "numpy")
    }


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    """Rows of figures under columns, as text."""
    columns = list(next(iter(rows.values())))
    width = max(map(len, rows)) + 2
    lines = [title, " " * width + "".join(f"{column:>{len(column) + 2}}" for column in columns)]
    for name, row in rows.items():
        figures = "".join(f"{row[column]:>{len(column) + 2}.3g}" for column in columns)
        lines.append(f"{name:<{width}}{figures}")
    return "\n".join(lines)


def report(results: dict[str, Any]) -> str:
    """The tables of all parts that were measured."""
    texts = []
    if "op" in results:
        sizes = results["op"]
        ratios = {
            row: {size: sizes[size]["ratios"][row] for size in sizes}
            for row in next(iter(sizes.values()))["ratios"]
        }
        texts.append(table("Time, forward + backward, as a ratio of medians", ratios))
        errors = {
            row: {size: sizes[size]["slope gradient errors"][row] for size in sizes}
            for row in next(iter(sizes.values()))["slope gradient errors"]
        }
        texts.append(table("Largest error of the slope's gradient, relative", errors))
    if "memory" in results:
        nets = results["memory"]
        peaks = {
            row: {f"{net}, {kind}": nets[net][kind][row] for net in nets for kind in nets[net]}
            for row in memory.ACTIVATIONS
        }
        texts.append(table("Peak memory of training steps", peaks))
    if "import" in results:
        texts.append(f"import tf_leaky: {results['import']['median ms']:.0f} ms after tensorflow")
    return "\n\n".join(texts)


def main(arguments: list[str] | None = None) -> None:
    """Measures what is asked for, prints it, and writes it where `--json` says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}: all")
    parser.add_argument("--rounds", type=int, default=31, help="of each timing (default: 31)")
    parser.add_argument("--sizes", nargs="+", choices=op.SHAPES, default=list(op.SHAPES))
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"expected parts of {', '.join(PARTS)}. Received: {', '.join(unknown)}.")
    if given.rounds < 1:
        parser.error(f"expected --rounds to be above 0. Received: {given.rounds}.")
    parts = given.parts or PARTS
    progress = Progress()
    results: dict[str, Any] = {"machine": machine()}
    if "op" in parts:
        shapes = {size: op.SHAPES[size] for size in given.sizes}
        results["op"] = op.measure(rounds=given.rounds, shapes=shapes, progress=progress)
    if "memory" in parts:
        results["memory"] = memory.measure(progress=progress)
    if "import" in parts:
        results["import"] = imports.measure(rounds=min(given.rounds, 7), progress=progress)
    print("\n" + report(results))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
