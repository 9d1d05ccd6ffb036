"""Bad arguments and inputs of `LeakyReLU`: a clear error, as early as it can be known."""

import importlib

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU
from tf_leaky.conversion.frozen import FrozenLeakyReLU

IS_KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")


@pytest.mark.parametrize(
    "alpha",
    [True, "0.1", None, 1j, [None], [True, 0.1], tf.Variable(0.1), tf.constant(0.1)],
    ids=repr,
)
def test_alpha_that_is_not_numeric(alpha):
    with pytest.raises(TypeError, match=r"LeakyReLU: expected alpha to be a real number"):
        LeakyReLU(alpha)


@pytest.mark.parametrize(
    ("alpha", "dtype"),
    [
        (float("nan"), "float32"),
        (np.inf, "float64"),
        (1e39, "float32"),
        (7e4, "float16"),
        (7e4, "mixed_float16"),
    ],
)
def test_alpha_that_is_not_finite_is_known_at_construction(alpha, dtype):
    with pytest.raises(ValueError, match=r"LeakyReLU: expected alpha to be finite in float"):
        LeakyReLU(alpha, dtype=dtype)


@pytest.mark.parametrize("alpha", [9e-4, 0.0, -0.5])
def test_small_alpha_to_be_trained_under_positive(alpha):
    with pytest.raises(
        ValueError,
        match=r"alpha to be at least 0\.001, .*Received: alpha=.*alpha_constraint=None",
    ):
        LeakyReLU(alpha, trainable_alpha=True)
    with pytest.raises(ValueError, match="at least"):
        LeakyReLU([0.5, alpha], trainable_alpha=True, axis=-1)
    LeakyReLU(alpha, trainable_alpha=True, alpha_constraint=None)
    LeakyReLU(alpha)


@pytest.mark.parametrize("trainable_alpha", [1, None, "yes"], ids=repr)
def test_trainable_alpha_that_is_no_bool(trainable_alpha):
    with pytest.raises(TypeError, match=r"trainable_alpha to be True or False\. Received: train"):
        LeakyReLU(trainable_alpha=trainable_alpha)


@pytest.mark.parametrize("axis", [1.0, "1", [], (), [1, None], True, [False], {1}], ids=repr)
def test_axis_that_is_no_axis(axis):
    with pytest.raises(
        TypeError, match=r"axis to be None, an integer or a list of integers\. Received: axis="
    ):
        LeakyReLU(axis=axis)


@pytest.mark.parametrize("axis", [0, [0], (1, 0)], ids=repr)
def test_batch_axis_is_known_at_construction(axis):
    with pytest.raises(ValueError, match=r"leave out the batch axis, 0\. Received: axis="):
        LeakyReLU(axis=axis)


@pytest.mark.parametrize("axis", [-3, (-3, 1), (1, -2)], ids=repr)
def test_batch_axis_and_repeated_axes_are_known_at_build(axis):
    with pytest.raises(
        ValueError, match=r"each axis once, and not the batch axis\. Received: axis=.*input_shape="
    ):
        LeakyReLU(axis=axis).build((None, 4, 5))


def test_repeated_axis_is_known_at_construction():
    with pytest.raises(ValueError, match=r"name each axis once\. Received: axis=\(1, 2, 1\)\."):
        LeakyReLU(axis=(1, 2, 1))


@pytest.mark.parametrize("axis", [3, -4, (1, 7)], ids=repr)
def test_axis_outside_the_input(axis):
    with pytest.raises(
        ValueError, match=r"axis to lie within an input of rank 3\. Received: axis="
    ):
        LeakyReLU(axis=axis).build((None, 4, 5))


def test_axis_of_unknown_size():
    layer = LeakyReLU(axis=(1, 2))
    with pytest.raises(
        ValueError, match=r"to have known sizes\. Received: axis=\(1, 2\), .*Leave the unknown axes"
    ):
        layer(tf.keras.Input((None, 3)))


def test_unknown_rank():
    with pytest.raises(ValueError, match=r"input of known rank where axis is given\. Received"):
        LeakyReLU(axis=-1).build(tf.TensorShape(None))
    LeakyReLU().build(tf.TensorShape(None))


def test_alpha_of_a_shape_without_an_axis():
    with pytest.raises(ValueError, match=r"one number where axis is None\. Received: alpha=\[0\.1"):
        LeakyReLU([0.1, 0.2])


def test_alpha_of_another_shape_than_the_axes():
    with pytest.raises(
        ValueError, match=r"alpha to be a number or of shape \(3,\).*Received: alpha\.shape=\(2,\)"
    ):
        LeakyReLU([0.1, 0.2], axis=-1).build((None, 3))


@pytest.mark.parametrize(
    "constraint",
    [
        *("no such", 3, np.ones(2), object(), object),
        {"class_name": "MaxNorm", "config": {"no_such": 1}},
        {"class_name": "get", "config": {}},
    ],
    ids=["name", "number", "array", "object", "class", "config", "config of a function"],
)
def test_unknown_constraint(constraint):
    with pytest.raises(
        ValueError, match=r'alpha_constraint to be "positive", None or a Keras constraint'
    ):
        LeakyReLU(alpha_constraint=constraint)


@pytest.mark.parametrize("regularizer", ["no such", 3, object()], ids=["name", "number", "object"])
def test_unknown_regularizer(regularizer):
    with pytest.raises(
        ValueError, match=r"alpha_regularizer to be None or a Keras regularizer\. Received: alpha_"
    ):
        LeakyReLU(alpha_regularizer=regularizer)


@pytest.mark.parametrize("kind", ["constraint", "regularizer"])
def test_class_in_place_of_an_instance(kind):
    class Wanted:
        def __call__(self, weight):
            return weight

    if IS_KERAS_3:  # which makes an instance of it
        layer = LeakyReLU(**{f"alpha_{kind}": Wanted})
        assert isinstance(getattr(layer, f"alpha_{kind}"), Wanted)
    else:
        with pytest.raises(ValueError, match=f"alpha_{kind} to be "):
            LeakyReLU(**{f"alpha_{kind}": Wanted})


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("constraint", tf.keras.regularizers.L2(0.1)),
        ("regularizer", tf.keras.constraints.NonNeg()),
        ("constraint", LeakyReLU()),
        ("regularizer", tf.keras.Sequential()),
    ],
)
def test_what_is_called_for_another_end(kind, other):
    """Slopes would be set to a penalty, in silence."""
    with pytest.raises(ValueError, match=rf"alpha_{kind} to be .*Received: alpha_{kind}="):
        LeakyReLU(**{f"alpha_{kind}": other})


@pytest.mark.parametrize("shape", [3, "3", {"a": 3}, (None, "3"), (None, -3), {3}], ids=repr)
def test_input_shape_that_is_none(shape):
    with pytest.raises(TypeError, match=r"expected one input tensor\. Received: input_shape="):
        LeakyReLU(axis=-1).build(shape)


@pytest.mark.parametrize("config", [None, "text", [1], np.array([]), {1: 2}], ids=repr)
def test_config_that_is_none(config):
    with pytest.raises(TypeError, match=r"LeakyReLU: expected config to be a dict .*: config="):
        LeakyReLU.from_config(config)


@pytest.mark.parametrize("dtype", ["int32", "string", "bool"])
def test_dtype_that_computes_no_leaky_relu(dtype):
    with pytest.raises(TypeError, match=rf"expected dtype to be of float16, .*dtype='{dtype}'"):
        LeakyReLU(dtype=dtype)


def test_unknown_argument_is_keras_own_error():
    with pytest.raises((TypeError, ValueError), match="negative_slope"):
        LeakyReLU(negative_slope=0.1)


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


@pytest.mark.parametrize("shape", [[(None, 2), (None, 2)], {"a": (None, 2)}, (None, -2)], ids=str)
def test_shape_of_no_single_input(shape):
    with pytest.raises(TypeError, match=r"expected one input tensor\. Received: input_shape="):
        LeakyReLU().build(shape)


def test_input_that_no_longer_fits_the_slopes():
    layer = LeakyReLU(axis=-1)
    layer.build((None, 3))
    with pytest.raises(ValueError, match=r"(?s)incompatible with the layer.*axis.*3"):
        layer(tf.ones([2, 4]))
    with pytest.raises(ValueError, match=r"(?s)incompatible with the layer.*ndim"):
        layer(tf.ones([2, 3, 3]))  # which would take the slopes along another axis


def other_keras():
    return importlib.import_module("tf_keras" if IS_KERAS_3 else "keras")


def test_symbolic_tensor_of_the_other_keras():
    with pytest.raises(TypeError, match=r"(?s)to the layer tf_leaky.LeakyReLU of the same Keras"):
        LeakyReLU()(other_keras().Input((3,)))


def test_model_of_the_other_keras_refuses_the_layer():
    """Their own words; what matters is that it is refused at once."""
    with pytest.raises((TypeError, ValueError), match=r"[lL]ayer"):
        other_keras().Sequential([LeakyReLU()])


@pytest.mark.parametrize("kind", ["sparse", "ragged"])
def test_symbolic_input_that_is_not_dense(kind):
    x = tf.keras.Input((None,), **{kind: True})
    with pytest.raises(TypeError, match=r"dense|ragged and sparse tensors by their values"):
        LeakyReLU()(x)


@pytest.mark.parametrize("form", ["maximum", None, 3], ids=repr)
def test_unknown_form_of_frozen_slopes(form):
    with pytest.raises(
        ValueError, match=r"FrozenLeakyReLU: expected form to be one of .*Received: form=.*`freeze`"
    ):
        FrozenLeakyReLU(0.5, axis=-1, form=form)
