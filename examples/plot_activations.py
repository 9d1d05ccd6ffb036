"""Draws leaky ReLU, and the inputs and outputs of each activation of the trained digits model.

    python examples/plot_activations.py [--folder saved_models]

It needs the model that `make demo` trains, and writes `leaky_relu.png` and `activations.png`.
"""

import argparse
from pathlib import Path

import tensorflow as tf

import tf_leaky

SAVED_MODELS = Path(__file__).parents[1] / "saved_models"


def draw(folder, images):
    """Draws both figures into `folder`, for the model in it; returns their paths."""
    function, activations = folder / "leaky_relu.png", folder / "activations.png"
    tf_leaky.plot_leaky_relu().figure.savefig(function, dpi=150)
    model = tf.keras.models.load_model(folder / "digits.keras")
    tf_leaky.plot_activations(model, images).savefig(activations, dpi=150)
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
