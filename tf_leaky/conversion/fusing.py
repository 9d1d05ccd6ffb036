"""Fuses `BatchNormalization` and leaky ReLU into `BatchNormLeakyReLU`, and splits it again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.conversion.calls import Tracer, users_of
from tf_leaky.keras_compat import calls_of, operations_of
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import SMALLEST_POSITIVE_ALPHA
from tf_leaky.slopes import slopes_in_use
from tf_leaky.structure import is_graph, layers_within

_layers = tf.keras.layers
_WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")
_NOT_OF_THE_FUSED = ("renorm", "renorm_clipping", "renorm_momentum", "virtual_batch_size")


def fused_pairs(
    model: Any, leaky_relu_for: Callable[[Any], Any]
) -> list[tuple[Any, Any, BatchNormLeakyReLU]]:
    """Returns the pairs of a graph that one layer can replace, with that layer.

    A pair is a `BatchNormalization` whose output goes to one activation and nowhere else. Neither
    is used twice, and the activation is a leaky ReLU whose slopes are at least 1e-3: one, or one
    for each normalised channel.

    Args:
        model: A Sequential or functional model.
        leaky_relu_for: Returns the `LeakyReLU` that replaces a layer, or None.

    Returns:
        The normalisation, the activation, and the new layer of each pair.
    """
    pairs = []
    for normalization, activation in _neighbours(model):
        if type(normalization) is not _layers.BatchNormalization:
            continue
        leaky, rank = leaky_relu_for(activation), len(normalization.output.shape)
        fused = None if leaky is None else _fused(normalization, leaky, rank)
        if fused is not None:
            pairs.append((normalization, activation, fused))
    return pairs


def fused_pairs_within(
    model: Any, leaky_relu_for: Callable[[Any], Any]
) -> list[tuple[Any, Any, BatchNormLeakyReLU]]:
    """Returns the pairs inside layers of the user's own classes, as `fused_pairs` does.

    A trace shows which activation uses the output of a normalisation, in training and at inference.
    """
    of_graphs = _of_graphs(model)
    within = [layer for layer in layers_within(model) if id(layer) not in of_graphs]
    normalizations = [x for x in within if type(x) is _layers.BatchNormalization and x.built]
    activations = [layer for layer in within if leaky_relu_for(layer) is not None]
    if not (normalizations and activations):
        return []
    try:
        traces = [Tracer(model, normalizations + activations, mode) for mode in (True, None)]
    except Exception:  # of any kind: it is the user's model that is called
        return []
    pairs = []
    for normalization in normalizations:
        partners = [_partner(normalization, activations, each) for each in traces]
        activation, rank = partners[0]
        if activation is not None and partners[1][0] is activation:
            fused = _fused(normalization, leaky_relu_for(activation), rank)
            if fused is not None:
                pairs.append((normalization, activation, fused))
    return pairs


def _of_graphs(model: Any) -> set[int]:
    """Returns the ids of the layers of Sequential and functional models."""
    graphs = [each for each in (model, *layers_within(model)) if is_graph(each)]
    return {id(layer) for graph in graphs for layer in graph.layers}


def _partner(normalization: Any, activations: list[Any], tracer: Tracer) -> tuple[Any, Any]:
    """Returns the only user of a normalisation's outputs if it uses nothing else, and the rank."""
    calls = tracer.calls[id(normalization)]
    for activation in activations:
        uses = tracer.calls[id(activation)]
        if (
            len(calls) == len(uses) > 0
            and all(use.x is call.y for call, use in zip(calls, uses, strict=True))
            and all(users_of(use.x) == use.reads for use in uses)
            and tracer.users_of_weights(normalization) is not None
        ):
            return activation, calls[0].x.shape.rank
    return None, None


def _neighbours(model: Any) -> list[tuple[Any, Any]]:
    """Returns pairs of layers, each called once, where only the second uses the first's output."""
    if isinstance(model, tf.keras.Sequential):
        ids = [id(layer) for layer in model.layers]
        once = [layer if ids.count(id(layer)) == 1 else None for layer in model.layers]
        return [pair for pair in pairwise(once) if None not in pair]
    calls = {id(each): calls_of(each) for each in operations_of(model)}
    users: dict[int, list[Any]] = {}
    for each in operations_of(model):
        for inputs, _ in calls[id(each)]:
            for x in inputs:
                users.setdefault(id(x), []).append(each)
    ends = {id(x) for x in tf.nest.flatten(model.outputs)}
    pairs = []
    for each in operations_of(model):
        outputs = [x for _, made in calls[id(each)] for x in made]
        after = [user for x in outputs for user in users.get(id(x), [])]
        if (
            len(outputs) == len(after) == 1
            and id(outputs[0]) not in ends
            and len(calls[id(after[0])]) == 1
        ):
            pairs.append((each, after[0]))
    return pairs


def split(layer: BatchNormLeakyReLU, leaky_relu: Any) -> Any:
    """Returns a Sequential of a stock BatchNormalization and an activation, without the weights.

    Args:
        layer: The layer that they replace.
        leaky_relu: The activation.
    """
    config = layer.get_config()
    own = {key: value for key, value in config.items() if "alpha" not in key and key != "name"}
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


def _fused(normalization: Any, leaky: LeakyReLU, rank: int | None) -> BatchNormLeakyReLU | None:
    """Returns the fused layer for a pair on inputs of a rank, or None if they can't be fused."""
    slopes = slopes_in_use(leaky) if leaky.built else np.asarray(leaky.get_config()["alpha"])
    if (slopes < SMALLEST_POSITIVE_ALPHA).any() or normalization.trainable != leaky.trainable:
        return None
    if rank is None or getattr(normalization, "renorm", False):
        return None
    axis = int(np.ravel(normalization.axis)[0])
    if leaky.axis is not None and [a % rank for a in np.ravel(leaky.axis)] != [axis % rank]:
        return None
    if normalization.compute_dtype != leaky.compute_dtype:
        return None
    config = {
        key: value
        for key, value in normalization.get_config().items()
        if key not in _NOT_OF_THE_FUSED and key != "fused"
    }
    of_leaky = leaky.get_config()
    names = ("trainable_alpha", "alpha_constraint", "alpha_regularizer")
    return BatchNormLeakyReLU(
        **config
        | {name: of_leaky[name] for name in names}
        | {"axis": axis, "alpha": slopes.tolist()}
        | {"alpha_axis": None if leaky.axis is None else axis}
    )
