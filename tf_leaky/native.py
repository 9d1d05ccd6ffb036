"""Runs a SavedModel through TensorFlow's C API: the loader of TensorFlow Serving, and no Python.

    python -I native.py EXPORT_DIR INPUTS.npz OUTPUTS.npz

This is a script, run in a process of its own, and needs ctypes and NumPy only. Python TensorFlow,
Keras and tf_leaky are never imported there, so nothing of them can help a SavedModel that would
fail in a server. It runs the signature `serving_default` on the arrays of INPUTS.npz, which are
named after the signature's inputs, and writes its outputs, by name.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# TF_DataType, by its number in tensorflow/c/tf_datatype.h
_DTYPES = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    9: np.int64,
    10: np.bool_,
    17: np.uint16,
    19: np.float16,
    22: np.uint32,
    23: np.uint64,
}


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


class SavedModel:
    """A SavedModel in a C session, with one signature to run.

    Args:
        path: The directory that holds `saved_model.pb`.
        signature: The name of the signature.

    Raises:
        RuntimeError: If the C API can't load or run the model, with its message.
        KeyError: If the model has no such signature.
    """

    def __init__(self, path: str | Path, signature: str = "serving_default") -> None:
        self._c = _load_library()
        self._status = self._c.TF_NewStatus()
        self._graph = self._c.TF_NewGraph()
        meta_graph = self._c.TF_NewBuffer()
        tags = (ctypes.c_char_p * 1)(b"serve")
        options = self._c.TF_NewSessionOptions()
        self._session = self._c.TF_LoadSessionFromSavedModel(
            options, None, str(path).encode(), tags, 1, self._graph, meta_graph, self._status
        )
        self._check()
        signatures = _signatures(
            ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
        )
        self._c.TF_DeleteBuffer(meta_graph)
        self._c.TF_DeleteSessionOptions(options)
        self._inputs, self._outputs = signatures[signature]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the signature's outputs for `inputs`, both by name."""
        if inputs.keys() != self._inputs.keys():
            raise RuntimeError(f"expected inputs {sorted(self._inputs)}, received {sorted(inputs)}")
        feeds = [self._tensor(inputs[name], dtype) for name, (_, dtype) in self._inputs.items()]
        fetched = (ctypes.c_void_p * len(self._outputs))()
        self._c.TF_SessionRun(
            self._session,
            None,
            self._places(self._inputs),
            (ctypes.c_void_p * len(feeds))(*feeds),
            len(feeds),
            self._places(self._outputs),
            fetched,
            len(fetched),
            None,
            0,
            None,
            self._status,
        )
        for tensor in feeds:
            self._c.TF_DeleteTensor(tensor)
        self._check()
        return {name: self._array(fetched[i]) for i, name in enumerate(self._outputs)}

    def _check(self) -> None:
        if self._c.TF_GetCode(self._status) != 0:
            raise RuntimeError(self._c.TF_Message(self._status).decode())

    def _places(self, tensors: dict[str, tuple[str, int]]) -> Any:
        places = (_Output * len(tensors))()
        for place, (name, _) in zip(places, tensors.values(), strict=True):
            operation, _, index = name.partition(":")
            place.operation = self._c.TF_GraphOperationByName(self._graph, operation.encode())
            place.index = int(index)
        return places

    def _tensor(self, array: np.ndarray, dtype: int) -> int:
        array = np.ascontiguousarray(array, _DTYPES[dtype])
        sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
        tensor: int = self._c.TF_AllocateTensor(dtype, sizes, array.ndim, array.nbytes)
        ctypes.memmove(self._c.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
        return tensor

    def _array(self, tensor: int | None) -> np.ndarray:
        c = self._c
        shape = [c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor))]
        data = ctypes.string_at(c.TF_TensorData(tensor), c.TF_TensorByteSize(tensor))
        array = np.frombuffer(data, _DTYPES[c.TF_TensorType(tensor)]).reshape(shape)
        c.TF_DeleteTensor(tensor)
        return array


def _load_library() -> Any:
    """TensorFlow's C library, found beside the Python package without importing that."""
    package = importlib.util.find_spec("tensorflow")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("expected tensorflow to be installed")
    folder = Path(package.submodule_search_locations[0])
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("TF_NewStatus", pointer, []),
        ("TF_GetCode", number, [pointer]),
        ("TF_Message", text, [pointer]),
        ("TF_NewGraph", pointer, []),
        ("TF_NewBuffer", ctypes.POINTER(_Buffer), []),
        ("TF_DeleteBuffer", None, [ctypes.POINTER(_Buffer)]),
        ("TF_NewSessionOptions", pointer, []),
        ("TF_DeleteSessionOptions", None, [pointer]),
        (
            "TF_LoadSessionFromSavedModel",
            pointer,
            [pointer, pointer, text, pointer, number, pointer, ctypes.POINTER(_Buffer), pointer],
        ),
        ("TF_GraphOperationByName", pointer, [pointer, text]),
        ("TF_AllocateTensor", pointer, [number, pointer, number, ctypes.c_size_t]),
        ("TF_DeleteTensor", None, [pointer]),
        ("TF_TensorData", pointer, [pointer]),
        ("TF_TensorByteSize", ctypes.c_size_t, [pointer]),
        ("TF_TensorType", number, [pointer]),
        ("TF_NumDims", number, [pointer]),
        ("TF_Dim", ctypes.c_int64, [pointer, number]),
        (
            "TF_SessionRun",
            None,
            [
                *[pointer, pointer, pointer, pointer, number, pointer, pointer, number],
                *[pointer, number, pointer, pointer],
            ],
        ),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _signatures(meta_graph: bytes) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The inputs and outputs of each signature: by name, the tensor's name and its dtype number.

    Field numbers are those of tensorflow/core/protobuf/meta_graph.proto.
    """
    found = {}
    for field, entry in _fields(meta_graph):
        if field == 5:  # MetaGraphDef.signature_def, a map entry
            name, signature = _map_entry(entry)
            sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
            for side, tensor_entry in _fields(signature):
                if side in (1, 2):  # SignatureDef.inputs, .outputs
                    key, info = _map_entry(tensor_entry)
                    values = {2: 0} | dict(_fields(info))  # TensorInfo.name = 1, .dtype = 2
                    sides[side - 1][key] = (values[1].decode(), values[2])
            found[name] = sides
    return found


def _map_entry(entry: bytes) -> tuple[str, bytes]:
    values = dict(_fields(entry))
    return values[1].decode(), values[2]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: number and value, an int or the bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        else:
            size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
            yield key >> 3, message[at : at + size]
            at += size


def main(export_dir: str, inputs: str, outputs: str) -> None:
    """Runs `serving_default` of `export_dir` on the arrays in `inputs`, into `outputs`."""
    with np.load(inputs) as arrays:
        answers: dict[str, Any] = SavedModel(export_dir).run(dict(arrays))
    np.savez(outputs, **answers)
    imported = sorted({"tensorflow", "keras", "tf_keras", "tf_leaky"} & sys.modules.keys())
    print(f"answered without Python TensorFlow; imported of it: {imported or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
