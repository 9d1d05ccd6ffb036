"""The configs of layers, with the activations in them replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_leaky.conversion.carrying import config_of, serialized
from tf_leaky.conversion.replacing import Replacements
from tf_leaky.keras_compat import LEGACY
from tf_leaky.structure import attributes, is_activation_function, is_layer, layers_within


class Configs:
    """Replaces activations in the configs of layers.

    Args:
        replacements: The replacements.
        trial: Returns a copy of a layer that is only serialised.
    """

    def __init__(self, replacements: Replacements, trial: Callable[[Any], Any]) -> None:
        self._replacements, self._trial = replacements, trial

    def replaced(self, config: Any, host: Any) -> Any:
        """Returns the config of a layer, with the activations in it replaced."""
        parts: dict[str, list[Any]] = {}
        for part in layers_within(host):
            parts.setdefault(part.name, []).append(part)
            # The parts of a Bidirectional have a name of their own in it.
            parts.setdefault(part.name.removeprefix("forward_"), []).append(part)
        return self._with_backward(self._value(config, parts, host), host)

    def _value(self, value: Any, parts: dict[str, list[Any]], host: Any) -> Any:
        if isinstance(value, list | tuple):
            values = [self._value(each, parts, host) for each in value]
            return values if isinstance(value, list) else tuple(values)
        if not isinstance(value, dict):
            return value
        inner = value.get("config")
        if isinstance(value.get("class_name"), str) and isinstance(inner, dict):
            found = parts.get(str(inner.get("name")))
            if found:
                part = found[0] if len(found) == 1 else found.pop(0)
                return serialized(self._trial(part)) if self._replacements.changes(part) else value
        return {
            key: self._activation(key, each, parts, host)
            if isinstance(key, str) and key.endswith("activation") and each is not None
            else self._value(each, parts, host)
            for key, each in value.items()
        }

    def _activation(self, key: str, value: Any, parts: dict[str, list[Any]], host: Any) -> Any:
        """Returns the config of an activation in an attribute of the host, replaced or not."""
        found = getattr(host, key, None)
        # The class reads it as it is.
        if found is None or isinstance(found, str | dict) or is_method_within(found, host):
            return self._value(value, parts, host)
        new = self._replacements.of(found, host)
        if new is not None:
            return serialized(new)
        if is_layer(found):
            return serialized(self._trial(found))
        try:
            kept = tf.keras.activations.get(value) is found
        except Exception:  # of any kind: a lambda, or a function that isn't registered
            kept = False
        return value if kept else None

    def _with_backward(self, config: Any, layer: Any) -> Any:
        """Returns a config that has both layers of a Bidirectional of tf_keras, if one changes.

        Else, when a file is loaded, the activation of one direction would be that of both.
        """
        kind = tf.keras.layers.Bidirectional
        if not (
            LEGACY and type(layer) is kind and self._replacements.changes(layer.backward_layer)
        ):
            return config
        backward = serialized(self._trial(layer.backward_layer))
        backward["config"]["name"] = layer.backward_layer.name.removeprefix("backward_")
        return {**config, "backward_layer": backward}


def config_without_functions(layer: Any) -> dict[str, Any]:
    """Returns the config of a layer, without functions that can't be serialised (partial ones)."""
    odd = {
        name: tf.keras.activations.linear
        for name, value in attributes(layer).items()
        if is_activation_function([name], value) and not hasattr(value, "__name__")
    }
    if odd:
        shadow = object.__new__(type(layer))  # the layer itself must not change
        vars(shadow).update(vars(layer), **odd)
        layer = shadow
    return config_of(layer)


def is_method_within(found: Any, layer: Any) -> bool:
    """Whether a function is a method of a layer or of one within it."""
    owner = getattr(found, "__self__", None)
    return any(owner is each for each in (layer, *layers_within(layer)))
