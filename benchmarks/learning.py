"""Whether nets with `BatchNormLeakyReLU` learn as those with two layers do, and what they keep.

A small residual net on the digits of scikit-learn, 8 x 8 pixels: 1437 to train on, 360 to test.
First, the losses of the same net from the same weights on the same batches, with Keras's
BatchNormalization and LeakyReLU and with the layer that is both. Training multiplies any
difference, so a yardstick stands beside them: the stock net with its first weights times 1 + 1e-6
in float32, and times 1 + 1e-15 in float64. Then the accuracy with several seeds, and the memory
that a step keeps, as `activation_memory` counts it.

What such data can show: that the layer trains, and no accuracy is lost that five seeds would show.
What it can't: which activation is better on data that is hard.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.tables import table

KINDS = ("BN + ReLU", "BN + Keras LeakyReLU", "BatchNormLeakyReLU")
ALPHA = 0.125  # the same number in every precision
BATCH = 64
YARDSTICK = "the yardstick"
NUDGES = {"float32": 1e-6, "float64": 1e-15}


def measure(*, progress: Any, seeds: int = 5, epochs: int = 20, steps: int = 300) -> dict[str, Any]:
    """How far the losses are apart; accuracy of each kind by seed; bytes that a step keeps."""
    import tensorflow as tf

    from tf_leaky import activation_memory

    x, y, test_x, test_y = digits()
    losses: dict[str, dict[str, list[float]]] = {}
    for dtype, nudge in NUDGES.items():
        progress.start(f"Losses of one layer and of two, {dtype}", 3)
        losses[dtype] = {}
        for name, kind, by in (
            *((each, each, 0) for each in KINDS[1:]),
            (YARDSTICK, KINDS[1], nudge),
        ):
            losses[dtype][name] = losses_of(kind, x, y, steps, dtype=dtype, nudge=by)
            progress.step()
    results: dict[str, Any] = {"losses": losses, "accuracy": {}, "kept": {}}
    for kind in KINDS:
        progress.start(f"Digits, {kind}", seeds)
        results["accuracy"][kind] = []
        for seed in range(seeds):
            model = net(kind, seed=seed)
            model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
            results["accuracy"][kind].append(float(model.evaluate(test_x, test_y, verbose=0)[1]))
            progress.step()
        spec = tf.TensorSpec((BATCH, *x.shape[1:]), tf.float32)
        results["kept"][kind] = activation_memory(net(kind, seed=0), spec).total
    return results


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    spans = []
    for dtype, losses in results["losses"].items():
        two = losses[KINDS[1]]
        apart = {
            name: [abs(a - b) / a for a, b in zip(two, losses[name], strict=True)]
            for name in (KINDS[2], YARDSTICK)
        }
        rows = {
            f"steps 1 to {end}": {
                **{name: max(found[:end]) for name, found in apart.items()},
                "loss": two[end - 1],
            }
            for end in (1, 10, 30, 100, 200, 300)
            if end <= len(two)
        }
        title = f"Largest relative difference to the losses of BN + Keras LeakyReLU, {dtype}"
        spans.append(table(title, rows))
    rows = {
        kind: {
            "accuracy, mean": statistics.mean(found),
            "least": min(found),
            "most": max(found),
            "kept, KiB": results["kept"][kind] / 1024,
        }
        for kind, found in results["accuracy"].items()
    }
    return "\n\n".join(
        [
            *spans,
            table(f"Digits, {len(results['accuracy'][KINDS[0]])} seeds", rows),
        ]
    )


def digits() -> tuple[Any, Any, Any, Any]:
    """Images and labels to train on, and to test on."""
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x = (data.images[order, ..., None] / 16).astype(np.float32)
    y = data.target[order]
    return x[:1437], y[:1437], x[1437:], y[1437:]


def losses_of(
    kind: str, x: Any, y: Any, steps: int, *, dtype: str = "float32", nudge: float = 0
) -> list[float]:
    """The loss of each step, from the weights and on the batches of a fixed seed."""
    import numpy as np
    import tensorflow as tf

    order = np.random.default_rng(1)
    before = tf.keras.mixed_precision.global_policy(), tf.keras.backend.floatx()
    tf.keras.mixed_precision.set_global_policy(dtype)
    tf.keras.backend.set_floatx(dtype)  # of the loss
    try:
        model = net(kind, seed=0)
    finally:
        tf.keras.mixed_precision.set_global_policy(before[0])
        tf.keras.backend.set_floatx(before[1])
    model.set_weights([each * (1 + nudge) for each in model.get_weights()])
    losses = []
    for _ in range(steps):
        chosen = order.choice(len(y), BATCH, replace=False)
        losses.append(float(np.ravel(model.train_on_batch(x[chosen], y[chosen]))[0]))
        model.reset_metrics()
    return losses


def net(kind: str, *, seed: int, width: int = 16, blocks: int = 3) -> Any:
    """A compiled residual net; nets of one seed begin with the same weights."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    keras = tf.keras.layers

    def conv(x: Any) -> Any:
        return keras.Conv2D(width, 3, padding="same", use_bias=False)(x)

    inputs = tf.keras.Input((8, 8, 1))
    x = _block(kind, conv(inputs))
    for _ in range(blocks):
        x = keras.add([x, conv(_block(kind, conv(_block(kind, x))))])
    x = keras.GlobalAveragePooling2D()(_block(kind, x))
    model = tf.keras.Model(inputs, keras.Dense(10)(x))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.02, momentum=0.9), loss, metrics=["accuracy"])
    return model


def _block(kind: str, x: Any) -> Any:
    import tensorflow as tf

    from tf_leaky import BatchNormLeakyReLU
    from tf_leaky.keras_compat import keras_leaky_relu

    keras = tf.keras.layers
    if kind == "BatchNormLeakyReLU":
        return BatchNormLeakyReLU(alpha=ALPHA, momentum=0.9)(x)
    x = keras.BatchNormalization(momentum=0.9)(x)
    return (keras.ReLU() if kind == "BN + ReLU" else keras_leaky_relu(ALPHA))(x)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws memory against accuracy, a point for each seed, to an image file.

    It is 5.6 inches wide on a white ground, to be read 400 pixels wide on pages of any colour.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    first = results["kept"][KINDS[0]]
    styles = {"BN + ReLU": "#555555 s", "BN + Keras LeakyReLU": "#999999 D"}
    with rc_context({"font.size": 10}):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for kind in KINDS:
            colour, marker = styles.get(kind, "#0072b2 o").split()
            found = [100 * each for each in results["accuracy"][kind]]
            share, mean = results["kept"][kind] / first, statistics.mean(found)
            axes.plot([share] * len(found), found, marker, color=colour, alpha=0.5)
            axes.plot([share - 0.04, share + 0.04], [mean, mean], color=colour, lw=2.5)
            axes.annotate(
                f"{kind.replace('Keras ', 'Keras' + chr(10))}\n{share:.2f} x, {mean:.1f} %",
                (share, max(found)),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
            )
        axes.margins(x=0.25, y=0.45)
        axes.set_xlabel("kept for the backward pass (BN + ReLU: 1)")
        axes.set_ylabel("test accuracy, %")
        axes.set_title(f"Digits, {len(found)} seeds; lines are means", fontsize=10, loc="right")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=160)
