"""NaN and infinities in a batch are seen, through every kind of layer."""

import cases
import numpy as np
import oracle
import pytest
import tensorflow as tf

from tf_leaky.conversion.frozen import FORMS, FrozenLeakyReLU

each_value = pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)


@each_value
@pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)
def test_one_bad_number_is_seen_in_the_value_and_in_its_slope_only(case, value, rng):
    layer = case.make()
    x = rng.normal(size=(4, *case.input_shape)).astype("float32")
    x[(2, *(n - 1 for n in case.input_shape))] = value
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_sum(y * 0.5)
    alpha = cases.broadcast(case, case.arguments["alpha"])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(y, oracle.value(x, np.float32(alpha)), rtol=1e-6)
    for gradient in tape.gradient(loss, layer.trainable_weights):
        *others, last = np.ravel(gradient)
        assert np.isfinite(others).all()
        # x > 0 says nothing about the slope
        assert np.isfinite(last) if value > 0 else np.array_equal(last, value, equal_nan=True)


@pytest.mark.parametrize("case", cases.LAYERS[::4], ids=cases.names)
def test_one_bad_number_in_a_batch_stops_the_training(case, rng):
    """In front of the layer there is nothing: what stops it came through the layer."""
    layer = case.make()
    layers = [tf.keras.Input(case.input_shape), layer, tf.keras.layers.Flatten()]
    model = tf.keras.Sequential([*layers, tf.keras.layers.Dense(1)])
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    x = rng.normal(size=(16, *case.input_shape)).astype("float32")
    x[6, ..., -1] = -np.inf  # in the second of four batches
    stop = tf.keras.callbacks.TerminateOnNaN()
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0, "callbacks": [stop]}
    losses = model.fit(x, np.zeros((16, 1), "float32"), epochs=2, **fit).history["loss"]
    assert len(losses) == 1
    assert not np.isfinite(losses[0])
    if case.trained:
        assert np.isnan(np.ravel(layer.alpha)[-1])  # no constraint makes a number of it


@each_value
@pytest.mark.parametrize("form", FORMS)
def test_frozen_slopes_hide_nothing(form, value):
    layer = FrozenLeakyReLU([0.5, 0.25, 0.0], axis=-1, form=form)
    x = np.array([[1.0, -1.0, -1.0], [value] * 3], "float32")
    y = layer(x).numpy()
    np.testing.assert_array_equal(y[0], [1, -0.25, 0])
    assert not np.isfinite(y[1]).any()
    if np.isnan(value):
        assert np.isnan(y[1]).all()
