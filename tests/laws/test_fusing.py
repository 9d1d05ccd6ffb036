"""`convert(..., fuse_batch_norm=True)`, and `to_keras` and `freeze` of what it returns."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU, convert, freeze, to_keras

layers = tf.keras.layers


def residual():
    x = tf.keras.Input((4, 4, 2))
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x)))
    z = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(y))  # added, so not fused
    z = layers.ReLU()(layers.BatchNormalization()(layers.Add()([y, z])))
    return tf.keras.Model(x, layers.Dense(2)(z))


def in_a_row():
    parts = [layers.Conv2D(3, 3), layers.BatchNormalization(), layers.Activation("relu")]
    return tf.keras.Sequential([tf.keras.Input((4, 4, 2)), *parts, layers.Dense(2)])


@pytest.mark.parametrize("make", [residual, in_a_row])
@pytest.mark.parametrize(
    "slopes", [{}, {"trainable_alpha": True}, {"trainable_alpha": True, "axis": -1}], ids=str
)
def test_fused_models_compute_what_two_layers_do_and_split_again(make, slopes):
    model = make()
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    x = rng.normal(size=(3, 4, 4, 2)).astype("float32")
    two = convert(model, alpha=0.1, **slopes)
    fused = convert(model, alpha=0.1, fuse_batch_norm=True, **slopes)
    kinds = [type(layer) for layer in fused.layers]
    assert kinds.count(BatchNormLeakyReLU) == (2 if make is residual else 1)
    for training in (False, True):
        expected = two(x, training=training)
        np.testing.assert_allclose(fused(x, training=training), expected, rtol=1e-4, atol=1e-5)
    expected = fused(x)
    for back in (to_keras(fused), freeze(fused)):
        assert not any(type(layer) is BatchNormLeakyReLU for layer in back.layers)
        np.testing.assert_allclose(back(x), expected, rtol=1e-4, atol=1e-5)
