"""What layers of TensorFlow Probability and TensorFlow Model Optimization do, and quantized ones.

`make zoo` has models of the libraries themselves.
"""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, convert, to_keras
from tf_leaky.keras_compat import LEGACY

layers = tf.keras.layers
X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


def model_of(*between):
    return tf.keras.Sequential([tf.keras.Input((8,)), *between, layers.Dense(2)])


class Sampled(layers.Lambda):
    """As tfp.layers.DistributionLambda: its functions are code in its config."""

    def __init__(self, make, **kwargs):
        kwargs.pop("function", None)
        super().__init__((lambda x: x - 1) if make == "code" else make, **kwargs)

    def get_config(self):
        return {"make": "code", "name": self.name}

    @classmethod
    def from_config(cls, config, safe_mode=None):
        return cls(**config)


class OfSize(Sampled):
    """As tfp.layers.MultivariateNormalTriL: it has only the config of the class above."""

    def __init__(self, size, **kwargs):
        super().__init__(lambda x: size * x, **kwargs)


def test_lambda_of_a_class_that_its_config_cannot_make():
    model = model_of(layers.Dense(8, activation="relu"), OfSize(3.0, activity_regularizer="l2"))
    new = convert(model, alpha=0.5)
    assert type(new.layers[1]) is OfSize
    np.testing.assert_array_equal(convert(model)(X), model(X))
    assert len(new.losses) == len(model.losses) == 1


class Divergent(layers.Dense):
    """As tfp.layers.DenseFlipout: what its config makes of its functions doesn't run."""

    def __init__(self, *args, divergence=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.divergence = divergence or (lambda x: unknown * x)  # noqa: F821

    def get_config(self):
        return super().get_config() | {"divergence": None}

    def call(self, inputs):
        self.add_loss(self.divergence(tf.reduce_sum(inputs)))
        return super().call(inputs)


def test_functions_in_a_config_are_the_same_in_the_copy():
    model = model_of(Divergent(8, activation="relu", divergence=lambda x: 3.0 * x))
    new = convert(model, alpha=0.5)
    assert new.layers[0].divergence is model.layers[0].divergence
    assert new.layers[0].activation is not model.layers[0].activation
    new(X)
    assert float(new.losses[0]) == pytest.approx(3 * X.sum(), rel=1e-5)


class Scaled(layers.Dense):
    """As layers with spectral normalisation: it has more weights than Keras's own saves."""

    def build(self, shape):
        super().build(shape)
        self.gain = self.add_weight(name="gain", shape=(), initializer="ones")

    def call(self, inputs):
        return super().call(inputs * self.gain)


def test_layer_with_more_weights_than_the_class_of_keras():
    model = model_of(Scaled(8, activation="relu"))
    model.layers[0].gain.assign(3.0)
    new = convert(model, alpha=0.5)
    assert float(new.layers[0].gain) == 3.0
    np.testing.assert_array_equal(convert(model)(X), model(X))


@pytest.mark.skipif(LEGACY, reason="Keras 3 quantizes")
def test_trained_slopes_in_quantized_models():
    model = model_of(layers.Dense(8, activation="relu"))
    with pytest.warns(UserWarning, match="quantize"):
        model.quantize("int8")
    new = convert(model, alpha=0.2, trainable_alpha=True)
    assert len(new.trainable_variables) == len(model.trainable_variables) + 1
    np.testing.assert_allclose(to_keras(new)(X), new(X))


@pytest.mark.parametrize("layer", [LeakyReLU(trainable_alpha=True), BatchNormLeakyReLU()])
def test_nothing_in_our_layers_is_pruned(layer):
    """TensorFlow Model Optimization asks layers that it doesn't know."""
    model_of(layer)(X)
    assert layer.weights
    assert layer.get_prunable_weights() == []
