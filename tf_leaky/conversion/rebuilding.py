"""Rebuilds Sequential and functional models with copies of their layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_leaky.checks import warn
from tf_leaky.keras_compat import LEGACY, clone_graph, count_added, keep_added
from tf_leaky.layer import LeakyReLU
from tf_leaky.structure import (
    attributes,
    is_graph,
    is_layer,
    is_of_keras,
    is_stock,
    layers_within,
)


def rebuilt(model: Any, of: Callable[[Any], Any], subject: str) -> Any:
    """Returns a Sequential or functional model of copies of its layers and operations.

    Raises:
        ValueError: If it is a Sequential of tf_keras with losses or metrics added to its graph, or
            of a class that can't be made again and that has a `call` of its own.
    """
    if isinstance(model, tf.keras.Sequential) and count_added(model):  # `clone_model` fails too
        raise ValueError(
            f"{subject}: expected losses and metrics of a Sequential to be those of its layers or "
            f"of compile. Received: {model.name!r}, to which add_loss or add_metric added a "
            "tensor. Add it to tf.keras.Model(model.inputs, model.outputs) instead."
        )
    new = clone_graph(model, lambda layer: _called_as_before(of(layer)))
    for layer in layers_within(new):
        if isinstance(layer, _CalledAsBefore):
            layer.__class__ = type(layer).__mro__[2]
            vars(layer).pop("_others", None)
    return _of_own_class(model, new, subject)


def with_shared(layer: Any, shared: dict[int, Any]) -> Any:
    """Returns a layer, in whose graph other layers stand for those of some ids."""
    if id(layer) in shared or not any(id(part) in shared for part in layers_within(layer)):
        return shared.get(id(layer), layer)
    return rebuilt(layer, lambda part: with_shared(part, shared), "Converted")


class _CalledAsBefore:
    """An activation while a graph is rebuilt, called with the arguments of what it replaces.

    It uses only the tensor: arguments such as `alpha` of `tf.nn.leaky_relu` are already in it, and
    those of a folded normalisation mean nothing. If its slopes are along an axis and inputs have
    different sizes, each size gets its own layer, but tf_keras can't have that.
    """

    def __call__(self, x: Any, *arguments: Any, **keywords: Any) -> Any:
        kind: Any = type(self).__mro__[2]
        layer: Any = self
        if getattr(layer, "axis", None) is not None and layer.built:
            if len(x.shape) != layer.input_spec.ndim:
                raise ValueError(
                    f"convert: expected inputs of one rank for {layer.name!r}, whose slopes are "
                    f"along an axis. Received: {layer.input_spec.ndim} and {len(x.shape)} axes. "
                    "Use one layer per rank in the model."
                )
            sizes = {axis: x.shape[axis] for axis in layer.input_spec.axes}
            if sizes != dict(layer.input_spec.axes):
                if LEGACY:  # it looks for all calls on the one layer
                    raise ValueError(
                        f"convert: expected inputs of one size for {layer.name!r} under tf_keras, "
                        f"as its slopes are along an axis. Received: {dict(layer.input_spec.axes)} "
                        f"and {sizes} (axis: size). Use one layer per size in the model, or one "
                        "slope (axis=None)."
                    )
                others = layer.__dict__.setdefault("_others", {})
                config = layer.get_config() | {"name": f"{layer.name}_{len(others) + 1}"}
                key = tuple(sizes.values())
                layer = others.setdefault(key, kind.from_config(config))
                return layer(x)
        return kind.__call__(layer, x)


def _called_as_before(layer: Any) -> Any:
    kinds = LeakyReLU, tf.keras.layers.Activation
    if isinstance(layer, kinds) and not isinstance(layer, _CalledAsBefore):
        layer.__class__ = type(type(layer).__name__, (_CalledAsBefore, type(layer)), {})
    return layer


def _of_own_class(model: Any, new: Any, subject: str) -> Any:
    """Returns a copy as a model of the user's class, if its constructor takes a graph.

    Raises:
        ValueError: If it doesn't, and the class has a `call` of its own: a plain model would
            compute something else.
    """
    own = type(model)
    if is_stock(model):
        return new
    sequential = isinstance(model, tf.keras.Sequential)
    given = {"layers": new.layers} if sequential else {"inputs": new.input, "outputs": new.output}
    try:
        given |= _other_arguments(model, {*given, "name"})
        made = own(**given, name=model.name)
        if is_graph(made) and [id(x) for x in made.outputs] == [id(x) for x in new.outputs]:
            if not count_added(made):
                keep_added(new, made)
            if count_added(made) == count_added(new):
                return made
    except Exception:  # of any kind: it is the user's constructor
        pass
    if not is_of_keras(own, "call"):
        raise ValueError(
            f"{subject}: expected {own.__qualname__}, which has a call of its own, to take inputs "
            f"and outputs in its constructor. Received: {model.name!r}, which can't be made again: "
            "a plain model would compute without this call. Let the constructor take inputs, "
            "outputs and arguments that are attributes of the same names."
        )
    warn(
        f"{subject}: {model.name!r} is returned as a plain {type(new).__name__} model, without the "
        f"methods of {own.__qualname__}: its constructor doesn't take inputs and outputs, takes "
        "arguments that can't be found on the model, or adds other losses than the model has."
    )
    return new


def _other_arguments(model: Any, known_ones: set[str]) -> dict[str, Any]:
    """Returns the constructor's other arguments, found in a model's attributes or its config.

    Raises:
        LookupError: If one is in neither, or contains a layer, which would be shared.
    """
    parameters = inspect.signature(type(model)).parameters.values()
    given = {}
    for each in parameters:
        if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) or each.name in known_ones:
            continue
        if each.name in ("trainable", "dtype"):  # every model has them
            continue
        value = attributes(model).get(each.name, model)
        if value is model:
            value = model.get_config()[each.name]
        if any(is_layer(leaf) for leaf in tf.nest.flatten(value)):
            raise LookupError(each.name)
        given[each.name] = value
    return given
