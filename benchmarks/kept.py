"""What `activation_memory` counts against what processes hold, as the batch grows.

Each net takes two training steps in processes of its own, on a small and on a large batch, several
times. Beside the growth of the count stands that of two medians. "held" is the memory in use when
the forward pass is done: the backward pass waits for the reading, by its data. There, TensorFlow
takes memory from the system, and returns it at once. "peak" is that of a process as users have it:
gradients of the largest layers are in it, and what the default allocator for CPUs adds, which hands
out blocks of up to twice the size and keeps them. Inputs are there before the first look at the
memory, so that they count in neither. "fused" is the net that `convert(..., fuse_batch_norm=True)`
makes of the one of that name.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

from benchmarks import isolated
from benchmarks.tables import table

# Shapes of one example, and the small and the large batch.
NETS: dict[str, tuple[tuple[int, ...], tuple[int, int]]] = {
    "ResNet50": ((128, 128, 3), (4, 20)),
    "ResNet50, fused": ((128, 128, 3), (4, 20)),
    "U-Net": ((64, 64, 3), (4, 36)),
    "U-Net, fused": ((64, 64, 3), (4, 36)),
    "U-Net, mixed_float16": ((64, 64, 3), (2, 10)),
    "LSTM": ((32, 64), (128, 1152)),
    "transformer block": ((128, 128), (8, 72)),
    "DCGAN discriminator": ((64, 64, 3), (8, 136)),
    "DCGAN discriminator, fused": ((64, 64, 3), (8, 136)),
}


def measure(*, progress: Any, processes: int = 5, nets: tuple[str, ...] = tuple(NETS)) -> Any:
    """MiB for each net: growth of the count, and medians of processes with the least and most."""
    results = {}
    for net in nets:
        progress.start(f"Kept for the backward pass, {net}", processes)
        runs: dict[str, list[tuple[dict[str, float], ...]]] = {"held": [], "peak": []}
        for _ in range(processes):
            for kind, found in runs.items():
                found.append(tuple(_in_a_process(net, kind, count) for count in NETS[net][1]))
            progress.step()
        small, large = runs["held"][0]
        counted = (large["counted"] - small["counted"]) / 2**20
        results[net] = {"counted, MiB": counted}
        for kind, found in runs.items():
            grown = [(large[kind] - small[kind]) / 2**20 for small, large in found]
            median = statistics.median(grown)
            results[net] |= {
                f"{kind}, MiB": median,
                f"{kind}, least": min(grown),
                f"{kind}, most": max(grown),
                f"counted / {kind}": counted / median,
            }
        stock = net.removesuffix(", fused")
        if stock != net and stock in results:
            results[net]["peak / stock"] = results[net]["peak, MiB"] / results[stock]["peak, MiB"]
    return results


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    return table("Growth from a small batch to a large one", results)


def _in_a_process(net: str, kind: str, count: int) -> dict[str, float]:
    # Large blocks come from the system, and there is one heap, so that it has no holes.
    memory = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    memory["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"] = str(int(kind == "held"))
    found: dict[str, float] = isolated.run("kept", net, count, **memory)
    return found


def peak_and_count(net: str, count: int) -> dict[str, float]:
    """Bytes above the built model: held after the forward pass, at most, and counted."""
    import numpy as np
    import tensorflow as tf

    from tf_leaky import activation_memory

    model = build(net)
    x = tf.random.uniform((count, *NETS[net][0]), seed=0)
    y = tf.zeros([count if size is None else size for size in model.output_shape])
    counted = activation_memory(model, x).total
    held: list[float] = []

    def between(loss: Any) -> Any:
        """The memory in use after the forward pass: the backward pass waits for what it returns."""
        held.append(isolated.resident())
        return np.ones_like(loss)

    def loss(_: Any, outputs: Any) -> Any:
        mean = tf.reduce_mean(tf.cast(outputs, tf.float32))
        return mean * tf.ensure_shape(tf.numpy_function(between, [mean], tf.float32), [])

    model.compile("sgd", loss, jit_compile=False)
    before, peak = isolated.resident(), isolated.peak()
    for _ in range(2):
        found = model.train_on_batch(x, y)
    if not np.isfinite(found).all():
        raise RuntimeError(f"expected a finite loss. Received: {found}")
    return {
        "held": (max(held) - before) * 2**20,
        "peak": (isolated.peak() - peak) * 2**20,
        "counted": counted,
    }


def build(net: str) -> Any:
    """A net of `NETS`."""
    import tensorflow as tf

    if net.endswith(", fused"):
        from tf_leaky import convert

        return convert(build(net.removesuffix(", fused")), alpha=0.01, fuse_batch_norm=True)
    keras = tf.keras.layers
    name, _, policy = net.partition(", ")
    if policy:
        tf.keras.mixed_precision.set_global_policy(policy)
    tf.keras.utils.set_random_seed(0)
    shape = NETS[net][0]
    x = inputs = tf.keras.Input(shape)
    if name == "ResNet50":
        return tf.keras.applications.ResNet50(weights=None, input_shape=shape, classes=10)
    if name == "LSTM":
        for _ in range(2):
            x = keras.LSTM(64, return_sequences=True)(x)
    elif name == "transformer block":
        for _ in range(2):
            x = keras.LayerNormalization()(x + keras.MultiHeadAttention(4, 32)(x, x))
            x = keras.LayerNormalization()(x + keras.Dense(128)(keras.Dense(512, "gelu")(x)))
    elif name == "U-Net":
        kept = []
        for width in (16, 32, 64):
            x = _double(keras, x, width)
            kept.append(x)
            x = keras.MaxPooling2D()(x)
        x = _double(keras, x, 128)
        for width, skip in zip((64, 32, 16), reversed(kept), strict=True):
            x = keras.Conv2DTranspose(width, 2, strides=2)(x)
            x = _double(keras, keras.concatenate([x, skip]), width)
        x = keras.Conv2D(1, 1, dtype="float32")(x)
    else:
        for width in (32, 64, 128, 256):
            x = keras.Conv2D(width, 5, strides=2, padding="same")(x)
            x = keras.LeakyReLU()(keras.BatchNormalization()(x))
        x = keras.Dense(1)(keras.Flatten()(x))
    return tf.keras.Model(inputs, x)


def _double(keras: Any, x: Any, width: int) -> Any:
    for _ in range(2):
        x = keras.Conv2D(width, 3, padding="same")(x)
        x = keras.ReLU()(keras.BatchNormalization()(x))
    return x


if __name__ == "__main__":
    import tensorflow

    # The least that runs side by side.
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    print(json.dumps(peak_and_count(sys.argv[1], int(sys.argv[2]))))
