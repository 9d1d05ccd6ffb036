"""`convert(..., fuse_batch_norm=True)`, and `to_keras` and `freeze` of what it returns."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, convert, freeze, to_keras
from tf_leaky.keras_compat import LEGACY

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


def moved(model, rng):
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def images(rng, *shape):
    return rng.normal(size=(3, *shape, 4, 4, 2)).astype("float32")


def assert_same(one, other, x, modes=(False, True)):
    for training in modes:
        expected = other(x, training=training)
        np.testing.assert_allclose(one(x, training=training), expected, rtol=1e-4, atol=1e-5)


def fused_and_two(model, **slopes):
    return (convert(model, alpha=0.1, fuse_batch_norm=fuse, **slopes) for fuse in (True, False))


@pytest.mark.parametrize("make", [residual, in_a_row])
@pytest.mark.parametrize(
    "slopes", [{}, {"trainable_alpha": True}, {"trainable_alpha": True, "axis": -1}], ids=str
)
def test_fused_models_compute_what_two_layers_do_and_split_again(make, slopes, rng):
    fused, two = fused_and_two(moved(make(), rng), **slopes)
    kinds = [type(layer) for layer in fused.layers]
    assert kinds.count(BatchNormLeakyReLU) == (2 if make is residual else 1)
    x = images(rng)
    assert_same(fused, two, x)
    for back in (to_keras(fused), freeze(fused)):
        assert not any(type(layer) is BatchNormLeakyReLU for layer in back.layers)
        assert_same(back, fused, x, modes=[False])


@tf.keras.utils.register_keras_serializable(package="fusing")
class Block(layers.Layer):
    """As users write them: its parts are attributes, which its `build` builds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(3, 3, padding="same", use_bias=False)
        self.norm, self.act = layers.BatchNormalization(), layers.ReLU()

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build(self.conv.compute_output_shape(shape))
        super().build(shape)

    def call(self, x, training=None):
        return self.act(self.norm(self.conv(x), training=training))


class UsedTwice(Block):
    def call(self, x, training=None):
        y = self.norm(self.conv(x), training=training)
        return self.act(y) + y


class OtherwiseInTraining(Block):
    def call(self, x, training=None):
        y = self.norm(self.conv(x), training=training)
        return self.act(2 * y) if training else self.act(y)


def of_blocks(*kinds):
    return tf.keras.Sequential([tf.keras.Input((4, 4, 2)), *(kind() for kind in kinds)])


@pytest.mark.parametrize("slopes", [{}, {"trainable_alpha": True, "axis": -1}], ids=str)
def test_pairs_within_layers_of_users_are_fused(slopes, rng, tmp_path):
    fused, two = fused_and_two(moved(of_blocks(Block, Block), rng), **slopes)
    x = images(rng)
    assert [type(block.norm) for block in fused.layers] == [BatchNormLeakyReLU] * 2
    assert_same(fused, two, x)
    folded = freeze(fused, fold_batch_norm=True)
    for name, saved in (("fused", fused), ("folded", folded)):
        saved.save(tmp_path / f"{name}.keras")
        loaded = tf.keras.models.load_model(tmp_path / f"{name}.keras", compile=False)
        np.testing.assert_array_equal(loaded(x), saved(x))
    with pytest.warns(UserWarning, match="computes with stock activations"):
        back = to_keras(fused)
    for other in (back, folded):
        assert not any(type(block.norm) is BatchNormLeakyReLU for block in other.layers)
        assert_same(other, fused, x, modes=[False])


@pytest.mark.parametrize("inside", [False, True])
def test_fused_models_keep_the_dtypes_of_their_layers(inside, rng):
    """Also where the global policy is another one, as for a model that was loaded."""
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = of_blocks(Block, Block) if inside else in_a_row()
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    fused, two = fused_and_two(model)
    assert [each.compute_dtype for each in fused.layers] == ["float16"] * len(two.layers)
    x = images(rng)
    assert fused(x).dtype == two(x).dtype == tf.float16
    np.testing.assert_allclose(fused(x), two(x), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", [UsedTwice, OtherwiseInTraining])
def test_pairs_within_layers_are_left_if_the_first_is_used_elsewhere(kind, rng):
    fused, two = fused_and_two(moved(of_blocks(kind, Block), rng))
    assert [type(block.norm) is BatchNormLeakyReLU for block in fused.layers] == [False, True]
    assert_same(fused, two, images(rng))


def test_to_keras_takes_a_prelu_after_a_convolution_with_a_bias_and_a_sum(rng):
    """There TensorFlow may compute LeakyReLU with a slope of 0.2: see docs/upstream.md."""
    x = tf.keras.Input((6, 6, 3))
    normalised = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x))
    y = LeakyReLU(0.1)(layers.Add()([normalised, layers.Conv2D(3, 1)(x)]))
    model = moved(tf.keras.Model(x, LeakyReLU(0.1)(layers.Conv2D(2, 3)(y))), rng)
    images = rng.normal(size=(4, 6, 6, 3)).astype("float32")
    for each in (model, freeze(model, fold_batch_norm=True)):
        back = to_keras(each)
        kinds = [type(layer) for layer in back.layers if "leaky" in layer.name]
        assert kinds == [layers.PReLU, layers.LeakyReLU]
        expected = model(images)  # eagerly, where nothing is fused
        np.testing.assert_allclose(back.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)


def test_pairs_within_wrappers_are_fused(rng):
    """Keras 3 doesn't know the inputs of such a Sequential, as Block has no output shape."""
    model = tf.keras.Sequential(
        [tf.keras.Input((2, 4, 4, 2)), layers.TimeDistributed(Block()), layers.Flatten()]
    )
    x = images(rng, 2)
    model(x)
    fused, two = fused_and_two(moved(model, rng))
    assert type(fused.layers[0].layer.norm) is BatchNormLeakyReLU
    for each in (fused, freeze(fused, fold_batch_norm=True)):
        assert_same(each, two, x, modes=[False])


class Reused(layers.Layer):
    """One activation, a function, is used after two normalisations; another after one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norms = [layers.BatchNormalization(name=f"norm_{i}") for i in range(3)]
        self.activation = tf.keras.activations.get("relu")
        self.act = layers.ReLU()

    def call(self, x, training=None):
        for norm, act in zip(self.norms, (self.activation, self.act, self.act), strict=True):
            x = act(norm(x, training=training))
        return x


def test_normalisations_that_are_not_fused_are_logged_with_the_reason(caplog):
    x = tf.keras.Input((4, 4, 2))
    y = Reused()(x)
    for name, activation in (("plain", layers.ReLU()), ("small", LeakyReLU(1e-4))):
        y = activation(layers.BatchNormalization(name=name)(y))
    y = layers.Flatten(name="flatten")(layers.BatchNormalization(name="last")(y))
    with caplog.at_level("INFO", "tf_leaky"):
        convert(tf.keras.Model(x, y), alpha=0.1, fuse_batch_norm=True)
    assert "plain: fused with" in caplog.text
    alone = "its output isn't used by exactly one activation layer, which nothing else uses"
    for name, why in {
        **{f"norm_{i}": alone for i in range(3)},
        "small": "a slope of its activation is below 0.001",
        "last": "flatten, which takes its output, doesn't become a LeakyReLU",
    }.items():
        assert caplog.text.count(f"convert: {name}: not fused, as {why}") == 1
    assert caplog.text.count("not fused") == 5


NO_PAIRS = {
    "no normalisation": lambda: [layers.Dense(2), LeakyReLU(0.1)],
    "a slope below 1e-3": lambda: [layers.BatchNormalization(), LeakyReLU(1e-4)],
    "slopes along another axis": lambda: [
        layers.BatchNormalization(),
        LeakyReLU(0.1, trainable_alpha=True, axis=1),
    ],
    "one of two is frozen": lambda: [
        layers.BatchNormalization(trainable=False),
        LeakyReLU(0.1, trainable_alpha=True),
    ],
    **(
        {"two axes": lambda: [layers.BatchNormalization(axis=[1, 2]), LeakyReLU(0.1)]}
        if LEGACY
        else {}
    ),
    "two dtypes": lambda: [layers.BatchNormalization(dtype="float64"), LeakyReLU(0.1)],
}


@pytest.mark.parametrize("name", NO_PAIRS)
def test_what_one_layer_can_not_compute_stays_two(name, rng):
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 2)), *NO_PAIRS[name]()])
    with pytest.warns(UserWarning, match="Nothing was fused"):
        new = convert(model, fuse_batch_norm=True)
    assert [type(layer) for layer in new.layers] == [type(layer) for layer in model.layers]
    x = images(rng)
    np.testing.assert_array_equal(new(x), model(x))


def test_frozen_normalisation_is_fused_and_stays_frozen(rng):
    """As in fine-tuning, where the activation after it has nothing to freeze."""
    model = moved(in_a_row(), rng)
    next(x for x in model.layers if type(x) is layers.BatchNormalization).trainable = False
    fused, two = fused_and_two(model)
    (layer,) = (x for x in fused.layers if type(x) is BatchNormLeakyReLU)
    assert not layer.trainable_weights
    assert_same(fused, two, images(rng))
    back = to_keras(fused)
    assert len(back.trainable_weights) == len(model.trainable_weights)


def test_normalisation_whose_output_another_model_returns_is_left():
    """As where a feature extractor shares the layers of a model around it."""
    x = layers.Input((4,))
    normalised = layers.BatchNormalization(name="norm")(layers.Dense(3)(x))
    whole = tf.keras.Model(x, layers.ReLU()(normalised))
    features = tf.keras.Model(x, normalised)
    y = layers.Input((4,))
    model = tf.keras.Model(y, [features(y), whole(y)])
    data = np.random.default_rng(3).normal(size=(5, 4)).astype("float32")
    with pytest.warns(UserWarning, match="Nothing was fused"):
        new = convert(model, alpha=0.1, fuse_batch_norm=True)
    np.testing.assert_array_equal(new(data)[0], model(data)[0])
