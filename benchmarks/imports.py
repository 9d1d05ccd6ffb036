"""How long `import tf_leaky` takes where TensorFlow and its Keras are there already."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import Any

CODE = """
import time
import tensorflow as tf
tf.keras.layers.Layer
start = time.perf_counter()
import tf_leaky
print(time.perf_counter() - start)
"""


def measure(*, rounds: int, progress: Any) -> dict[str, Any]:
    """Median milliseconds, each import in a process of its own."""
    progress.start("import tf_leaky", rounds)
    milliseconds = []
    for _ in range(rounds):
        quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=quiet
        )
        milliseconds.append(1000 * float(done.stdout))
        progress.step()
    return {"median ms": statistics.median(milliseconds), "rounds": rounds}


def report(results: dict[str, Any]) -> str:
    """The line of `measure`'s results."""
    return f"import tf_leaky: {results['median ms']:.0f} ms after tensorflow"
