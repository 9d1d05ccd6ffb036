"""`convert`, `freeze` and `to_keras` on models as users write them. No law names a model."""

import inspect

import pytest
import zoo
from zoo import kept, looks
from zoo.kept import oracle, sloped, stock
from zoo.table import SLOPE

from tf_leaky import convert, freeze, to_keras

POSSIBLE = [name for name, entry in zoo.MODELS.items() if not entry.refused]
REFUSED = [name for name, entry in zoo.MODELS.items() if entry.refused]
LEFT = [name for name in POSSIBLE if zoo.MODELS[name].left]


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    yield
    kept.forget()


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
        assert ("othing in it needs" in text) == needless
