"""Checks an export: its graph, and its answers in a fresh process."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from tf_leaky.checks import note
from tf_leaky.graph_defs import nodes_of
from tf_leaky.serving import running, signatures

Arrays = dict[str, np.ndarray]
_logger = logging.getLogger("tf_leaky")
_PATIENCE = 1800  # seconds, enough to load and run the largest model
# An isolated Python finds only what is installed for all users. NumPy and TensorFlow may be
# elsewhere, such as on PYTHONPATH: so their folders are added to the end of its path.
_START = """
import json, runpy, sys
sys.path += json.loads(sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def examples(inputs: Any, batch: int = 2, *, whole: bool = False) -> Arrays:
    """Returns examples for each input: seeded normal floats, zeros for integers, "" for strings.

    There are `batch` of them, unless the model takes only batches of another size. Unknown sizes
    are 8. With zeros for floats, a wrong slope would not show. If `whole`, floats are 0 and 1,
    which are indices too.
    """
    rng = np.random.default_rng(0)
    made = {}
    for spec in tf.nest.flatten(inputs):
        shape = [spec.shape[0] or batch, *(8 if size is None else size for size in spec.shape[1:])]
        if spec.dtype == tf.string:
            made[spec.name] = np.full(shape, b"", object)
        elif spec.dtype.is_floating or spec.dtype.is_complex:
            numbers = rng.integers(0, 2, shape) if whole else rng.normal(size=shape)
            made[spec.name] = numbers.astype(np.float32)
        else:
            made[spec.name] = np.zeros(shape, spec.dtype.as_numpy_dtype)
    return made


def predictions(model: Any, inputs: Any, requests: list[Arrays]) -> list[Arrays]:
    """Returns what `model.predict` returns for each request.

    Errors of the model are raised unchanged, with a note that says where they come from.
    """
    try:
        return [running.plain(signatures.predict(model, inputs, arrays)) for arrays in requests]
    except Exception as error:
        shapes = [{name: array.shape for name, array in arrays.items()} for arrays in requests]
        note(
            error,
            "export_saved_model: the error above is of model.predict, which is run to compare the "
            f"export with it. Received: model={model.name!r}, on examples of shapes "
            f"{shapes}. Nothing was published. If these examples don't fit the model, give "
            "others as warmup, or check=False.",
        )
        raise


def meta_graph(folder: Path) -> meta_graph_pb2.MetaGraphDef:
    """Returns the graph and the signatures of the SavedModel `folder`."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0]


def forward_nodes(model: Any, graph: Any) -> list[Any]:
    """Returns the nodes of a GraphDef that a request may run.

    Raises:
        ValueError: If a node is compiled with XLA.
    """
    functions = {each.signature.name for each in graph.library.function if _must_compile(each)}
    nodes = []
    for _, node, called in nodes_of(graph):
        if _must_compile(node) or called & functions:
            raise ValueError(_compiled(model, node.name, called & functions))
        nodes.append(node)
    return nodes


def _must_compile(definition: Any) -> bool:
    return bool(definition.attr["_XlaMustCompile"].b)


def _compiled(model: Any, node: str, functions: set[str]) -> str:
    """Returns the error message for a node that is compiled, with a way out."""
    if any("_conv_xla" in name or "_jit_compiled_convolution" in name for name in functions):
        way_out = (
            "Keras itself compiles convolutions with groups > 1 and channels-first Conv3D, and no "
            "setting turns that off. Split the channels with a Lambda layer, give each group its "
            "own Conv and concatenate the results, which computes the same; use DepthwiseConv2D if "
            'each channel is a group; or give Conv3D data_format="channels_last".'
        )
    else:
        way_out = "Remove jit_compile=True from the layer."
    return (
        "export_saved_model: expected a model without jit_compile=True in its forward pass. "
        f"Received: model={model.name!r}, with {node!r} compiled. TensorFlow Serving would answer "
        f"each request with 'XLA compilation disabled'. {way_out}"
    )


def log_half_precision(model: Any, signature: Any) -> None:
    """Logs the inputs and outputs of a SignatureDef that TensorFlow Serving's REST can't carry."""
    halves = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)
    both = {**signature.inputs, **signature.outputs}
    names = sorted(name for name, info in both.items() if info.dtype in halves)
    if names:
        _logger.warning(
            "export_saved_model: %r takes or returns float16 or bfloat16 in %s, which "
            "TensorFlow Serving's REST API refuses with status 400; gRPC accepts them. For REST, "
            'give Inputs dtype="float32", and end the model with '
            'tf.keras.layers.Activation("linear", dtype="float32").',
            model.name,
            names,
        )


def answers(model: Any, folder: Path, requests: list[Arrays], scratch: Path) -> list[Arrays]:
    """Returns the answers of the SavedModel `folder` in a fresh process, on the CPU.

    Temporary files go to the folder `scratch`.

    Raises:
        RuntimeError: If it fails there.
        OSError: If the arrays can't be written.
    """
    paths = [
        (scratch / f"inputs_{i}.npz", scratch / f"outputs_{i}.npz") for i in range(len(requests))
    ]
    for (path, _), arrays in zip(paths, requests, strict=True):
        running.write_arrays(path, arrays)
    packages = [str(Path(str(package.__file__)).absolute().parents[1]) for package in (np, tf)]
    files = [str(file) for pair in paths for file in pair]
    command = [sys.executable, "-I", "-c", _START, json.dumps(packages), running.__file__]
    if failure := _failure([*command, str(folder), *files]):
        raise RuntimeError(
            "export_saved_model: expected the export to answer in a fresh process, which loads it "
            "with TensorFlow's session loader, without Keras or tf_leaky. "
            f"Received: model={model.name!r}, whose export failed: {failure} Nothing was published."
        )
    return [running.read_arrays(path) for _, path in paths]


def _failure(command: list[str]) -> str:
    """Returns why a process failed: its exception's message, or the end of its output; else "".

    Raises:
        OSError: If it could not write its answers.
    """
    cpu = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    kept: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "env": cpu}
    try:
        done = subprocess.run(command, check=False, timeout=_PATIENCE, **kept)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    if disk := re.search(r"^OSError: (.+)$", done.stderr, re.MULTILINE):
        raise OSError(disk[1])
    said = str(done.stderr.strip().rpartition("RuntimeError: ")[2][-2000:])
    return f"signal {-done.returncode}. {said}" if done.returncode < 0 else said
