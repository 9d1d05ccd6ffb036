"""Peak memory of training steps, each net in processes of its own.

20 times (Conv2D of 32 channels, 3 x 3, then the activation) on images of 128 x 128 x 32, batch 8,
with BatchNormalization between the two or without: the peak of resident memory in four
`train_on_batch`, above that of the process with the model built; of a GPU's memory where there is
one. One peak is a sample: it depends on the order in which threads run. So each figure is a median
of several processes, for several numbers of threads that run operations side by side.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    command = [sys.executable, "-m", "benchmarks.memory", activation, json.dumps(options)]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        raise RuntimeError(f"{activation}, {options}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


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
    before = _peak()
    for _ in range(4):
        loss = model.train_on_batch(x, x)
    if not np.isfinite(loss):
        raise RuntimeError(f"expected a finite loss. Received: {loss}")
    return _peak() - before


def _peak() -> float:
    """MiB of resident memory at most, of this program, or of the GPU's memory where there is one.

    Not `resource.ru_maxrss`: on Linux that of the process that started this one counts in it.
    """
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) / 2**20
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


if __name__ == "__main__":
    print(json.dumps(peak_of_training(sys.argv[1], **json.loads(sys.argv[2]))))
