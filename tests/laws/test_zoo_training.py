"""Compiled models of the zoo: settings go over as they are, and training goes on where it was."""

import numpy as np
import pytest
import tensorflow as tf
import zoo
from zoo import looks
from zoo.compiled import targets
from zoo.table import normal

from tf_leaky import convert, freeze, to_keras
from tf_leaky.keras_compat import LEGACY

COMPILED = [name for name, entry in zoo.MODELS.items() if entry.compiled]


def goes_on(model, x, y):
    """What a model reports before and while it is trained further, and its weights thereafter."""
    reports = [looks.quietly(model.test_on_batch, x, y, return_dict=True)]
    reports += [looks.quietly(model.train_on_batch, x, y, return_dict=True) for _ in range(2)]
    return reports, model.get_weights()


def assert_goes_on_as(model, other, x):
    y = targets(other, x)
    (reports, weights), (expected, others) = goes_on(model, x, y), goes_on(other, x, y)
    for one, two in zip(expected, reports, strict=True):
        assert sorted(one) == sorted(two)
        for key in one:
            np.testing.assert_allclose(two[key], one[key], rtol=1e-5, atol=1e-6, err_msg=key)
    for one, two in zip(others, weights, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


def same_settings(model, other):
    assert type(model.optimizer) is type(other.optimizer)
    assert model.optimizer is not other.optimizer
    assert model.optimizer.get_config() == other.optimizer.get_config()
    mine, others = model.optimizer.variables, other.optimizer.variables
    mine, others = (each() if callable(each) else each for each in (mine, others))
    for one, two in zip(mine, others, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not {id(each) for each in mine} & {id(each) for each in others}
    assert model.run_eagerly == other.run_eagerly


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("how", ["convert", "to_keras", "freeze"])
def test_training_goes_on(name, how):
    model, x = looks.quietly(zoo.built, name)
    changes = {
        "convert": lambda: convert(model),
        "to_keras": lambda: to_keras(convert(model)),
        "freeze": lambda: freeze(convert(model)),
    }
    new = looks.quietly(changes[how])
    same_settings(new, model)
    for one, two in zip(*(tf.nest.flatten(each.loss) for each in (new, model)), strict=True):
        assert one is two or one == two  # functions go over as they are
    assert not {id(each) for each in new.metrics} & {id(each) for each in model.metrics}
    assert_goes_on_as(new, model, x)


def adversarial(optimizer, steps, activation=tf.keras.layers.PReLU):
    """A GAN that was trained: the discriminator within it is compiled, too, and frozen there."""
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    generator = tf.keras.Sequential([tf.keras.Input((6,)), layers.Dense(6), activation()])
    discriminator = tf.keras.Sequential(
        [tf.keras.Input((6,)), layers.Dense(8), activation(), layers.Dense(1)]
    )
    discriminator.compile(optimizer(0.01), "mse", metrics=["mae"])
    discriminator.trainable = False
    model = tf.keras.Sequential([tf.keras.Input((6,)), generator, discriminator])
    model.compile(optimizer(0.01), "mse")
    trained_in_turns(model, steps)
    return model


def trained_in_turns(model, steps):
    """Trains the discriminator and the generator; returns what both report."""
    x, discriminator = normal(16, 6), model.layers[1]
    reports = []
    for _ in range(steps):
        discriminator.trainable = True
        reports.append(discriminator.train_on_batch(x, np.ones((16, 1))))
        discriminator.trainable = False
        reports.append(model.train_on_batch(x, np.zeros((16, 1))))
    return np.concatenate([np.ravel(each) for each in [0.0, *reports]])


OPTIMIZERS = [tf.keras.optimizers.Adam]
if LEGACY:
    OPTIMIZERS.append(tf.keras.optimizers.legacy.Adam)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: each.__module__)
@pytest.mark.parametrize(("steps", "frozen"), [(0, False), (2, True)])
def test_compiled_models_within_a_model_train_on(optimizer, steps, frozen):
    model = adversarial(optimizer, steps)
    model.layers[1].trainable = not frozen
    new = convert(model)
    assert new.layers[1].trainable is not frozen
    for one, two in zip((new, new.layers[1]), (model, model.layers[1]), strict=True):
        same_settings(one, two)
    expected = trained_in_turns(model, 2)
    np.testing.assert_allclose(trained_in_turns(new, 2), expected, rtol=1e-5, atol=1e-6)


def test_frozen_model_within_a_model_trains_slopes_that_it_did_not_have():
    model = adversarial(tf.keras.optimizers.Adam, 2, tf.keras.layers.ReLU)
    new = convert(model, alpha=0.1, trainable_alpha=True)
    trained_in_turns(new, 1)
    assert float(new.layers[1].layers[1].alpha) != pytest.approx(0.1)
