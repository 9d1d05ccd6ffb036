"""Trains a small CNN with trained slopes on handwritten digits, and saves, exports and draws it.

    python examples/digits.py [--folder saved_models] [--epochs 12]

The 1797 real digits of 8 x 8 pixels come with scikit-learn. The model is trained, saved, reloaded
in a fresh process, exported for TensorFlow Serving, and run from the export. Then its activations
are drawn.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from plot_activations import SAVED_MODELS, draw
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tf_leaky
from tf_leaky import LeakyReLU
from tf_leaky.serving.running import SavedModel

RELOAD = """
import sys, numpy, tensorflow, tf_leaky
model = tensorflow.keras.models.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


def load_data():
    """Returns (images, labels) for training and for testing; images (n, 8, 8, 1) in [0, 1]."""
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(
        images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    return (x, y), (x_test, y_test)


def build_model():
    """Returns a CNN with slopes per channel, one trained slope, and a fixed slope."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same"),
            LeakyReLU(0.25, trainable_alpha=True, axis=-1, name="per_channel"),
            layers.Conv2D(32, 3, strides=2, padding="same"),
            LeakyReLU(0.25, trainable_alpha=True, name="one_slope"),
            layers.Flatten(),
            layers.Dense(32),
            LeakyReLU(0.1, name="fixed"),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(
        tf.keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def predict_in_fresh_process(path, images):
    """Returns the saved model's predictions in a process that only imports tf_leaky."""
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder) / "images.npy", Path(folder) / "answer.npy"
        np.save(given, images)
        subprocess.run([sys.executable, "-c", RELOAD, path, given, answered], check=True)
        return np.load(answered)


def run_export(version, images):
    """Returns the export's output, by the loader of TensorFlow Serving."""
    with SavedModel(version) as loaded:
        (answer,) = loaded.run({"image": images}).values()
    return answer


def check_equal(found, expected, what):
    """Prints the largest difference of two predictions, and stops if it is too large."""
    worst = float(np.abs(found - expected).max())
    print(f"{what}: {len(found)} predictions, at most {worst:.1e} apart")
    if not worst <= 1e-5:
        raise SystemExit(f"{what}: expected the predictions of the trained model")


def main():
    """Trains, saves, reloads, exports, checks and draws; prints the files at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=SAVED_MODELS, help="where to write")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    folder, started = arguments.folder, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    tf.keras.utils.set_random_seed(0)

    (x, y), (x_test, y_test) = load_data()
    model = build_model()
    model.fit(x, y, epochs=arguments.epochs, batch_size=32, validation_data=(x_test, y_test))
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"\naccuracy on {len(y_test)} digits not used for training: {accuracy:.3f}")
    for name in ("per_channel", "one_slope"):
        slopes = np.ravel(tf.convert_to_tensor(model.get_layer(name).alpha))
        print(
            f"slopes of {name}, from 0.25:", np.array2string(slopes, precision=3, max_line_width=90)
        )

    saved = folder / "digits.keras"
    model.save(saved)
    expected = model.predict(x_test, verbose=0)
    check_equal(predict_in_fresh_process(saved, x_test), expected, "reloaded in a fresh process")
    version = tf_leaky.export_saved_model(model, folder / "digits")
    check_equal(run_export(version, x_test), expected, "exported, and run from there")
    figures = draw(folder, x_test)

    print(f"\nmade in {time.monotonic() - started:.0f} seconds:")
    for what, path in (
        ("trained model", saved),
        ("TensorFlow Serving export", version),
        ("the function", figures[0]),
        ("its activations", figures[1]),
    ):
        print(f"  {what:26} {path}")


if __name__ == "__main__":
    main()
