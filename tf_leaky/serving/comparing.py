"""Compares the answers of an export with those of `model.predict`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

Arrays = dict[str, np.ndarray]
_logger = logging.getLogger("tf_leaky")
_PREDICTIONS = 8  # additional ones, to find out whether the model samples
# Allowed relative differences, with an absolute one of 1e-5. On the CPU, in any dtype, the graph
# computes the same bits as predict. With XLA or on a GPU, predict may round differently: then the
# narrowest dtype in the graph decides, and the absolute difference depends on the largest value.
_CPU, _FLOAT16, _BFLOAT16 = 1e-4, 1e-2, 5e-2


def tolerance(model: Any, nodes: list[Any]) -> float:
    """Returns the relative difference to allow for a graph of these nodes."""
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


def compare(
    model: Any,
    tolerance: float,
    expected: list[Arrays],
    found: list[Arrays],
    predict: Callable[[], list[Arrays]],
) -> None:
    """Raises RuntimeError unless the answers of the export are those of `model.predict`.

    Args:
        model: The Keras model, for its name.
        tolerance: The relative difference to allow.
        expected: What `predict` returned for each request.
        found: What the export answered to each.
        predict: Predicts once more, which shows whether the model samples.
    """
    again = predict()

    def apart(others: list[Arrays]) -> bool:
        pairs = zip(expected, others, strict=True)
        return any(_differences(*pair, tolerance) for pair in pairs)

    samples = apart(again)
    if not samples and apart(found):
        # Predictions of a model that samples may agree twice.
        samples = any(apart(predict()) for _ in range(_PREDICTIONS))
    for first, other, answer in zip(expected, again, found, strict=True):
        wrong = _differences(first, answer, tolerance)
        if samples:
            wrong = _unlike_samples(first, other, answer)
        if wrong:
            raise RuntimeError(
                "export_saved_model: expected the export to answer as model.predict does. "
                f"Received: model={model.name!r}, whose export differs in {'; '.join(wrong)}. "
                "Nothing was published. Look for a layer that computes differently outside predict."
            )
        _log(model, first, samples)


def _differences(expected: Arrays, found: Arrays, tolerance: float) -> list[str]:
    """Returns what is wrong with each output of `found` that isn't as expected."""
    return _wrong(expected, found, lambda name: _difference(expected[name], found[name], tolerance))


def _unlike_samples(expected: Arrays, again: Arrays, found: Arrays) -> list[str]:
    """Returns what no sample could explain: dtypes, finiteness, shapes that predict always has."""

    def difference(name: str) -> str:
        first, answer = expected[name], found[name]
        same_shape = first.shape == again[name].shape
        if first.dtype != answer.dtype or (same_shape and first.shape != answer.shape):
            return f"{_kind(answer)}, expected {_kind(first)}"
        unlike = _finite(first) != _finite(answer)
        return "finite, unlike predict's, or vice versa" if unlike else ""

    return _wrong(expected, found, difference)


def _wrong(expected: Arrays, found: Arrays, difference: Callable[[str], str]) -> list[str]:
    """Returns which outputs are missing, which are too many, and which others differ, and how."""
    wrong = [f"{name!r}: it is missing" for name in sorted(expected.keys() - found.keys())]
    more = sorted(found.keys() - expected.keys())
    wrong += [f"{name!r}: it is not an output of predict" for name in more]
    both = sorted(expected.keys() & found.keys())
    return wrong + [f"{name!r}: {text}" for name in both if (text := difference(name))]


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"


def _difference(expected: np.ndarray, found: np.ndarray, tolerance: float) -> str:
    """Returns how far `found` is from `expected`; "" if that is within the tolerance.

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
    return f"up to {apart.max():.3g}, allowed are {absolute:.3g} + {tolerance:g} * abs(predict)"


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _log(model: Any, expected: Arrays, samples: bool) -> None:
    if samples:
        _logger.warning(
            "export_saved_model: two predictions of %r for one input differ, so only the "
            "shapes, dtypes and finiteness of its export were checked.",
            model.name,
        )
    bad = sorted(name for name, array in expected.items() if not _finite(array))
    if bad:
        _logger.warning(
            "export_saved_model: %r predicts NaN or infinities in %s, and so does its export; "
            "TensorFlow Serving's REST answer is then not valid JSON.",
            model.name,
            bad,
        )
