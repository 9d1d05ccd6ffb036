"""What `convert` without arguments, `freeze` and `to_keras` make of models of the zoo."""

import numpy as np
import pytest
import zoo
from zoo import kept, looks
from zoo.kept import oracle, sloped, stock
from zoo.table import SLOPE

from tf_leaky import convert, freeze, to_keras

POSSIBLE = [name for name, entry in zoo.MODELS.items() if not entry.refused]


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    yield
    kept.forget()


@pytest.mark.parametrize("name", POSSIBLE)
def test_the_table_says_whether_a_slope_changes_what_a_model_computes(name):
    """Else laws that compare with the oracle would hold of what was never converted."""
    model, x = stock(name)
    pairs = zip(looks.outputs(model, x), looks.outputs(oracle(name), x), strict=True)
    different = max(np.abs(np.float64(one) - np.float64(two)).max() for one, two in pairs)
    assert (different > 3e-3) == bool(zoo.MODELS[name].relus)


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
