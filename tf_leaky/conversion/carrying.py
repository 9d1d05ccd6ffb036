"""Saves and loads what was replaced within layers of the user's own classes.

A layer such as

    class Block(tf.keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.relu = tf.keras.layers.ReLU()

creates its own ReLU, which isn't in its config. So the replacement isn't either, and a file of the
layer would load with ReLU. `with_replaced` makes a layer of a subclass of the user's class, which
has the same name and is registered as `tf_leaky>Converted`. Its config contains that of the user's
layer, and what to replace in it, place by place.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import tensorflow as tf

from tf_leaky.checks import shown, warn
from tf_leaky.conversion.rebuilding import with_shared
from tf_leaky.structure import (
    Place,
    as_lists,
    as_tuples,
    at,
    is_graph,
    is_layer,
    is_of_keras,
    put,
    shown_place,
)

_NAME = "tf_leaky>Converted"


class Converted:
    """The base of the classes of converted layers: adds replacements to the user's config.

    In a file:

        {"name": ..., "layer": {the user's layer, serialised by Keras},
         "replaced": [{"at": ["blocks", 0, "act"], "by": {a layer or function, serialised}},
                      {"at": ["act"], "as_at": {a place above, whose layer this is}},
                      {"at": ["net"], "by": {a model, serialised},
                       "shared": [[[1], {a place above, whose layer is `net.layers[1]`}]]}, ...]}
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the user's layer, and its present replacements."""
        own = user_class(self)
        first: dict[int, Any] = {}  # places by id, with what is there, so that no id is used again
        replaced = []
        for place in places_of(self):
            found = at(self, place)
            if id(found) in first:
                replaced.append({"at": as_lists(place), "as_at": as_lists(first[id(found)][0])})
                continue
            first[id(found)] = place, found
            replaced.append({"at": as_lists(place), "by": serialized(found)})
            shared = []
            for steps, part in parts_of_graph(found):
                if id(part) in first:
                    shared.append([steps, as_lists(first[id(part)][0])])
                first.setdefault(id(part), ([*place, *steps], part))
            if shared:
                # By Keras's own ids, a layer that has been called in a graph would be in another.
                by = _without("shared_object_id", replaced[-1]["by"])
                replaced[-1] |= {"by": by, "shared": shared}
        return {
            "name": self.name,  # type: ignore[attr-defined]
            "layer": {
                "module": own.__module__,
                "class_name": own.__name__,
                "config": config_of(self),
                "registered_name": registered_name(own),
            },
            "replaced": replaced,
        }

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the layer for the shapes in a config. A file has lists in place of tuples."""
        shapes = {key: _shapes(x) for key, x in config.items()}
        super().build_from_config(shapes)  # type: ignore[misc]

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Returns a layer of the user's class that a config names.

        Raises:
            ValueError: If the class isn't known, or a place is said to have the layer of one that
                isn't above it.
        """
        with known(custom_objects or {}):
            own = _class_of(config["layer"])
            replaced: dict[Any, Any] = {}
            for each in config["replaced"]:
                replaced[as_tuples(each["at"])] = _replacement(each, replaced)
            with known({own.__name__: own}):
                return with_replaced(own, config["layer"]["config"], replaced)


def _replacement(item: dict[str, Any], above: dict[Any, Any]) -> Any:
    """Returns what an item of "replaced" puts at its place; `above` has that of earlier places."""

    def there(place: Any) -> Any:
        way = as_tuples(place)
        known = next(n for n in range(len(way), 0, -1) if way[:n] in above)
        return functools.reduce(_layer_of_graph, way[known:], above[way[:known]])

    new = deserialized(item["by"]) if "by" in item else None
    try:
        if new is None:
            return there(item.get("as_at"))
        shared = {
            id(functools.reduce(_layer_of_graph, steps, new)): there(place)
            for steps, place in item.get("shared", ())
        }
    except (AttributeError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise ValueError(
            "Converted: expected shared to name layers of a graph, and as_at to be one of the "
            f"places above it. Received: as_at={shown(item.get('as_at'))}, "
            f"shared={shown(item.get('shared'))} at {shown(item['at'])}, below {shown([*above])}. "
            "Save the converted model again."
        ) from error
    return with_shared(new, shared)


def _without(key: str, value: Any) -> Any:
    """Returns a config without a key, at any depth."""
    if isinstance(value, dict):
        return {name: _without(key, each) for name, each in value.items() if name != key}
    return [_without(key, each) for each in value] if isinstance(value, list) else value


def _layer_of_graph(graph: Any, index: int) -> Any:
    return graph.layers[index]


def parts_of_graph(layer: Any) -> Iterator[tuple[Place, Any]]:
    """Yields the layers of a graph and of those within it, but for inputs, with their indices."""
    for i, part in enumerate(layer.layers if is_graph(layer) else ()):
        if not isinstance(part, tf.keras.layers.InputLayer):
            yield [i], part
            yield from (([i, *steps], inner) for steps, inner in parts_of_graph(part))


def _shapes(value: Any) -> Any:
    """Returns a shape as a tuple, and a list of shapes, for several inputs, as a list of tuples."""
    if not isinstance(value, list):
        return value
    one = all(each is None or isinstance(each, int) for each in value)
    return tuple(value) if one else list(map(_shapes, value))


tf.keras.utils.get_custom_objects()[_NAME] = Converted
# The users' classes that this process has converted, for `clone_model`, which passes no names.
_SEEN: dict[tuple[str, str], type] = {}


def with_replaced(own: type, config: dict[str, Any], replaced: dict[Any, Any]) -> Any:
    """Returns a layer of the user's class `own`, made of its config, with parts replaced.

    `replaced` has the replacements by place (as a tuple).

    Raises:
        ValueError: If `from_config` makes a layer of another class, or a place can't be reached.
    """
    for late in (False, True):
        kind = _converted(own, late)
        layer = made(own, kind, config)
        if type(layer) is not kind:
            raise ValueError(
                f"Converted: expected from_config of {own.__qualname__} to return a layer of the "
                f"class that it is called on. Received: {shown(layer)}. Return cls(...) in it."
            )
        layer._tf_leaky = _Carried(config, replaced, dict(replaced))
        _place(layer)
        if not layer._tf_leaky.waiting:
            break
    return layer


@dataclass
class _Carried:
    """What a converted layer was made of. In a dict, Keras would track it."""

    config: dict[str, Any]
    replaced: dict[Any, Any]
    waiting: dict[Any, Any]
    """Those of `replaced` whose places don't exist yet."""


def made(own: Any, kind: Any, config: dict[str, Any]) -> Any:
    """Returns a layer of the class `kind`, made of a config with `from_config` of `own`.

    Keras's own `from_config` fails for a constructor without `**kwargs`, which many users write.
    So arguments of every layer that it doesn't take are left out here.
    """
    if is_of_keras(own, "from_config"):
        parameters = inspect.signature(own.__init__).parameters
        if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            always = {"name", "trainable", "dtype"} - parameters.keys()
            config = {key: value for key, value in config.items() if key not in always}
    maker: Any = own if kind is own else super(Converted, kind)
    return maker.from_config(_containers_copied(config))  # as it may remove items


def _containers_copied(value: Any) -> Any:
    """Returns a config with new dicts and lists: Keras empties those of models within it."""
    if type(value) is dict:
        return {key: _containers_copied(each) for key, each in value.items()}
    return [_containers_copied(each) for each in value] if type(value) is list else value


@contextlib.contextmanager
def known(classes: dict[str, type]) -> Iterator[None]:
    """Has Keras find classes by name, in addition to those that it finds already.

    In Keras 3, a `custom_object_scope` hides the classes of an outer one.
    """
    registered = tf.keras.utils.get_custom_objects()
    new = {
        name: kind
        for name, kind in classes.items()
        if tf.keras.utils.get_registered_object(name) is None
    }
    registered.update(new)
    try:
        yield
    finally:
        for name in new:
            registered.pop(name, None)


def without_carrying(layer: Any, subject: str) -> None:
    """Gives a converted layer the user's class; warns of what its file doesn't keep."""
    places = places_of(layer)
    own = layer.__class__ = user_class(layer)
    del layer._tf_leaky
    try:
        again = made(own, own, layer.get_config())
        lost = [place for place in places if not alike(at(again, place), at(layer, place))]
    except Exception:  # of any kind: it is the user's constructor
        lost = places
    if not lost:
        return
    warn(
        f"{subject}: {layer.name!r} computes with stock activations at "
        f"{', '.join(map(shown_place, lost))}, but a .keras file of it is read by "
        f"{own.__qualname__}, which creates its own. Change its code, or export a SavedModel."
    )


def alike(one: Any, other: Any) -> bool:
    """Whether two activations or graphs are the same but for their names."""
    if one is other:
        return True
    if not (is_layer(one) and is_layer(other)) or type(one) is not type(other):
        return False
    configs = [{**each.get_config(), "name": None} for each in (one, other)]
    return bool(configs[0] == configs[1])


def user_class(layer: Any) -> type:
    """Returns the user's class of a layer, converted or not."""
    kind = type(layer)
    return kind.__mro__[2] if issubclass(kind, Converted) else kind


def places_of(layer: Any) -> list[Place]:
    """Returns the places at which a converted layer differs from the user's."""
    return [list(place) for place in layer._tf_leaky.replaced]


def config_of(layer: Any) -> dict[str, Any]:
    """Returns the config of a user's layer, converted or not."""
    if not isinstance(layer, Converted):
        return dict(layer.get_config())
    own, converted = user_class(layer), cast(Any, layer)
    if is_of_keras(own, "get_config"):
        # Keras makes a config from the arguments, but not if a class defines `get_config`.
        config = dict(converted._tf_leaky.config)
        now = {"name": converted.name, "trainable": converted.trainable}
        return config | {key: value for key, value in now.items() if key in config}
    config = dict(cast(Any, super(Converted, layer)).get_config())
    given = converted._tf_leaky.config
    # Where it was given a stock activation, it gets that again: its constructor may look at it.
    stock = {key for key in config.keys() & given.keys() if not _mentions_ours(given[key])}
    return config | {key: given[key] for key in stock if _mentions_ours(config[key])}


def _mentions_ours(value: Any) -> bool:
    """Whether an item of a config has anything of this package in it."""
    if isinstance(value, dict | list | tuple):
        return any(map(_mentions_ours, value.values() if isinstance(value, dict) else value))
    name = value if isinstance(value, str) else getattr(value, "__module__", "")
    return str(name).startswith("tf_leaky")


def registered_name(kind: type) -> str:
    """Returns the name under which a class is registered, else its own name."""
    for name, each in tf.keras.utils.get_custom_objects().items():
        if each is kind:
            return str(name)
    return kind.__name__


def serialized(value: Any) -> Any:
    """Returns a layer or a function as JSON types.

    Inside a wrapper, tf_keras would load the stock class of the same name, unless the config has
    the registered name.
    """
    if not is_layer(value):
        return tf.keras.activations.serialize(value)
    config: dict[str, Any] = tf.keras.layers.serialize(value)
    return config | {"class_name": config.get("registered_name") or config["class_name"]}


def deserialized(value: Any) -> Any:
    """Returns the layer or function that `serialized` wrote."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value["config"]  # tf_keras doesn't find the function of a whole dict from an `.h5`
    if isinstance(value, dict):
        return tf.keras.layers.deserialize(value)
    return tf.keras.activations.deserialize(value)


def _class_of(layer: dict[str, Any]) -> type:
    """Returns the user's class in a config."""
    for name in (layer["registered_name"], layer["class_name"]):
        found = tf.keras.utils.get_registered_object(name)
        if isinstance(found, type):  # `clone_model` has a converted class under the user's name
            return found.__mro__[2] if issubclass(found, Converted) else found
    if (layer["module"], layer["class_name"]) in _SEEN:
        return _SEEN[layer["module"], layer["class_name"]]
    try:
        made = tf.keras.layers.deserialize(layer)
        if not is_layer(made):  # tf_keras returns the name of a class that it doesn't know
            raise ValueError(f"{made!r}, which is none.")
        return user_class(made)
    except Exception as error:  # of any kind: the user's class is called
        raise ValueError(
            f"Converted: expected the class {layer['class_name']} of {layer['module']} to be "
            f"known. Received: {error} Import the module that registers it with "
            "tf.keras.utils.register_keras_serializable, or pass custom_objects."
        ) from error


@functools.cache
def _converted(own: Any, late: bool) -> Any:
    """Returns the subclass of a user's class for converted layers.

    It has the same name, as Keras 3 names the weights in a file after classes: so the weights of
    one class load into the other. `late` says that `build` or the first call, which may build
    layers within it, creates what is to be replaced.
    """
    _SEEN[own.__module__, own.__name__] = own
    within: dict[str, Any] = {"__module__": __name__, "__doc__": own.__doc__}
    if late:

        @functools.wraps(own.call)
        def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if self._tf_leaky.waiting:
                with contextlib.suppress(Exception):  # it may call what is None until now
                    own.call(self, *arguments, **keywords)
                _place(self, for_none=True)
            return own.call(self, *arguments, **keywords)

        call.__signature__ = inspect.signature(own.call)  # type: ignore[attr-defined]
        within["call"] = call
    if not is_of_keras(own, "build"):

        @functools.wraps(own.build)
        def build(self: Any, *arguments: Any, **keywords: Any) -> None:
            with _built_once(self._tf_leaky.replaced.values()):
                own.build(self, *arguments, **keywords)
            _place(self, for_none=True)

        within["build"] = build
    kind = type(own.__name__, (Converted, own), within)
    registered = tf.keras.utils.get_custom_objects()
    registered.pop(_NAME, None)  # tf_keras registers no name twice
    tf.keras.utils.register_keras_serializable("tf_leaky", "Converted")(kind)
    registered[_NAME] = Converted
    return kind


@contextlib.contextmanager
def _built_once(layers: Iterable[Any]) -> Iterator[None]:
    """Has `build` do nothing for those of some layers that are built: a file brings them built."""
    before = {id(each): vars(each).get("build") for each in layers if getattr(each, "built", False)}
    built = [each for each in layers if id(each) in before]
    for each in built:
        vars(each)["build"] = lambda *_, **__: None
    try:
        yield
    finally:
        for each in built:
            del vars(each)["build"]
            if before[id(each)] is not None:
                vars(each)["build"] = before[id(each)]


def _place(layer: Any, *, for_none: bool = False) -> None:
    """Puts the replacements in place, as far as their places exist.

    `build` or `call` may still make what is None, and other layers with it, so it is replaced only
    with `for_none`.
    """
    # While `from_config` makes it, a layer that builds itself has none yet.
    waiting = layer._tf_leaky.waiting if hasattr(layer, "_tf_leaky") else {}
    for place, value in list(waiting.items()):
        with contextlib.suppress(LookupError):  # not there yet
            if for_none or at(layer, list(place)) is not None:
                put(layer, list(place), value)
                del waiting[place]
