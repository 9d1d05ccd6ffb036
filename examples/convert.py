"""Converts a model with ReLUs to slopes per channel, and writes it in every format.

    python examples/convert.py [--model MobileNetV3Small] [--size 96] [--folder saved_models]

The model is one of keras.applications, with ImageNet weights if they can be downloaded, else random
ones; or `unet`, a small U-Net. Its ReLUs become LeakyReLUs with a trained slope for each channel.
The slopes are then made constant, and the model is written for other runtimes. Each file is read
back in its own runtime, and the outputs are compared. It needs `pip install ".[export]"`.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_leaky

warnings.filterwarnings("ignore")  # those of the converters
SAVED_MODELS = Path(__file__).parents[1] / "saved_models"

RELOAD = """
import sys, numpy, tensorflow
if sys.argv[4] == "LeakyReLU":
    import tf_leaky
model = tensorflow.keras.models.load_model(sys.argv[1], compile=False)
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


def unet(size):
    """Returns a small U-Net with `activation="relu"` in its convolutions."""
    layers = tf.keras.layers
    x = inputs = tf.keras.Input((size, size, 3))
    skips = []
    for channels in (16, 32):
        x = layers.Conv2D(channels, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    for channels, skip in zip((32, 16), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(channels, 2, strides=2, padding="same", activation="relu")(x)
        x = layers.Conv2D(channels, 3, padding="same")(layers.concatenate([x, skip]))
        x = layers.ReLU()(x)
    return tf.keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def load(name, x):
    """Returns the model for images x; one of keras.applications is without its last layer."""
    size = x.shape[1]
    if name == "unet":
        return unet(size)
    make = getattr(tf.keras.applications, name)
    shape = {"include_top": False, "pooling": "avg", "input_shape": (size, size, 3)}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return make(weights="imagenet", **shape)
    except Exception:  # Keras raises a plain one if it can't download
        print("the ImageNet weights can't be downloaded: using random weights")
        return normalised(make(weights=None, **shape), x)


def normalised(model, x):
    """Gives BatchNormalization the statistics of x; without, x would vanish in random layers."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)
    return model


def predict_in_fresh_process(path, x, activation):
    """Returns a saved model's predictions; tf_leaky is imported only if it has our LeakyReLU."""
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder) / "x.npy", Path(folder) / "y.npy"
        np.save(given, x)
        command = [sys.executable, "-c", RELOAD, path, given, answered, activation]
        subprocess.run(command, check=True)
        return np.load(answered)


def to_litert(model, examples=None):
    """Returns a frozen model as bytes for LiteRT; with examples, quantized to int8."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if examples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in examples)
    with contextlib.redirect_stdout(io.StringIO()):  # Keras lists all variables
        return converter.convert()


def run_litert(path, x):
    """Returns the output of a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(made["index"])


def to_onnx(litert, path):
    """Writes a LiteRT file as ONNX."""
    command = [sys.executable, "-m", "tf2onnx.convert", "--tflite", litert, "--output", path]
    subprocess.run(command, capture_output=True, check=True)


def run_onnx(path, x):
    """Returns the output of an ONNX file in onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_export(version, x):
    """Returns the output of an export in TensorFlow's session loader."""
    from tf_leaky.serving.running import SavedModel

    with SavedModel(version) as loaded:
        (name,) = loaded.inputs
        (answer,) = loaded.run({name: x}).values()
    return answer


def activations(model):
    """Returns how many layers of a model are a LeakyReLU or have one as their activation."""
    found = [part for each in model.layers for part in (each, getattr(each, "activation", None))]
    return sum(isinstance(part, tf_leaky.LeakyReLU) for part in found)


def size_of(path):
    """Returns the megabytes of a file or folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def main():
    """Converts, writes all formats and reads them back; prints a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default="MobileNetV3Small", help="of keras.applications, or unet"
    )
    parser.add_argument("--size", type=int, default=96, help="of its images, in pixels")
    parser.add_argument("--folder", type=Path, default=SAVED_MODELS, help="where to write")
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = arguments.folder / "converted"
    folder.mkdir(parents=True, exist_ok=True)
    tf.keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32, arguments.size, arguments.size, 3))
    x = x.astype("float32")

    relu = load(arguments.model, x)
    ours = tf_leaky.convert(relu, alpha=0.1, trainable_alpha=True, axis=-1)
    print(f"{arguments.model}: {activations(ours)} ReLUs are LeakyReLUs now, a slope per channel")
    expected = ours.predict(x, verbose=0)
    change = np.abs(expected - relu.predict(x, verbose=0)).max()
    print(f"outputs changed by at most {change:.2g}; the largest is {np.abs(expected).max():.2g}")

    rows = []

    def row(what, path, answer):
        rows.append((what, path, size_of(path), np.abs(answer - expected).max()))
        print(f"{what}: written and read back", flush=True)

    for activation, model in (("LeakyReLU", ours), ("PReLU", tf_leaky.to_keras(ours))):
        path = folder / f"{activation.lower()}.keras"
        model.save(path)
        row(f"Keras, with {activation}", path, predict_in_fresh_process(path, x, activation))

    version = tf_leaky.export_saved_model(tf_leaky.freeze(ours), folder / "served")
    row("TensorFlow Serving", version, run_export(version, x))
    lite = tf_leaky.freeze(ours, target="litert")
    for what, name, examples in (
        ("LiteRT", "model.tflite", None),
        ("LiteRT, int8", "int8.tflite", x[:8]),
    ):
        (folder / name).write_bytes(to_litert(lite, examples))
        row(what, folder / name, run_litert(folder / name, x))
    to_onnx(folder / "model.tflite", folder / "model.onnx")
    row("ONNX", folder / "model.onnx", run_onnx(folder / "model.onnx", x))
    ours.save_weights(folder / "model.weights.h5")
    again = tf_leaky.convert(relu, alpha=0.2, trainable_alpha=True, axis=-1)
    again.load_weights(folder / "model.weights.h5")
    row("weights alone, HDF5", folder / "model.weights.h5", again.predict(x, verbose=0))

    largest = np.abs(expected).max()
    print(
        f"\nmade in {time.monotonic() - began:.0f} seconds; differences relative to {largest:.2g}:"
    )
    for what, path, megabytes, difference in rows:
        print(f"  {what:28} {megabytes:7.1f} MB  {difference / largest:8.1e}  {path}")
        # The error of 8 bits depends on the network: MobileNetV3 isn't made for them.
        if "int8" not in what and not difference <= 1e-3 * largest:
            raise SystemExit(f"{path}: expected the outputs of the converted model")


if __name__ == "__main__":
    main()
