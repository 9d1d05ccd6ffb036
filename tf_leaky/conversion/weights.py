"""Copies the state of a model to its copy, part by part, and checks that every bit is equal."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.conversion.fusing import transfer_weights
from tf_leaky.conversion.unused import is_plain, unused, warn_of_unused, without_read
from tf_leaky.keras_compat import graph_layers
from tf_leaky.layer import LeakyReLU
from tf_leaky.slopes import LayerWithSlopes, slopes_in_use
from tf_leaky.structure import (
    held,
    is_graph,
    is_layer,
    is_of_keras,
    layers_within,
    shown_place,
    sublayers,
    variables_of,
)

Pair = tuple[Any, Any, str]  # a layer, the one in its place in the copy, and its path


def pairs_of(old: Any, new: Any, twin: Callable[[Any], Any], subject: str) -> list[Pair]:
    """Returns each layer of a model, itself first, with the layer in its place in the copy.

    `twin` returns the copy of a layer if it is known, else None.

    Raises:
        ValueError: If a layer with state has no partner.
    """
    pairs, seen = [(old, new, old.name)], {id(old)}
    for before, after, path in pairs:  # grows
        # All places of each, as a replacement changes the order of attributes.
        there = sublayers(after) if is_graph(after) else held(after)
        places = {tuple(place): each for place, each in there if is_layer(each)}
        unnamed = _by_name(before, after) if is_graph(before) else {}
        split = isinstance(before, BatchNormLeakyReLU)
        graph = {id(each) for each in graph_layers(before)} if is_plain(before, after) else None
        for place, part in () if split else sublayers(before):
            if id(part) in seen or (graph is not None and id(part) not in graph):
                continue
            seen.add(id(part))
            here = f"{path}/{part.name}" if is_graph(before) else f"{path}.{shown_place(place)}"
            other = twin(part) or unnamed.get(id(part)) or places.get(tuple(place))
            if other is None:
                if part.variables:
                    raise ValueError(
                        f"{subject}: expected the copy to have every layer with weights. "
                        f"Received: {here!r} of type {type(part).__name__}, which it lacks. "
                        "Nothing was returned: make sure that its class creates the same sublayers "
                        "from its config."
                    )
                continue
            pairs.append((part, other, here))
    return pairs


def _by_name(old: Any, new: Any) -> dict[int, Any]:
    """Returns the layers of a graph that a user's class made again, by the ids of the first."""
    names = [layer.name for layer in new.layers]
    if len(set(names)) < len(names) or {layer.name for layer in old.layers} - set(names):
        same = len(old.layers) == len(new.layers)
        pairs = zip(old.layers, new.layers, strict=True) if same else ()
        return {id(layer): twin for layer, twin in pairs}
    return {id(layer): new.get_layer(layer.name) for layer in old.layers}


def transfer(pairs: list[Pair], replaced: set[int], subject: str) -> dict[int, Any]:
    """Copies the state of layers to their copies, and checks it bit by bit.

    Args:
        pairs: What `pairs_of` returned.
        replaced: The ids of replaced activations: their slopes may have another shape, and may
            become a constant or be trained from one.
        subject: The name that messages start with.

    Returns:
        The new variables by the ids of the old ones.

    Raises:
        ValueError: If a variable has no partner, or one of another shape or value.
    """
    same: dict[int, Any] = {}
    outside: dict[int, Any] = {}
    lacking: set[int] = set()
    for old, new, _ in pairs:
        outside |= {id(each): each for each in unused(old, new)}
        lacking |= {id(each) for each in _of_metrics_of_compile(old, new)}
    for old, new, path in pairs:
        before, after = [each for each in _own(old) if id(each) not in lacking], _own(new)
        if is_plain(old, new):
            before = [each for each in before if id(each) not in outside]
        if BatchNormLeakyReLU in (type(old), type(new)) and type(old) is not type(new):
            same |= transfer_weights(old, new)
            continue
        if id(old) in replaced:
            for variable, twin in zip(before, after, strict=False):
                slopes = slopes_in_use(old) if isinstance(old, LeakyReLU) else variable
                twin.assign(tf.reshape(tf.cast(slopes, twin.dtype), twin.shape))
                same[id(variable)] = twin
            continue
        if not (before or old.built):  # its first call is still to make them
            continue
        if [tuple(v.shape) for v in before] != [tuple(v.shape) for v in after]:
            raise ValueError(
                f"{subject}: expected the same variables in the copy of {path!r}. Received: "
                f"{[tuple(v.shape) for v in before]} in the model and "
                f"{[tuple(v.shape) for v in after]} in its copy. Nothing was returned: make sure "
                "that its class creates the same variables from its config."
            )
        for variable, twin in zip(before, after, strict=True):
            twin.assign(variable)
            same[id(variable)] = twin
        _transfer_more(old, new)
    root = pairs[0][0]
    left = without_read(root, [each for key, each in outside.items() if key not in same])
    _check(pairs, same, replaced, subject, lacking | {id(each) for each in left})
    if left:
        warn_of_unused(root, left, subject)
    return same


def _own(layer: Any) -> list[Any]:
    """Returns the variables of a layer that don't belong to a layer within it."""
    within = [part for part in layers_within(layer) if part.built or not is_graph(part)]
    inner = {id(each) for part in within for each in variables_of(part)}
    return [each for each in variables_of(layer) if id(each) not in inner]


def _of_metrics_of_compile(old: Any, new: Any) -> list[Any]:
    """Returns the variables of metrics in attributes of a model that its own `compile` makes.

    The copy, which isn't compiled yet, lacks them.
    """
    if not isinstance(old, tf.keras.Model) or is_of_keras(type(old), "compile"):
        return []
    kind = tf.keras.metrics.Metric
    there = {tuple(place) for place, each in held(new) if isinstance(each, kind)}
    made = [x for place, x in held(old) if isinstance(x, kind) and tuple(place) not in there]
    return [variable for each in made for variable in each.variables]


def _transfer_more(old: Any, new: Any) -> None:
    """Copies state that a class saves in its own way: adapted statistics, vocabularies."""

    def own_way(method: str) -> bool:
        return hasattr(old, "adapt") or not is_of_keras(type(old), method)

    if old.built and not is_plain(old, new) and own_way("save_own_variables"):
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        if store:
            new.load_own_variables(store)
    if hasattr(old, "save_assets") and own_way("save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _check(
    pairs: list[Pair], same: dict[int, Any], replaced: set[int], subject: str, left: set[int]
) -> None:
    """Raises ValueError unless every variable has its own copy, with the same bits.

    But for those in `left`, by their ids.
    """
    slopes = {id(each) for old, _, _ in pairs if id(old) in replaced for each in _own(old)}
    slopes |= {id(old.alpha) for old, _, _ in pairs if isinstance(old, BatchNormLeakyReLU)}
    root, copy, name = pairs[0]
    for variable in variables_of(root):
        label = f"{getattr(variable, 'path', variable.name)!r} of {name!r}"
        twin = same.get(id(variable))
        if twin is None:
            if id(variable) in slopes | left:
                continue
            raise ValueError(
                f"{subject}: expected the copy to have every weight. Received: {label}, which it "
                "lacks. Nothing was returned: store the layer that it belongs to in an attribute, "
                "a list or a dict of the layer that uses it."
            )
        if id(variable) not in slopes and not _equal(variable, twin):
            raise ValueError(
                f"{subject}: expected the weights of the copy to be those of the model. Received: "
                f"{label}, which differs. Nothing was returned."
            )
    mine = {id(twin) for twin in same.values()}
    for old, new, _ in pairs:
        if id(old) in replaced:  # the new one may have a bias that the old one lacks
            mine |= {id(each) for each in variables_of(new)}
    kinds = LayerWithSlopes, tf.keras.layers.PReLU
    mine |= {id(x.alpha) for x in layers_within(copy) if isinstance(x, kinds) and x.built}
    for variable in variables_of(copy):
        if id(variable) not in mine:
            _check_made(pairs, variable, subject)
            holders = [
                part.name
                for part in layers_within(copy)
                if any(each is variable for each in variables_of(part))
            ]
            raise ValueError(
                f"{subject}: expected no weights in the copy that the model lacks. Received: "
                f"{getattr(variable, 'path', variable.name)!r} in {', '.join(holders)}, a new "
                "weight where the model shares one. Nothing was returned: share layers in a graph, "
                "as the config of a layer can't refer to a layer outside of it."
            )


def _check_made(pairs: list[Pair], variable: Any, subject: str) -> None:
    """Raises ValueError if a model lacks a weight of its copy as it was never called.

    A Sequential says `built` as soon as Keras knows its input, also if shapes within it are unknown
    until the first call.
    """
    for old, new, path in reversed(pairs):
        if not old.built and any(each is variable for each in variables_of(new)):
            raise ValueError(
                f"{subject}: expected model to be built. Received: model={pairs[0][0].name!r}, in "
                f"which {path!r} has no weights yet. Call the model once on data."
            )


def _equal(variable: Any, twin: Any) -> bool:
    before, after = np.asarray(variable), np.asarray(twin)
    return before.dtype == after.dtype and before.tobytes() == after.tobytes()
