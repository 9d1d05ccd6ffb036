"""Has an export answer outside Python, as a server would, and compares with `model.predict`."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tf_leaky.serving import running, signatures

Arrays = dict[str, np.ndarray]
_logger = logging.getLogger("tf_leaky")
_PREDICTIONS = 8  # more of them, to find out whether the model samples
_PATIENCE = 1800  # seconds, in which the largest model should be loaded and run
# An isolated Python finds what was installed for all users. NumPy and TensorFlow's library may be
# elsewhere, as where PYTHONPATH says: these two folders go to the end of its path.
_START = """
import json, runpy, sys
sys.path += json.loads(sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Relative differences to allow, with an absolute one of 1e-5. On the CPU a graph answers predict's
# very bits, whatever its dtypes. Where predict rounds elsewhere, as by XLA or on a GPU, they go by
# the narrowest dtype that the graph computes in, and the absolute one by the largest value.
_CPU, _FLOAT16, _BFLOAT16 = 1e-4, 1e-2, 5e-2


def examples(inputs: Any, batch: int = 2) -> Arrays:
    """Examples for each input: seeded normal floats, zeros for integers, "" for strings.

    As many as the batch of a model that takes no other. Unknown sizes are 8. Zeros for floats would
    not show a wrong slope.
    """
    rng = np.random.default_rng(0)
    made = {}
    for spec in tf.nest.flatten(inputs):
        shape = [spec.shape[0] or batch, *(8 if size is None else size for size in spec.shape[1:])]
        if spec.dtype == tf.string:
            made[spec.name] = np.full(shape, b"", object)
        elif spec.dtype.is_floating or spec.dtype.is_complex:
            made[spec.name] = rng.normal(size=shape).astype(np.float32)
        else:
            made[spec.name] = np.zeros(shape, spec.dtype.as_numpy_dtype)
    return made


def predictions(model: Any, inputs: Any, requests: list[Arrays]) -> list[Arrays]:
    """What `model.predict` answers to each request.

    Raises:
        RuntimeError: If it fails.
    """
    try:
        predict = functools.partial(signatures.predict, model, inputs)
        return [running.plain(predict(arrays)) for arrays in requests]
    except Exception as error:
        shapes = [{name: array.shape for name, array in arrays.items()} for arrays in requests]
        raise RuntimeError(
            "export_saved_model: expected model.predict to run on the examples of the check. "
            f"Received: model={model.name!r}, which failed on shapes {shapes}: {error} "
            "If such inputs aren't meant for the model, give some that are as warmup."
        ) from error


def check(
    model: Any,
    folder: Path,
    requests: list[Arrays],
    predict: Callable[[list[Arrays]], list[Arrays]],
    scratch: Path,
) -> None:
    """Raises an error unless the SavedModel `folder` answers as the model, in another process.

    Args:
        model: The Keras model, for its name.
        folder: The SavedModel.
        requests: Arrays by input name.
        predict: What the model answers to requests.
        scratch: A folder for the arrays on their way.

    Raises:
        ValueError: If a server would have to compile the graph with XLA.
        RuntimeError: If it fails, or answers otherwise.
    """
    tolerance = _tolerance(model, _forward_nodes(model, folder))
    expected, again = predict(requests), predict(requests)
    found = _answers(model, folder, requests, scratch)
    samples = any(_differences(*pair, tolerance) for pair in zip(expected, again, strict=True))
    if not samples and any(
        _differences(*pair, tolerance) for pair in zip(expected, found, strict=True)
    ):
        # Predictions of a model that samples may agree twice.
        samples = any(
            _differences(first, other, tolerance)
            for _ in range(_PREDICTIONS)
            for first, other in zip(expected, predict(requests), strict=True)
        )
    for first, other, answer in zip(expected, again, found, strict=True):
        differences = (
            _unlike(first, other, answer) if samples else _differences(first, answer, tolerance)
        )
        if differences:
            raise RuntimeError(
                "export_saved_model: expected the export to answer as model.predict does. "
                f"Received: model={model.name!r}, whose export differs in "
                f"{'; '.join(differences)}. Nothing was published. Look for a layer that computes "
                "otherwise outside predict."
            )
        _log(model, first, samples)


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


def _tolerance(model: Any, nodes: list[Any]) -> float:
    """The relative difference to allow."""
    gpu = bool(tf.config.list_physical_devices("GPU"))
    if not (gpu or getattr(model, "jit_compile", False)):
        return _CPU
    values = [value for node in nodes for value in node.attr.values()]
    dtypes = {value.type for value in values}.union(*(value.list.type for value in values))
    if types_pb2.DT_BFLOAT16 in dtypes:
        return _BFLOAT16
    # A GPU multiplies float32 with float16's precision.
    tf32 = gpu and tf.config.experimental.tensor_float_32_execution_enabled()
    return _FLOAT16 if types_pb2.DT_HALF in dtypes or tf32 else _CPU


def _answers(model: Any, folder: Path, requests: list[Arrays], scratch: Path) -> list[Arrays]:
    """What the SavedModel answers in an isolated process, on the CPU."""
    paths = [
        (scratch / f"inputs_{i}.npz", scratch / f"outputs_{i}.npz") for i in range(len(requests))
    ]
    for (path, _), arrays in zip(paths, requests, strict=True):
        running.write_arrays(path, arrays)
    packages = [str(Path(str(package.__file__)).absolute().parents[1]) for package in (np, tf)]
    files = [str(file) for pair in paths for file in pair]
    command = [sys.executable, "-I", "-c", _START, json.dumps(packages), running.__file__]
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
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    else:
        failure = _reason(done) if done.returncode else ""
    if failure:
        raise RuntimeError(
            "export_saved_model: expected the export to answer outside Python, as it must in a "
            f"server. Received: model={model.name!r}, whose export failed: {failure} "
            "Nothing was published."
        )
    return [running.read_arrays(path) for _, path in paths]


def _reason(done: Any) -> str:
    """Why a process failed: the message of its exception, or the end of what it wrote.

    Raises:
        OSError: If it could not write its answers.
    """
    if disk := re.search(r"^OSError: (.+)$", done.stderr, re.MULTILINE):
        raise OSError(disk[1])
    said = done.stderr.strip().rpartition("RuntimeError: ")[2][-2000:]
    return f"signal {-done.returncode}. {said}" if done.returncode < 0 else str(said)


def _differences(expected: Arrays, found: Arrays, tolerance: float) -> list[str]:
    """What is wrong with each output of `found` that isn't as expected."""
    wrong = _misnamed(expected, found)
    for name in sorted(expected.keys() & found.keys()):
        if difference := _difference(expected[name], found[name], tolerance):
            wrong.append(f"{name!r}: {difference}")
    return wrong


def _unlike(expected: Arrays, again: Arrays, found: Arrays) -> list[str]:
    """What of `found` no sample could be: dtypes, finiteness, shapes that predict always gives."""
    wrong = _misnamed(expected, found)
    for name in sorted(expected.keys() & found.keys()):
        first, answer = expected[name], found[name]
        same_shape = first.shape == again[name].shape
        if first.dtype != answer.dtype or (same_shape and first.shape != answer.shape):
            wrong.append(f"{name!r}: {_kind(answer)}, expected {_kind(first)}")
        elif _finite(first) != _finite(answer):
            wrong.append(f"{name!r}: not all finite, or all, unlike predict's")
    return wrong


def _misnamed(expected: Arrays, found: Arrays) -> list[str]:
    missing = [f"{name!r}: it is missing" for name in sorted(expected.keys() - found.keys())]
    more = sorted(found.keys() - expected.keys())
    return missing + [f"{name!r}: it is no output of predict" for name in more]


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"


def _difference(expected: np.ndarray, found: np.ndarray, tolerance: float) -> str:
    """How far `found` is from `expected`, or nothing where that is within the tolerance.

    NaN equals NaN, and an infinity itself: that is the model's answer, and it is logged.
    """
    if (expected.shape, expected.dtype) != (found.shape, found.dtype):
        return f"{_kind(found)}, expected {_kind(expected)}"
    if expected.dtype.kind not in "fc":
        wrong = int(np.sum(expected != found))
        return f"{wrong} of {expected.size} values" if wrong else ""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    absolute = 1e-5 if tolerance == _CPU else tolerance * largest
    if np.allclose(found, expected, rtol=tolerance, atol=absolute, equal_nan=True):
        return ""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(found - expected)
    apart[np.isclose(found, expected, rtol=0, atol=0, equal_nan=True)] = 0
    return f"up to {apart.max():.3g}, where {absolute:.3g} + {tolerance:g} * abs(predict) may be"


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
