"""Finds the weights that a graph's model has in its attributes, and that the graph doesn't use."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_leaky.checks import warn
from tf_leaky.keras_compat import graph_layers, handle_of, trace
from tf_leaky.structure import held, is_graph, is_layer, is_stock, layers_within, variables_of


def unused(old: Any, new: Any) -> list[Any]:
    """Returns the variables of a functional model that no layer of its graph has.

    There are none if its copy is of the user's class, which makes all attributes anew.
    """
    if not is_plain(old, new):
        return []
    used = {id(each) for layer in graph_layers(old) for each in variables_of(layer)}
    return [each for each in variables_of(old) if id(each) not in used]


def is_plain(old: Any, new: Any) -> bool:
    """Whether a layer is a functional model, and its copy a plain one."""
    return is_graph(old) and is_stock(new) and not isinstance(old, tf.keras.Sequential)


def without_read(model: Any, variables: list[Any]) -> list[Any]:
    """Returns those variables that a call of a model doesn't read; none if it can't be traced.

    The graph may read a weight without a layer: `x @ embedding.embeddings`. A class may have a
    `call` of its own.
    """
    read: set[int] = set()
    for training in (False, True) if variables else ():
        try:
            function = trace(model, training=training)
        except Exception:  # of any kind: it is the user's model that is called
            return []
        read |= {id(each) for each in function.captured_inputs}
    return [each for each in variables if id(handle_of(each)) not in read]


def warn_of_unused(model: Any, variables: list[Any], subject: str) -> None:
    """Warns of weights that a copy lacks, by the layers that have them."""
    holders = [model, *layers_within(model)]
    for holder in holders:  # grows
        for _, part in held(holder) if is_graph(holder) else ():
            if is_layer(part):
                known = {id(each) for each in holders}
                holders += [p for p in (part, *layers_within(part)) if id(p) not in known]
    names: dict[str, None] = {}
    for variable in variables:
        having = [each for each in holders if any(v is variable for v in variables_of(each))]
        inner = min(reversed(having), key=lambda each: len(variables_of(each)))
        path = getattr(variable, "path", variable.name)
        names[f"the weight {path!r}" if is_graph(inner) else repr(inner.name)] = None
    warn(
        f"{subject}: the copy of {model.name!r} lacks {len(variables)} of its weights, which no "
        f"output depends on: those of {', '.join(names)}. They are in attributes of a functional "
        "model, whose graph doesn't use them, and its copy is a plain one. If you need them, "
        f"call {subject} on the layers or models that have them."
    )
