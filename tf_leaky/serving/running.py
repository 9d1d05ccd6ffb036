"""Runs a SavedModel through TensorFlow's C API: the loader of TensorFlow Serving, and no Python.

    python -I running.py EXPORT_DIR INPUTS.npz OUTPUTS.npz [INPUTS.npz OUTPUTS.npz ...]

This is a script, run in a process of its own, and needs ctypes and NumPy only. Python TensorFlow,
Keras and tf_leaky are never imported there, so nothing of them can help a SavedModel that would
fail in a server. It runs the signature `serving_default` on the arrays of each INPUTS.npz, which
are named after the signature's inputs, and writes its outputs, by name.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_STRING, _BFLOAT16 = 7, 14
# TF_DataType, by its number in tensorflow/c/tf_datatype.h: its name, and NumPy's dtype for it.
# Strings are bytes in arrays of objects. NumPy has no bfloat16: float32 holds all of its numbers.
_DTYPES: dict[int, tuple[str, Any]] = {
    1: ("float32", np.float32),
    2: ("float64", np.float64),
    3: ("int32", np.int32),
    4: ("uint8", np.uint8),
    5: ("int16", np.int16),
    6: ("int8", np.int8),
    _STRING: ("string", np.object_),
    8: ("complex64", np.complex64),
    9: ("int64", np.int64),
    10: ("bool", np.bool_),
    _BFLOAT16: ("bfloat16", np.float32),
    17: ("uint16", np.uint16),
    18: ("complex128", np.complex128),
    19: ("float16", np.float16),
    22: ("uint32", np.uint32),
    23: ("uint64", np.uint64),
}
_STRING_BYTES = 24  # sizeof(TF_TString)
_ALIGNMENT = 64  # bytes; kernels abort the process on a tensor that starts elsewhere


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    )


_Deallocator = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class TensorInfo(NamedTuple):
    """What a signature says of one input or output."""

    tensor: str
    """The name of the tensor in the graph, as `serving_default_x:0`."""
    dtype: int
    """The number of its TF_DataType, which is that of `DataType` in a protocol buffer too."""
    shape: tuple[int, ...] | None
    """Its sizes, -1 where one is unknown; None where even the rank is."""

    @property
    def dtype_name(self) -> str:
        """The name of its dtype, as `float32`; `dtype 21` where it is none that arrays hold."""
        return _DTYPES[self.dtype][0] if self.dtype in _DTYPES else f"dtype {self.dtype}"


class SavedModel:
    """A SavedModel in a C session, with one signature to run.

    Its attributes `inputs` and `outputs` map the signature's names to a `TensorInfo` each, and
    `signature_names` lists all the signatures that the model has. Runs may overlap in threads. It
    is a context manager that closes itself.

    Args:
        path: The directory that holds `saved_model.pb`.
        signature: The name of the signature.

    Raises:
        RuntimeError: If the C API can't load the model, with its message, or the model has no such
            signature.
    """

    def __init__(self, path: str | Path, signature: str = "serving_default") -> None:
        self._c = c = _load_library()
        self._idle = threading.Condition()
        self._running = 0
        with ExitStack() as on_failure, ExitStack() as always:
            graph = c.TF_NewGraph()
            on_failure.callback(c.TF_DeleteGraph, graph)
            meta_graph, options = c.TF_NewBuffer(), c.TF_NewSessionOptions()
            always.callback(c.TF_DeleteBuffer, meta_graph)
            always.callback(c.TF_DeleteSessionOptions, options)
            with _Status(c) as status:
                self._session = c.TF_LoadSessionFromSavedModel(
                    *(options, None, os.fsencode(path), (ctypes.c_char_p * 1)(b"serve"), 1),
                    *(graph, meta_graph, status),
                )
            on_failure.callback(self._delete_session)
            read = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
            signatures = _signatures(read)
            self.signature_names = sorted(signatures)
            if signature not in signatures:
                raise RuntimeError(
                    f"expected one of the signatures {self.signature_names}, received {signature!r}"
                )
            self.inputs, self.outputs = signatures[signature]
            self._feeds = _places(c, graph, self.inputs)
            self._fetches = _places(c, graph, self.outputs)
            self._graph = graph
            on_failure.pop_all()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the signature's outputs for `inputs`, both by name.

        Strings may be given as arrays of str or bytes, and come as arrays of bytes objects;
        bfloat16 is given and comes as float32.

        Args:
            inputs: An array for each input of the signature, or what NumPy makes one of.

        Raises:
            RuntimeError: If the names are not those of the inputs, an array's dtype does not fit or
                is one that arrays can't hold, the model fails, or it is closed.
        """
        if inputs.keys() != self.inputs.keys():
            raise RuntimeError(f"expected inputs {sorted(self.inputs)}, received {sorted(inputs)}")
        with self._idle:
            if self._session is None:
                raise RuntimeError("expected an open SavedModel, received one that is closed")
            self._running += 1
        try:
            return self._run(inputs)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        c = self._c
        feeds = (ctypes.c_void_p * len(self.inputs))()
        fetched = (ctypes.c_void_p * len(self.outputs))()
        try:
            for i, (name, info) in enumerate(self.inputs.items()):
                feeds[i] = _new_tensor(c, inputs[name], info.dtype, name)
            with _Status(c) as status:
                c.TF_SessionRun(
                    *(self._session, None, self._feeds, feeds, len(feeds)),
                    *(self._fetches, fetched, len(fetched), None, 0, None, status),
                )
            return {name: _read_tensor(c, fetched[i], name) for i, name in enumerate(self.outputs)}
        finally:
            for tensor in (*feeds, *fetched):
                if tensor is not None:
                    c.TF_DeleteTensor(tensor)

    def close(self) -> None:
        """Frees the session and its graph, once the runs in other threads are done."""
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0)
            if self._session is not None:
                self._delete_session()
                self._c.TF_DeleteGraph(self._graph)

    def _delete_session(self) -> None:
        with _Status(self._c) as status:
            self._c.TF_CloseSession(self._session, status)
        with _Status(self._c) as status:
            self._c.TF_DeleteSession(self._session, status)
        self._session = None

    def __enter__(self) -> SavedModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Status:
    """A TF_Status for one call of the C API, freed at the end; raises what it says."""

    def __init__(self, c: Any) -> None:
        self._c = c

    def __enter__(self) -> Any:
        self._status = self._c.TF_NewStatus()
        return self._status

    def __exit__(self, *exception: object) -> None:
        code, message = self._c.TF_GetCode(self._status), self._c.TF_Message(self._status)
        self._c.TF_DeleteStatus(self._status)
        if code != 0:
            raise RuntimeError(message.decode(errors="replace"))


def _places(c: Any, graph: int, tensors: dict[str, TensorInfo]) -> Any:
    """Where the tensors of a signature are in the graph, as an array of TF_Output."""
    places = (_Output * len(tensors))()
    for place, (name, info) in zip(places, tensors.items(), strict=True):
        operation, _, index = info.tensor.partition(":")
        place.operation = c.TF_GraphOperationByName(graph, operation.encode())
        if place.operation is None:
            raise RuntimeError(
                f"expected {name!r} to be one tensor of the graph, received {info.tensor!r}"
            )
        place.index = int(index)
    return places


def _numpy_dtype(dtype: int, name: str) -> Any:
    if dtype not in _DTYPES:
        known = ", ".join(sorted(known for known, _ in _DTYPES.values()))
        raise RuntimeError(f"expected {name!r} to be of {known}, received TF_DataType {dtype}")
    return _DTYPES[dtype][1]


def to_array(value: Any, dtype: int, name: str) -> np.ndarray:
    """`value` in NumPy's dtype for a TF_DataType, if that loses no more than precision.

    Raises:
        RuntimeError: If it does, or no array holds that dtype; with `name` in its message.
    """
    array, target = np.asarray(value), _numpy_dtype(dtype, name)
    if dtype == _STRING:
        given = array.ravel().tolist()
        texts = [text.encode() if isinstance(text, str) else text for text in given]
        fits = all(isinstance(text, bytes) for text in texts)
        converted = np.empty(array.shape, object)
        converted.ravel()[:] = texts
    else:
        integers = array.dtype.kind in "iu" and np.dtype(target).kind in "iu"
        fits = np.can_cast(array.dtype, target, "same_kind") or integers or array.size == 0
        converted = array.astype(target, order="C") if fits else array
        fits = fits and (not integers or np.array_equal(converted, array))
    if not fits:
        raise RuntimeError(
            f"expected {name!r} to hold {_DTYPES[dtype][0]}, received {array.dtype}: "
            f"{np.array2string(array, threshold=8)}"
        )
    return converted


def plain(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays with bfloat16, a dtype of another package than NumPy, as float32."""
    found = {name: np.asarray(array) for name, array in arrays.items()}
    return {
        name: array.astype(np.float32) if array.dtype.kind == "V" else array
        for name, array in found.items()
    }


def _new_tensor(c: Any, value: Any, dtype: int, name: str) -> int:
    """A TF_Tensor that holds a copy of `value`."""
    array = to_array(value, dtype, name)
    sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
    if dtype == _STRING:
        return _new_strings(c, array, sizes)
    if dtype == _BFLOAT16:
        array = _to_bfloat16(array)
    tensor: int = c.TF_AllocateTensor(dtype, sizes, array.ndim, array.nbytes)
    ctypes.memmove(c.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
    return tensor


def _to_bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, rounded to even as TensorFlow does; NaN stays NaN."""
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def _from_bfloat16(array: np.ndarray) -> np.ndarray:
    bits = array.astype(np.uint32) << 16
    return bits.view(np.float32)


def _new_strings(c: Any, array: np.ndarray, sizes: Any) -> int:
    length = _STRING_BYTES * array.size
    memory = ctypes.create_string_buffer(length + _ALIGNMENT)
    start = -(-ctypes.addressof(memory) // _ALIGNMENT) * _ALIGNMENT
    for i, text in enumerate(array.ravel().tolist()):
        c.TF_StringInit(start + _STRING_BYTES * i)
        c.TF_StringCopy(start + _STRING_BYTES * i, text, len(text))
    _STRINGS[start] = memory
    tensor: int = c.TF_NewTensor(_STRING, sizes, array.ndim, start, length, _free_strings, None)
    return tensor


_STRINGS: dict[int, Any] = {}  # the memory of string tensors that are in use, by its address


@_Deallocator
def _free_strings(start: int, length: int, _: Any) -> None:
    """Called by the runtime when nothing uses a tensor of `_new_strings` any more."""
    c = _load_library()
    for i in range(length // _STRING_BYTES):
        c.TF_StringDealloc(start + _STRING_BYTES * i)
    del _STRINGS[start]


def _read_tensor(c: Any, tensor: int | None, name: str) -> np.ndarray:
    """An array that holds a copy of a TF_Tensor."""
    shape = [c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor))]
    number = c.TF_TensorType(tensor)
    dtype, start = _numpy_dtype(number, name), c.TF_TensorData(tensor)
    if number == _STRING:
        array = np.empty(int(np.prod(shape)), dtype)
        for i in range(array.size):
            text = start + _STRING_BYTES * i
            array[i] = ctypes.string_at(c.TF_StringGetDataPointer(text), c.TF_StringGetSize(text))
        return array.reshape(shape)
    array = np.empty(shape, np.uint16 if number == _BFLOAT16 else dtype)
    ctypes.memmove(array.ctypes.data, start, array.nbytes)
    return _from_bfloat16(array) if number == _BFLOAT16 else array


@functools.cache
def _load_library() -> Any:
    """TensorFlow's C library, found beside the Python package without importing that."""
    package = importlib.util.find_spec("tensorflow")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("expected tensorflow to be installed")
    folder = Path(package.submodule_search_locations[0])
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    pointer, number, size, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
    buffer = ctypes.POINTER(_Buffer)
    load = [pointer, pointer, text, pointer, number, pointer, buffer, pointer]
    run = [*[pointer] * 4, number, *[pointer] * 2, number, pointer, number, pointer, pointer]
    for name, result, arguments in (
        ("TF_NewStatus", pointer, []),
        ("TF_DeleteStatus", None, [pointer]),
        ("TF_GetCode", number, [pointer]),
        ("TF_Message", text, [pointer]),
        ("TF_NewGraph", pointer, []),
        ("TF_DeleteGraph", None, [pointer]),
        ("TF_NewBuffer", buffer, []),
        ("TF_DeleteBuffer", None, [buffer]),
        ("TF_NewSessionOptions", pointer, []),
        ("TF_DeleteSessionOptions", None, [pointer]),
        ("TF_LoadSessionFromSavedModel", pointer, load),
        ("TF_CloseSession", None, [pointer, pointer]),
        ("TF_DeleteSession", None, [pointer, pointer]),
        ("TF_SessionRun", None, run),
        ("TF_GraphOperationByName", pointer, [pointer, text]),
        ("TF_AllocateTensor", pointer, [number, pointer, number, size]),
        ("TF_NewTensor", pointer, [number, pointer, number, pointer, size, _Deallocator, pointer]),
        ("TF_DeleteTensor", None, [pointer]),
        ("TF_TensorData", pointer, [pointer]),
        ("TF_TensorByteSize", size, [pointer]),
        ("TF_TensorType", number, [pointer]),
        ("TF_NumDims", number, [pointer]),
        ("TF_Dim", ctypes.c_int64, [pointer, number]),
        ("TF_StringInit", None, [pointer]),
        ("TF_StringCopy", None, [pointer, text, size]),
        ("TF_StringDealloc", None, [pointer]),
        ("TF_StringGetDataPointer", pointer, [pointer]),
        ("TF_StringGetSize", size, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _signatures(meta_graph: bytes) -> dict[str, tuple[dict[str, TensorInfo], ...]]:
    """The inputs and outputs of each signature, by name.

    Field numbers are those of tensorflow/core/protobuf/meta_graph.proto.
    """
    found = {}
    for field, entry in _fields(meta_graph):
        if field == 5:  # MetaGraphDef.signature_def, a map entry
            name, signature = _map_entry(entry)
            sides: tuple[dict[str, TensorInfo], ...] = ({}, {})
            for side, tensor_entry in _fields(signature):
                if side in (1, 2):  # SignatureDef.inputs, .outputs
                    key, info = _map_entry(tensor_entry)
                    sides[side - 1][key] = _tensor_info(info)
            found[name] = sides
    return found


def _tensor_info(message: bytes) -> TensorInfo:
    """TensorInfo.name = 1, .dtype = 2, .tensor_shape = 3; a message without a name is composite."""
    values: dict[int, Any] = {1: b"", 2: 0, 3: None} | dict(_fields(message))
    return TensorInfo(values[1].decode(), values[2], _shape(values[3]))


def _shape(message: bytes | None) -> tuple[int, ...] | None:
    """TensorShapeProto.dim = 2, with Dim.size = 1, and .unknown_rank = 3."""
    if message is None or dict(_fields(message)).get(3):
        return None
    sizes = [dict(_fields(dim)).get(1, 0) for field, dim in _fields(message) if field == 2]
    return tuple(size - (1 << 64) if size >> 63 else size for size in sizes)


def _map_entry(entry: bytes) -> tuple[str, bytes]:
    values = {1: b"", 2: b""} | dict(_fields(entry))
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


_PACKED = ("size", "bytes")


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Writes an .npz file, of any names and with strings in it, and without a pickle.

    `numpy.savez` takes no array named "file", and NumPy's own dtype of bytes loses zeros at the end
    of a string: strings are written with their sizes.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            array = np.asarray(value)
            if array.dtype.kind in "OSU":
                texts = to_array(array, _STRING, name).ravel().tolist()
                width = max(map(len, texts), default=0)
                kind = np.dtype([("size", np.int64), ("bytes", f"S{max(width, 1)}")])
                packed = np.array([(len(text), text) for text in texts], kind)
                array = packed.reshape(array.shape)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that `write_arrays` or `numpy.savez` wrote."""
    with np.load(path) as found:
        arrays = dict(found)
    for name, array in arrays.items():
        if array.dtype.names == _PACKED:
            arrays[name] = np.empty(array.shape, np.object_)
            texts = [text.ljust(size, b"\0") for size, text in array.ravel().tolist()]
            arrays[name].ravel()[:] = texts
    return arrays


def main(export_dir: str, *paths: str) -> None:
    """Runs `serving_default` of `export_dir` on the arrays of each first path, into each second."""
    with SavedModel(export_dir) as model:
        for inputs, outputs in zip(paths[::2], paths[1::2], strict=True):
            write_arrays(outputs, model.run(read_arrays(inputs)))
    imported = sorted({"tensorflow", "keras", "tf_keras", "tf_leaky"} & sys.modules.keys())
    print(f"answered without Python TensorFlow; imported of it: {imported or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
