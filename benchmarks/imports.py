"""How long `import tf_leaky` takes where TensorFlow and its Keras are there already."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks import isolated


def measure(*, rounds: int, progress: Any) -> dict[str, Any]:
    """Median milliseconds, each import in a process of its own."""
    progress.start("import tf_leaky", rounds)
    milliseconds = []
    for _ in range(rounds):
        milliseconds.append(1000 * isolated.run("imports"))
        progress.step()
    return {"median ms": statistics.median(milliseconds), "rounds": rounds}


def report(results: dict[str, Any]) -> str:
    """The line of `measure`'s results."""
    return f"import tf_leaky: {results['median ms']:.0f} ms after tensorflow"


if __name__ == "__main__":
    import tensorflow as tf

    tf.keras.layers.Layer  # noqa: B018  imports Keras
    start = time.perf_counter()
    import tf_leaky  # noqa: F401

    print(time.perf_counter() - start)
