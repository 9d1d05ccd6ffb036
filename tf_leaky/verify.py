"""Has an export answer outside Python, as a server would, and compares with `model.predict`."""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tf_leaky import keras_compat, native

Arrays = dict[str, np.ndarray]
_logger = logging.getLogger("tf_leaky")
_PATIENCE = 1800  # seconds, in which the largest model should be loaded and run
# An isolated Python finds what was installed for all users. NumPy and TensorFlow's library may be
# elsewhere, as where PYTHONPATH says: these two folders go to the end of its path.
_START = """
import json, runpy, sys
sys.path += json.loads(sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# By the narrowest dtype that the graph computes in: (relative, absolute) differences to allow.
_FLOAT32, _FLOAT16, _BFLOAT16 = (1e-4, 1e-5), (1e-2, 1e-2), (5e-2, 5e-2)


def examples(inputs: Any) -> Arrays:
    """Two examples for each input: seeded normal floats, zeros for integers, "" for strings.

    Unknown sizes are 8. Zeros for floats would not show a wrong slope.
    """
    rng = np.random.default_rng(0)
    made = {}
    for spec in tf.nest.flatten(inputs):
        shape = [2, *(8 if size is None else size for size in spec.shape[1:])]
        if spec.dtype == tf.string:
            made[spec.name] = np.full(shape, b"", object)
        elif spec.dtype.is_floating or spec.dtype.is_complex:
            made[spec.name] = rng.normal(size=shape).astype(np.float32)
        else:
            made[spec.name] = np.zeros(shape, spec.dtype.as_numpy_dtype)
    return made


def expected_answers(
    model: Any, inputs: Any, requests: list[Arrays]
) -> list[tuple[Arrays, Arrays]]:
    """What `model.predict` answers to each request, twice: a model may sample.

    Raises:
        RuntimeError: If it fails.
    """
    try:
        predict = functools.partial(keras_compat.predict, model, inputs)
        return [(predict(arrays), predict(arrays)) for arrays in requests]
    except Exception as error:
        shapes = [{name: array.shape for name, array in arrays.items()} for arrays in requests]
        raise RuntimeError(
            "export_saved_model: expected model.predict to run on the examples of the check. "
            f"Received: model={model.name!r}, which failed on shapes {shapes}: {error} "
            "If such inputs aren't meant for the model, give some that are as warmup."
        ) from error


def check(model: Any, folder: Path, requests: list[Arrays], answers: Any, scratch: Path) -> None:
    """Raises an error unless the SavedModel `folder` gives these answers in another process.

    Args:
        model: The Keras model, for its name.
        folder: The SavedModel.
        requests: Arrays by input name.
        answers: What `expected_answers` says of each request.
        scratch: A folder for the arrays on their way.

    Raises:
        ValueError: If a server would have to compile the graph with XLA.
        RuntimeError: If it fails, or answers otherwise.
    """
    nodes = _forward_nodes(model, folder)
    tolerance = _tolerance(nodes)
    found = _answers(model, folder, requests, scratch)
    for answer, (expected, again) in zip(found, answers, strict=True):
        expected, again = native.plain(expected), native.plain(again)
        samples = any(_difference(expected[name], again[name], tolerance) for name in expected)
        differences = [
            f"{name!r}: {difference}"
            for name in sorted(expected.keys() | answer.keys())
            if (difference := _compare(expected.get(name), answer.get(name), tolerance, samples))
        ]
        if differences:
            raise RuntimeError(
                "export_saved_model: expected the export to answer as model.predict does. "
                f"Received: model={model.name!r}, whose export differs in "
                f"{'; '.join(differences)}. Nothing was published. Look for a layer that computes "
                "otherwise outside predict."
            )
        _log(model, expected, samples)


def _forward_nodes(model: Any, folder: Path) -> list[Any]:
    """The nodes that a request may run, none of which may be compiled by XLA.

    The backward functions of custom gradients are in the file too, and in no request.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    library = {function.signature.name: function for function in graph.library.function}
    nodes, called = list(graph.node), set[str]()
    for node in nodes:  # grows by those of each function that is called
        names = {node.op, *(value.func.name for value in node.attr.values())}
        names.update(each.name for value in node.attr.values() for each in value.list.func)
        for name in sorted((names & library.keys()) - called):
            called.add(name)
            nodes.extend(library[name].node_def)
    compiled = sorted(name for name in called if library[name].attr["_XlaMustCompile"].b)
    compiled += [node.name for node in nodes if node.attr["_XlaMustCompile"].b]
    if compiled:
        raise ValueError(
            "export_saved_model: expected a model without jit_compile=True in its forward pass. "
            f"Received: model={model.name!r}, with {compiled[0]!r} compiled. "
            "TensorFlow Serving answers 'XLA compilation disabled' to such a graph: take "
            "jit_compile=True out of the layer."
        )
    return nodes


def _tolerance(nodes: list[Any]) -> tuple[float, float]:
    """The differences to allow, which go by the narrowest arithmetic in the graph."""
    values = [value for node in nodes for value in node.attr.values()]
    dtypes = {value.type for value in values}.union(*(value.list.type for value in values))
    if types_pb2.DT_BFLOAT16 in dtypes:
        return _BFLOAT16
    # predict may run on a GPU, where TensorFlow multiplies float32 with float16's precision.
    gpu = tf.config.list_physical_devices("GPU")
    rounds = gpu and tf.config.experimental.tensor_float_32_execution_enabled()
    return _FLOAT16 if types_pb2.DT_HALF in dtypes or rounds else _FLOAT32


def _answers(model: Any, folder: Path, requests: list[Arrays], scratch: Path) -> list[Arrays]:
    """What the SavedModel answers in an isolated process, on the CPU."""
    paths = [
        (scratch / f"inputs_{i}.npz", scratch / f"outputs_{i}.npz") for i in range(len(requests))
    ]
    for (path, _), arrays in zip(paths, requests, strict=True):
        native.write_arrays(path, arrays)
    packages = [str(Path(str(package.__file__)).absolute().parents[1]) for package in (np, tf)]
    files = [str(file) for pair in paths for file in pair]
    command = [sys.executable, "-I", "-c", _START, json.dumps(packages), native.__file__]
    cpu = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [*command, str(folder), *files],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=cpu,
            timeout=_PATIENCE,
        )
        failure = done.returncode and _reason(done)
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure:
        raise RuntimeError(
            "export_saved_model: expected the export to answer outside Python, as it must in a "
            f"server. Received: model={model.name!r}, whose export failed: {failure} "
            "Nothing was published."
        )
    return [native.read_arrays(path) for _, path in paths]


def _reason(done: Any) -> str:
    """Why a process failed: the message of its exception, or the end of what it wrote."""
    said = done.stderr.strip().rpartition("RuntimeError: ")[2][-2000:]
    return f"signal {-done.returncode}. {said}" if done.returncode < 0 else str(said)


def _compare(expected: Any, found: Any, tolerance: tuple[float, float], samples: bool) -> str:
    """What is wrong with the output `found`, or nothing."""
    if expected is None or found is None:
        return f"it is {'missing' if found is None else 'no output of predict'}"
    if (expected.shape, expected.dtype) != (found.shape, found.dtype):
        return f"{found.dtype} {found.shape}, expected {expected.dtype} {expected.shape}"
    if not samples:
        return _difference(expected, found, tolerance)
    return "" if _finite(expected) == _finite(found) else "not all finite, or all, unlike predict's"


def _difference(expected: np.ndarray, found: np.ndarray, tolerance: tuple[float, float]) -> str:
    """How far `found` is from `expected`, or nothing where that is within the tolerance.

    NaN equals NaN, and an infinity itself: that is the model's answer, and it is logged.
    """
    if expected.dtype.kind not in "fc":
        wrong = int(np.sum(expected != found))
        return f"{wrong} of {expected.size} values" if wrong else ""
    relative, absolute = tolerance
    if np.allclose(found, expected, rtol=relative, atol=absolute, equal_nan=True):
        return ""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(found - expected)
    apart[np.isclose(found, expected, rtol=0, atol=0, equal_nan=True)] = 0
    return f"up to {apart.max():.3g}, where {absolute:g} + {relative:g} * abs(predict) may be"


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _log(model: Any, expected: Arrays, samples: bool) -> None:
    if samples:
        _logger.warning(
            "export_saved_model: two predictions of %r for one input differ, so that only the "
            "shapes, dtypes and finiteness of its export were checked.",
            model.name,
        )
    bad = sorted(name for name, array in expected.items() if not _finite(array))
    if bad:
        _logger.warning(
            "export_saved_model: %r predicts NaN or infinities in %s, and so does its export; "
            "TensorFlow Serving's REST answer is then no valid JSON.",
            model.name,
            bad,
        )
