"""`BatchNormLeakyReLU` in files of every format, in servers' exports and on several replicas."""

import copy
import io
import pickle
import subprocess
import sys
import warnings
from contextlib import redirect_stdout

import cases
import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import export_saved_model

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
layers = tf.keras.layers
each_case = pytest.mark.parametrize("case", cases.BATCH_NORMS, ids=cases.names)


def trained_model(case):
    """A model around the layer, trained for a few steps, and a batch."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input(case.input_shape),
            case.make(),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(0.01), tf.keras.losses.MeanSquaredError())
    rng = np.random.default_rng(5)
    x = rng.normal(1, 2, (8, *case.input_shape)).astype("float32")
    for _ in range(3):
        model.train_on_batch(x, rng.normal(size=(8, 2)).astype("float32"))
    return model, x


def same(model, again, x):
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
    weights = model.get_weights()
    np.testing.assert_allclose(
        again(x, training=True), model(x, training=True), rtol=1e-5, atol=1e-5
    )
    model.set_weights(weights)


@each_case
def test_files_of_every_format_load(case, tmp_path):
    model, x = trained_model(case)
    model.save(tmp_path / "model.keras")  # before `.h5`, which spoils it (Keras 3)
    model.save_weights(tmp_path / "model.weights.h5")
    same(model, tf.keras.models.load_model(tmp_path / "model.keras"), x)
    same(model, pickle.loads(pickle.dumps(model)), x)
    same(model, copy.deepcopy(model), x)
    for again in (
        tf.keras.models.clone_model(model),
        tf.keras.models.model_from_json(model.to_json()),
    ):
        again.load_weights(tmp_path / "model.weights.h5")
        same(model, again, x)
    if not KERAS_3:
        model.save(tmp_path / "model_tf", save_format="tf")
        same(model, tf.keras.models.load_model(tmp_path / "model_tf"), x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5", UserWarning)
        model.save(tmp_path / "model.h5")
    same(model, tf.keras.models.load_model(tmp_path / "model.h5", compile=not KERAS_3), x)


@each_case
def test_export_answers_as_the_model_does(case, tmp_path):
    model, x = trained_model(case)
    with redirect_stdout(io.StringIO()):
        model.export(str(tmp_path / "export"))
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    (key,) = serve.structured_input_signature[1]
    (answer,) = serve(**{key: tf.constant(x)}).values()
    np.testing.assert_allclose(answer, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_export_for_a_server_passes_its_check(tmp_path, in_this_process):
    model, _ = trained_model(cases.BATCH_NORMS[3])
    folder = export_saved_model(model, tmp_path / "served")
    assert (folder / "saved_model.pb").exists()


REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
from tf_leaky import BatchNormLeakyReLU, LeakyReLU

synchronized, ours = sys.argv[2] == "True", sys.argv[3] == "True"
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(3)
x, target = rng.normal(1, 2, (8, 5)), rng.normal(size=(8, 5))
shared = {"momentum": 0.5, "synchronized": synchronized, "dtype": "float64"}
with strategy.scope():
    if ours:
        parts = [BatchNormLeakyReLU(alpha=0.25, **shared)]
    else:
        batch_norm = tf.keras.layers.BatchNormalization(**shared)
        parts = [batch_norm, LeakyReLU(0.25, dtype="float64")]
    model = tf.keras.Sequential([tf.keras.Input((5,), dtype="float64"), *parts])
    model.compile(tf.keras.optimizers.SGD(0.5), "mse")
data = tf.data.Dataset.from_tensor_slices((x, target)).batch(8)
losses = [model.fit(data, verbose=0).history["loss"][0] for _ in range(4)]
np.savez(sys.argv[1], losses, *model.get_weights())
"""


@pytest.mark.parametrize("synchronized", [True, False])
def test_replicas_train_as_with_the_stock_layer(synchronized, tmp_path):
    found = []
    for ours in (True, False):
        path = tmp_path / f"{ours}.npz"
        command = [sys.executable, "-c", REPLICAS, str(path), str(synchronized), str(ours)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(path) as arrays:
            found.append(list(arrays.values()))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)
    losses = found[0][0]
    assert losses[-1] < losses[0]
