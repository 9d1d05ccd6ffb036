"""Requests that TensorFlow Serving replays before a version becomes available.

So the first real request is as fast as the next. With a record that doesn't fit, the model fails to
load: so requests are checked against the signature before they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import said, shown
from tf_leaky.serving import running

_PATH = "assets.extra/tf_serving_warmup_requests"
Arrays = dict[str, np.ndarray]


def requests(warmup: Any, specs: dict[str, Any]) -> list[Arrays]:
    """Returns the requests that `warmup` stands for: its first row, then all of it.

    If the batch size is fixed, only all of it.

    Args:
        warmup: An array; or for several inputs a dict of arrays by name, or a list in their order.
        specs: The tf.TensorSpec of each input, by name.

    Raises:
        ImportError: If tensorflow-serving-api, which `write` needs, isn't installed.
        ValueError: If its names, dtypes or shapes are not those of the inputs.
    """
    _apis()
    arrays = {name: _array(value, specs[name], name) for name, value in _named(warmup, specs)}
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise ValueError(
            "export_saved_model: expected warmup to have equally many examples for each input, at "
            f"least one. Received: warmup with {sizes}. Give arrays with the same first size."
        )
    first = {name: array[:1] for name, array in arrays.items()}
    whole = 1 in sizes.values() or any(spec.shape[0] for spec in specs.values())
    return [arrays] if whole else [first, arrays]


def dtypes(warmup: Any, specs: dict[str, Any]) -> dict[str, Any]:
    """Returns the dtypes of `warmup` by name, for inputs whose dtypes aren't recorded.

    Floats have the dtype in `specs`: NumPy's default is float64, which models rarely expect.
    """
    found = {}
    for name, value in _named(warmup, specs):
        try:
            dtype = tf.convert_to_tensor(value).dtype
        except Exception:  # of any kind: `requests` raises an error with the reason
            dtype = specs[name].dtype
        found[name] = specs[name].dtype if dtype.is_floating else dtype
    return found


def _named(warmup: Any, specs: dict[str, Any]) -> list[tuple[str, Any]]:
    names = list(specs)
    if isinstance(warmup, Mapping):
        given = {str(name): value for name, value in warmup.items()}
    elif len(names) == 1:
        given = {names[0]: warmup}
    elif isinstance(warmup, list | tuple) and len(warmup) == len(names):
        given = dict(zip(names, warmup, strict=True))
    else:
        given = {}
    if given.keys() != specs.keys():
        received = sorted(given) if given else type(warmup).__qualname__
        raise ValueError(
            f"export_saved_model: expected warmup for the inputs {names}. "
            f"Received: warmup={shown(received)}. Give an array for one input; for several, a "
            "dict of arrays by name, or a list in this order."
        )
    return [(name, given[name]) for name in names]


def _array(value: Any, spec: Any, name: str) -> np.ndarray:
    """Returns `value` in the dtype of `spec` (float32 for bfloat16), whose shape it must fit."""
    expected = f"the input {name!r}, of shape {tuple(spec.shape)} and dtype {spec.dtype.name}"
    try:
        with np.errstate(over="raise"):
            array = _converted(value, spec.dtype, name)
        reason = f"of shape {array.shape}"
    except Exception as error:  # of any kind: it is NumPy that reads it
        array, reason = None, said(error)
    if array is None or not spec.shape.is_compatible_with(array.shape):
        raise ValueError(
            f"export_saved_model: expected warmup to fit {expected}. "
            f"Received: warmup[{name!r}], {reason}. Give a batch of examples for this input."
        )
    return array


def _converted(value: Any, dtype: Any, name: str) -> np.ndarray:
    """Returns `value` in a TensorFlow dtype's NumPy dtype, if that loses only precision."""
    array, target = np.asarray(value), np.dtype(dtype.as_numpy_dtype)
    if dtype == tf.string:
        texts = [text.encode() if isinstance(text, str) else text for text in array.ravel()]
        fits = all(isinstance(text, bytes) for text in texts)
        converted = np.empty(array.shape, object)
        converted.ravel()[:] = texts
    else:
        target = np.dtype(np.float32) if target.kind == "V" else target  # bfloat16
        array = array.astype(np.float32) if array.dtype.kind == "V" else array
        integers = array.dtype.kind in "iu" and target.kind in "iu"
        fits = np.can_cast(array.dtype, target, "same_kind") or integers
        converted = array.astype(target) if fits else array
        fits = fits and (not integers or np.array_equal(converted, array))
    if not fits:
        text = np.array2string(array, threshold=8)
        raise ValueError(f"expected {name!r} to be {dtype.name}, received {array.dtype}: {text}")
    return converted


def write(requests: list[Arrays], specs: dict[str, Any], folder: Path, model_name: str) -> None:
    """Writes the requests where TensorFlow Serving looks for them in the version `folder`."""
    model_pb2, predict_pb2, prediction_log_pb2 = _apis()
    path = folder / _PATH
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            spec = model_pb2.ModelSpec(name=model_name, signature_name="serving_default")
            tensors = {
                name: tf.make_tensor_proto(tf.cast(array, specs[name].dtype))
                for name, array in request.items()
            }
            predict = predict_pb2.PredictRequest(model_spec=spec, inputs=tensors)
            log = prediction_log_pb2.PredictLog(request=predict)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())


def read(folder: Path) -> list[Arrays]:
    """Returns the requests in the version `folder`, as a server would read them."""
    _, _, prediction_log_pb2 = _apis()
    found = []
    for record in tf.data.TFRecordDataset(str(folder / _PATH)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
        arrays = {name: tf.make_ndarray(value) for name, value in log.request.inputs.items()}
        found.append(running.plain(arrays))
    return found


def _apis() -> tuple[Any, Any, Any]:
    try:
        from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "export_saved_model: expected tensorflow-serving-api to be installed, which warmup "
            f"needs. Received: {error}. "
            'Install it with: pip install "tf_leaky[serving]".'
        ) from error
    return model_pb2, predict_pb2, prediction_log_pb2
