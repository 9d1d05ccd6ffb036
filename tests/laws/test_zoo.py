"""`convert`, `freeze` and `to_keras` on models as users write them. No law names a model."""

import functools
import inspect

import numpy as np
import pytest
import tensorflow as tf
import zoo
from zoo import looks
from zoo.table import SLOPE

from tf_leaky import convert, freeze, to_keras

POSSIBLE = [name for name, entry in zoo.MODELS.items() if not entry.refused]
REFUSED = [name for name, entry in zoo.MODELS.items() if entry.refused]
REACHED = [name for name in POSSIBLE if not zoo.MODELS[name].left]
LEFT = [name for name in POSSIBLE if zoo.MODELS[name].left]


@functools.cache
def stock(name):
    return looks.quietly(zoo.built, name)


@functools.cache
def oracle(name):
    """The same code with the slope where ReLU was, and the same weights."""
    model, x = looks.quietly(zoo.built, name, oracle=True)
    looks.outputs(model, x)  # makes the weights of layers that are activations of others
    model.set_weights(stock(name)[0].get_weights())
    return model


@functools.cache
def sloped(name):
    """Converted with the slope; an error where a ReLU stays that should have been changed."""
    strict = not zoo.MODELS[name].left
    return looks.quietly(convert, stock(name)[0], alpha=SLOPE, strict=strict)


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    """Keeps the models for the laws of this file only."""
    yield
    for kept in (stock, oracle, sloped):
        kept.cache_clear()
    tf.keras.backend.clear_session()


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
def test_convert_keeps_outputs_weights_and_settings(name):
    model, x = looks.quietly(zoo.built, name)
    before = looks.arrays(model)
    new = looks.quietly(convert, model)  # before its first call, as after loading a file
    for one, two in zip(before, looks.arrays(model), strict=True):
        np.testing.assert_array_equal(one, two)
    assert new is not model
    looks.assert_same(new, x, model)
    looks.assert_same_weights(model, new)
    for attribute in ("trainable_weights", "losses"):
        if hasattr(model, attribute):
            assert len(getattr(new, attribute)) == len(getattr(model, attribute)), attribute
    mine = {id(each) for each in looks.variables(model)}
    assert not any(id(each) in mine for each in looks.variables(new))


@pytest.mark.parametrize("name", POSSIBLE)
def test_alpha_takes_the_place_of_every_relu(name):
    model, x = stock(name)
    new = sloped(name)
    looks.assert_same(new, x, oracle(name))
    looks.assert_same_weights(model, new)
    entry = zoo.MODELS[name]
    stay, loops = looks.relu_operations(new, x)
    assert stay == entry.stays or (loops and stay >= entry.stays)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_is_named(name):
    model, _ = stock(name)
    with pytest.warns(UserWarning, match="ReLU") as warned:
        convert(model, alpha=SLOPE)
    text = "\n".join(str(each.message) for each in warned)
    with pytest.raises(ValueError, match="ReLU") as error:
        convert(model, alpha=SLOPE, strict=True)
    for left in zoo.MODELS[name].left:
        assert left in text
        assert left in str(error.value)


@pytest.mark.parametrize("name", POSSIBLE)
def test_trained_slopes_freeze(name):
    model, x = stock(name)
    entry = zoo.MODELS[name]
    trained = looks.quietly(convert, model, alpha=SLOPE, trainable_alpha=True)
    frozen = looks.quietly(freeze, trained)  # before its first call
    looks.assert_same(trained, x, oracle(name))
    looks.assert_same(frozen, x, oracle(name))
    assert len(trained.trainable_weights) >= len(model.trainable_weights) + bool(entry.relus)
    looks.assert_same_weights(model, frozen, without=entry.slopes)


@pytest.mark.parametrize("name", POSSIBLE)
def test_to_keras_leaves_nothing_of_ours(name):
    model, x = stock(name)
    back = looks.quietly(to_keras, sloped(name))
    looks.assert_same(back, x, oracle(name))
    looks.assert_same_weights(model, back)
    assert not looks.ours(back)
    assert looks.users(back) == looks.users(model)


@pytest.mark.parametrize("name", POSSIBLE)
def test_clones_stay_converted(name):
    model, x = stock(name)
    new = sloped(name)
    copies = {
        "clone_model": tf.keras.models.clone_model,
        "from_config": lambda each: type(each).from_config(each.get_config()),
    }
    with tf.keras.utils.custom_object_scope(zoo.custom_objects()):
        for how, copy in copies.items():
            if not possible(copy, model, x):
                continue  # of the model as it was given, Keras makes no copy either
            clone = looks.quietly(copy, new)
            looks.outputs(clone, x)
            clone.set_weights(new.get_weights())
            looks.assert_same(clone, x, oracle(name))
            assert type(clone) is type(new), how


def possible(copy, model, x):
    try:
        clone = looks.quietly(copy, model)
        looks.outputs(clone, x)
        clone.set_weights(model.get_weights())
        looks.assert_same(clone, x, model)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("change", [convert, freeze, to_keras], ids=lambda f: f.__name__)
def test_a_refusal_names_what_to_edit(name, change):
    model, _ = stock(name)
    kwargs = {"alpha": SLOPE} if "alpha" in inspect.signature(change).parameters else {}
    with pytest.raises((ValueError, TypeError)) as error:
        looks.quietly(change, model, **kwargs)
    text = str(error.value)
    for edit in zoo.MODELS[name].refused:
        assert edit in text
    if change is convert:
        needless = looks.relu_operations(*stock(name))[0] == 0
        assert ("Nothing in it needs" in text) == needless
