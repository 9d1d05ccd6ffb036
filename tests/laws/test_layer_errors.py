"""Bad arguments and inputs of `LeakyReLU`: a clear error, as early as it can be known."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import LeakyReLU
from tf_leaky.conversion.frozen import FrozenLeakyReLU

CONSTRAINTS = (
    *("no such", 3, object, LeakyReLU(), tf.keras.regularizers.L2(0.1)),
    {"class_name": "MaxNorm", "config": {"no_such": 1}},
    {"class_name": "get", "config": {}},
)
# For an argument: the error, what it says after "LeakyReLU: expected ", and what is wrong.
KNOWN_AT_CONSTRUCTION = {
    "alpha": [
        (TypeError, "alpha to be a real number", (True, "0.1", None)),
        (ValueError, r"alpha to be one number if axis is None\. Received: alpha=\[", ([0.1, 0.2],)),
    ],
    "negative_slope": [(TypeError, r"alpha, which .*=0\.2\. Give alpha=0\.2", (0.2,))],
    "trainable_alpha": [
        (TypeError, r"trainable_alpha to be True or False\. Received: tr", (1, "yes"))
    ],
    "axis": [
        (
            TypeError,
            r"axis to be None, an integer or a list of integers\. Received",
            (1.0, "1", [], True, [False]),
        ),
        (ValueError, r"axis without the batch axis, 0\. Received: axis=", (0, (1, 0))),
        (ValueError, r"axis to name each axis once\. Received: axis=\(1, 2, 1\)", ((1, 2, 1),)),
    ],
    "alpha_constraint": [
        (ValueError, 'alpha_constraint to be "positive", None or a Keras constr', CONSTRAINTS)
    ],
    "alpha_regularizer": [
        (ValueError, "alpha_regularizer to be None or a Keras regularizer", ("no such", 3))
    ],
    "dtype": [(TypeError, "dtype to be of float16, .*dtype='(int32|string)'", ("int32", "string"))],
}
WRONG = [
    *(
        ({argument: value}, error, message)
        for argument, rows in KNOWN_AT_CONSTRUCTION.items()
        for error, message, values in rows
        for value in values
    ),
    *(
        ({"alpha": alpha, "dtype": dtype}, ValueError, "alpha to be finite in float")
        for alpha, dtype in ((np.nan, "float32"), (1e39, "float32"), (7e4, "mixed_float16"))
    ),
    *(
        (
            {"alpha": alpha, "trainable_alpha": True, "axis": -1},
            ValueError,
            r"alpha to be at least 0\.001.*constraint=None",
        )
        for alpha in (9e-4, -0.5, [0.5, 9e-4])
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_arguments(arguments, error, message):
    with pytest.raises(error, match=f"LeakyReLU: expected {message}"):
        LeakyReLU(**arguments)


@pytest.mark.parametrize(
    ("arguments", "shape", "error", "message"),
    [
        ({"axis": -3}, (None, 4, 5), ValueError, "each axis once, and not the batch axis"),
        ({"axis": (1, -2)}, (None, 4, 5), ValueError, "each axis once, and not the batch axis"),
        ({"axis": 3}, (None, 4, 5), ValueError, "axis to be within an input of rank 3"),
        ({"axis": (1, -4)}, (None, 4, 5), ValueError, "axis to be within an input of rank 3"),
        ({"axis": (1, 2)}, (None, None, 3), ValueError, "sizes along axis to be known"),
        ({"axis": -1}, tf.TensorShape(None), ValueError, "input of known rank if axis is given"),
        ({"alpha": [0.1, 0.2], "axis": -1}, (None, 3), ValueError, r"a number or of shape \(3,\)"),
        *(
            ({}, shape, TypeError, "one input tensor")
            for shape in (3, (None, "3"), [(None, 2), (None, 2)])
        ),
    ],
)
def test_input_shapes(arguments, shape, error, message):
    with pytest.raises(error, match=rf"LeakyReLU: expected .*{message}.*\. Received: "):
        LeakyReLU(**arguments).build(shape)


@pytest.mark.parametrize("config", [None, {1: 2}], ids=repr)
def test_config_that_is_none(config):
    with pytest.raises(TypeError, match=r"LeakyReLU: expected config to be a dict .*: config="):
        LeakyReLU.from_config(config)


@pytest.mark.parametrize(
    "inputs",
    [tf.zeros([1, 2], "int32"), tf.keras.Input((2,), dtype="bool")],
    ids=["eager", "Input"],
)
def test_inputs_of_a_wrong_dtype(inputs):
    with pytest.raises(TypeError, match=r"to be of float16, .*dtype='(int32|bool)'"):
        LeakyReLU()(inputs)


@pytest.mark.parametrize("inputs", [tf.ones([2, 2]), tf.keras.Input((2,))], ids=["tensor", "Input"])
@pytest.mark.parametrize("built", [False, True])
def test_several_inputs(inputs, built):
    """A layer that is built would stack a list in silence."""
    layer = LeakyReLU()
    if built:
        layer.build((None, 2))
    for several in ([inputs], (inputs, inputs), {"x": inputs}):
        with pytest.raises(TypeError, match=r"expected one input tensor\. Received: input"):
            layer(several)


def test_input_that_no_longer_fits_the_slopes():
    layer = LeakyReLU(axis=-1)
    layer.build((None, 3))
    with pytest.raises(ValueError, match=r"(?s)incompatible with the layer.*axis.*3"):
        layer(tf.ones([2, 4]))
    with pytest.raises(ValueError, match=r"(?s)incompatible with the layer.*ndim"):
        layer(tf.ones([2, 3, 3]))  # which would take the slopes along another axis


def test_the_other_keras():
    other = importlib.import_module("tf_keras" if KERAS_3 else "keras")
    with pytest.raises(TypeError, match=r"(?s)use the layer tf_leaky.LeakyReLU of the same Keras"):
        LeakyReLU()(other.Input((3,)))
    with pytest.raises((TypeError, ValueError), match=r"[lL]ayer"):  # its own words
        other.Sequential([LeakyReLU()])


@pytest.mark.parametrize("kind", ["sparse", "ragged"])
def test_symbolic_input_that_is_not_dense(kind):
    x = tf.keras.Input((None,), **{kind: True})
    with pytest.raises(TypeError, match=r"dense|ragged and sparse tensors, give their values"):
        LeakyReLU()(x)


def test_unknown_form_of_frozen_slopes():
    message = r"FrozenLeakyReLU: expected form to be one of .*Received: form=.*`freeze`"
    with pytest.raises(ValueError, match=message):
        FrozenLeakyReLU(0.5, axis=-1, form="maximum")
