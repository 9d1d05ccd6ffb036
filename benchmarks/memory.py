"""Peak memory of training steps, each net in processes of its own.

20 times (Conv2D of 32 channels, 3 x 3, then the activation) on images of 128 x 128 x 32, batch 8,
with BatchNormalization between the two or without: the peak of resident memory in four
`train_on_batch`, above that of the process with the model built; of a GPU's memory where there is
one. One peak is a sample: it depends on the order in which threads run. So each figure is a median
of several processes, for several numbers of threads that run operations side by side.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

from benchmarks import isolated
from benchmarks.nets import ACTIVATIONS, compiled_net, images
from benchmarks.tables import by_kind
from benchmarks.timing import quartiles

THREADS = {"default threads": 0, "1 thread": 1, "2 threads": 2}  # inter-op; TensorFlow's 0 is all


def measure(
    *,
    runs: int,
    progress: Any,
    threads: dict[str, int] = THREADS,
    activations: tuple[str, ...] = ACTIVATIONS,
    **net: int,
) -> dict[str, Any]:
    """MiB for each net, as medians and quartiles, and their ratio to the net with ReLU."""
    results = {}
    for setting, count in threads.items():
        for normalised in (False, True):
            name = f"{'with' if normalised else 'without'} BatchNormalization, {setting}"
            progress.start(f"Peak memory {name}", runs * len(activations))
            peaks: dict[str, list[float]] = {activation: [] for activation in activations}
            for _ in range(runs):
                for activation in activations:
                    found = _in_a_process(activation, normalised=normalised, threads=count, **net)
                    peaks[activation].append(found)
                    progress.step()
            medians = {each: statistics.median(found) for each, found in peaks.items()}
            results[name] = {
                "MiB": medians,
                "MiB, quartiles": {each: quartiles(found) for each, found in peaks.items()},
                "ratios to ReLU": {k: v / medians["Keras ReLU"] for k, v in medians.items()},
            }
    return results


def _in_a_process(activation: str, **options: int) -> float:
    """What `peak_of_training` returns, in a process of its own."""
    found: float = isolated.run("memory", activation, json.dumps(options))
    return found


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    kinds = {
        "ratios to ReLU": "Peak memory of training steps, ratio of medians to ReLU's",
        "MiB": "Peak memory of training steps, median MiB",
        "MiB, quartiles": "Peak memory of training steps, quartiles in MiB",
    }
    return by_kind(kinds, results)


def peak_of_training(
    activation: str, *, normalised: bool, threads: int = 0, layers: int = 20, side: int = 128
) -> float:
    """MiB that training steps of one net take at most, above the process with the model."""
    import numpy as np
    import tensorflow as tf

    if threads:
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    model = compiled_net(activation, normalised=normalised, side=side, layers=layers)
    x = images(8, side)
    before = isolated.peak()
    for _ in range(4):
        loss = model.train_on_batch(x, x)
    if not np.isfinite(loss):
        raise RuntimeError(f"expected a finite loss. Received: {loss}")
    return isolated.peak() - before


if __name__ == "__main__":
    print(json.dumps(peak_of_training(sys.argv[1], **json.loads(sys.argv[2]))))
