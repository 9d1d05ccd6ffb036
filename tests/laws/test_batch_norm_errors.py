"""What `BatchNormLeakyReLU` refuses, and what it says."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU

FOR_CHANNELS = "alpha to be one number, or one for each channel"
# Arguments, the error, and what it says after "BatchNormLeakyReLU: expected ".
WRONG = [
    ({"alpha": 0.0}, ValueError, r"alpha to be at least 0\.001.*alpha=0\.0\."),
    ({"alpha": -0.1, "trainable_alpha": True}, ValueError, r"alpha to be at least 0\.001"),
    ({"alpha": [0.1, 0.2]}, ValueError, rf"{FOR_CHANNELS}.*alpha_axis=None\. Give alpha_axis=-1"),
    ({"alpha": [[0.1, 0.2]], "alpha_axis": -1}, ValueError, FOR_CHANNELS),
    ({"trainable_alpha": 1}, TypeError, "trainable_alpha to be True or False"),
    ({"axis": "last"}, TypeError, r"axis to be an integer\. Received: axis='last'"),
    ({"momentum": "0.9"}, TypeError, r"momentum to be a real number.*momentum='0\.9'"),
    ({"renorm": True}, ValueError, "no batch renormalisation.*renorm=True"),
    *(
        ({f"{of}_{kind}": "no"}, ValueError, f"{of}_{kind} to be None or a Keras {kind}.*='no'")
        for of, kind in (("gamma", "initializer"), ("beta", "regularizer"), ("gamma", "constraint"))
    ),
    ({"dtype": "int32"}, TypeError, "dtype to be of float16, bfloat16, float32 or float64"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=f"(?s)^BatchNormLeakyReLU: expected {message}"):
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
            r"alpha to be a number or of shape \(3,\), .* along axis -1.*alpha.shape=\(2,\)",
        ),
    ],
)
def test_wrong_shapes(arguments, shape, message):
    with pytest.raises(ValueError, match=f"^BatchNormLeakyReLU: expected .*{message}"):
        BatchNormLeakyReLU(**arguments).build(shape)


def test_inputs_that_are_not_one_tensor_of_the_shape_that_was_built():
    layer = BatchNormLeakyReLU()
    with pytest.raises(TypeError, match="BatchNormLeakyReLU: expected one input tensor"):
        layer.build([(None, 2), (None, 2)])
    layer.build((None, 4, 2))
    with pytest.raises(TypeError, match="BatchNormLeakyReLU: expected one input tensor"):
        layer.call([tf.ones((1, 4, 2)), tf.ones((1, 4, 2))])
    for shape in ((3, 2), (3, 4, 5)):
        with pytest.raises(ValueError, match="incompatible with the layer"):
            layer(np.ones(shape, "float32"))


@pytest.mark.parametrize("shape", [(3,), (3, 4, 2)], ids=str)
def test_mask_of_another_rank_is_refused(shape):
    layer = BatchNormLeakyReLU()
    with pytest.raises(ValueError, match="BatchNormLeakyReLU: expected a mask of the inputs' sh"):
        layer(np.ones((3, 4, 2), "float32"), training=True, mask=np.ones(shape, bool))


def test_alpha_that_was_set_wrong_is_not_saved():
    layer = BatchNormLeakyReLU(alpha=0.5)
    layer.alpha = 0.0
    with pytest.raises(ValueError, match="BatchNormLeakyReLU: expected alpha to be at least"):
        layer.get_config()
