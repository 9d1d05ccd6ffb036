"""What `freeze`, `to_keras` and Keras's own copies make of converted models of the zoo."""

import numpy as np
import pytest
import tensorflow as tf
import zoo
from zoo import kept, looks
from zoo.kept import oracle, sloped, stock
from zoo.table import LEGACY, SLOPE

from tf_leaky import convert, freeze, to_keras

POSSIBLE = [name for name, entry in zoo.MODELS.items() if not entry.refused]


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    yield
    kept.forget()


@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_table_says_what_alpha_changes(name):
    entry, (model, x) = zoo.MODELS[name], stock(name)
    found, loops = looks.relu_operations(model, x)
    stay, _ = looks.relu_operations(oracle(name), x)
    changed = found - stay
    assert changed >= entry.relus if loops else changed == entry.relus or entry.refused
    pairs = zip(looks.outputs(model, x), looks.outputs(oracle(name), x), strict=True)
    different = max(np.abs(np.float64(one) - np.float64(two)).max() for one, two in pairs)
    assert (different > 3e-3) == bool(entry.relus) or entry.refused


@pytest.mark.parametrize("name", POSSIBLE)
def test_trained_slopes_freeze(name):
    model, x = stock(name)
    entry = zoo.MODELS[name]
    trained = looks.quietly(convert, model, alpha=SLOPE, trainable_alpha=True)
    frozen = looks.quietly(freeze, trained)  # before its first call
    looks.assert_same(trained, x, oracle(name))
    looks.assert_same(frozen, x, oracle(name))
    assert len(trained.trainable_weights) >= len(model.trainable_weights) + bool(entry.relus)
    looks.assert_same_weights(model, frozen, slopes=False)
    assert not any(looks.slope(each) for each in frozen.trainable_weights)


@pytest.mark.parametrize("name", POSSIBLE)
def test_to_keras_leaves_nothing_of_ours(name):
    model, x = stock(name)
    back = looks.quietly(to_keras, sloped(name))
    looks.assert_same(back, x, oracle(name))
    looks.assert_same_weights(model, back)
    assert not looks.ours(back)
    assert looks.users(back) == looks.users(model)


# tf_keras takes the stock LeakyReLU for ours in a model within a TimeDistributed.
BY_NAME = {"a model for each frame"} if LEGACY else set()
CLONED = [
    pytest.param(name, marks=pytest.mark.xfail(strict=True)) if name in BY_NAME else name
    for name in POSSIBLE
]


@pytest.mark.parametrize("name", CLONED)
def test_clones_stay_converted(name):
    model, x = stock(name)
    new = sloped(name)
    copies = {
        "clone_model": tf.keras.models.clone_model,
        "from_config": lambda each: with_classes(type(each).from_config, each.get_config()),
    }
    for how, copy in copies.items():
        kind = possible(copy, model, x)
        if not kind:
            continue  # of the model as it was given, Keras makes no copy either
        clone = looks.quietly(copy, new)
        looks.outputs(clone, x)
        clone.set_weights(new.get_weights())
        looks.assert_same(clone, x, oracle(name))
        assert type(clone) is type(new) or kind is not type(model), how


def with_classes(function, *args):
    """A scope would not reach what is nested: Keras 3 begins a new one for each layer."""
    known = tf.keras.utils.get_custom_objects()
    own = {name: each for name, each in zoo.custom_objects().items() if name not in known}
    known.update(own)
    try:
        return function(*args)
    finally:
        for name in own:
            known.pop(name)


def possible(copy, model, x):
    """The class of a copy of the model as it was given; False if there can be none."""
    try:
        clone = looks.quietly(copy, model)
        looks.outputs(clone, x)
        clone.set_weights(model.get_weights())
        looks.assert_same(clone, x, model)
    except Exception:
        return False
    return type(clone)
