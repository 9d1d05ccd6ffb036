"""The JSON of TF Serving's REST API as arrays, and back: what the stand-in reads and writes."""

import base64
import binascii
import json

import numpy as np
from grpc import StatusCode

INTEGERS = {
    "int8": 32,
    "int16": 32,
    "int32": 32,
    "uint8": 32,
    "int64": 64,
}  # bits that JSON may use
UNSIGNED = {"uint32": 32, "uint64": 64}
FLOATS = ("float32", "float64")


class RequestError(Exception):
    """An error that goes to the client, by the code of gRPC that TF Serving has for it."""

    def __init__(self, message, code=StatusCode.INVALID_ARGUMENT):
        super().__init__(message)
        self.code = code


def read_request(body, signature):
    """The arrays of a predict request, by input, the form they came in, and the signature's name.

    `signature` returns the inputs of a signature (name to `TensorInfo`) for its name, "" for the
    default one.
    """
    request = _parse(body)
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise RequestError("'signature_name' key must be a string value.")
    infos = signature(name)
    if not infos:
        raise RequestError(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    if "instances" in request and "inputs" in request:
        raise RequestError(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    if "instances" in request:
        return _read_rows(request["instances"], infos), "instances", name
    if "inputs" in request:
        return _read_columns(request["inputs"], infos), "inputs", name
    raise RequestError("Missing 'inputs' or 'instances' key")


def write_response(outputs, infos, form):
    """The JSON text for output arrays, in the form of the request."""
    if not outputs:
        raise RequestError("Cannot convert empty tensor map to JSON")
    for name in outputs:
        if infos[name].dtype_name not in (*FLOATS, *INTEGERS, *UNSIGNED, "bool", "string"):
            raise RequestError(
                f"Failed to write JSON value for tensor type: {infos[name].dtype_name}"
            )
    sizes = {array.shape[:1] for array in outputs.values()}
    if form == "instances" and (len(sizes) > 1 or () in sizes):
        raise RequestError(f"Tensors have inconsistent batch sizes: {sorted(sizes)}")
    values = {name: _to_json(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        (answer,) = values.values()
    elif form == "instances":
        answer = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    else:
        answer = values
    return json.dumps({"predictions" if form == "instances" else "outputs": answer}, indent=4)


def write_error(message):
    return json.dumps({"error": message}, indent=4)


def read_object(body):
    """The JSON object that a classify or regress request holds."""
    return _parse(body)


def _parse(body):
    """NaN and infinities are read, and what follows the first value is not, as TF Serving does."""
    if not body:
        raise RequestError("JSON Parse error: The document is empty")
    try:
        decoder = json.JSONDecoder(parse_float=_parse_float)
        value, _ = decoder.raw_decode(body.decode().lstrip(" \n\r\t"))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"JSON Parse error: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"JSON Value: {_show(value)} Is not object")
    return value


def _parse_float(text):
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("Number too big to be stored in double.")
    return number


def _read_rows(instances, infos):
    """The row form: a list with one element for each example, all of one shape."""
    if not isinstance(instances, list):
        raise RequestError("Expecting 'instances' to be an list/array")
    if not instances:
        raise RequestError("No values in 'instances' array")
    named = _is_object(instances[0])
    if not named and len(infos) > 1:
        raise RequestError("instances is a plain list, but expecting list of objects")
    rows = {name: [] for name in infos}
    for number, element in enumerate(instances):
        if _is_object(element) != named:
            raise RequestError(f"Expecting {'object' if named else 'value/list'} at item {number}")
        given = element if named else {next(iter(infos)): element}
        try:
            for name in given:
                if name not in infos:
                    raise RequestError(f"JSON object: does not have named input: {name}")
                rows[name].append(_read_tensor(given[name], infos[name]))
                if rows[name][-1].shape != rows[name][0].shape:
                    raise RequestError(
                        f"Expecting shape {rows[name][0].shape} but got: {rows[name][-1].shape}"
                    )
            if given.keys() != infos.keys():
                raise RequestError(f"keys must be equal to: {','.join(sorted(infos))}")
        except RequestError as error:
            raise RequestError(
                f"Failed to process element: {number} of 'instances' list. Error: {error}",
                error.code,
            ) from None
    return {name: np.stack(arrays) for name, arrays in rows.items()}


def _read_columns(inputs, infos):
    """The columnar form: a tensor, or an object that holds one for each input."""
    if not _is_object(inputs):
        if len(infos) > 1:
            raise RequestError("inputs is a plain value/list, but expecting an object")
        inputs = {next(iter(infos)): inputs}
    for name in infos:
        if name not in inputs:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
    return {name: _read_tensor(inputs[name], info) for name, info in infos.items()}


def _read_tensor(value, info):
    """A JSON value as an array of the dtype of `info`; its shape is that of the first elements."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    flat = []
    _flatten(value, shape, 0, info.dtype_name, flat)
    if info.dtype_name == "string":
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32, as in TF Serving
        return np.array(flat, info.dtype_name).reshape(shape)


def _flatten(value, shape, level, dtype, flat):
    if not isinstance(value, list):
        if level != len(shape):
            raise RequestError(f"JSON Value: {_show(value)} found at incorrect level: {level + 1}")
        flat.append(_read_value(value, dtype))
        return
    if level >= len(shape):
        raise RequestError(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise RequestError(f"Expecting tensor size: {shape[level]} but got: {len(value)}")
    for element in value:
        _flatten(element, shape, level + 1, dtype, flat)


def _read_value(value, dtype):
    kind = type(value)  # a bool is an int to isinstance, and none in JSON
    if dtype == "string" and kind is str:
        return value.encode()
    if dtype == "string" and kind is dict:
        return _read_base64(value)
    if dtype in FLOATS:
        fits = kind in (int, float)
    elif dtype in INTEGERS:
        fits = kind is int and value.bit_length() < INTEGERS[dtype]
    elif dtype in UNSIGNED:
        fits = kind is int and value >= 0 and value.bit_length() <= UNSIGNED[dtype]
    elif dtype in ("bool", "string"):
        fits = dtype == "bool" and kind is bool
    else:
        raise RequestError(
            f"Conversion of JSON Value: {_show(value)} to type: {dtype}", StatusCode.UNIMPLEMENTED
        )
    if not fits:
        raise RequestError(f"JSON Value: {_show(value)} is not of expected type: {dtype}")
    return value


def _read_base64(value):
    if not _is_base64(value):
        raise RequestError(f"JSON Value: {_show(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error:
        raise RequestError("Unable to base64 decode") from None


def _is_base64(value):
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_object(value):
    return isinstance(value, dict) and not _is_base64(value)


def _to_json(name, array):
    """Nested lists; strings as base64 where the output is named `..._bytes`."""
    if array.dtype != object:
        return array.tolist()
    texts = [
        {"b64": base64.b64encode(text).decode()}
        if name.endswith("_bytes")
        else text.decode(errors="replace")
        for text in array.ravel()
    ]
    return _nest(texts, array.shape)


def _nest(flat, shape):
    if not shape:
        return flat[0]
    step = len(flat) // max(shape[0], 1)
    return [_nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _show(value):
    return json.dumps(value)[:256]
