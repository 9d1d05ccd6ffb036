"""Draws leaky ReLU, and what each activation of the trained digits model sees and sends on.

    python examples/plot_activations.py [--folder saved_models]

It needs the model that `make demo` trains, and writes `leaky_relu.png` and `activations.png`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import tensorflow as tf

import tf_leaky

mpl.use("Agg")
from matplotlib import pyplot  # after the backend is chosen

SAVED_MODELS = Path(__file__).parents[1] / "saved_models"


def draw_function(path):
    """Draws f and df/dx for the default slope."""
    figure, ax = pyplot.subplots(figsize=(6, 4), layout="constrained")
    tf_leaky.plot_leaky_relu(ax=ax)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def draw_activations(model, images, path):
    """Draws, for each LeakyReLU of a Sequential model, the histograms before and after it."""
    activations = [layer for layer in model.layers if isinstance(layer, tf_leaky.LeakyReLU)]
    watched = [tensor for layer in activations for tensor in (layer.input, layer.output)]
    values = tf.keras.Model(model.inputs, watched).predict(images, verbose=0)
    figure, axes = pyplot.subplots(
        len(activations),
        2,
        figsize=(8, 2.4 * len(activations)),
        layout="constrained",
        squeeze=False,
    )
    for row, layer, before, after in zip(axes, activations, values[::2], values[1::2], strict=True):
        slopes = np.ravel(tf.convert_to_tensor(layer.alpha))
        named = f"slope {slopes[0]:.3f}"
        if slopes.size > 1:
            named = f"{slopes.size} slopes, {slopes.min():.3f} to {slopes.max():.3f}"
        limits = float(before.min()), float(before.max())
        for ax, data, what in zip(row, (before, after), ("sees", "sends on"), strict=True):
            bins = np.linspace(*limits, 61)
            ax.hist(data[data > 0], bins, color="C0", label="positive")
            ax.hist(
                data[data <= 0], bins, color="C1", label=f"not positive: {(data <= 0).mean():.0%}"
            )
            ax.set(title=f"what {layer.name} {what}", xlabel="value", ylabel="count", yscale="log")
            ax.legend(title=named if what == "sends on" else None)
            ax.grid(visible=True, alpha=0.4)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def draw(folder, images):
    """Draws both figures into `folder`, for the model that is there; returns their paths."""
    function, activations = folder / "leaky_relu.png", folder / "activations.png"
    draw_function(function)
    draw_activations(tf.keras.models.load_model(folder / "digits.keras"), images, activations)
    return function, activations


def main():
    """Draws for the digits that the model was not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=SAVED_MODELS)
    folder = parser.parse_args().folder
    if not (folder / "digits.keras").exists():
        parser.error(f"{folder / 'digits.keras'} is not there: run `make demo` first")
    from digits import load_data

    _, (images, _) = load_data()
    for path in draw(folder, images):
        print(path)


if __name__ == "__main__":
    main()
