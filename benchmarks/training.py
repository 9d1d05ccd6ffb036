"""Time of a training step of a whole net.

20 times (Conv2D of 32 channels, 3 x 3, then the activation) on images of 64 x 64 x 32, batch 16,
with BatchNormalization between the two or without. The nets start from the same weights and slopes,
so that their first losses have to agree.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks.nets import ACTIVATIONS, compiled_net, images
from benchmarks.tables import by_kind
from benchmarks.timing import interleaved, summary

RATIOS = {
    "one slope / Keras PReLU": ("ours, one slope", "Keras PReLU, one slope"),
    "per channel / Keras PReLU": ("ours, per channel", "Keras PReLU, per channel"),
    "fixed / Keras LeakyReLU": ("ours, fixed", "Keras LeakyReLU"),
    "fixed / Keras ReLU": ("ours, fixed", "Keras ReLU"),
    "per channel / Keras ReLU": ("ours, per channel", "Keras ReLU"),
}


def measure(
    *, rounds: int, progress: Any, layers: int = 20, side: int = 64, count: int = 16
) -> dict[str, Any]:
    """Seconds of each net's step, and ratios of them."""
    x = images(count, side)
    results = {}
    for normalised in (False, True):
        name = "with BatchNormalization" if normalised else "without BatchNormalization"
        progress.start(f"Training step {name}", rounds)
        make = functools.partial(compiled_net, normalised=normalised, side=side, layers=layers)
        models = {activation: make(activation) for activation in ACTIVATIONS}
        losses = {each: float(model.train_on_batch(x, x)) for each, model in models.items()}
        check(losses)
        steps = {
            each: lambda model=model: np.asarray(model.train_on_batch(x, x), np.float32)
            for each, model in models.items()
        }
        seconds = interleaved(steps, rounds=rounds, progress=progress.step)
        results[name] = summary(seconds, RATIOS)
    return results


def check(losses: dict[str, float]) -> None:
    """Raises AssertionError unless all but ReLU's, which is another function, agree."""
    leaky = [loss for name, loss in losses.items() if name != "Keras ReLU"]
    np.testing.assert_allclose(leaky, leaky[0], rtol=1e-4)


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    kinds = {
        "ratios": "Training step, ratio of medians",
        "ratios, quartiles": "Training step, quartiles of the ratios by round",
    }
    return by_kind(kinds, results)
