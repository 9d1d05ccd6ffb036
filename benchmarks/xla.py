"""Memory of a training step that XLA compiles for the CPU, as XLA's own report says.

The report is of XLA's buffer assignment: it is exact, and the same in each run. A net is several
times (a convolution or Dense layer, batch normalisation or none, an activation). Figures are in
outputs of one layer: all buffers, inputs and gradients of weights included.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import isolated
from benchmarks.nets import ALPHA, activation_of
from benchmarks.tables import table, turned

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
            flags = {"XLA_FLAGS": f"--xla_dump_to={folder}"}
            found = isolated.run("xla", net, layers, folder, **flags)
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

    from tf_leaky import BatchNormLeakyReLU

    keras = tf.keras.layers
    is_dense = net.startswith("Dense")
    shape = (1024, 256) if is_dense else (8, 32, 32, 32)
    names = [*PEERS.values(), *(f"ours, {kind}" for kind in PEERS), "Keras ReLU"]
    if net.endswith("BN"):
        names.append(FUSED)
    results = {}
    for name in names:
        model = tf.keras.Sequential([tf.keras.Input(shape[1:])])
        for _ in range(layers):
            model.add(keras.Dense(256) if is_dense else keras.Conv2D(32, 3, padding="same"))
            if net.endswith("BN") and name != FUSED:
                model.add(keras.BatchNormalization())
            if name == FUSED:
                model.add(BatchNormLeakyReLU(alpha=ALPHA))
            else:
                model.add(activation_of(name, rank=len(shape)))
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
