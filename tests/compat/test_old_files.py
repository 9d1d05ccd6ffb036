"""Files of older Kerases, written here with h5py in the format of their day."""

import json

import h5py
import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import LeakyReLU, convert

OURS = {"LeakyReLU": LeakyReLU}
KERNEL = np.float32([[1, -2, 3, -4], [0.5, 1, -1, 2], [-1, -1, 1, 1]])
BIAS = np.float32([0.1, -0.2, 0.3, -0.4])
X = np.float32([[1, 2, 3], [-1, -2, -3]])
UNIFORM = {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}


def layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, "trainable": True, **config}}


def dense(**config):
    initializer = {"class_name": "VarianceScaling", "config": UNIFORM}
    own = {"units": 4, "activation": "linear", "use_bias": True, "kernel_initializer": initializer}
    return layer("Dense", "dense_1", **config, **own, bias_regularizer=None, kernel_constraint=None)


def leaky(alpha):
    return layer("LeakyReLU", "leaky_re_lu_1", alpha=alpha)


def keras_2_0(activation):
    """Keras 2.0: a Sequential is a list, whose first layer knows the input."""
    first = dense(batch_input_shape=[None, 3], dtype="float32")
    return {"class_name": "Sequential", "config": [first, activation]}


def keras_2_4(activation):
    """Keras 2.4: an InputLayer, dtypes, a name."""
    given = {"batch_input_shape": [None, 3], "dtype": "float32", "sparse": False, "ragged": False}
    first = {"class_name": "InputLayer", "config": {**given, "name": "dense_1_input"}}
    parts = [first, dense(dtype="float32"), activation]
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": parts}}


def functional(activation):
    """Keras 2.2: `Model`, and the nodes of each layer."""
    given = {"batch_input_shape": [None, 3], "dtype": "float32", "sparse": False}
    first = {"class_name": "InputLayer", "config": {**given, "name": "input_1"}}
    parts, nodes = [], []
    for part in (first, dense(), activation):
        name = part["config"]["name"]
        parts.append({**part, "name": name, "inbound_nodes": nodes})
        nodes = [[[name, 0, 0, {}]]]
    ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [[name, 0, 0]]}
    return {"class_name": "Model", "config": {"name": "model_1", "layers": parts, **ends}}


def write(path, config, version):
    parts = config["config"]
    parts = parts if isinstance(parts, list) else parts["layers"]
    names = [part["config"]["name"] for part in parts]
    weights = {"dense_1": {"kernel": KERNEL, "bias": BIAS}}
    with h5py.File(path, "w") as file:
        stamps = {"keras_version": version.encode(), "backend": b"tensorflow"}
        file.attrs.update({**stamps, "model_config": json.dumps(config).encode()})
        groups = file.create_group("model_weights")
        groups.attrs.update({**stamps, "layer_names": [name.encode() for name in names]})
        for name in names:
            group = groups.create_group(name)
            held = weights.get(name, {})
            group.attrs["weight_names"] = [f"{name}/{each}:0".encode() for each in held]
            for each, values in held.items():
                group.create_dataset(f"{name}/{each}:0", data=values)
    return path


def check(model):
    (ours,) = [layer for layer in model.layers if isinstance(layer, LeakyReLU)]
    np.testing.assert_allclose(ours.alpha, 0.3, rtol=1e-6)
    y = X @ KERNEL + BIAS
    np.testing.assert_allclose(model.predict(X, verbose=0), np.where(y > 0, y, 0.3 * y), rtol=1e-5)


# Keras 3 says that it would rather read `negative_slope`.
pytestmark = pytest.mark.filterwarnings("ignore:Argument `alpha` is deprecated:UserWarning")


@pytest.mark.parametrize(("version", "make"), [("2.4.0", keras_2_4), ("2.2.4", functional)])
def test_old_activation_is_loaded_and_converted(version, make, tmp_path):
    path = write(tmp_path / "old.h5", make(leaky(0.3)), version)
    check(convert(tf.keras.models.load_model(path, compile=False)))


NDARRAY = {"type": "ndarray", "value": 0.30000001192092896}
# Keras 3 reads no Sequential that is a list, whatever is in it.
READABLE = [functional] if KERAS_3 else [functional, keras_2_0]


@pytest.mark.parametrize("make", READABLE)
def test_keras_2_0_arrays_are_read_as_ours(make, tmp_path):
    path = write(tmp_path / "old.h5", make(leaky(NDARRAY)), "2.0.8")
    check(tf.keras.models.load_model(path, custom_objects=OURS, compile=False))


@pytest.mark.parametrize("make", READABLE)
def test_keras_2_0_json_is_read_as_ours(make):
    text = json.dumps(make(leaky(NDARRAY)))
    # Keras 3 knows no class of that name in JSON unless it is told.
    named = {**OURS, "Model": tf.keras.Model}
    model = tf.keras.models.model_from_json(text, custom_objects=named)
    model.set_weights([KERNEL, BIAS])
    check(model)


def test_negative_slope_of_keras_3_is_read():
    config = {"name": "leaky_re_lu", "trainable": True, "dtype": "float32", "negative_slope": 0.3}
    layer = LeakyReLU.from_config(config)
    assert layer.alpha == 0.3
    assert "negative_slope" not in layer.get_config()
    assert config["negative_slope"] == 0.3  # the given config is left alone
