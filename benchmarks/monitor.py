"""What a look of `ActivationMonitor` costs, against `predict` on the same data.

A net of 6 times (Conv2D of 32 channels, 3 x 3, then LeakyReLU) and 640 images of 32 x 32 x 32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.nets import CHANNELS, images
from benchmarks.tables import table
from benchmarks.timing import interleaved_medians
from tf_leaky import LeakyReLU
from tf_leaky.inspection.probing import Probe


def measure(*, rounds: int, progress: Any, side: int = 32, count: int = 640) -> dict[str, Any]:
    """Median seconds of a look and of `predict`, and their ratio."""
    model = tf.keras.Sequential([tf.keras.Input((side, side, CHANNELS))])
    for _ in range(6):
        model.add(tf.keras.layers.Conv2D(CHANNELS, 3, padding="same"))
        model.add(LeakyReLU(0.1))
    x = images(count, side)
    probe = Probe(model, None, subject="benchmarks")
    seen = list(probe.look(x).values())[-1]
    expected = model.layers[-2](tf.keras.Model(model.inputs[0], model.layers[-3].output)(x)) < 0
    np.testing.assert_allclose(seen.share_negative, np.mean(expected), atol=1e-3)

    def look() -> np.ndarray:
        probe.look(x)
        return np.zeros(1)

    progress.start("A look at six activations, and predict", rounds)
    seconds = interleaved_medians(
        {"look": look, "predict": lambda: model.predict(x, verbose=0)},
        rounds=rounds,
        progress=progress.step,
    )
    return {"seconds": seconds, "look / predict": seconds["look"] / seconds["predict"]}


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    rows = {"look / predict": {"six activations": results["look / predict"]}}
    return table("ActivationMonitor, ratio of medians", rows)
