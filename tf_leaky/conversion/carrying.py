"""How what was replaced within a layer of the user's own class comes through a file.

A layer such as

    class Block(tf.keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.relu = tf.keras.layers.ReLU()

makes its own ReLU, which isn't in its config. So what replaces it is not either, and a file of the
layer would load with ReLU. `with_replaced` makes the layer of a class that stands between: a
subclass of the user's, of the same name, that is registered as `tf_leaky>Converted`. Its config
holds that of the user's layer, and what to replace in it, place by place.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, cast

import tensorflow as tf

from tf_leaky.checks import shown
from tf_leaky.structure import Place, at, is_layer, put, shown_place

_NAME = "tf_leaky>Converted"


class Converted:
    """What the classes of converted layers have beside the user's: a config, and what it replaces.

    In a file:

        {"name": ..., "layer": {the user's layer, serialised by Keras},
         "replaced": [{"at": ["blocks", 0, "act"], "by": {a layer or function, serialised}}, ...]}
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the user's layer, and what is replaced in it, as it is now."""
        own = user_class(self)
        return {
            "name": self.name,  # type: ignore[attr-defined]
            "layer": {
                "module": own.__module__,
                "class_name": own.__name__,
                "config": config_of(self),
                "registered_name": registered_name(own),
            },
            "replaced": [
                {"at": place, "by": serialized(at(self, place))} for place in places_of(self)
            ],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Returns the layer of a config, of whatever class of the user's.

        Raises:
            ValueError: If the class isn't known, or has no such places any more.
        """
        with known(custom_objects or {}):
            own = _class_of(config["layer"])
            replaced = {tuple(each["at"]): deserialized(each["by"]) for each in config["replaced"]}
            with known({own.__name__: own}):
                return with_replaced(own, config["layer"]["config"], replaced)


tf.keras.utils.get_custom_objects()[_NAME] = Converted
# The users' classes that this process has converted, for `clone_model`, which asks for no names.
_SEEN: dict[tuple[str, str], type] = {}


def with_replaced(own: type, config: dict[str, Any], replaced: dict[Any, Any]) -> Any:
    """Returns a layer of the user's class `own`, with what is at some places replaced.

    Args:
        own: The class, which makes a layer of `config` by `from_config`.
        config: The config of a layer of that class.
        replaced: What to put where, by place (as a tuple).

    Raises:
        ValueError: If `from_config` makes a layer of another class, or a place can't be reached.
    """
    layer = _placed(own, config, replaced, late=False)
    if unreached(layer) and _is_kerass_own(own, "build"):
        layer = _placed(own, config, replaced, late=True)
    return layer


def _placed(own: type, config: dict[str, Any], replaced: dict[Any, Any], *, late: bool) -> Any:
    kind = _converted(own, late)
    layer = made(own, kind, config)
    if type(layer) is not kind:
        raise ValueError(
            f"Converted: expected from_config of {own.__qualname__} to make a layer of the class "
            f"that it is called on. Received: {shown(layer)}. Have it return cls(...)."
        )
    layer._tf_leaky_config = _Hidden(config)
    layer._tf_leaky_replaced = _Hidden(dict(replaced))
    layer._tf_leaky_waiting = _Hidden(dict(replaced))
    _place(layer)
    return layer


def made(own: Any, kind: Any, config: dict[str, Any]) -> Any:
    """A layer of a config, as `from_config` of the class `own` makes it, of the class `kind`.

    Keras's own `from_config` fails for a constructor without `**kwargs`, which many write: what it
    doesn't take of what every layer has is left out here.
    """
    if _is_kerass_own(own, "from_config"):
        parameters = inspect.signature(own.__init__).parameters
        if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            always = {"name", "trainable", "dtype"} - parameters.keys()
            config = {key: value for key, value in config.items() if key not in always}
    maker: Any = own if kind is own else super(Converted, kind)
    return maker.from_config(dict(config))  # of which it may take items away


def _is_kerass_own(kind: type, method: str) -> bool:
    """Whether a class has a method from Keras, and not from its author."""
    definer = next(each for each in kind.__mro__ if method in vars(each))
    return definer.__module__.partition(".")[0] in ("keras", "tf_keras")


@contextlib.contextmanager
def known(classes: dict[str, type]) -> Iterator[None]:
    """Has Keras find classes by name, beside those that it finds already.

    A `custom_object_scope` of Keras 3 hides those of the scope that it is in.
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


class _Hidden:
    """Keeps a value from Keras, which tracks what is in lists and dicts."""

    def __init__(self, value: Any) -> None:
        self.value = value


def without_carrying(layer: Any, subject: str) -> None:
    """Makes a converted layer one of the user's class; warns of what its file won't hold."""
    places = ", ".join(shown_place(place) for place in places_of(layer))
    layer.__class__ = user_class(layer)
    for name in ("config", "replaced", "waiting"):
        delattr(layer, f"_tf_leaky_{name}")
    warnings.warn(
        f"{subject}: {layer.name!r} computes with stock activations at {places}, but a .keras file "
        f"of it loads with those that {type(layer).__qualname__} makes itself. Change its code, or "
        "save the weights, or export a SavedModel.",
        stacklevel=2,
    )


def user_class(layer: Any) -> type:
    """The user's class of a layer, converted or not."""
    kind = type(layer)
    return kind.__mro__[2] if issubclass(kind, Converted) else kind


def places_of(layer: Any) -> list[Place]:
    """The places at which a converted layer differs from one of the user's."""
    return [list(place) for place in layer._tf_leaky_replaced.value]


def unreached(layer: Any) -> list[str]:
    """The places of a converted layer that nothing is at yet, as one writes them."""
    return [shown_place(list(place)) for place in layer._tf_leaky_waiting.value]


def config_of(layer: Any) -> dict[str, Any]:
    """The config of the user's layer, of a converted layer too."""
    if not isinstance(layer, Converted):
        return dict(layer.get_config())
    own, converted = user_class(layer), cast(Any, layer)
    if _is_kerass_own(own, "get_config"):
        # Keras makes the config of the arguments, but not for a class that has a `get_config`.
        config = dict(converted._tf_leaky_config.value)
        now = {"name": converted.name, "trainable": converted.trainable}
        return config | {key: value for key, value in now.items() if key in config}
    return dict(cast(Any, super(Converted, layer)).get_config())


def registered_name(kind: type) -> str:
    """The name under which a class is registered, else its own."""
    for name, each in tf.keras.utils.get_custom_objects().items():
        if each is kind:
            return str(name)
    return kind.__name__


def serialized(value: Any) -> Any:
    """A layer or a function as JSON types.

    tf_keras takes the stock class of the same name, inside of a wrapper, unless a class goes by its
    registered name.
    """
    if not is_layer(value):
        return tf.keras.activations.serialize(value)
    config: dict[str, Any] = tf.keras.layers.serialize(value)
    return config | {"class_name": config.get("registered_name") or config["class_name"]}


def deserialized(value: Any) -> Any:
    """What `serialized` wrote."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value["config"]  # of the whole, tf_keras finds none that is in an `.h5`
    if isinstance(value, dict):
        return tf.keras.layers.deserialize(value)
    return tf.keras.activations.deserialize(value)


def _class_of(layer: dict[str, Any]) -> type:
    """The user's class in a config."""
    for name in (layer["registered_name"], layer["class_name"]):
        found = tf.keras.utils.get_registered_object(name)
        if isinstance(found, type):  # `clone_model` gives a converted class by the user's name
            return found.__mro__[2] if issubclass(found, Converted) else found
    if (layer["module"], layer["class_name"]) in _SEEN:
        return _SEEN[layer["module"], layer["class_name"]]
    try:
        return user_class(tf.keras.layers.deserialize(layer))
    except Exception as error:  # of any kind: the user's class is called
        raise ValueError(
            f"Converted: expected the class {layer['class_name']} of {layer['module']} to be "
            f"known. Received: {error} Import the module that registers it with "
            "tf.keras.utils.register_keras_serializable, or give custom_objects."
        ) from error


@functools.cache
def _converted(own: Any, late: bool) -> Any:
    """The subclass of a user's class for converted layers.

    It has the name of the user's, since Keras 3 names the weights in a file after classes, so that
    the weights of the one load into the other.

    Args:
        own: The user's class.
        late: Whether its first call makes the layers that are to be replaced.
    """
    _SEEN[own.__module__, own.__name__] = own
    within: dict[str, Any] = {"__module__": __name__, "__doc__": own.__doc__}
    if late:

        @functools.wraps(own.call)
        def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
            waits = self._tf_leaky_waiting.value
            result = own.call(self, *arguments, **keywords)
            if not waits:
                return result
            _place(self)
            return own.call(self, *arguments, **keywords)

        call.__signature__ = inspect.signature(own.call)  # type: ignore[attr-defined]
        within["call"] = call
    elif not _is_kerass_own(own, "build"):

        @functools.wraps(own.build)
        def build(self: Any, *arguments: Any, **keywords: Any) -> None:
            own.build(self, *arguments, **keywords)
            _place(self)

        within["build"] = build
    kind = type(own.__name__, (Converted, own), within)
    registered = tf.keras.utils.get_custom_objects()
    registered.pop(_NAME, None)  # tf_keras registers no name twice
    tf.keras.utils.register_keras_serializable("tf_leaky", "Converted")(kind)
    registered[_NAME] = Converted
    return kind


def _place(layer: Any) -> None:
    """Puts what is to be replaced in place, so far as there is something by now."""
    waiting: Any = getattr(layer, "_tf_leaky_waiting", None)
    for place, value in list(waiting.value.items()) if waiting else ():
        try:
            put(layer, list(place), value)
        except LookupError:  # not there yet
            continue
        del waiting.value[place]
