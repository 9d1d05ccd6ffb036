"""Weights in the attributes of functional models: only what no output depends on is left out."""

import warnings

import pytest
import tensorflow as tf
from zoo import looks
from zoo.functional_classes import around_extractor, extractor
from zoo.table import LEGACY, SLOPE, normal, relu, stirred

from tf_leaky import convert, freeze, to_keras

layers = tf.keras.layers
MAKERS = {"a model": extractor, "a layer of a model": around_extractor}


def made(maker):
    tf.keras.utils.set_random_seed(1)
    model = maker()
    stirred(model)
    return model


def with_warning(change, model, **arguments):
    """The copy, and the one warning that says what it lacks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = change(model, **arguments)
    (said,) = [str(each.message) for each in caught if "lacks 9 of its w" in str(each.message)]
    return new, said


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_copies_are_right_and_name_what_they_lack(maker, tmp_path):
    model, x = made(maker), normal(5, 6)
    with relu.sloped():
        oracle = made(maker)
    oracle.set_weights(model.get_weights())
    new, said = with_warning(convert, model, alpha=SLOPE, strict=True)
    assert all(name in said for name in ("'last'", "'norm'", "'extra'", "scale"))
    assert not any(name in said for name in ("'first'", "'top'", "'head'", "encoder"))
    looks.assert_same(new, x, oracle)
    names = ["first", "top"] + ["head"] * (maker is around_extractor)
    kept = [w for name in names for w in found(model, name).get_weights()]
    for before, after in zip(kept, new.get_weights(), strict=True):
        assert looks.identical(before, after)
    for change in (freeze, to_keras):
        looks.assert_same(with_warning(change, model)[0], x, model)
        looks.assert_same(looks.quietly(change, new), x, oracle)
    new.save(tmp_path / "new.keras")
    looks.assert_same(tf.keras.models.load_model(tmp_path / "new.keras"), x, oracle)


def found(model, name):
    return next(part for part in looks.parts(model) if part.name == name)


def test_attributes_of_a_plain_model_are_named():
    x = tf.keras.Input((6,))
    model = tf.keras.Model(x, layers.ReLU()(layers.Dense(3)(x)))
    model.head = layers.Dense(2, name="head")
    model.head.build((None, 3))
    with pytest.warns(UserWarning, match="lacks 2 of its weights, .* those of 'head'"):
        new = convert(model, alpha=SLOPE)
    assert len(new.weights) == 2


class Reads(tf.keras.Model):
    """Reads a weight in its graph that no layer of the graph has."""

    def __init__(self):
        x = tf.keras.Input((6,))
        table = layers.Embedding(6, 3, name="table")
        table.build(None)
        weight = table.embeddings
        super().__init__(x, layers.ReLU()(tf.keras.ops.matmul(x, weight)))
        self.table = table


SHARED = {}


class Hides(layers.Layer):
    """Uses a layer that it doesn't have."""

    def call(self, x):
        return SHARED["dense"](x)


class InTraining(layers.Layer):
    """The same, in training only."""

    def call(self, x, training=False):
        return SHARED["dense"](x) if training else x


class Untraceable(layers.Layer):
    def call(self, x, training=False):
        if training:
            raise RuntimeError
        return x


class Knows(tf.keras.Model):
    """Has the layer that another one uses in an attribute."""

    def __init__(self, user):
        x = tf.keras.Input((6,))
        SHARED["dense"] = layers.Dense(6)
        SHARED["dense"].build((None, 6))
        super().__init__(x, layers.ReLU()(user()(x)))
        self.known = SHARED["dense"]


@pytest.mark.parametrize("user", [Hides, InTraining, Untraceable] + [Reads] * (not LEGACY))
def test_weights_that_are_used_are_never_left_out(user):
    model = Reads() if user is Reads else Knows(user)
    with pytest.raises(ValueError, match="expected the copy to have every weight"):
        looks.quietly(convert, model, alpha=SLOPE)


class Alone(layers.Layer):
    """Its constructor makes other layers than it has."""

    def __init__(self, more=False, **kwargs):
        super().__init__(**kwargs)
        if more:
            self.more = layers.Dense(2)
            self.more.build((None, 6))
        self.act = layers.ReLU()

    def call(self, x):
        return self.act(x)

    def get_config(self):
        return {"name": self.name}


def test_layers_within_a_users_layer_are_never_left_out():
    model = tf.keras.Sequential([tf.keras.Input((6,)), Alone(more=True)])
    with pytest.raises(ValueError, match="expected the copy to have every layer with weights"):
        convert(model, alpha=SLOPE)
