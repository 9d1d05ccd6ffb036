"""Rows per second of `examples/batch_inference.py`: a net as Keras has it, and frozen and folded.

Both nets have the same weights: 3 times (Conv2D of 32 channels, 3 x 3, batch normalisation, leaky
ReLU) on digits of 8 x 8 pixels, so the example compares the scores with one model's predictions.
Each run is a process that starts Ray and one worker; the runs take turns. The rate leaves out the
first batch, which waits for the worker. It needs `pip install ".[batch]"`.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.tables import table
from benchmarks.timing import quartiles

SCRIPT = Path(__file__).parents[1] / "examples" / "batch_inference.py"
STOCK, OURS = "Keras LeakyReLU", "ours, frozen and folded"
ALPHA = 0.2


def measure(*, progress: Any, processes: int = 5, rows: int = 100_000) -> dict[str, Any]:
    """The median rate of each net, and the ratio of ours, with its quartiles."""
    with tempfile.TemporaryDirectory() as folder:
        folders = exported(Path(folder))
        rates: dict[str, list[float]] = {name: [] for name in folders}
        progress.start(f"{rows} rows with Ray Data", processes)
        for _ in range(processes):
            for name, each in folders.items():
                rates[name].append(_rate(each, rows))
            progress.step()
    ratios = [mine / theirs for mine, theirs in zip(rates[OURS], rates[STOCK], strict=True)]
    return {
        "rows per second": {name: statistics.median(each) for name, each in rates.items()},
        "ratio": statistics.median(ratios),
        "quartiles": quartiles(ratios),
    }


def exported(folder: Path) -> dict[str, Path]:
    """A folder for each net, as `make demo` leaves one."""
    import numpy as np
    import tensorflow as tf

    from tf_leaky import convert, export_saved_model, freeze
    from tf_leaky.keras_compat import keras_leaky_relu

    keras = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    x = inputs = tf.keras.Input((8, 8, 1), name="image")
    for _ in range(3):
        x = keras.Conv2D(32, 3, padding="same", use_bias=False)(x)
        x = keras_leaky_relu(ALPHA)(keras.BatchNormalization(momentum=0.0)(x))
    y = keras.Dense(10, "softmax", name="digit")(keras.GlobalAveragePooling2D()(x))
    stock = tf.keras.Model(inputs, y)
    stock(np.random.default_rng(0).random((256, 8, 8, 1), np.float32), training=True)
    folders = {}
    for name, model in {STOCK: stock, OURS: freeze(convert(stock), fold_batch_norm=True)}.items():
        folders[name] = folder / str(len(folders))
        export_saved_model(model, folders[name] / "digits")
        stock.save(folders[name] / "digits.keras")
    return folders


def _rate(folder: Path, rows: int) -> float:
    command = [sys.executable, SCRIPT, "--folder", folder, "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^(\d+) rows per second after the first batch", done.stdout, re.M)
    if done.returncode or not found:
        raise RuntimeError(f"{folder}: {done.stdout[-500:]} {done.stderr[-2000:]}")
    return float(found[1])


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    rows = {name: {"rows per second": each} for name, each in results["rows per second"].items()}
    rows[OURS] |= {f"/ {STOCK}": results["ratio"], "quartiles": results["quartiles"]}
    return table("Rows scored with Ray Data", rows)
