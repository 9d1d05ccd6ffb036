"""Compiled models of the zoo: settings go over as they are, and training goes on where it was."""

import numpy as np
import pytest
import tensorflow as tf
import zoo
from zoo import looks
from zoo.compiled import targets
from zoo.table import SLOPE

from tf_leaky import convert, freeze, to_keras

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
    assert_goes_on_as(new, model, x)


@pytest.mark.parametrize("name", COMPILED)
def test_losses_go_over_by_reference(name):
    model, _ = looks.quietly(zoo.built, name)
    new = looks.quietly(convert, model, alpha=SLOPE)
    mine, others = (tf.nest.flatten(each.loss) for each in (new, model))
    for one, two in zip(mine, others, strict=True):
        assert one is two or one == two
    assert not {id(each) for each in new.metrics} & {id(each) for each in model.metrics}
