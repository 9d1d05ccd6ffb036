"""Finds the ReLUs that a model's graph still contains, by layer."""

from __future__ import annotations

import re
from typing import Any

from tf_leaky.checks import said, warn
from tf_leaky.graph_defs import nodes_of
from tf_leaky.keras_compat import LEGACY, trace
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import SCOPE, leaky_relu
from tf_leaky.structure import held, layers_within, shown_place


def relus_of(model: Any) -> dict[str, set[str]] | None:
    """Returns the operations Relu and LeakyRelu of a model's forward pass, by layer, without ours.

    Returns:
        The types of operations by the layer's path: its name after those of its outer layers,
        joined with `/`; "" for a function in the model itself. None if the model can't be traced.
    """
    try:
        graph = trace(model).graph.as_graph_def()
    except Exception:  # of any kind: it is the user's model that is called
        return None
    names = {layer.name for layer in layers_within(model)}
    found: dict[str, set[str]] = {}
    for path, node, _ in nodes_of(graph):
        if node.op in ("Relu", "LeakyRelu") and not _is_ours(path):
            within = [name for scope in path.split("/") if (name := _layer_of(scope, names))]
            found.setdefault("/".join(within), set()).add(node.op)
    return found


def _is_ours(path: str) -> bool:
    return re.search(rf"(^|/){SCOPE}(_\d+)?/", path) is not None


def _layer_of(scope: str, names: set[str]) -> str | None:
    """Returns the layer of a name scope, to which Keras 3 may add a number."""
    bare = re.sub(r"_\d+$", "", scope)
    return next((name for name in ((scope,) if LEGACY else (bare, scope)) if name in names), None)


def report_left(model: Any, kinds: set[str], on_purpose: list[str], *, strict: bool) -> None:
    """Warns of ReLUs that a conversion could not change, or raises an error with `strict`.

    Args:
        model: The converted model.
        kinds: The types of operations that it should no longer have.
        on_purpose: The names of layers that were left alone; "" for functions in a graph.
        strict: Whether to raise an error.
    """
    relus = relus_of(model)
    if relus is None:
        text = (
            f"convert: {model.name!r} could not be traced, so it is not known whether any ReLU "
            "was left."
        )
    else:
        left = {
            path: operations & kinds
            for path, operations in relus.items()
            if not set(path.split("/")) & set(on_purpose)
        }
        places = [
            f"{path or model.name} ({', '.join(sorted(found))})"
            for path, found in left.items()
            if found
        ]
        if not places:
            return
        text = (
            f"convert: expected to change every ReLU of {model.name!r}. Left as they are: "
            f"{', '.join(places)}. A function that is used in a `call` can't be replaced from "
            "outside: make it a layer, as in self.act = tf_leaky.LeakyReLU(...)."
        )
    if strict:
        raise ValueError(text)
    warn(text)


def check_none_of_ours(model: Any) -> None:
    """Raises ValueError if anything of this package is left in a model."""
    places = [
        layer.name
        for layer in layers_within(model)
        if isinstance(layer, LeakyReLU) or type(layer).__module__.startswith("tf_leaky.")
    ]
    places += [
        f"{layer.name}.{shown_place(place)}"
        for layer in [model, *layers_within(model)]
        for place, value in held(layer)
        if value is leaky_relu
    ]
    try:
        graph = trace(model).graph.as_graph_def()
    except Exception as error:  # of any kind: it is the user's model that is called
        raise ValueError(
            f"to_keras: expected a model that can be traced. Received: {model.name!r}, which "
            f"fails: {said(error)}"
        ) from error
    places += [path for path, _, _ in nodes_of(graph) if _is_ours(path)]
    if places:
        raise ValueError(
            "to_keras: expected activations that stock layers can replace. Received: "
            f"{model.name!r}, in which tf_leaky is used by {', '.join(places[:10])}. "
            "Store them in attributes of their layers, where they can be found."
        )
