"""`python -m benchmarks [part ...]`: tables on the terminal, figures in JSON, one picture."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks import (
    batch,
    batch_norm,
    call,
    imports,
    kept,
    kernels,
    latency,
    learning,
    memory,
    monitor,
    op,
    peers,
    precision,
    rows,
    serving,
    training,
    xla,
)
from benchmarks.figure import draw

# Each part has `measure`, which takes its own share of the arguments, and `report`.
PARTS: dict[str, tuple[Any, Callable[[argparse.Namespace], dict[str, Any]]]] = {
    "op": (op, lambda given: {"rounds": given.rounds, "shapes": _shapes(op, given)}),
    "call": (call, lambda given: {"rounds": 100 * given.rounds}),
    "kernels": (kernels, lambda given: {"rounds": given.rounds}),
    "peers": (peers, lambda given: {"rounds": given.rounds, "sizes": [*_shapes(peers, given)]}),
    "memory": (memory, lambda given: {"runs": given.processes}),
    "xla": (xla, lambda given: {}),
    "batch_norm": (batch_norm, lambda given: {"processes": given.processes}),
    "kept": (kept, lambda given: {"processes": given.processes}),
    "learning": (learning, lambda given: {}),
    "precision": (precision, lambda given: {}),
    "batch": (batch, lambda given: {}),
    "training": (training, lambda given: {"rounds": given.rounds}),
    "serving": (serving, lambda given: {"rounds": given.rounds}),
    "latency": (latency, lambda given: {"rounds": min(given.rounds, 15)}),
    "rows": (rows, lambda given: {"processes": given.processes}),
    "monitor": (monitor, lambda given: {"rounds": min(given.rounds, 11)}),
    "import": (imports, lambda given: {"rounds": min(given.rounds, 7)}),
}


def _shapes(part: Any, given: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    return {size: part.SHAPES[size] for size in given.sizes if size in part.SHAPES}


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
    keras = tf.keras.layers.Layer.__module__.partition(".")[0]  # or tf_keras
    packages = ("tf_leaky", "tensorflow", keras, "numpy")
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
        "inter-op threads": tf.config.threading.get_inter_op_parallelism_threads(),  # 0: all
        "intra-op threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
    } | {package: importlib.metadata.version(package) for package in packages}


def report(results: dict[str, Any]) -> str:
    """The tables of all parts that were measured."""
    return "\n\n".join(PARTS[part][0].report(results[part]) for part in PARTS if part in results)


def main(arguments: list[str] | None = None) -> None:
    """Measures what is asked for, prints it, and writes it where `--json` says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}: all")
    parser.add_argument("--rounds", type=int, default=31, help="of each timing (default: 31)")
    parser.add_argument("--processes", type=int, default=5, help="of each peak (default: 5)")
    parser.add_argument("--sizes", nargs="+", choices=op.SHAPES, default=list(op.SHAPES))
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--figure", type=Path, help="where a picture of op and memory goes")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"expected parts of {', '.join(PARTS)}. Received: {', '.join(unknown)}.")
    if given.figure and given.parts and not {"op", "memory"} <= set(given.parts):
        parser.error(f"expected op and memory, for a picture. Received: {' '.join(given.parts)}.")
    progress = Progress()
    results: dict[str, Any] = {"machine": machine()}
    for part in given.parts or PARTS:
        module, share = PARTS[part]
        results[part] = module.measure(progress=progress, **share(given))
    print("\n" + report(results))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    if given.figure:
        given.figure.parent.mkdir(parents=True, exist_ok=True)
        draw(results, given.figure)


if __name__ == "__main__":
    main()
