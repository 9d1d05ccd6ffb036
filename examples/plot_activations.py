"""Draws leaky ReLU, and the inputs and outputs of each activation of the trained digits model.

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
    size = (9, 2.5 * len(activations))
    figure, axes = pyplot.subplots(len(activations), 2, figsize=size, layout="constrained")
    for row, layer, before, after in zip(axes, activations, values[::2], values[1::2], strict=True):
        not_positive = (before <= 0).mean()
        titles = (
            f"input of {layer.name}: {not_positive:.0%} not positive",
            f"output of {layer.name}: {describe_slopes(layer)}",
        )
        edges = bins_around_zero(float(before.min()), float(before.max()))
        for ax, data, title in zip(row, (before, after), titles, strict=True):
            ax.hist(data[data > 0], edges, color="C0", label="positive")
            ax.hist(data[data <= 0], edges, color="C1", label="not positive")
            ax.set_title(title, fontsize="medium")
            ax.set(xlabel="value", ylabel="count", yscale="log")
            ax.grid(visible=True, alpha=0.4)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def describe_slopes(layer):
    """Returns the slope of a layer, or the number and range of its slopes, as text."""
    slopes = np.ravel(tf.convert_to_tensor(layer.alpha))
    if slopes.size == 1:
        return f"slope {slopes[0]:.3f}"
    return f"{slopes.size} slopes, {slopes.min():.2f} to {slopes.max():.2f}"


def bins_around_zero(lowest, highest, count=60):
    """Returns edges of histogram bins of equal width; one edge is 0."""
    width = (highest - lowest) / count
    return width * np.arange(np.floor(lowest / width), np.ceil(highest / width) + 1)


def draw(folder, images):
    """Draws both figures into `folder`, for the model in it; returns their paths."""
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
        parser.error(f"{folder / 'digits.keras'} doesn't exist: run `make demo` first")
    from digits import load_data

    _, (images, _) = load_data()
    for path in draw(folder, images):
        print(path)


if __name__ == "__main__":
    main()
