"""The few places where Keras 3 and tf_keras differ, and the refusal of what isn't supported."""

from __future__ import annotations

import contextlib
import itertools
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.messages import shown


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
            f"stands for. Received: model={shown(model)} of type {kind}. "
            "Build it with tf.keras; TF_USE_LEGACY_KERAS=1 makes that tf_keras."
        )
    if not model.built:
        raise ValueError(
            f"{subject}: expected model to be built. Received: model={model.name!r}, not built. "
            "Give it an Input, or call it once on data."
        )


def inputs_of(model: Any, *, subject: str) -> Any:
    """The structure that a built model takes, with a tf.TensorSpec for each tensor.

    Each spec has an unknown batch size and a name that no other has: the key of a dict, else the
    name of the Input.

    Raises:
        ValueError: If the shapes aren't known because the model was never called, or an input is
            sparse, ragged, or has no batch axis or no known rank.
    """
    structure = _recorded_inputs(model)
    if structure is None:
        raise ValueError(
            f"{subject}: expected model to have been called, which is when a model without an "
            f"Input learns its inputs. Received: model={model.name!r}, never called. "
            "Call it once on data."
        )
    leaves = _leaves(structure)
    names = [_argument(key or _input_name(leaf, i)) for i, (key, leaf) in enumerate(leaves)]
    specs = []
    for name, (_, leaf) in zip(_unique(names), leaves, strict=True):
        shape = tf.TensorShape(getattr(leaf, "shape", None))
        dense = not (getattr(leaf, "sparse", False) or getattr(leaf, "ragged", False))
        if isinstance(leaf, tf.SparseTensorSpec | tf.RaggedTensorSpec) or not dense:
            raise ValueError(
                f"{subject}: expected inputs that are dense tensors. Received: "
                f"model={model.name!r}, whose input {name!r} is {leaf!r}. "
                "Give the model a dense Input, and make it sparse or ragged inside."
            )
        if not shape.rank:
            raise ValueError(
                f"{subject}: expected inputs of a known rank, with a batch axis. Received: "
                f"model={model.name!r}, whose input {name!r} has shape {shape}. "
                "Give its Input a shape; sizes may be None."
            )
        specs.append(tf.TensorSpec([None, *shape[1:]], leaf.dtype, name=name))
    return tf.nest.pack_sequence_as(structure, specs)


def fixed_batch(model: Any) -> int | None:
    """The batch size that the Inputs of a functional model name, if they do.

    A Sequential that was called on data names the size of that data, and takes any.
    """
    if isinstance(model, tf.keras.Sequential) or getattr(model, "inputs", None) is None:
        return None
    sizes = {leaf.shape[0] for leaf in tf.nest.flatten(model.inputs) if leaf.shape}
    return sizes.pop() if len(sizes) == 1 else None


def records_dtypes(model: Any) -> bool:
    """Whether the dtypes of a model's inputs are known: not of a subclassed one of Keras 3."""
    return _package(tf.keras.Model) == "tf_keras" or getattr(model, "inputs", None) is not None


def _recorded_inputs(model: Any) -> Any:
    """What the model takes, with its shapes and dtypes, or None where that isn't known."""
    if _package(tf.keras.Model) == "tf_keras":
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


def traced(model: Any, inputs: Any) -> Any:
    """What `write` takes: the forward pass on `inputs_of(model)`, as signature `serving_default`.

    Its outputs are named as those of `predict` here.
    """

    def serve(inputs: Any) -> dict[str, Any]:
        return named_outputs(model, model(inputs, training=False))

    # tf_keras leaves it to autograph to convert the `call` of a subclassed model.
    autograph = _package(tf.keras.Model) == "tf_keras"
    endpoint = tf.function(serve, input_signature=[inputs], autograph=autograph)
    endpoint.get_concrete_function()
    archive = tf.keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", endpoint)
    return archive


def call_traced(function: Any) -> Any:
    """A tf.function of what calls a model on batches of any size."""
    autograph = _package(tf.keras.Model) == "tf_keras"  # see `traced`
    return tf.function(function, reduce_retracing=True, autograph=autograph)


def write(archive: Any, path: Any) -> None:
    """Writes what `traced` returned as the SavedModel `path`.

    It is never written by `tf.saved_model.save`: under Keras 3, what that writes fails every
    request in a server.
    """
    if _package(tf.keras.Model) == "tf_keras":
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


def compiled_by_xla(model: Any) -> bool:
    """Whether `model.predict` is compiled by XLA."""
    return bool(getattr(model, "jit_compile", False))


def predict(model: Any, inputs: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What `model.predict` gives for arrays by the names of `inputs_of(model)`, by name too."""
    specs = tf.nest.flatten(inputs)
    tensors = [tf.cast(arrays[spec.name], spec.dtype) for spec in specs]
    given = tf.nest.pack_sequence_as(inputs, tensors)
    return named_outputs(model, model.predict(given, batch_size=len(tensors[0]), verbose=0))


def named_outputs(model: Any, outputs: Any) -> dict[str, Any]:
    """The outputs of a model by name: the key in a dict, else the name of the layer they are of.

    A subclassed model that returns no dict has `output_0` and so on.
    """
    leaves = _leaves(outputs)
    layers = getattr(model, "output_names", None)
    if layers is None and isinstance(model, tf.keras.Sequential):
        layers = [model.layers[-1].name]
    if layers is None or len(layers) != len(leaves):
        layers = [f"output_{i}" for i in range(len(leaves))]
    names = [key or layer for (key, _), layer in zip(leaves, layers, strict=True)]
    return dict(zip(_unique(names), (leaf for _, leaf in leaves), strict=True))


def _leaves(structure: Any, key: str = "") -> list[tuple[str, Any]]:
    """What a structure holds, in the order of `tf.nest`, each with its key if it is in a dict."""
    if isinstance(structure, Mapping):
        parts = [(str(name), structure[name]) for name in sorted(structure)]
    elif isinstance(structure, list | tuple):
        parts = [("", part) for part in structure]
    else:
        return [(key, structure)]
    return [leaf for name, part in parts for leaf in _leaves(part, name)]


def _input_name(leaf: Any, i: int) -> str:
    """The name of an Input; one without is numbered in its model, not in the process as Keras."""
    name = getattr(leaf, "name", None)
    return f"input_{i}" if name is None or name.startswith("keras_tensor") else name


def _clean(name: str) -> str:
    """The name as that of a tensor may be."""
    return re.sub("[^A-Za-z0-9_.-]", "_", name)


def _argument(name: str) -> str:
    """The name as that of an argument of a tf.function may be, which has more limits."""
    clean = _clean(name)
    usable = re.match("[A-Za-z0-9.]", clean) and clean != "self" and not keyword.iskeyword(clean)
    return clean if usable else "x_" + clean.lstrip("_-")


def _unique(names: list[str]) -> list[str]:
    """The names as those of tensors may be, with a number after one that is there in any case."""
    unique: list[str] = []
    for name in names:
        clean = _clean(name)
        there = {each.lower() for each in unique}
        numbered = (f"{clean}_{i}" for i in itertools.count(1))
        new = (
            clean
            if clean.lower() not in there
            else next(n for n in numbered if n.lower() not in there)
        )
        unique.append(new)
    return unique


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
    if _package(tf.keras.Model) == "tf_keras" or isinstance(model, tf.keras.Sequential):
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
    trusted = {} if _package(tf.keras.Model) == "tf_keras" else {"safe_mode": False}
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
    spelled = "alpha" if _package(tf.keras.Model) == "tf_keras" else "negative_slope"
    return tf.keras.layers.LeakyReLU(**{spelled: slope}, **kwargs)


def slope_of_keras_leaky_relu(layer: Any) -> float:
    """The slope of Keras's own LeakyReLU."""
    return float(layer.negative_slope if hasattr(layer, "negative_slope") else layer.alpha)
