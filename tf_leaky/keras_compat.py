"""The few places where Keras 3 and tf_keras differ, and the refusal of what isn't supported."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import tensorflow as tf


def refuse_other_backends() -> None:
    """Raises ImportError unless `tf.keras` computes with TensorFlow."""
    try:
        backend = tf.keras.backend.backend()
    except ImportError as error:
        raise ImportError(
            "tf_leaky: expected tf.keras to be importable. "
            f"Received: {error} Install keras, or tf_keras where TF_USE_LEGACY_KERAS=1 is set, "
            "and unset KERAS_BACKEND."
        ) from error
    if backend != "tensorflow":
        raise ImportError(
            "tf_leaky: expected Keras to run on the TensorFlow backend. "
            f"Received: backend={backend!r}. Set KERAS_BACKEND=tensorflow before Keras is imported."
        )


def check_built_model(model: Any, *, subject: str) -> None:
    """Raises TypeError unless `model` is a model of `tf.keras`, ValueError unless it is built."""
    if not isinstance(model, tf.keras.Model):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise TypeError(
            f"{subject}: expected a model of {_package(tf.keras.Model)}, the Keras that tf.keras "
            f"stands for. Received: model={model!r} of type {kind}. "
            "Build it with tf.keras; TF_USE_LEGACY_KERAS=1 makes that tf_keras."
        )
    if not model.built:
        raise ValueError(
            f"{subject}: expected model to be built. Received: model={model.name!r}, not built. "
            "Give it an Input, or call it once on data."
        )


def export(model: Any, path: Any) -> None:
    """Writes the SavedModel `path` with the signature `serving_default`.

    Never by `tf.saved_model.save`: under Keras 3, what that writes fails every request in a server.
    """
    if _package(tf.keras.Model) == "tf_keras":
        with contextlib.redirect_stdout(io.StringIO()):  # it has no switch for its report
            model.export(str(path))
    else:
        model.export(str(path), format="tf_saved_model", verbose=False)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
