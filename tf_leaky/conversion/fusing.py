"""Fuses `BatchNormalization` and leaky ReLU into `BatchNormLeakyReLU`, and splits it again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.checks import said
from tf_leaky.conversion.tracer import Tracer, users_of
from tf_leaky.keras_compat import calls_of, operations_of
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import SMALLEST_POSITIVE_ALPHA
from tf_leaky.slopes import slopes_in_use
from tf_leaky.structure import is_graph, layers_within

_layers = tf.keras.layers
_NOT_ALONE = "its output isn't used by exactly one activation layer, which nothing else uses"
_WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")


def fused_pairs(
    model: Any, leaky_relu_for: Callable[[Any], Any]
) -> tuple[list[tuple[Any, Any, BatchNormLeakyReLU]], list[tuple[Any, str]]]:
    """Returns the pairs of layers in a model that one layer can replace, with that layer.

    And the normalisations that are in no such pair, each with the reason.

    A pair is a `BatchNormalization` whose output goes to one activation and nowhere else. Neither
    is used twice, and the activation is a leaky ReLU whose slopes are at least 1e-3: one, or one
    for each normalised channel. Inside layers of the user's own classes, a trace shows which
    activation uses the output of a normalisation, in training and at inference. `leaky_relu_for`
    returns the `LeakyReLU` that replaces a layer, or None.
    """
    within = layers_within(model)
    graphs = [each for each in (model, *within) if is_graph(each)]
    of_graphs = {id(layer) for graph in graphs for layer in graph.layers}
    own = [layer for layer in within if id(layer) not in of_graphs]
    activations = [layer for layer in own if leaky_relu_for(layer) is not None]
    try:
        traced, why = _traced(model, own, activations), _NOT_ALONE
    except Exception as error:  # of any kind: it is the user's model that is called
        traced, why = [], f"the model can't be traced: {said(error)}"
    reasons = {id(layer): why for layer in own}
    pairs: dict[int, tuple[Any, Any, BatchNormLeakyReLU]] = {}
    for normalization, activation in [*_neighbours(graphs), *traced]:
        leaky = leaky_relu_for(activation)
        fused = f"{activation.name}, which takes its output, doesn't become a LeakyReLU"
        if leaky is not None:
            fused = _fused(normalization, leaky)
        if isinstance(fused, str):
            reasons[id(normalization)] = fused
        else:
            pairs[id(normalization)] = normalization, activation, fused
    others = [each for each in within if _is_normalization(each) and id(each) not in pairs]
    return list(pairs.values()), [(each, reasons.get(id(each), _NOT_ALONE)) for each in others]


def _traced(model: Any, layers: list[Any], activations: list[Any]) -> list[tuple[Any, Any]]:
    """Returns pairs of a normalisation among some layers and the activation that alone uses it."""
    normalizations = [x for x in layers if _is_normalization(x) and x.built]
    if not (normalizations and activations):
        return []
    traces = [Tracer(model, normalizations + activations, mode) for mode in (True, False)]
    pairs = []
    for normalization in normalizations:
        in_training, at_inference = (_partner(normalization, activations, x) for x in traces)
        if in_training is not None and in_training is at_inference:
            pairs.append((normalization, in_training))
    return pairs


def _is_normalization(layer: Any) -> bool:
    return type(layer) is _layers.BatchNormalization


def _partner(normalization: Any, activations: list[Any], tracer: Tracer) -> Any:
    """Returns the only user of a normalisation's outputs if it uses nothing else, or None."""
    calls = tracer.calls[id(normalization)]
    for activation in activations:
        uses = tracer.calls[id(activation)]
        if (
            len(calls) == len(uses) > 0
            and all(use.x is call.y for call, use in zip(calls, uses, strict=True))
            and all(users_of(use.x) == use.reads for use in uses)
            and tracer.users_of_weights(normalization) is not None
        ):
            return activation
    return None


def _neighbours(graphs: list[Any]) -> list[tuple[Any, Any]]:
    """Returns normalisations of graphs, called once, with what alone uses them, called once too.

    The graphs may share layers, as those of a feature extractor and of the model around it do.
    """
    functional = [each for each in graphs if not isinstance(each, tf.keras.Sequential)]
    users: dict[int, list[Any]] = {}
    operations = {id(each): each for graph in functional for each in operations_of(graph)}
    for each in operations.values():
        for x in (x for inputs, _ in calls_of(each) for x in inputs):
            users.setdefault(id(x), []).append(each)
    ends = {id(x) for graph in functional for x in tf.nest.flatten(graph.outputs)}
    pairs = []
    for each in filter(_is_normalization, operations.values()):
        outputs = [x for _, made in calls_of(each) for x in made]
        after = [user for x in outputs for user in users.get(id(x), [])]
        if (
            len(outputs) == 1 == len(after) == len(calls_of(after[0]))
            and id(outputs[0]) not in ends
        ):
            pairs.append((each, after[0]))
    for layers in (each.layers for each in graphs if each not in functional):
        ids = [id(layer) for layer in layers]
        for each, following in pairwise(layers):
            once = ids.count(id(each)) == ids.count(id(following)) == 1
            made = {id(x) for _, outputs in calls_of(each) for x in outputs}
            if _is_normalization(each) and once and not made & (ends | users.keys()):
                pairs.append((each, following))
    return pairs


def split(layer: BatchNormLeakyReLU, leaky_relu: Any) -> Any:
    """Returns a Sequential of a stock BatchNormalization and an activation, without the weights."""
    config = layer.get_config()
    of_activation = {"name", "activity_regularizer"}
    own = {key: x for key, x in config.items() if "alpha" not in key and key not in of_activation}
    normalization = _layers.BatchNormalization.from_config(own | {"name": f"{layer.name}_bn"})
    return tf.keras.Sequential([normalization, leaky_relu], name=layer.name)


def leaky_relu_of(layer: BatchNormLeakyReLU) -> LeakyReLU:
    """Returns a `LeakyReLU` like the one in a layer, with its present slopes."""
    config = layer.get_config()
    names = ("trainable_alpha", "alpha_constraint", "alpha_regularizer")
    activation = LeakyReLU.from_config(
        {name: config[name] for name in names}
        | {"name": f"{layer.name}_leaky_relu", "dtype": config["dtype"]}
        | {
            "alpha": slopes_in_use(layer).tolist(),
            "axis": layer.alpha_axis,
            "trainable": layer.trainable,
            "activity_regularizer": layer.activity_regularizer,
        }
    )
    if layer.built:
        spec = layer.input_spec
        activation.build([spec.axes.get(axis) for axis in range(spec.ndim)])
    return activation


def transfer_weights(old: Any, new: Any) -> dict[int, Any]:
    """Copies the weights when layers are fused, or when a fused layer is split.

    Returns:
        The new variables by the ids of the old ones, without slopes.
    """
    normalization = new.layers[0] if isinstance(old, BatchNormLeakyReLU) else new
    same = {}
    for name in _WEIGHTS:
        variable = getattr(old, name, None)
        if variable is not None:
            twin = getattr(normalization, name)
            twin.assign(variable)
            same[id(variable)] = twin
    if normalization is not new and new.layers[1].variables:
        (slopes,) = new.layers[1].variables
        slopes.assign(tf.reshape(tf.cast(slopes_in_use(old), slopes.dtype), slopes.shape))
    return same


def _fused(normalization: Any, leaky: LeakyReLU) -> BatchNormLeakyReLU | str:
    """Returns the fused layer for a pair, or why they can't be fused."""
    slopes = slopes_in_use(leaky) if leaky.built else np.asarray(leaky.get_config()["alpha"])
    if (slopes < SMALLEST_POSITIVE_ALPHA).any():
        return f"a slope of its activation is below {SMALLEST_POSITIVE_ALPHA}"
    if leaky.trainable_alpha and normalization.trainable != leaky.trainable:
        return "one of the two is frozen, and slopes are trained"
    if not normalization.built or getattr(normalization, "renorm", False):
        return "it isn't built, or renormalises"
    if np.size(normalization.axis) > 1:  # as tf_keras allows
        return "it normalises along several axes"
    rank = normalization.input_spec.ndim
    axis = int(np.ravel(normalization.axis)[0])
    if leaky.axis is not None and [a % rank for a in np.ravel(leaky.axis)] != [axis % rank]:
        return "the slopes of its activation are along another axis"
    if normalization.compute_dtype != leaky.compute_dtype:
        return "its activation computes in another dtype"
    if normalization.activity_regularizer is not None:  # of what the fused layer doesn't return
        return "it has an activity_regularizer"
    of_leaky = {"activity_regularizer": None} | leaky.get_config()
    names = ("trainable_alpha", "alpha_constraint", "alpha_regularizer", "activity_regularizer")
    return BatchNormLeakyReLU(
        **normalization.get_config()
        | {name: of_leaky[name] for name in names}
        | {"axis": axis, "alpha": slopes.tolist()}
        | {"alpha_axis": None if leaky.axis is None else axis}
    )
