"""Writes the goldens of this version under this Keras: `make goldens`.

They are files as users have them, each with what it computed on the day it was written. A later
version has to load and reproduce all of them, so that this script only ever adds: what is there
already is left as it is.

`saved_models/goldens/<version>/<keras3 or tf_keras>/<case>/` holds `expected.json` and `files.zip`,
a zip of `model.keras`, `model.weights.h5`, `model.h5` and the SavedModel `export/`; under tf_keras
also `model_tf/`, its own directory format.
"""

import contextlib
import hashlib
import io
import json
import tempfile
import warnings
import zipfile
from pathlib import Path

import cases
import numpy as np
import tensorflow as tf

import tf_leaky

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
KERAS = "keras3" if KERAS_3 else "tf_keras"
FOLDER = Path(__file__).parents[1] / "saved_models" / "goldens"


def make(case):
    """A small model of the case, its slopes set to numbers that no initial value is."""
    tf.keras.utils.set_random_seed(7)
    model = tf.keras.Sequential([tf.keras.Input(case.input_shape, name="x"), *cases.hosts(case)])
    rng = np.random.default_rng(7)
    up_to_one = case.arguments.get("form") == "by maximum"
    positive = case.positive or up_to_one or "non_neg" in case.arguments.values()
    low, high = 0.1 if positive else -1.0, 1.0 if up_to_one else 1.5
    model(np.zeros((1, *case.input_shape)))  # makes the slope of a layer that is an activation
    model.set_weights(
        [rng.uniform(low, high, w.shape).astype(w.dtype) for w in model.get_weights()]
    )
    return model


def data(case):
    """An x with zeros of both signs, large and small numbers, and an upstream for each output."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(2, *case.input_shape)).astype("float32").round(3)
    x.ravel()[:6] = (0.0, -0.0, 3e4, -3e4, 6e-5, -6e-5)
    return x, rng.normal(size=x.size).astype("float32").round(3)


def results(call, variables, x, upstream):
    """What a model computes: its outputs, and the gradients of x and of the variables."""
    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        y = call(point)
    upstream = tf.cast(tf.reshape(upstream[: np.prod(y.shape)], y.shape), y.dtype)
    found = tape.gradient(y, [point, *variables], upstream)
    return [tensor.numpy() for tensor in (y, *found)]


def shortest(array):
    """The numbers in the fewest digits that give them back in their dtype."""
    return [float(str(number)) for number in array.ravel()]


def files(case, model):
    """The bytes of a zip with the model in every format; `.keras` before `.h5`, which spoils it."""
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5", UserWarning)
        folder = Path(scratch)
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(str(folder / "export"))
        if not KERAS_3:
            model.save(folder / "model_tf", save_format="tf")
        if KERAS_3 or "activation" not in case.name:  # tf_keras could not load that again
            model.save(folder / "model.h5")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder))
        return buffer.getvalue()


def write(case, folder):
    """Writes the golden of a case, whole or not at all."""
    model = make(case)
    x, upstream = data(case)
    values = results(model, model.trainable_variables, x, upstream)
    archive = files(case, model)
    expected = {
        "case": cases.names(case),
        "tf_leaky": tf_leaky.__version__,
        "tensorflow": tf.__version__,
        "keras": KERAS,
        "sha256 of files.zip": hashlib.sha256(archive).hexdigest(),
        "model": model.to_json(),
        "weights": [shortest(weight) for weight in model.get_weights()],
        "input_shape": case.input_shape,
        "x": shortest(x),
        "upstream": shortest(upstream),
        "y": shortest(values[0]),
        "gradients": [shortest(value) for value in values[1:]],
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        made = Path(scratch) / "golden"
        made.mkdir()
        (made / "files.zip").write_bytes(archive)
        (made / "expected.json").write_text(json.dumps(expected) + "\n")
        made.rename(folder)


def main():
    """Adds what is missing."""
    added = 0
    for case in cases.FILES:
        golden = FOLDER / tf_leaky.__version__ / KERAS / cases.names(case)
        if not golden.exists():
            write(case, golden)
            added += 1
    print(f"{KERAS}: {added} added, {len(cases.FILES) - added} were there")


if __name__ == "__main__":
    main()
