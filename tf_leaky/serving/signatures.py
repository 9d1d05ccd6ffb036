"""The inputs and outputs of an export, by name."""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky import keras_compat
from tf_leaky.checks import check_inputs_known


def inputs_of(model: Any, *, subject: str) -> Any:
    """Returns the structure of a built model's inputs, with a tf.TensorSpec for each tensor.

    Each spec has an unknown batch size and a unique name: the key of a dict, else the name of the
    Input.

    Raises:
        ValueError: If the shapes aren't known, or if an input is sparse, ragged, or has no batch
            axis or no known rank.
    """
    structure = keras_compat.recorded_inputs(model)
    check_inputs_known(model, structure, subject=subject)
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
                "Give the model a dense Input, and convert it to sparse or ragged inside."
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
    """Returns the batch size that the Inputs of a functional model name, or None.

    A Sequential that was called on data has the size of that data there, but takes any.
    """
    if isinstance(model, tf.keras.Sequential) or getattr(model, "inputs", None) is None:
        return None
    sizes = {leaf.shape[0] for leaf in tf.nest.flatten(model.inputs) if leaf.shape}
    return sizes.pop() if len(sizes) == 1 else None


def traced(model: Any, inputs: Any) -> Any:
    """Returns an archive of the forward pass as signature `serving_default`, ready to be written.

    It takes `inputs_of(model)`. Its outputs have the same names as those of `predict` here.
    """

    def serve(inputs: Any) -> dict[str, Any]:
        return named_outputs(model, model(inputs, training=False))

    endpoint = keras_compat.call_traced(serve, input_signature=[inputs])
    endpoint.get_concrete_function()
    archive = tf.keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", endpoint)
    return archive


def predict(model: Any, inputs: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the outputs of `model.predict` by name, for arrays by the names of `inputs`."""
    specs = tf.nest.flatten(inputs)
    tensors = [tf.cast(arrays[spec.name], spec.dtype) for spec in specs]
    given = tf.nest.pack_sequence_as(inputs, tensors)
    return named_outputs(model, model.predict(given, batch_size=len(tensors[0]), verbose=0))


def named_outputs(model: Any, outputs: Any) -> dict[str, Any]:
    """Returns a model's outputs by name: the key in a dict, else the name of their layer.

    The outputs of a subclassed model that aren't in a dict are `output_0` and so on.
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
    """Returns the leaves of a structure as `tf.nest` orders them, each with its key in a dict."""
    if isinstance(structure, Mapping):
        parts = [(str(name), structure[name]) for name in sorted(structure)]
    elif isinstance(structure, list | tuple):
        parts = [("", part) for part in structure]
    else:
        return [(key, structure)]
    return [leaf for name, part in parts for leaf in _leaves(part, name)]


def _input_name(leaf: Any, i: int) -> str:
    """Returns the name of an Input; unnamed ones are numbered per model, not per process."""
    name = getattr(leaf, "name", None)
    return f"input_{i}" if name is None or name.startswith("keras_tensor") else name


def _clean(name: str) -> str:
    """Returns the name with only characters that a tensor's name may have."""
    return re.sub("[^A-Za-z0-9_.-]", "_", name)


def _argument(name: str) -> str:
    """Returns the name as an argument of a tf.function may have it, which has more limits."""
    clean = _clean(name)
    usable = re.match("[A-Za-z0-9.]", clean) and clean != "self" and not keyword.iskeyword(clean)
    return clean if usable else "x_" + clean.lstrip("_-")


def _unique(names: list[str]) -> list[str]:
    """Returns valid names of tensors, with numbers after those that are equal but for case."""
    unique: list[str] = []
    for name in names:
        clean, used = _clean(name), {each.lower() for each in unique}
        numbered = itertools.chain([clean], (f"{clean}_{i}" for i in itertools.count(1)))
        unique.append(next(each for each in numbered if each.lower() not in used))
    return unique
