"""Peak memory of training steps, each net in a process of its own.

20 times (Conv2D of 32 channels, 3 x 3, then the activation) on images of 128 x 128 x 32, batch 8,
with BatchNormalization between the two or without: the peak of resident memory in four
`train_on_batch`, above that of the process with the model built; of a GPU's memory where there is
one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.nets import ACTIVATIONS, compiled_net, images
from benchmarks.tables import table, turned


def measure(*, progress: Any) -> dict[str, Any]:
    """MiB for each net, and their ratio to the net with ReLU."""
    results = {}
    for normalised in (False, True):
        name = "with BatchNormalization" if normalised else "without BatchNormalization"
        progress.start(f"Peak memory {name}", len(ACTIVATIONS))
        mebibytes = {}
        for activation in ACTIVATIONS:
            command = [sys.executable, "-m", "benchmarks.memory", activation, str(int(normalised))]
            quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
            if done.returncode:
                raise RuntimeError(f"{activation}, {name}: {done.stderr[-2000:]}")
            mebibytes[activation] = json.loads(done.stdout.splitlines()[-1])
            progress.step()
        results[name] = {
            "MiB": mebibytes,
            "ratios to ReLU": {k: v / mebibytes["Keras ReLU"] for k, v in mebibytes.items()},
        }
    return results


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    columns = {f"{net}, {kind}": results[net][kind] for net in results for kind in results[net]}
    return table("Peak memory of training steps", turned(columns))


def peak_of_training(
    activation: str, *, normalised: bool, layers: int = 20, side: int = 128
) -> float:
    """MiB that training steps of one net take at most, above the process with the model."""
    import numpy as np

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
    print(json.dumps(peak_of_training(sys.argv[1], normalised=sys.argv[2] == "1")))
