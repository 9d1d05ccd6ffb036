"""The few places where Keras 3 and tf_keras differ, and the refusal of what isn't supported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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


refuse_other_backends()
LEGACY = tf.keras.Model.__module__.partition(".")[0] == "tf_keras"


def recorded_inputs(model: Any) -> Any:
    """What the model takes, with its shapes and dtypes, or None where that isn't known."""
    if LEGACY:
        specs = model.save_spec()
        return None if specs is None else specs[0][0]
    if isinstance(model, tf.keras.Sequential):
        return model.inputs[0]
    if getattr(model, "inputs", None) is not None:
        return model.input
    if not getattr(model, "_called", True):  # what `model.export` goes by
        return None
    shapes = model.get_build_config()
    return shapes and _specs_of(next(iter(shapes.values())), model.input_dtype)


def _specs_of(shapes: Any, dtype: Any) -> Any:
    """The structure of shapes that a subclassed model of Keras 3 was built with, as specs.

    Their dtypes aren't recorded.
    """
    if isinstance(shapes, dict):
        return {key: _specs_of(shape, dtype) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec(shapes, dtype)
    return [_specs_of(shape, dtype) for shape in shapes]


def call_traced(function: Any, **options: Any) -> Any:
    """A tf.function of what calls a model on batches of any size.

    tf_keras leaves it to autograph to convert the `call` of a subclassed model.
    """
    return tf.function(function, reduce_retracing=True, autograph=LEGACY, **options)


def write(archive: Any, path: Any) -> None:
    """Writes what `serving.signatures.traced` returned as the SavedModel `path`.

    It is never written by `tf.saved_model.save`: under Keras 3, what that writes fails every
    request in a server.
    """
    if LEGACY:
        with _no_report():
            archive.write_out(str(path))
    else:
        archive.write_out(str(path), verbose=False)


@contextlib.contextmanager
def _no_report() -> Iterator[None]:
    """Has tf_keras log what it would print; this thread's alone, while `sys.stdout` is all's."""
    loud = tf.keras.utils.is_interactive_logging_enabled()
    tf.keras.utils.disable_interactive_logging()
    try:
        yield
    finally:
        if loud:
            tf.keras.utils.enable_interactive_logging()


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def is_graph(model: Any) -> bool:
    """Whether `model` is a Sequential or functional model of Keras's own, which can be cloned."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    own = _package(type(model)) in ("keras", "tf_keras")
    return own and bool(kinds & {"Functional", "Sequential"})


def inputs_alike(model: Any) -> Any:
    """New inputs of the names that a functional model of Keras 3 has, for its `clone_model`.

    None elsewhere: there `clone_model` keeps the names.
    """
    if LEGACY or isinstance(model, tf.keras.Sequential):
        return None

    def alike(tensor: Any) -> Any:
        layer = tensor._keras_history.operation
        return type(layer).from_config(layer.get_config()).output

    return tf.nest.map_structure(alike, model.input)


def layers_within(layer: Any) -> list[Any]:
    """The layers that a layer holds, and those that they hold, the outer ones first."""
    return list(layer._flatten_layers(include_self=False, recursive=True))


def copy_of_lambda(layer: Any) -> Any:
    """A Lambda with the very function of another: no code is read from a config.

    Keras 3 refuses to, as in a file it may be a stranger's.
    """
    trusted = {} if LEGACY else {"safe_mode": False}
    new = type(layer).from_config(layer.get_config(), **trusted)
    new.function = layer.function
    return new


def as_instance(kind: str, found: Any) -> Any:
    """A constraint or regularizer that may be any function, as a weight of every Keras takes it.

    Keras 3.10 insists on instances of its own class.
    """
    base = getattr(getattr(tf.keras, f"{kind}s"), kind.title())
    if found is None or isinstance(found, base):
        return found
    return type(base.__name__, (base,), {"__call__": lambda _, weight: found(weight)})()


def compile_alike(model: Any, new: Any) -> None:
    """Compiles `new` as `model` is compiled, with an optimizer, losses and metrics of its own."""
    if not getattr(model, "compiled", getattr(model, "_is_compiled", False)):
        return
    config = model.get_compile_config()
    given = tf.nest.flatten([model.loss, getattr(model, "_compile_config", {})])
    own = {each.__name__: each for each in given if callable(each) and hasattr(each, "__name__")}
    with tf.keras.utils.custom_object_scope(own):
        new.compile_from_config(config)


def keras_leaky_relu(slope: float, **kwargs: Any) -> Any:
    """Keras's own LeakyReLU, which spells its slope in two ways."""
    spelled = "alpha" if LEGACY else "negative_slope"
    return tf.keras.layers.LeakyReLU(**{spelled: slope}, **kwargs)


def slope_of_keras_leaky_relu(layer: Any) -> float:
    """The slope of Keras's own LeakyReLU."""
    return float(layer.negative_slope if hasattr(layer, "negative_slope") else layer.alpha)
