"""Batch normalisation with an activation, in one layer or in two: peak memory and time of a step.

Blocks of (Conv2D of 32 channels, 3 x 3, then batch normalisation and an activation) on square
images of 32 channels. Under mixed_float16 the convolutions are 1 x 1, since CPUs compute them
slowly. Each net runs in processes of its own, several times, in turns: one peak is a sample, not a
figure. The peak is of resident memory in six training steps, above that of the process with the
model built; of a GPU's memory where there is one. The time is the median of the last four. The
batch is so large that what a process takes for any batch, some 100 MiB, counts little.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from benchmarks import isolated
from benchmarks.nets import ALPHA, CHANNELS, images
from benchmarks.tables import table, turned

THREE = ("BN + ReLU", "BN + Keras LeakyReLU", "BatchNormLeakyReLU")
BLOCKS = (
    *THREE,
    "BN + ours",
    "BatchNormLeakyReLU, one slope",
    "BatchNormLeakyReLU, per channel",
    "BN + ReLU, recomputed",
)
SIDE, COUNT = 96, 20  # pixels, images
SETTINGS: dict[str, dict[str, Any]] = {
    "graph": {},
    "mixed_bfloat16": {"policy": "mixed_bfloat16"},
    "mixed_float16": {"policy": "mixed_float16", "kernel": 1},
    "eager": {"run_eagerly": True},
    "XLA": {"jit_compile": True},
}
SMALLER = {"mixed_float16": (64, 16), "eager": (64, 20)}  # where a step takes long


def measure(
    *,
    progress: Any,
    processes: int = 5,
    settings: tuple[str, ...] = tuple(SETTINGS),
    layers: int = 20,
    side: int = SIDE,
    count: int = COUNT,
) -> dict[str, Any]:
    """MiB and seconds of each net by setting: medians, spreads and ratios to BN + ReLU."""
    results = {}
    for setting in settings:
        sizes = SMALLER.get(setting, (side, count))
        blocks = BLOCKS if setting == "graph" else THREE
        progress.start(f"Training step, {setting}", processes * len(blocks))
        runs: dict[str, list[dict[str, float]]] = {block: [] for block in blocks}
        for _ in range(processes):
            for block in blocks:
                runs[block].append(isolated.run("batch_norm", block, setting, layers, *sizes))
                progress.step()
        check(runs)
        smaller = f", {sizes[1]} images of {sizes[0]} x {sizes[0]} pixels"
        results[setting + smaller * (setting in SMALLER)] = _summary(runs)
    return results


def _summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind in ("MiB", "seconds"):
        values = {block: [run[kind] for run in each] for block, each in runs.items()}
        medians = {block: statistics.median(each) for block, each in values.items()}
        first = medians[BLOCKS[0]]
        figures[kind] = medians
        figures[f"{kind}, least"] = {block: min(each) for block, each in values.items()}
        figures[f"{kind}, most"] = {block: max(each) for block, each in values.items()}
        figures[f"{kind} / BN + ReLU"] = {block: each / first for block, each in medians.items()}
    return figures


def check(runs: dict[str, list[dict[str, float]]]) -> None:
    """Raises AssertionError unless the nets of one function end with one loss."""
    for group in (("BN + ReLU", "BN + ReLU, recomputed"), ("BN + ours", "BatchNormLeakyReLU")):
        losses = [run["loss"] for block in group for run in runs.get(block, [])]
        assert not losses or max(losses) - min(losses) <= 0.02 * abs(losses[0]), (group, losses)


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    return "\n\n".join(
        table(f"Training step, {setting}", turned(figures)) for setting, figures in results.items()
    )


def steps(block: str, setting: str, layers: int, side: int, count: int) -> dict[str, float]:
    """MiB above the built model, median seconds of a step, and the loss of the last."""
    import numpy as np

    model = compiled_net(block, setting, layers=layers, side=side)
    x = images(count, side)
    before = isolated.peak()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        loss = float(np.ravel(model.train_on_batch(x, x))[0])
        seconds.append(time.perf_counter() - start)
    return {
        "MiB": isolated.peak() - before,
        "seconds": statistics.median(seconds[2:]),
        "loss": loss,
    }


def compiled_net(block: str, setting: str, *, layers: int, side: int | None) -> Any:
    """A compiled model of so many convolutions, each with a block of `BLOCKS` after it."""
    import tensorflow as tf

    options = dict(SETTINGS[setting])
    policy, kernel = options.pop("policy", None), options.pop("kernel", 3)
    if policy:
        tf.keras.mixed_precision.set_global_policy(policy)
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input((side, side, CHANNELS))])
    for _ in range(layers):
        model.add(tf.keras.layers.Conv2D(CHANNELS, kernel, padding="same", use_bias=False))
        for layer in _layers_of(block):
            model.add(layer)
    model.compile("sgd", "mse", **options)
    return model


def _layers_of(block: str) -> list[Any]:
    import tensorflow as tf

    from tf_leaky import BatchNormLeakyReLU, LeakyReLU

    keras = tf.keras.layers
    legacy = keras.LeakyReLU.__module__.startswith("tf_keras")
    fused = {"alpha": ALPHA, "trainable_alpha": "," in block}
    if block.endswith("per channel"):
        fused["alpha_axis"] = -1
    if block.startswith("BatchNormLeakyReLU"):
        return [BatchNormLeakyReLU(**fused)]
    if block == "BN + ReLU, recomputed":
        return [_recomputed()]
    slope = {"alpha" if legacy else "negative_slope": ALPHA}
    make = {
        "BN + ReLU": keras.ReLU,
        "BN + Keras LeakyReLU": lambda: keras.LeakyReLU(**slope),
        "BN + ours": lambda: LeakyReLU(ALPHA),
    }[block]
    return [keras.BatchNormalization(), make()]


def _recomputed() -> Any:
    """BatchNormalization and ReLU that are computed again in the backward pass."""
    import tensorflow as tf

    class Recomputed(tf.keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.norm = tf.keras.layers.BatchNormalization()

        def build(self, input_shape: Any) -> None:
            self.norm.build(input_shape)
            self.built = True

        def call(self, inputs: Any, training: Any = None) -> Any:
            def block(z: Any) -> Any:
                return tf.nn.relu(self.norm(z, training=training))

            return tf.recompute_grad(block)(inputs)

    return Recomputed()


if __name__ == "__main__":
    block, setting, *sizes = sys.argv[1:]
    print(json.dumps(steps(block, setting, *map(int, sizes))))
