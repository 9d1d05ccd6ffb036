"""Runs a SavedModel with TensorFlow's session loader, as `saved_model_cli run` does.

    python -I running.py EXPORT_DIR INPUTS.npz OUTPUTS.npz [INPUTS.npz OUTPUTS.npz ...]

As a script, it runs in a fresh process that cannot import Keras or tf_leaky, so that neither can
help a SavedModel that would fail in a server. It runs the signature `serving_default` on the arrays
of each INPUTS.npz, which are named after the signature's inputs, and writes its outputs, by name.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # before TensorFlow is imported, which imports Keras if it can
    sys.modules |= dict.fromkeys(("keras", "tf_keras", "tf_leaky"))  # type: ignore[arg-type]

import tensorflow as tf

_DEFAULT = "serving_default"
_PACKED = ("size", "bytes")


class SavedModel:
    """A SavedModel in a session. Threads may run it at the same time.

    Its attribute `signatures` maps names to SignatureDefs; `inputs` and `outputs` map the names of
    those of `serving_default` to TensorInfos.

    Args:
        path: The directory that contains `saved_model.pb`.

    Raises:
        RuntimeError: If TensorFlow can't load the model, with its message, or the model has no
            signature `serving_default`.
    """

    def __init__(self, path: str | Path) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(path))
            self.signatures = dict(meta_graph.signature_def)
            default = self._signature(_DEFAULT)
        except Exception as error:
            self.close()
            raise _plain_error(error) from error
        self.inputs, self.outputs = dict(default.inputs), dict(default.outputs)

    def run(self, inputs: Mapping[str, Any], signature: str = _DEFAULT) -> dict[str, np.ndarray]:
        """Returns a signature's outputs for `inputs`, both by name; bfloat16 becomes float32.

        Raises:
            RuntimeError: If there is no such signature, the names are not those of its inputs, or
                the model fails.
        """
        chosen = self._signature(signature)
        if inputs.keys() != chosen.inputs.keys():
            expected = sorted(chosen.inputs)
            raise RuntimeError(f"expected inputs {expected}, received {sorted(inputs)}")
        feeds = {chosen.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: info.name for name, info in chosen.outputs.items()}
        try:
            return plain(self._session.run(fetches, feeds))
        except Exception as error:
            raise _plain_error(error) from error

    def _signature(self, name: str) -> Any:
        if name not in self.signatures:
            known = sorted(self.signatures)
            raise RuntimeError(f"expected one of the signatures {known}, received {name!r}")
        return self.signatures[name]

    def close(self) -> None:
        """Frees the session."""
        self._session.close()

    def __enter__(self) -> SavedModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _plain_error(error: Exception) -> RuntimeError:
    message = str(getattr(error, "message", error))
    return RuntimeError(message.removeprefix("Graph execution error:").strip())


def plain(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays, with float32 for bfloat16, which isn't NumPy's."""
    found = {}
    for name, value in arrays.items():
        array = np.asarray(value, object if isinstance(value, bytes) else None)
        found[name] = array.astype(np.float32) if array.dtype.kind == "V" else array
    return found


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file without pickles; arrays may have any names and contain strings.

    `numpy.savez` accepts no array named "file", and NumPy's own dtype for bytes loses zeros at the
    end of a string: so strings are written with their sizes.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            if array.dtype == object:
                width = max(map(len, array.ravel()), default=0)
                kind = np.dtype([("size", np.int64), ("bytes", f"S{max(width, 1)}")])
                packed = np.array([(len(text), text) for text in array.ravel()], kind)
                array = packed.reshape(array.shape)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file that `write_arrays` or `numpy.savez` wrote."""
    with np.load(path) as found:
        arrays = dict(found)
    for name, array in arrays.items():
        if array.dtype.names == _PACKED:
            arrays[name] = np.empty(array.shape, np.object_)
            texts = [text.ljust(size, b"\0") for size, text in array.ravel().tolist()]
            arrays[name].ravel()[:] = texts
    return arrays


def main(export_dir: str, *paths: str) -> None:
    """Runs `serving_default` on the arrays of each first path; writes outputs to each second."""
    with SavedModel(export_dir) as model:
        for inputs, outputs in zip(paths[::2], paths[1::2], strict=True):
            write_arrays(outputs, model.run(read_arrays(inputs)))


if __name__ == "__main__":
    main(*sys.argv[1:])
