"""What `BatchNormLeakyReLU` refuses, and what it says."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU

WRONG = {
    "alpha of 0": ({"alpha": 0.0}, ValueError, r"alpha to be at least 0\.001.*alpha=0\.0\."),
    "negative alpha": ({"alpha": -0.1, "trainable_alpha": True}, ValueError, r"at least 0\.001"),
    "infinite alpha": ({"alpha": float("inf")}, ValueError, r"alpha to be finite in float32"),
    "alpha as text": ({"alpha": "0.1"}, TypeError, r"alpha to be a real number"),
    "alphas without an axis": (
        {"alpha": [0.1, 0.2]},
        ValueError,
        r"one number, or one for each channel.*alpha_axis=None\. Give alpha_axis=-1",
    ),
    "alphas in a matrix": (
        {"alpha": [[0.1, 0.2]], "alpha_axis": -1},
        ValueError,
        r"one number, or one for each channel",
    ),
    "trainable_alpha": ({"trainable_alpha": 1}, TypeError, r"trainable_alpha to be True or False"),
    "axis": ({"axis": "last"}, TypeError, r"axis to be an integer\. Received: axis='last'"),
    "two axes": ({"axis": [1, 2]}, TypeError, r"axis to be an integer\. Received: axis=\[1, 2\]"),
    "alpha_axis": ({"alpha_axis": 1.5}, TypeError, r"alpha_axis to be an integer"),
    "momentum": ({"momentum": "0.9"}, TypeError, r"momentum to be a real number.*momentum='0\.9'"),
    "epsilon": ({"epsilon": None}, TypeError, r"epsilon to be a real number.*epsilon=None"),
    "renorm": ({"renorm": True}, ValueError, r"no batch renormalisation.*renorm=True"),
    "initializer": (
        {"gamma_initializer": "no_such"},
        ValueError,
        r"gamma_initializer to be None or a Keras initializer\. Received: gamma_initializer='no_su",
    ),
    "regularizer": (
        {"beta_regularizer": "no_such"},
        ValueError,
        r"beta_regularizer to be None or a Keras regularizer",
    ),
    "constraint": (
        {"gamma_constraint": "no_such"},
        ValueError,
        r"gamma_constraint to be None or a Keras constraint",
    ),
    "alpha_constraint": (
        {"alpha_constraint": "no_such"},
        ValueError,
        r'alpha_constraint to be "positive", None or a Keras constraint',
    ),
    "dtype": (
        {"dtype": "int32"},
        TypeError,
        r"dtype to be of float16, bfloat16, float32 or float64",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    arguments, error, message = WRONG[name]
    with pytest.raises(error, match=f"(?s)^BatchNormLeakyReLU: expected .*{message}"):
        BatchNormLeakyReLU(**arguments)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({}, None, r"input of known rank.*axis=-1, input_shape=<unknown>"),
        ({"axis": 3}, (None, 4, 2), r"has the axis of the channels\. Received: axis=3"),
        ({}, (None, None), r"number of channels to be known\. Received: axis=-1"),
        (
            {"alpha_axis": 1},
            (None, 4, 2),
            r"alpha_axis to be None or the axis of the channels.*alpha_axis=1\. Give alpha_axis=-1",
        ),
        (
            {"alpha": [0.1, 0.2], "alpha_axis": -1},
            (None, 3),
            r"alpha to be a number or of shape \(3,\), as there are 3 channels.*alpha.shape=\(2,\)",
        ),
    ],
    ids=["rank", "axis", "channels", "alpha_axis", "alphas"],
)
def test_wrong_shapes(arguments, shape, message):
    with pytest.raises(ValueError, match=f"^BatchNormLeakyReLU: expected .*{message}"):
        BatchNormLeakyReLU(**arguments).build(shape)


def test_several_inputs_are_refused():
    with pytest.raises(TypeError, match="BatchNormLeakyReLU: expected one input tensor"):
        BatchNormLeakyReLU().build([(None, 2), (None, 2)])
    layer = BatchNormLeakyReLU()
    layer.build((None, 2))
    with pytest.raises(TypeError, match="BatchNormLeakyReLU: expected one input tensor"):
        layer.call([tf.ones((1, 2)), tf.ones((1, 2))])


def test_input_of_another_rank_or_width_is_refused_by_keras():
    layer = BatchNormLeakyReLU()
    layer.build((None, 4, 2))
    for shape in ((3, 2), (3, 4, 5)):
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(np.ones(shape, "float32"))


@pytest.mark.parametrize("shape", [(3,), (3, 4, 2)], ids=str)
def test_mask_of_another_rank_is_refused(shape):
    layer = BatchNormLeakyReLU()
    with pytest.raises(
        ValueError, match="BatchNormLeakyReLU: expected a mask of the inputs' shape"
    ):
        layer(np.ones((3, 4, 2), "float32"), training=True, mask=np.ones(shape, bool))


def test_alpha_that_was_set_wrong_is_not_saved():
    layer = BatchNormLeakyReLU(alpha=0.5)
    layer.alpha = 0.0
    with pytest.raises(ValueError, match="BatchNormLeakyReLU: expected alpha to be at least"):
        layer.get_config()
