"""A copy of a model with some of its activations replaced: layers, weights and training state."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_leaky.keras_compat import (
    compile_alike,
    copy_of_lambda,
    inputs_alike,
    is_graph,
    layers_within,
    recorded_inputs,
)

# Given an activation, a layer or a function, and the layer that it is in (itself where it stands
# alone): what takes its place, or None where it stays.
Rule = Callable[[Any, Any], Any]

# Whose classes are known by name when a config is read.
_KERAS = ("keras", "tf_keras", "tf_leaky")


def clone(model: Any, rule: Rule, *, subject: str) -> Any:
    """Returns a copy of a functional or sequential model, with activations replaced by `rule`.

    Names, weights, `trainable` flags, dtype policies, sharing and compile settings are those of the
    model, which isn't touched. The optimizer's state is, too, if its variables are the same ones.
    """
    copy = _Copy(rule)
    new = copy.of(model)
    if not new.built:
        new.build(model.inputs[0].shape)
    if any(not part.built for part in layers_within(new)):
        # Keras 3 builds activations in other layers when these are called, on tensors only.
        specs = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), recorded_inputs(model)
        )
        tf.function(lambda x: new(x)).get_concrete_function(specs)
    same = copy.transfer_state()
    copy.set_trainable(model)
    compile_alike(model, new)
    _copy_optimizer(model, new, same)
    return new


class _Copy:
    """The layers that were copied, each once, so that those that are shared stay so."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._copies: dict[int, tuple[Any, Any]] = {}

    def of(self, layer: Any) -> Any:
        if id(layer) not in self._copies:
            self._copies[id(layer)] = (layer, self._new(layer))
        return self._copies[id(layer)][1]

    def _new(self, layer: Any) -> Any:
        if is_graph(layer):
            return tf.keras.models.clone_model(
                layer, input_tensors=inputs_alike(layer), clone_function=self.of
            )
        if not isinstance(layer, tf.keras.layers.Layer):  # an operation of Keras 3
            return type(layer).from_config(layer.get_config())
        replaced = self._rule(layer, layer)
        if replaced is not None:
            return replaced
        parts = {part.name: part for part in reversed(layers_within(layer))}
        # The parts of a Bidirectional have a name of their own in it.
        parts |= {name.removeprefix("forward_"): part for name, part in parts.items()}
        if isinstance(layer, tf.keras.layers.Lambda):
            return copy_of_lambda(layer)
        config = self._config(layer.get_config(), parts, layer)
        with tf.keras.utils.custom_object_scope(_classes(parts.values())):
            return type(layer).from_config(config)

    def _config(self, config: Any, parts: dict[str, Any], host: Any) -> Any:
        """The config of a layer, with the activations in it replaced."""
        if isinstance(config, list):
            return [self._config(each, parts, host) for each in config]
        if isinstance(config, tuple):
            return tuple(self._config(each, parts, host) for each in config)
        if not isinstance(config, dict):
            return config
        if isinstance(config.get("class_name"), str) and isinstance(config.get("config"), dict):
            part = parts.get(config["config"].get("name"))
            host = part or host
            new = None if part is None else self._rule(part, part)
            if new is not None:
                return _serialized(new)
        return {
            key: self._activation(value, parts, host)
            if key.endswith("activation") and value is not None
            else self._config(value, parts, host)
            for key, value in config.items()
        }

    def _activation(self, value: Any, parts: dict[str, Any], host: Any) -> Any:
        """The config of the activation of a layer, replaced or not."""
        inner = value.get("config") if isinstance(value, dict) else None
        named = inner.get("name") if isinstance(inner, dict) else None
        found = parts.get(str(named)) or tf.keras.activations.deserialize(value)
        new = self._rule(found, host)
        if new is None:
            return value
        if isinstance(new, tf.keras.layers.Layer):
            return _serialized(new)
        return tf.keras.activations.serialize(new)

    def transfer_state(self) -> dict[int, Any]:
        """Gives the copies the weights of their layers; returns the new variable of each by id."""
        same: dict[int, Any] = {}
        for old, new in self._copies.values():
            if isinstance(old, tf.keras.layers.Layer) and not is_graph(old):
                for part, twin in _twins(old, new):
                    same |= _transfer(part, twin)
        return same

    def set_trainable(self, layer: Any) -> None:
        """Gives the copy of a layer, and what is in it, their `trainable`, the outer ones first."""
        if id(layer) not in self._copies:
            return
        new = self.of(layer)
        new.trainable = layer.trainable
        if is_graph(layer):
            for each in layer.layers:
                self.set_trainable(each)
        else:
            for part, twin in _twins(layer, new):
                twin.trainable = part.trainable


def _classes(layers: Any) -> dict[str, type]:
    """The classes of layers by name, for those that aren't registered."""
    own = {type(layer) for layer in layers}
    return {kind.__name__: kind for kind in own if kind.__module__.split(".")[0] not in _KERAS}


def _serialized(layer: Any) -> dict[str, Any]:
    """The config that a layer deserializes from, its class by its registered name.

    tf_keras takes the stock class of the same name otherwise, inside of a wrapper.
    """
    config: dict[str, Any] = tf.keras.layers.serialize(layer)
    return config | {"class_name": config.get("registered_name") or config["class_name"]}


def _twins(old: Any, new: Any) -> list[tuple[Any, Any]]:
    """The layers within a layer, itself too, each with the one that stands for it in the copy."""
    twins, rest = [(old, new)], list(layers_within(new))
    for part in layers_within(old):
        found = next((each for each in rest if each.name == part.name), None)
        if found is not None:
            rest.remove(found)
            twins.append((part, found))
    return twins


def _own(layer: Any) -> list[Any]:
    """The weights of a layer that aren't those of a layer within it."""
    inner = {id(weight) for part in layers_within(layer) for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def _transfer(old: Any, new: Any) -> dict[int, Any]:
    """Copies the state of one layer; returns its new variables by the ids of the old ones."""
    before, after = _own(old), _own(new)
    if type(old) is not type(new) or len(before) != len(after):
        # An activation that was replaced: slopes, which differ in shape only, or a constant.
        for weight, twin in zip(before, after, strict=False):
            twin.assign(tf.reshape(tf.cast(weight, twin.dtype), twin.shape))
        return {id(weight): twin for weight, twin in zip(before, after, strict=False)}
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    if store:
        new.load_own_variables(store)
    if hasattr(old, "save_assets"):  # state that is no weight, as a vocabulary
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)
    return {id(weight): twin for weight, twin in zip(before, after, strict=True)}


def _copy_optimizer(model: Any, new: Any, same: dict[int, Any]) -> None:
    """Copies the optimizer's variables where those that it trains are the same, one to one."""
    old_optimizer = getattr(model, "optimizer", None)
    if old_optimizer is None or getattr(new, "optimizer", None) is None:
        return
    twins = [id(same.get(id(variable))) for variable in model.trainable_variables]
    if twins != [id(variable) for variable in new.trainable_variables]:
        return
    before, after = _state(old_optimizer), _state(new.optimizer)
    if len(before) != len(after):  # not built yet: nothing was trained
        return
    for variable, twin in zip(before, after, strict=True):
        twin.assign(tf.reshape(tf.cast(variable, twin.dtype), twin.shape))


def _state(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)
