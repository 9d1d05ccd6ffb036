"""`to_keras`: its files load where tf_leaky is not installed."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tf_leaky
from tf_leaky import LeakyReLU, to_keras

layers = tf.keras.layers
LEGACY = tf.keras.layers.Layer.__module__.startswith("tf_keras")

LOAD = """
import sys, numpy
sys.modules["tf_leaky"] = None  # as where it is not installed
import tensorflow as tf
# Keras 3 doesn't know the name that tf_keras writes for a functional model into `.keras`.
named = {"Functional": tf.keras.Model} if sys.argv[5] == "across" else None
model = tf.keras.models.load_model(sys.argv[1], compile=False, custom_objects=named)
assert tf.keras.layers.Layer.__module__.startswith(sys.argv[4]), tf.keras.layers.Layer.__module__
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


READERS = [("keras", LEGACY), *([("keras", False), ("h5", False)] if LEGACY else [])]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.parametrize(("ending", "legacy"), READERS)
def test_stock_files_load_where_tf_leaky_is_not_installed(ending, legacy, tmp_path):
    """Under the Keras that wrote them, and those of tf_keras under Keras 3 too."""
    x = tf.keras.Input((4, 4, 2))
    y = layers.Conv2D(3, 3, activation=LeakyReLU(0.3))(x)
    y = LeakyReLU(0.25, trainable_alpha=True, axis=-1)(y)
    y = LeakyReLU(-0.5)(layers.Flatten()(y))
    model = tf.keras.Model(x, layers.Dense(2, activation=tf_leaky.leaky_relu)(y))
    to_keras(model).save(tmp_path / f"stock.{ending}")
    images = np.random.default_rng(3).normal(size=(5, 4, 4, 2)).astype("float32")
    np.save(tmp_path / "x.npy", images)
    command = [sys.executable, "-c", LOAD]
    command += [tmp_path / name for name in (f"stock.{ending}", "x.npy", "y.npy")]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": str(int(legacy))}
    package = "tf_keras" if legacy else "keras"
    command += [package, "across" if LEGACY and not legacy and ending == "keras" else "alone"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), model.predict(images, verbose=0), rtol=1e-5, atol=1e-6
    )
