"""`BatchNormLeakyReLU` as a layer: what it keeps, masks, switches, weights, training, config."""

import json

import cases
import numpy as np
import pytest
import tensorflow as tf
from test_batch_norm import masked
from test_memory import frees_its_input, kept

from tf_leaky import BatchNormLeakyReLU, LeakyReLU

layers = tf.keras.layers
each_case = pytest.mark.parametrize("case", cases.BATCH_NORMS, ids=cases.names)


def each_way(test):
    for name, values in {
        "training": [True, False],
        "dtype": ["float32", "float64", "mixed_float16"],
        "trained": [True, False],
    }.items():
        test = pytest.mark.parametrize(name, values)(test)
    return test


@each_way
def test_input_is_freed_in_eager_mode(training, dtype, trained):
    layer = BatchNormLeakyReLU(trainable_alpha=trained, dtype=dtype)
    layer.build((5, 2))
    assert frees_its_input(lambda z: layer(z, training=training), layer.compute_dtype)


@each_way
def test_what_is_run_keeps_one_tensor(training, dtype, trained):
    """After Grappler, which would run a mask early if a control dependency alone made it wait."""
    layer = BatchNormLeakyReLU(trainable_alpha=trained, dtype=dtype)
    layer.build((None, 6, 5))

    @tf.function(autograph=False)
    def step(upstream, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(2 * x, training=training)
        return tape.gradient(y, [x, *layer.trainable_weights], upstream)

    assert kept(step, (70, 6, 5), layer.compute_dtype) == 1


def test_masks_count_on_images_and_hide_nan(rng):
    """Where tf_keras's own layer ignores them, with a warning."""
    layer = BatchNormLeakyReLU(momentum=0.0)
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    mask = masked(rng, x.shape)
    hidden = np.where(mask[..., None], x, np.float32(np.nan))
    layer(hidden, training=True, mask=mask)
    mean, variance = layer.get_weights()[2:]
    np.testing.assert_allclose(mean, x[mask].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, x[mask].var(0), rtol=1e-5)


def test_mask_reaches_the_layer_and_the_one_after_it(rng):
    x = rng.normal(size=(4, 5, 3)).astype("float32")
    x[:, 3:] = 0
    ours = BatchNormLeakyReLU(momentum=0.0)
    model = tf.keras.Sequential([tf.keras.Input((5, 3)), layers.Masking(), ours, layers.LSTM(2)])
    model(x, training=True)
    np.testing.assert_allclose(ours.get_weights()[2], x[:, :3].mean((0, 1)), rtol=1e-5, atol=1e-6)
    shorter = model.layers[-1](ours(x[:, :3]))
    np.testing.assert_allclose(model(x), shorter, rtol=1e-5, atol=1e-6)


@each_case
def test_frozen_layer_is_in_inference_mode(case, rng):
    layer = case.make_and_build()
    x = rng.normal(size=(4, *case.input_shape)).astype("float32")
    expected = layer(x, training=False)
    trained = layer(x, training=True)
    assert not np.allclose(trained, expected)
    before = layer.get_weights()
    layer.trainable = False
    frozen = layer(x, training=True)
    assert not np.allclose(frozen, trained)
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    layer.trainable = True
    assert len(layer.trainable_weights) == len(case.make_and_build().trainable_weights)


def test_sums_of_a_mixed_layer_go_beyond_float16():
    layer = BatchNormLeakyReLU(alpha=0.5, dtype="mixed_float16", scale=False)
    x = tf.reshape(tf.tile(tf.constant([-1.0, 1.0], tf.float16), [1 << 17]), [-1, 1])
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    assert y.dtype == tf.float16
    assert {tf.as_dtype(weight.dtype) for weight in layer.weights} == {tf.float32}
    (dbeta,) = tape.gradient(y, layer.trainable_weights)
    assert float(dbeta[0]) == 1.5 * (1 << 17)


def test_empty_batch_leaves_the_averages_alone():
    layer = BatchNormLeakyReLU()
    layer.build((None, 4, 3))
    before = layer.get_weights()
    y = layer(np.zeros((0, 4, 3), "float32"), training=True)
    assert y.shape == (0, 4, 3)
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("set_to", [0.0, -0.5, np.nan])
def test_slopes_below_the_bound_count_as_the_bound_and_come_back(set_to):
    layer = BatchNormLeakyReLU(alpha=0.5, trainable_alpha=True)
    layer.build((None, 1))
    layer.set_weights([*layer.get_weights()[:4], np.float32(set_to)])
    with tf.GradientTape() as tape:
        y = layer(tf.constant([[-1.0], [1.0]]), training=True)
    if np.isnan(set_to):
        assert np.isnan(y[0])
    else:
        np.testing.assert_allclose(y[0], [-1e-3], rtol=1e-3)
        *_, dalpha = tape.gradient(y, layer.trainable_weights)
        np.testing.assert_allclose(dalpha, -1, rtol=1e-3)


def test_initializers_regularizers_and_constraints_act():
    layer = BatchNormLeakyReLU(
        alpha=0.5,
        trainable_alpha=True,
        alpha_regularizer="l2",
        alpha_constraint="non_neg",
        beta_initializer=tf.keras.initializers.Constant(0.5),
        gamma_initializer=tf.keras.initializers.Constant(2.0),
        moving_mean_initializer="ones",
        moving_variance_initializer=tf.keras.initializers.Constant(4.0),
        beta_regularizer=tf.keras.regularizers.L1(1.0),
        gamma_regularizer=lambda weight: 100 * tf.reduce_sum(weight),
        beta_constraint=lambda weight: 0 * weight,
        gamma_constraint="non_neg",
    )
    model = tf.keras.Sequential([tf.keras.Input((2,)), layer])
    for weight, value in zip(layer.get_weights(), [2, 0.5, 1, 4, 0.5], strict=True):
        np.testing.assert_array_equal(weight, np.full_like(weight, value))
    assert float(sum(model.losses)) == pytest.approx(1 + 400 + 0.01 * 0.25)
    model.compile(tf.keras.optimizers.SGD(1.0), "mse")
    model.fit(np.array([[1.0, 2], [3, 5]]), np.ones((2, 2)), verbose=0)
    np.testing.assert_array_equal(layer.get_weights()[:2], np.zeros((2, 2)))


def net(fused):
    layer = BatchNormLeakyReLU(alpha=0.2, momentum=0.75)
    pair = [layers.BatchNormalization(momentum=0.75), LeakyReLU(0.2)]
    first, last = layers.Conv2D(4, 3, use_bias=False), layers.Dense(3)
    parts = [first, *([layer] if fused else pair), layers.GlobalAveragePooling2D(), last]
    return tf.keras.Sequential([tf.keras.Input((8, 8, 1)), *parts])


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"jit_compile": True}, marks=pytest.mark.slow)], ids=str
)
def test_training_follows_that_of_stock_layers(options, rng):
    x = rng.normal(size=(64, 8, 8, 1))
    target = np.abs(x).mean((1, 2)) * [1.0, -1.0, 2.0]
    histories = []
    for fused in (True, False):
        tf.keras.utils.set_random_seed(1)
        model = net(fused)
        model.compile(tf.keras.optimizers.SGD(0.2, momentum=0.9), "mse", **options)
        fitted = model.fit(x, target, batch_size=16, epochs=5, shuffle=False, verbose=0)
        histories.append([*fitted.history["loss"], model.evaluate(x, target, verbose=0)])
    assert histories[0][4] < 0.5 * histories[0][0]
    np.testing.assert_allclose(*histories, rtol=1e-3)


@each_case
def test_config_survives_json(case):
    layer = case.make(name="here", gamma_regularizer="l2", beta_constraint="non_neg")
    config = layer.get_config()
    again = BatchNormLeakyReLU.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    for name, value in case.arguments.items():
        assert config[name] == value
    assert again.momentum == case.arguments.get("momentum", 0.99)
    again.build((None, *case.input_shape))
    assert len(again.weights) == len(case.make_and_build().weights)


def test_options_of_a_stock_layer_are_taken():
    config = layers.BatchNormalization(axis=1, momentum=0.5, epsilon=0.25, scale=False).get_config()
    layer = BatchNormLeakyReLU(alpha=0.25, **config)
    assert (layer.axis, layer.momentum, layer.epsilon, layer.scale) == (1, 0.5, 0.25, False)
    assert layer.name == config["name"]


def test_fixed_number_may_be_set():
    layer = BatchNormLeakyReLU(alpha=0.5, center=False, scale=False, epsilon=0.0)
    assert layer.weights == []
    assert (layer.alpha, type(layer.alpha)) == (0.5, float)
    layer.alpha = 0.25
    assert float(layer(tf.constant([[-2.0]]))[0, 0]) == -0.5
    assert BatchNormLeakyReLU.from_config(layer.get_config()).alpha == 0.25


def test_is_a_batch_normalization_for_those_who_ask():
    """As in `if isinstance(layer, BatchNormalization): layer.trainable = False`."""
    layer = BatchNormLeakyReLU()
    assert isinstance(layer, tf.keras.layers.BatchNormalization)
    assert not any(key.startswith("renorm") for key in layer.get_config())
