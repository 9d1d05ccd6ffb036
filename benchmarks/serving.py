"""Time of a request with TensorFlow's session loader, without a server and its network.

6 times (Conv2D of 32 channels, 3 x 3, then the activation) on images of 64 x 64 x 32, batch 8, each
exported as it is served. The nets have the same weights and slopes, so that their answers agree.
The convolutions alone are the limit for what any activation can gain.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.nets import CHANNELS, activation_of, images
from benchmarks.tables import table
from benchmarks.timing import interleaved_medians
from tf_leaky import export_saved_model, freeze
from tf_leaky.serving.running import SavedModel

# The net is frozen where the name says so.
RIVALS = (
    "convolutions alone",
    "Keras LeakyReLU",
    "ours, fixed",
    "Keras PReLU, one slope",
    "ours, one slope",
    "ours, one slope, frozen",
    "Keras PReLU, per channel",
    "ours, per channel",
    "ours, per channel, frozen",
)
RATIOS = {
    "one slope, frozen / Keras LeakyReLU": ("ours, one slope, frozen", "Keras LeakyReLU"),
    "one slope, frozen / Keras PReLU": ("ours, one slope, frozen", "Keras PReLU, one slope"),
    "per channel, frozen / Keras PReLU": ("ours, per channel, frozen", "Keras PReLU, per channel"),
    "convolutions alone / Keras PReLU": ("convolutions alone", "Keras PReLU, one slope"),
    "fixed / Keras LeakyReLU": ("ours, fixed", "Keras LeakyReLU"),
    "one slope, not frozen / Keras PReLU": ("ours, one slope", "Keras PReLU, one slope"),
    "per channel, not frozen / Keras PReLU": ("ours, per channel", "Keras PReLU, per channel"),
}


def measure(
    *, rounds: int, progress: Any, layers: int = 6, side: int = 64, count: int = 8
) -> dict[str, Any]:
    """Median seconds of a request for each net, and ratios of them."""
    x = images(count, side)
    progress.start("Exports", len(RIVALS))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        requests = {}
        for number, name in enumerate(RIVALS):
            tf.keras.utils.set_random_seed(0)
            model = tf.keras.Sequential([tf.keras.Input((side, side, CHANNELS), name="x")])
            for _ in range(layers):
                model.add(tf.keras.layers.Conv2D(CHANNELS, 3, padding="same"))
                if name != "convolutions alone":
                    model.add(activation_of(name.removesuffix(", frozen")))
            if name.endswith("frozen"):
                model = freeze(model)
            version = export_saved_model(model, Path(folder) / str(number))
            loaded = opened.enter_context(SavedModel(version))
            requests[name] = lambda loaded=loaded: next(iter(loaded.run({"x": x}).values()))
            progress.step()
        check({name: request() for name, request in requests.items()})
        progress.start("Requests in a session", rounds)
        seconds = interleaved_medians(requests, rounds=rounds, progress=progress.step)
    ratios = {row: seconds[a] / seconds[b] for row, (a, b) in RATIOS.items()}
    return {"seconds": seconds, "ratios": ratios}


def check(answers: dict[str, np.ndarray]) -> None:
    """Raises AssertionError unless all but those of the convolutions alone agree."""
    first, *others = (answer for name, answer in answers.items() if name != "convolutions alone")
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-3, atol=1e-4 * np.abs(first).max())


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    rows = {row: {"served": ratio} for row, ratio in results["ratios"].items()}
    return table("Request in a TensorFlow session, ratio of medians", rows)
