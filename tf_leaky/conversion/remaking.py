"""What `convert`, `freeze` and `to_keras` share: a copy of a model, or an error that says why."""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf

from tf_leaky.checks import check_inputs_known, said
from tf_leaky.conversion.cloning import clone
from tf_leaky.conversion.remaining import relus_of
from tf_leaky.conversion.replacing import Rule
from tf_leaky.conversion.stock import is_function_in_graph, stock_slope
from tf_leaky.keras_compat import is_quantized, recorded_inputs
from tf_leaky.layer import LeakyReLU
from tf_leaky.structure import held, is_graph, is_layer, layers_within, shown_place

_layers = tf.keras.layers


def copied(model: Any, rule: Rule, *, subject: str, **options: bool) -> Any:
    """Returns `clone(...)`, or raises ValueError that says what to edit in the model."""
    check_inputs_known(model, recorded_inputs(model), subject=subject)
    try:
        return clone(model, rule, subject=subject, **options)
    except RecursionError as error:
        for layer in (model, *layers_within(model)):
            for inner in layers_within(layer):
                if any(value is layer for _, value in held(inner)):
                    raise _refusal_of_owner(layer, inner, subject) from error
        raise
    except Exception as error:  # of any kind: it is the user's constructor that is called
        of_constructor = isinstance(error, TypeError | NotImplementedError)
        if is_graph(model) or not (of_constructor or "get_config" in str(error)):
            raise
        raise _refusal(model, error, subject) from error


def identity_of(layer: Any) -> dict[str, Any]:
    """Returns the arguments that a layer or a function in a graph shares with its replacement."""
    name = layer.name.replace(".", "_")
    if is_function_in_graph(layer):  # it computes in the dtype of its output
        return {"name": name, "dtype": tf.as_dtype(tf.nest.flatten(layer.output)[0].dtype).name}
    dtype = layer.compute_dtype
    if not is_quantized(layer):  # an activation has no quantized form
        with contextlib.suppress(NotImplementedError):  # a constructor with arguments of any type
            dtype = layer.get_config().get("dtype", dtype)
    identity = {"name": name, "trainable": layer.trainable, "dtype": dtype}
    if layer.activity_regularizer is not None:
        identity["activity_regularizer"] = layer.activity_regularizer
    return identity


def _refusal_of_owner(owner: Any, inner: Any, subject: str) -> ValueError:
    """Returns the error for a layer that Keras finds in a layer within it, again and again."""
    return ValueError(
        f"{subject}: expected layers whose weights Keras can list. Received: {inner.name!r}, which "
        f"has {owner.name!r}, the layer around it, in an attribute. Set it where Keras doesn't "
        'look for layers: vars(layer)["owner"] = owner.'
    )


def _refusal(model: Any, error: Exception, subject: str) -> ValueError:
    """Returns the error for a model that its class can't make again, with what to edit."""
    edits, relus = _edits(model, model.name, set()), relus_of(model)
    activations = {layer.name for layer in layers_within(model) if _holds_activation(layer)}
    edits += [
        f"the call of {path or model.name}: functions to LeakyReLU layers"
        for path in relus or ()
        if path.rpartition("/")[2] not in activations
    ]
    if edits:
        advice = f"Edit its code instead: {'; '.join(edits)}."
    elif relus is None:
        advice = "Give its class a get_config from which from_config can make it again."
    else:
        advice = "A trace of it shows no ReLU: nothing in it needs this conversion."
    return ValueError(
        f"{subject}: expected a Sequential or functional model, or one that its class makes again "
        f"with from_config(get_config()). Received: model={model.name!r} of type "
        f"{type(model).__qualname__}, for which Keras says: {said(error).rstrip('.')}. {advice}"
    )


def _holds_activation(layer: Any) -> bool:
    held_by_layer = [layer, *(value for _, value in held(layer) if not is_layer(value))]
    return type(layer) is _layers.PReLU or any(
        stock_slope(value) is not None for value in held_by_layer
    )


def _edits(holder: Any, path: str, seen: set[int]) -> list[str]:
    """Returns what to edit in the code of a model: each activation, by its place."""
    edits = []
    for place, part in held(holder):
        where = f"{path}.{shown_place(place)}"
        if id(part) in seen or not (is_layer(part) or stock_slope(part) is not None):
            continue
        slope = stock_slope(part)
        number = "alpha" if slope == "plain" else f"{slope}"
        if not is_layer(part):
            edits.append(f"{where} in {holder.name!r}: {part.__name__} to LeakyReLU({number})")
            continue
        seen.add(id(part))
        if is_graph(part):
            edits.append(f"{where} is a {type(part).__name__}: pass it separately")
        elif type(part) is _layers.PReLU:
            edits.append(f"{where}: PReLU to LeakyReLU(trainable_alpha=True, axis=...)")
        elif isinstance(part, LeakyReLU):
            edits.append(f"{where}: {part!r}")
        elif slope is not None and slope != "bounded":
            edits.append(f"{where}: {type(part).__name__} to LeakyReLU({number})")
        else:
            edits += _edits(part, where, seen)
    return edits
