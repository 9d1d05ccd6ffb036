"""Warnings of conversions: each points at the user's line, and Keras's filters don't hide it."""

import inspect

import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, convert, to_keras

layers = tf.keras.layers


class Own(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.act = LeakyReLU(0.3)

    def call(self, x):
        return tf.nn.relu(self.act(x))


class Handmade(tf.keras.Model):
    """Its constructor takes no graph."""

    def __init__(self, **kwargs):
        x = tf.keras.Input((4,))
        super().__init__(x, layers.ReLU()(layers.Dense(3)(x)), **kwargs)


def own():
    return tf.keras.Sequential([tf.keras.Input((4,)), Own()])


def around():
    x = tf.keras.Input((4,))
    return tf.keras.Model(x, Handmade(name="inner")(x))  # Keras's own code calls us


def fuse(model):
    return convert(model, alpha=0.2, fuse_batch_norm=True)


def slope(model):
    return convert(model, alpha=0.2)


def back(model):
    return to_keras(model)


@pytest.mark.parametrize(
    ("change", "make", "text"),
    [
        (fuse, around, "Nothing was fused"),
        (slope, own, "expected to change every ReLU"),
        (back, own, "a .keras file of it loads with"),
        (slope, Handmade, "is returned as a plain Functional"),
        (slope, around, "'inner' is returned as a plain Functional"),
    ],
)
def test_warnings_point_at_the_line_that_called_us(change, make, text):
    model = make()
    with pytest.warns(UserWarning, match=r"^(convert|to_keras): ") as warned:
        change(model)
    (one,) = [each for each in warned if text in str(each.message)]
    assert (one.filename, one.lineno) == (__file__, inspect.getsourcelines(change)[1] + 1)


def test_models_with_lambda_in_their_name_are_warned_of_too():
    with pytest.warns(UserWarning, match="'lambda_net' is returned as a plain"):
        convert(Handmade(name="lambda_net"), alpha=0.2)
