"""Memory of a training step that XLA compiles for the CPU, as XLA's own report says.

The report is of XLA's buffer assignment: it is exact, and the same in each run. A net is several
times (a convolution or Dense layer, batch normalisation or none, an activation). Figures are in
outputs of one layer: all buffers, inputs and gradients of weights included.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.tables import table, turned

ALPHA = 0.1
NETS = ("Conv2D", "Conv2D, BN", "Dense", "Dense, BN")
FUSED = "BatchNormLeakyReLU"
PEERS = {  # of ours, by kind of slope
    "fixed": "Keras LeakyReLU",
    "one slope": "Keras PReLU, one slope",
    "per channel": "Keras PReLU, per channel",
}


def measure(*, progress: Any, layers: int = 6, nets: tuple[str, ...] = NETS) -> dict[str, Any]:
    """Outputs of a layer that each net and activation takes, and ours relative to the peer."""
    results = {}
    for net in nets:
        progress.start(f"Buffers by XLA, {net}", 1)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.xla", net, str(layers), folder]
            quiet = os.environ | {
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "XLA_FLAGS": f"--xla_dump_to={folder}",
            }
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
        if done.returncode:
            raise RuntimeError(f"{net}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        for kind, peer in PEERS.items():
            found[f"ours / peer, {kind}"] = found[f"ours, {kind}"] / found[peer]
        if FUSED in found:
            found[f"{FUSED} / BN + ReLU"] = found[FUSED] / found["Keras ReLU"]
        results[net] = found
        progress.step()
    return results


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    return table("Buffers of a step that XLA compiles for the CPU", turned(results))


def buffers(net: str, layers: int, folder: Path) -> dict[str, float]:
    """Outputs of one layer that the step of each activation takes, from reports in `folder`."""
    import tensorflow as tf

    from tf_leaky import BatchNormLeakyReLU, LeakyReLU

    keras = tf.keras.layers
    is_dense = net.startswith("Dense")
    shape = (1024, 256) if is_dense else (8, 32, 32, 32)
    rows_and_columns = [] if is_dense else [1, 2]
    initial = tf.keras.initializers.Constant(ALPHA)
    activations = {
        "Keras ReLU": keras.ReLU,
        "Keras LeakyReLU": lambda: keras.LeakyReLU(ALPHA),
        "ours, fixed": lambda: LeakyReLU(ALPHA),
        "Keras PReLU, one slope": lambda: keras.PReLU(initial, shared_axes=[*range(1, len(shape))]),
        "ours, one slope": lambda: LeakyReLU(ALPHA, trainable_alpha=True),
        "Keras PReLU, per channel": lambda: keras.PReLU(
            initial, shared_axes=rows_and_columns or None
        ),
        "ours, per channel": lambda: LeakyReLU(ALPHA, trainable_alpha=True, axis=-1),
    }
    if net.endswith("BN"):
        activations[FUSED] = lambda: BatchNormLeakyReLU(alpha=ALPHA)
    results = {}
    for name, activation in activations.items():
        model = tf.keras.Sequential([tf.keras.Input(shape[1:])])
        for _ in range(layers):
            model.add(keras.Dense(256) if is_dense else keras.Conv2D(32, 3, padding="same"))
            if net.endswith("BN") and name != FUSED:
                model.add(keras.BatchNormalization())
            model.add(activation())
        before = set(folder.iterdir())
        _step(model)(tf.zeros(shape))
        reports = [
            path.read_text() for path in set(folder.iterdir()) - before
            if path.name.endswith("memory-usage-report.txt")
        ]  # fmt: skip
        sizes = [int(found[1]) for each in reports if (found := re.search(r"used: (\d+)", each))]
        results[name] = max(sizes) / tf.zeros(shape).numpy().nbytes
    return results


def _step(model: Any) -> Any:
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True)))
        weights = [getattr(each, "value", each) for each in model.trainable_variables]
        return loss, tape.gradient(loss, weights)

    return step


if __name__ == "__main__":
    print(json.dumps(buffers(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
