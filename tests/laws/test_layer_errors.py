"""Bad arguments and inputs of `LeakyReLU`: a clear error, as early as it can be known."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import LeakyReLU
from tf_leaky.conversion.frozen import FrozenLeakyReLU

NOT_NUMERIC = (True, "0.1", None, 1j, [None], [True, 0.1], tf.Variable(0.1), tf.constant(0.1))
NOT_FINITE = (
    *((float("nan"), "float32"), (np.inf, "float64"), (1e39, "float32")),
    *((7e4, "float16"), (7e4, "mixed_float16")),
)
SMALL = {"trainable_alpha": True, "axis": -1}
CONSTRAINTS = (
    *("no such", 3, np.ones(2), object(), object, LeakyReLU(), tf.keras.regularizers.L2(0.1)),
    {"class_name": "MaxNorm", "config": {"no_such": 1}},
    {"class_name": "get", "config": {}},
)
REGULARIZERS = ("no such", 3, object(), tf.keras.Sequential(), tf.keras.constraints.NonNeg())
# Arguments, the error, and what it says after "LeakyReLU: expected ".
KNOWN_AT_CONSTRUCTION = [
    *(({"alpha": each}, TypeError, "alpha to be a real number") for each in NOT_NUMERIC),
    *(
        ({"alpha": alpha, "dtype": dtype}, ValueError, "alpha to be finite in float")
        for alpha, dtype in NOT_FINITE
    ),
    ({"negative_slope": 0.2}, TypeError, r"alpha, which .*=0\.2\. Give alpha=0\.2"),
    *(
        (
            {"alpha": alpha, "trainable_alpha": True},
            ValueError,
            r"alpha to be at least 0\.001.*=None",
        )
        for alpha in (9e-4, 0.0, -0.5)
    ),
    ({"alpha": [0.5, 9e-4], **SMALL}, ValueError, r"alpha to be at least 0\.001.*constraint=None"),
    (
        {"alpha": [0.1, 0.2]},
        ValueError,
        r"alpha to be one number if axis is None\. Received: alpha=\[",
    ),
    *(
        (
            {"trainable_alpha": each},
            TypeError,
            r"trainable_alpha to be True or False\. Received: tr",
        )
        for each in (1, None, "yes")
    ),
    *(
        ({"axis": each}, TypeError, r"axis to be None, an integer or a list of integers\. Received")
        for each in (1.0, "1", [], (), [1, None], True, [False], {1})
    ),
    *(
        ({"axis": each}, ValueError, r"axis without the batch axis, 0\. Received: axis=")
        for each in (0, [0], (1, 0))
    ),
    ({"axis": (1, 2, 1)}, ValueError, r"axis to name each axis once\. Received: axis=\(1, 2, 1\)"),
    *(
        ({"alpha_constraint": each}, ValueError, 'alpha_constraint to be "positive", None or a Ker')
        for each in CONSTRAINTS
    ),
    *(
        ({"alpha_regularizer": each}, ValueError, "alpha_regularizer to be None or a Keras regular")
        for each in REGULARIZERS
    ),
    *(
        ({"dtype": each}, TypeError, rf"dtype to be of float16, .*dtype='{each}'")
        for each in ("int32", "string", "bool")
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), KNOWN_AT_CONSTRUCTION)
def test_arguments(arguments, error, message):
    with pytest.raises(error, match=f"LeakyReLU: expected {message}"):
        LeakyReLU(**arguments)


@pytest.mark.parametrize("alpha", [9e-4, 0.0, -0.5])
def test_small_alpha_is_taken_where_positive_is_not_asked_for(alpha):
    LeakyReLU(alpha, trainable_alpha=True, alpha_constraint=None)
    LeakyReLU(alpha)


@pytest.mark.parametrize(
    ("arguments", "shape", "error", "message"),
    [
        *(
            ({"axis": axis}, (None, 4, 5), ValueError, "each axis once, and not the batch axis")
            for axis in (-3, (-3, 1), (1, -2))
        ),
        *(
            ({"axis": axis}, (None, 4, 5), ValueError, "axis to be within an input of rank 3")
            for axis in (3, -4, (1, 7))
        ),
        ({"axis": (1, 2)}, (None, None, 3), ValueError, "sizes along axis to be known"),
        ({"axis": -1}, tf.TensorShape(None), ValueError, "input of known rank if axis is given"),
        ({"alpha": [0.1, 0.2], "axis": -1}, (None, 3), ValueError, r"a number or of shape \(3,\)"),
        *(
            ({}, shape, TypeError, "one input tensor")
            for shape in (3, "3", {"a": 3}, (None, "3"), (None, -3), {3}, [(None, 2), (None, 2)])
        ),
    ],
)
def test_input_shapes(arguments, shape, error, message):
    with pytest.raises(error, match=rf"LeakyReLU: expected .*{message}.*\. Received: "):
        LeakyReLU(**arguments).build(shape)


def test_shapes_that_one_slope_takes():
    for shape in (tf.TensorShape(None), None, (None, None, 3)):
        LeakyReLU().build(shape)


@pytest.mark.parametrize("kind", ["constraint", "regularizer"])
def test_class_in_place_of_an_instance(kind):
    class Wanted:
        def __call__(self, weight):
            return weight

    if KERAS_3:  # which makes an instance of it
        layer = LeakyReLU(**{f"alpha_{kind}": Wanted})
        assert isinstance(getattr(layer, f"alpha_{kind}"), Wanted)
    else:
        with pytest.raises(ValueError, match=f"alpha_{kind} to be "):
            LeakyReLU(**{f"alpha_{kind}": Wanted})


@pytest.mark.parametrize("config", [None, "text", [1], np.array([]), {1: 2}], ids=repr)
def test_config_that_is_none(config):
    with pytest.raises(TypeError, match=r"LeakyReLU: expected config to be a dict .*: config="):
        LeakyReLU.from_config(config)


def test_unknown_argument_is_keras_own_error():
    with pytest.raises((TypeError, ValueError), match="slope"):
        LeakyReLU(slope=0.1)


@pytest.mark.parametrize("symbolic", [True, False])
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_inputs_of_a_wrong_dtype(symbolic, dtype):
    inputs = tf.keras.Input((2,), dtype=dtype) if symbolic else tf.zeros([1, 2], dtype)
    with pytest.raises(TypeError, match=f"to be of float16, .*dtype='{dtype}'"):
        LeakyReLU()(inputs)


@pytest.mark.parametrize("kind", [list, tuple, lambda inputs: dict(enumerate(inputs))])
@pytest.mark.parametrize(
    "make", [lambda: tf.ones([2, 2]), lambda: tf.keras.Input((2,))], ids=["tensors", "symbolic"]
)
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_several_inputs(kind, make, built, count):
    """A layer that is built would stack a list in silence."""
    layer = LeakyReLU()
    if built:
        layer.build((None, 2))
    inputs = [make() for _ in range(count)]
    with pytest.raises(TypeError, match=r"expected one input tensor\. Received: input"):
        layer(kind(inputs))


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


@pytest.mark.parametrize("form", ["maximum", None, 3], ids=repr)
def test_unknown_form_of_frozen_slopes(form):
    with pytest.raises(
        ValueError, match=r"FrozenLeakyReLU: expected form to be one of .*Received: form=.*`freeze`"
    ):
        FrozenLeakyReLU(0.5, axis=-1, form=form)
