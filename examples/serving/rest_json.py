"""Converts the JSON of TensorFlow Serving's REST API to arrays and back, for the stand-in."""

import base64
import binascii
import json

import numpy as np
import tensorflow as tf
from grpc import StatusCode

HALVES = {tf.float16: "half", tf.bfloat16: "bfloat16"}  # not supported over REST


class RequestError(Exception):
    """An error that is sent to the client, with its gRPC status code."""

    def __init__(self, message, code=StatusCode.INVALID_ARGUMENT):
        super().__init__(message)
        self.code = code


def predict(model, body):
    """Returns the answer to a predict request over REST, as an object."""
    request = _parse(body)
    name = str(request.get("signature_name", "serving_default"))
    signature = model.signature(name)
    given = request.keys() & {"instances", "inputs"}
    if len(given) != 1:
        raise RequestError(f"Expecting one of 'inputs' or 'instances' keys, not {sorted(given)}")
    by_row = given == {"instances"}
    columns = _columns(request["instances"], signature) if by_row else request["inputs"]
    if not _is_object(columns):
        columns = {_only(signature.inputs): columns}
    if missing := signature.inputs.keys() - columns.keys():
        raise RequestError(f"Missing named input: {min(missing)} in 'inputs' object.")
    arrays = {n: _array(columns[n], info.dtype) for n, info in signature.inputs.items()}
    outputs = model.run(arrays, name)
    answer = {n: _values(n, outputs[n], info.dtype) for n, info in signature.outputs.items()}
    if len(answer) == 1:
        (answer,) = answer.values()
    elif by_row:
        try:
            rows = zip(*answer.values(), strict=True)
            answer = [dict(zip(answer, row, strict=True)) for row in rows]
        except (TypeError, ValueError):
            raise RequestError("Tensors have inconsistent batch sizes") from None
    return {"predictions" if by_row else "outputs": answer}


def _parse(body):
    """Reads the first JSON value and ignores the rest; NaN and infinities are allowed."""
    try:
        value, _ = json.JSONDecoder().raw_decode(body.decode().lstrip())
    except (ValueError, RecursionError) as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"JSON Value: {json.dumps(value)[:256]} Is not object")
    return value


def _is_object(value):
    return isinstance(value, dict) and value.keys() != {"b64"}


def _only(inputs):
    if len(inputs) != 1:
        raise RequestError("Expecting an object, as the signature has several inputs")
    return next(iter(inputs))


def _columns(instances, signature):
    """Returns the values of the row format by input."""
    if not isinstance(instances, list) or not instances:
        raise RequestError("Expecting 'instances' to be a list with values in it")
    if not all(_is_object(row) for row in instances):
        return {_only(signature.inputs): instances}
    for row in instances:
        if row.keys() != signature.inputs.keys():
            raise RequestError(f"keys must be equal to: {','.join(sorted(signature.inputs))}")
    return {name: [row[name] for row in instances] for name in signature.inputs}


def _array(value, dtype):
    """Returns a JSON value as an array; lists of unequal lengths fail as wrong types."""
    dtype = tf.as_dtype(dtype)
    array = np.array(value, object)
    fits = {bool: dtype.is_bool, str: dtype == tf.string, dict: dtype == tf.string}
    fits |= {int: dtype.is_integer or dtype.is_floating, float: dtype.is_floating}
    for leaf in array.ravel():
        if dtype in HALVES or not fits.get(type(leaf)):
            text, expected = json.dumps(leaf)[:256], HALVES.get(dtype, dtype.name)
            raise RequestError(f"JSON Value: {text} is not of expected type: {expected}")
    if dtype == tf.string:
        return np.array([_bytes(leaf) for leaf in array.ravel()], object).reshape(array.shape)
    try:
        with np.errstate(over="ignore"):  # 1e39 is infinite in float32, as in the server
            return array.astype(dtype.as_numpy_dtype)
    except OverflowError as error:
        raise RequestError(f"JSON Value is not of expected type: {error}") from None


def _bytes(leaf):
    if isinstance(leaf, str):
        return leaf.encode()
    try:
        return base64.b64decode(leaf["b64"], validate=True)
    except (binascii.Error, KeyError, TypeError):
        raise RequestError("Unable to base64 decode") from None


def _values(name, array, dtype):
    """Returns an output as nested lists; strings in base64 if its name ends with `_bytes`."""
    dtype = tf.as_dtype(dtype)
    if dtype in HALVES:
        raise RequestError(f"Failed to write JSON value for tensor type: {HALVES[dtype]}")
    if dtype == tf.string and name.endswith("_bytes"):
        array = np.vectorize(lambda b: {"b64": base64.b64encode(b).decode()}, "O")(array)
    elif dtype == tf.string:
        array = np.vectorize(lambda b: b.decode(errors="replace"), "O")(array)
    return array.tolist()
