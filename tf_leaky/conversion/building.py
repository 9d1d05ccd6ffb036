"""Has a copy of a model create its weights."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_leaky.checks import WAY_OUT, said
from tf_leaky.keras_compat import recorded_inputs, trace
from tf_leaky.structure import is_graph, layers_within, sublayers


def build(model: Any, new: Any, subject: str) -> None:
    """Has a copy of a model create its weights.

    Raises:
        ValueError: If it has to be called for that, and what Keras recorded of the model's call
            isn't enough.
    """
    inputs = recorded_inputs(model)
    if not new.built and is_graph(new) and hasattr(inputs, "shape"):  # no list or dict of tensors
        new.build(inputs.shape)
    # Keras 3 builds an activation of another layer only when that is called on tensors.
    if new.built and all(part.built for part in layers_within(new)):
        return
    _build_normalizations(model, new)
    try:
        trace(new, like=model)
    except Exception as error:  # of any kind: it is the user's model that is called
        if _can_be_traced(model):
            raise
        raise ValueError(
            f"{subject}: expected a model that can be called on what Keras recorded of its call. "
            f"Received: model={model.name!r}, which then fails: {said(error).rstrip('.')}. Keras 3 "
            f"records the shapes of one argument, and no dtypes. {WAY_OUT} Its copy has that of "
            f"the model as get_layer({model.name!r})."
        ) from error


def _build_normalizations(model: Any, new: Any) -> None:
    """Has the copies of `Normalization` layers create their state outside of a trace.

    In Keras 3, what they are built to compute with would else be tensors of a graph that is gone.
    """
    pairs, seen = [(model, new)], {id(model)}
    for old, twin in pairs:  # grows
        places = {tuple(place): part for place, part in sublayers(twin)}
        for place, part in sublayers(old):
            if id(part) not in seen and tuple(place) in places:
                seen.add(id(part))
                pairs.append((part, places[tuple(place)]))
        if not (isinstance(twin, tf.keras.layers.Normalization) and old.built):
            continue
        if twin.built:
            twin.finalize_state()
        else:
            twin.build_from_config(old.get_build_config())


def _can_be_traced(model: Any) -> bool:
    try:
        trace(model)
    except Exception:  # of any kind: it is the user's model that is called
        return False
    return True
