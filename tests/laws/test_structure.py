"""What a layer holds, and where: by attributes, lists, tuples and dicts."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky.structure import at, layers_within, put, shown_place, sublayers

layers = tf.keras.layers


class Inner(layers.Layer):
    def __init__(self):
        super().__init__()
        self._act = layers.ReLU()

    def call(self, x):
        return self._act(x)


class Outer(layers.Layer):
    """Holds layers in every way."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(3)
        self.steps = [layers.ReLU(), Inner()]
        self.named = {"a": layers.PReLU(), "b": [layers.Dense(2)]}
        self.fixed = (layers.Dropout(0.1), layers.ReLU())
        self.again = self.first
        self.nonlinearity = tf.nn.relu
        self.units = 3

    def call(self, x):
        x = self.steps[1](self.steps[0](self.first(x)))
        x = self.named["b"][0](self.named["a"](x))
        return self.nonlinearity(self.fixed[1](self.fixed[0](x)) - 0.1)


def test_sublayers_are_found_once_with_their_places():
    found = {shown_place(place): type(layer).__name__ for place, layer in sublayers(Outer())}
    assert found == {
        "first": "Dense",
        "steps[0]": "ReLU",
        "steps[1]": "Inner",
        "named.a": "PReLU",
        "named.b[0]": "Dense",
        "fixed[0]": "Dropout",
        "fixed[1]": "ReLU",
    }


def test_the_attributes_of_every_layer_are_left_out():
    model = tf.keras.Sequential([tf.keras.Input((2,)), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    assert [each.name for each in layers_within(model)] == [model.layers[0].name]


PLACES = (["first"], ["steps", 0], ["named", "b", 0], ["fixed", 1], ["steps", 1, "_act"])


@pytest.mark.parametrize("place", PLACES, ids=shown_place)
def test_what_is_put_in_a_place_is_tracked_in_the_place_of_the_other(place):
    outer, new = Outer(), layers.Dense(3)
    if place == ["first"]:
        del outer.again  # which holds it too
    old = at(outer, place)
    put(outer, place, new)
    assert at(outer, place) is new
    outer(tf.zeros((2, 3)))
    tracked = list(outer._flatten_layers())
    assert any(each is new for each in tracked)
    assert all(each is not old for each in tracked)
    assert any(variable is new.kernel for variable in outer.weights)


@pytest.mark.parametrize("place", [["steps", 0], ["named", "a"], ["nonlinearity"]], ids=shown_place)
@pytest.mark.parametrize("built", [False, True])
def test_weights_keep_their_order_where_a_part_is_replaced(place, built, tmp_path):
    """Also in a layer that is built, which Keras 3 closes; and TensorFlow saves it."""
    outer, new, x = Outer(), layers.PReLU(name="new"), tf.zeros((2, 3))
    if built:
        outer(x)
    put(outer, place, new)
    outer(x)
    assert len(outer.weights) == 5 + (place[0] != "named")
    position = [each is new.alpha for each in outer.weights].index(True)
    assert position == {"steps": 2, "named": 2, "nonlinearity": 5}[place[0]]
    tf.train.Checkpoint(outer).write(str(tmp_path / "checkpoint"))


def test_a_place_that_is_not_there_is_a_lookup_error():
    for place in (["missing"], ["steps", 7], ["named", "z"], ["units", "a"]):
        with pytest.raises(LookupError):
            at(Outer(), place)
        with pytest.raises(LookupError):
            put(Outer(), place, layers.ReLU())
