"""Has a copy of a model create its weights."""

from __future__ import annotations

from typing import Any

from tf_leaky.checks import WAY_OUT, said
from tf_leaky.keras_compat import recorded_inputs, trace
from tf_leaky.structure import is_graph, layers_within


def build(model: Any, new: Any, subject: str) -> None:
    """Has a copy of a model create its weights.

    Raises:
        ValueError: If it has to be called for that, and what Keras recorded of the model's call
            isn't enough.
    """
    if not new.built and is_graph(new):
        new.build(recorded_inputs(model).shape)
    # Keras 3 builds an activation of another layer only when that is called on tensors.
    if new.built and all(part.built for part in layers_within(new)):
        return
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


def _can_be_traced(model: Any) -> bool:
    try:
        trace(model)
    except Exception:  # of any kind: it is the user's model that is called
        return False
    return True
