"""The runner on TensorFlow's session loader: dtypes, strings, signatures, failures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS, run_python
from tensorflow.core.protobuf import saved_model_pb2

from tf_leaky.serving import running
from tf_leaky.serving.running import SavedModel, read_arrays, write_arrays

pytestmark = list(SLOW_UNDER_TF_KERAS)
NUMBERS = [
    *["float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"],
    *["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
]
TEXTS = [[b"", b"short"], ["ünï".encode(), b"zeros\0\0"], [b"x" * 1000, b"\0"]]
SPECS = [tf.TensorSpec([None, 2], dtype, name=dtype) for dtype in NUMBERS]
SPECS.append(tf.TensorSpec([None, 2], "string", name="file"))  # no array of np.savez may be "file"


def save(path, function, *specs, **signatures):
    """Writes a SavedModel of a function that returns a dict, and of more signatures."""
    module = tf.Module()
    module.call = tf.function(function, input_signature=specs)
    module.others = {name: tf.function(f, input_signature=s) for name, (f, s) in signatures.items()}
    traced = {name: f.get_concrete_function() for name, f in module.others.items()}
    default = module.call.get_concrete_function()
    tf.saved_model.save(module, str(path), {"serving_default": default, **traced})
    return path


# Runs the script isolated, as the check does; then imports what it must not find on its path.
PROBE = f"""
import runpy, sys
sys.path += {[*sys.path, str(Path(running.__file__).parents[2])]!r}
sys.argv = [{running.__file__!r}, *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
for name in ("keras", "tf_keras", "tf_leaky"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"imports {{name}}")
"""


def run_afresh(path, folder, inputs, status):
    """What a fresh process said, without Keras and this package, and the path of its answers."""
    write_arrays(folder / "in.npz", inputs)
    paths = [path, folder / "in.npz", folder / "out.npz"]
    return run_python("-I", "-c", PROBE, *paths, status=status).stderr, paths[-1]


@pytest.mark.usefixtures("covered_processes")
def test_every_dtype_returns_as_it_came_in_a_fresh_process_too(rng, tmp_path):
    def call(*tensors):
        pairs = zip(SPECS, tensors, strict=True)
        return {spec.name: tf.reshape(x, tf.shape(x)) for spec, x in pairs}

    path = save(tmp_path / "model", call, *SPECS)
    given = {"file": np.array(TEXTS, object)}
    for name in NUMBERS:
        numbers = rng.normal(size=(3, 2)) if "float" in name else rng.integers(0, 2, (3, 2))
        given[name] = tf.cast(numbers, name).numpy()
    given["bfloat16"] = tf.cast(given["bfloat16"], "float32").numpy()
    _, answers = run_afresh(path, tmp_path, given, status=0)
    with SavedModel(path) as model:
        for answer in (model.run(given), read_arrays(answers)):
            assert answer.keys() == given.keys()
            for name, array in given.items():
                np.testing.assert_array_equal(answer[name], array)
                assert answer[name].dtype == array.dtype
        empty = model.run({name: array[:0] for name, array in given.items()})
        assert {array.shape for array in empty.values()} == {(0, 2)}


def test_operation_that_is_not_registered_fails_in_a_fresh_process(tmp_path):
    path = save(tmp_path / "model", lambda x: {"y": tf.tanh(x)}, tf.TensorSpec([2], name="x"))
    written = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for function in written.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = node.op.replace("Tanh", "OfAnotherPackage")
    (path / "saved_model.pb").write_bytes(written.SerializeToString())
    said, answers = run_afresh(path, tmp_path, {"x": np.ones(2, "float32")}, status=1)
    assert "OfAnotherPackage" in said
    assert not answers.exists()


def test_signatures_and_scalars_and_unknown_shapes(tmp_path):
    z = tf.TensorSpec(None, tf.int64, name="z")
    other = (lambda z: {"z": z, "zeros": "a\0"}, [z])
    path = save(tmp_path / "model", lambda z: {"y": tf.reduce_sum(z)}, z, other=other)
    with SavedModel(path) as model:
        assert {"serving_default", "other"} <= model.signatures.keys()
        assert model.run({"z": [[5]]})["y"] == 5
        answer = model.run({"z": 5}, "other")
        assert (answer["z"].shape, answer["zeros"].item()) == ((), b"a\0")
        with pytest.raises(RuntimeError, match=r"expected inputs \['z'\], received \['x'\]"):
            model.run({"x": 1})
        with pytest.raises(RuntimeError, match=r"one of the signatures \[.*\], received 'none'"):
            model.run({"z": 5}, "none")
    with pytest.raises(RuntimeError, match="SavedModel file does not exist"):
        SavedModel(tmp_path)
