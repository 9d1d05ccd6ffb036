"""Finds what the attributes of a layer contain: sublayers, activations, and their places.

A place is a list of steps from a layer to one of its parts: the name of an attribute, an index for
each list and a key for each dict on the way. `["blocks", 0, "act"]` is `layer.blocks[0].act`.
Keys are strings, ints and tuples of these, which are lists in files.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tf_leaky.keras_compat import replace_attribute
from tf_leaky.ops import leaky_relu

Place = list[Any]  # of str, int and, for keys of dicts, tuples of these
_functions = tf.keras.activations
_ops = getattr(tf.keras, "ops", tf.nn)  # tf_keras has none
BACKEND_RELU = getattr(tf.keras.backend, "relu", tf.nn.relu)  # Keras 3 has it for old code only
RELUS = (tf.nn.relu, _functions.relu, _ops.relu, BACKEND_RELU)
LEAKY_RELUS = (
    *(tf.nn.leaky_relu, getattr(_functions, "leaky_relu", tf.nn.leaky_relu), _ops.leaky_relu),
)


def is_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or functional model, whose layers form a known graph."""
    return isinstance(layer, tf.keras.Sequential | _functional())


def is_stock(layer: Any) -> bool:
    """Whether the class of a layer is one of Keras's own."""
    return type(layer).__module__.partition(".")[0] in ("keras", "tf_keras")


def is_of_keras(kind: type, method: str) -> bool:
    """Whether a method of a class is Keras's, and not its author's."""
    definer = next(each for each in kind.__mro__ if method in vars(each))
    return definer.__module__.partition(".")[0] in ("keras", "tf_keras")


def attributes(layer: Any) -> dict[str, Any]:
    """Returns the attributes of a layer, without those that Keras gives every layer."""
    skipped = _attributes_of_all()
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in skipped and not name.startswith("_self_")
    }


def held(layer: Any) -> Iterator[tuple[Place, Any]]:
    """Yields the values in a layer's attributes, lists, tuples and dicts, with their places."""
    for name, value in attributes(layer).items():
        yield from _leaves([name], value, set())


def sublayers(layer: Any) -> list[tuple[Place, Any]]:
    """Returns the direct sublayers of a layer, each once, in the order of their attributes.

    Those of a graph are its `layers`, with their indices as places.
    """
    if is_graph(layer):
        found: Any = (([i], each) for i, each in enumerate(layer.layers))
    else:
        found = held(layer)
    once: dict[int, tuple[Place, Any]] = {}
    for place, value in found:
        if is_layer(value) and value is not layer:
            once.setdefault(id(value), (place, value))
    return list(once.values())


def layers_within(layer: Any) -> list[Any]:
    """Returns all layers within a layer, at any depth, each once, the outer ones first."""
    found: dict[int, Any] = {}
    waiting = [layer]
    for each in waiting:  # grows
        for _, part in sublayers(each):
            if id(part) not in found and part is not layer:
                found[id(part)] = part
                waiting.append(part)
    return list(found.values())


def is_layer(value: Any) -> bool:
    """Whether a value is a layer. Metrics, which are layers in tf_keras, don't count."""
    kinds = tf.keras.layers.Layer, tf.keras.metrics.Metric
    return isinstance(value, kinds[0]) and not isinstance(value, kinds[1])


def is_activation_function(place: Place, value: Any) -> bool:
    """Whether a value at a place is an activation function: a known one, or one by its name.

    The attribute's name ends in `activation`, as in Keras's own layers.
    """
    if is_layer(value) or not callable(value):
        return False
    known = any(value is each for each in (*RELUS, *LEAKY_RELUS, leaky_relu))
    return known or last_name(place).endswith("activation")


def last_name(place: Place) -> str:
    """The name of the attribute at a place, or of the list or dict in it."""
    return next(str(step) for step in reversed(place) if isinstance(step, str))


def at(layer: Any, place: Place) -> Any:
    """Returns what is at a place.

    Raises:
        LookupError: If nothing is there (yet).
    """
    try:
        return functools.reduce(_step, place, layer)
    except (AttributeError, TypeError) as error:
        raise LookupError(shown_place(place)) from error


def put(layer: Any, place: Place, value: Any) -> None:
    """Replaces the value at a place, which Keras then no longer tracks.

    Lists and dicts on the way are copied: TensorFlow can't save one with a replaced item.

    Raises:
        LookupError: If nothing is there.
    """
    before, after = at(layer, place), value
    *way, last = place
    while not isinstance(holder := at(layer, way), tf.keras.layers.Layer):
        value = _with(holder, last, value)
        *way, last = way
    replace_attribute(holder, last, value, before, after)


def shown_place(place: Place) -> str:
    """Returns a place as Python code: `blocks[0].act`."""
    text = ""
    for i, step in enumerate(place):
        attribute = isinstance(step, str) and step.isidentifier()
        text += f".{step}" if attribute and i else step if attribute else f"[{step!r}]"
    return text


def as_lists(place: Any) -> Any:
    """Returns a place with lists in the place of tuples, as JSON has it."""
    return [*map(as_lists, place)] if isinstance(place, list | tuple) else place


def as_tuples(place: Any) -> Any:
    """Returns a place with tuples in the place of lists, as a key of a dict."""
    return tuple(map(as_tuples, place)) if isinstance(place, list | tuple) else place


def _leaves(place: Place, value: Any, seen: set[int]) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, Mapping | list | tuple):
        if id(value) in seen:
            return
        pairs: Any = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in list(pairs):
            if _is_key(key):
                yield from _leaves([*place, key], each, seen | {id(value)})
    else:
        yield place, value


def _is_key(key: Any) -> bool:
    """Whether a place can name a key of a dict."""
    return all(map(_is_key, key)) if isinstance(key, tuple) else isinstance(key, str | int)


def _with(holder: Any, key: Any, value: Any) -> Any:
    """Returns a copy of a list, tuple or dict with another value at a key or index."""
    if isinstance(holder, Mapping):
        new = {**holder, key: value}
        return OrderedDict(new) if isinstance(holder, OrderedDict) else new
    items = [*holder[:key], value, *holder[key + 1 :]]
    if isinstance(holder, tuple):
        # TensorFlow's wrapper of a named tuple has another constructor.
        return holder._make(items) if hasattr(holder, "_make") else tuple(items)
    return items


def _step(holder: Any, step: Any) -> Any:
    if isinstance(holder, Mapping | list | tuple):
        return holder[step]
    return getattr(holder, step)


@functools.cache
def _functional() -> type:
    """Returns the class of functional models, which has no public name in Keras."""
    x = tf.keras.Input((1,), name="x")  # named, so that numbers in the user's names don't change
    return type(tf.keras.Model(x, x, name="identity"))


@functools.cache
def _attributes_of_all() -> set[str]:
    """Returns the names of the attributes that Keras gives every layer and every model."""

    class Bare(tf.keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    bare = Bare(name="bare")
    bare.compile("sgd", "mse")
    bare(tf.zeros((1, 1)))
    of_training = {"history", "optimizer", "stop_training", "loss"}
    return {*vars(tf.keras.layers.Layer()), *vars(bare), *of_training}


def variables_of(layer: Any) -> list[Any]:
    """Returns the variables of a layer, each once; none of a model that isn't built.

    What tf_keras lists among them for a vocabulary has no shape, and is copied as an asset.
    """
    if isinstance(layer, tf.keras.Model) and not layer.built:
        return []
    return list({id(each): each for each in layer.variables if hasattr(each, "shape")}.values())
