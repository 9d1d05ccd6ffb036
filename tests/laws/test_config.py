"""The configs and names of the file format."""

import json

import cases
import numpy as np
import pytest
import tensorflow as tf

import tf_leaky
from tf_leaky import LeakyReLU

each_layer = pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)


@pytest.mark.smoke
@each_layer
def test_config_survives_json(case):
    layer = case.make(name="here")
    config = layer.get_config()
    again = LeakyReLU.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert {"alpha", "trainable_alpha", "axis", "alpha_constraint", "alpha_regularizer"} <= set(
        config
    )
    axis = case.arguments.get("axis")
    assert config["axis"] == (list(axis) if isinstance(axis, tuple) else axis)
    assert config["alpha"] == case.arguments["alpha"]
    assert config["alpha_constraint"] == case.arguments.get("alpha_constraint", "positive")


@pytest.mark.parametrize("axis", [None, -1, (1,), (1, 2), (-1, 1, 2)], ids=str)
def test_config_has_a_second_name_for_several_axes_only(axis):
    config = LeakyReLU(axis=axis).get_config()
    assert config["axis"] == (list(axis) if isinstance(axis, tuple) else axis)
    several = isinstance(axis, tuple) and len(axis) > 1
    assert config.get("axes") == (list(axis) if several else None)
    if several:
        del config["axis"]  # as Keras 3 does in `.h5` files
    assert LeakyReLU.from_config(config).axis == axis


def test_config_keeps_keras_constraints_and_regularizers():
    layer = LeakyReLU(
        trainable_alpha=True,
        alpha_constraint=tf.keras.constraints.MinMaxNorm(0.1, 0.2),
        alpha_regularizer=tf.keras.regularizers.L1(0.5),
    )
    again = LeakyReLU.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    assert again.alpha_constraint.max_value == 0.2
    assert float(again.alpha_regularizer(tf.constant([2.0]))) == 1.0


def test_numpy_arguments_become_json_types():
    for alpha, axis in (([0.5, 0.25], np.int64(-1)), ([[0.5], [1.0]], (np.int64(1), np.int8(-1)))):
        config = LeakyReLU(np.array(alpha, "float32"), axis=axis).get_config()
        given = {"alpha": alpha, "axis": np.asarray(axis).tolist()}
        assert json.loads(json.dumps(config)).items() >= given.items()
    assert LeakyReLU(np.float32(0.25)).get_config()["alpha"] == 0.25


def test_registered_names_are_those_of_the_file_format():
    for name in ("LeakyReLU", "leaky_relu", "BatchNormLeakyReLU"):
        each = getattr(tf_leaky, name)
        assert tf.keras.utils.get_registered_name(each) == f"tf_leaky>{name}"
        assert tf.keras.utils.get_registered_object(f"tf_leaky>{name}") is each
