"""The runner on TensorFlow's session loader: dtypes, strings, signatures, threads, failures."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tf_leaky.serving import running
from tf_leaky.serving.running import SavedModel, read_arrays, write_arrays

NUMBERS = [
    *["float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"],
    *["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
]
TEXTS = [[b"", b"short"], ["ünï".encode(), b"zeros\0\0"], [b"x" * 1000, b"\0"]]


def save(path, function, *specs, **signatures):
    """Writes a SavedModel of a function that returns a dict, and of more signatures."""
    module = tf.Module()
    module.call = tf.function(function, input_signature=specs)
    module.others = {name: tf.function(f, input_signature=s) for name, (f, s) in signatures.items()}
    traced = {name: f.get_concrete_function() for name, f in module.others.items()}
    default = module.call.get_concrete_function()
    tf.saved_model.save(module, str(path), {"serving_default": default, **traced})
    return path


@pytest.fixture(scope="module")
def every_dtype(tmp_path_factory):
    """The path of a model that returns what it is given, by dtype."""
    specs = [tf.TensorSpec([None, 2], dtype, name=dtype) for dtype in (*NUMBERS, "string")]

    def call(*tensors):
        return {
            spec.name: tf.reshape(x, tf.shape(x)) for spec, x in zip(specs, tensors, strict=True)
        }

    return save(tmp_path_factory.mktemp("dtypes") / "model", call, *specs)


def inputs_of_every_dtype(rng):
    made = {"string": np.array(TEXTS, object)}
    for name in NUMBERS:
        numbers = rng.normal(size=(3, 2)) if "float" in name else rng.integers(0, 2, (3, 2))
        made[name] = tf.cast(numbers, name).numpy()
    return made | {"bfloat16": tf.cast(made["bfloat16"], "float32").numpy()}


def script(*arguments):
    """The runner as a script, in a process that is as isolated as that of the check."""
    command = [sys.executable, "-I", running.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_dtype_returns_as_it_came_in_a_fresh_process_too(every_dtype, rng, tmp_path):
    given = inputs_of_every_dtype(rng)
    write_arrays(tmp_path / "in.npz", given)
    done = script(every_dtype, tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr[-2000:]
    with SavedModel(every_dtype) as model:
        for answer in (model.run(given), read_arrays(tmp_path / "out.npz")):
            assert answer.keys() == given.keys()
            for name, array in given.items():
                np.testing.assert_array_equal(answer[name], array)
                assert answer[name].dtype == array.dtype


def test_empty_batches(every_dtype, rng):
    given = {name: array[:0] for name, array in inputs_of_every_dtype(rng).items()}
    with SavedModel(every_dtype) as model:
        assert {array.shape for array in model.run(given).values()} == {(0, 2)}


def test_signatures_and_scalars_and_unknown_shapes(tmp_path):
    path = save(
        tmp_path / "model",
        lambda x: {"y": tf.reduce_sum(x), "text": tf.strings.as_string(x)},
        tf.TensorSpec([None, 3], name="x"),
        other=(lambda z: {"z": z, "zeros": "a\0"}, [tf.TensorSpec(None, tf.int64, name="z")]),
    )
    with SavedModel(path) as model:
        assert {"serving_default", "other"} <= model.signatures.keys()
        assert model.run({"x": np.ones((1, 3))})["y"] == 3
        with pytest.raises(RuntimeError, match=r"expected inputs \['x'\], received \['z'\]"):
            model.run({"z": 1})
        assert model.run({"z": 5}, "other")["z"].shape == ()
        assert model.run({"z": [[5]]}, "other")["z"].tolist() == [[5]]
        assert model.run({"z": 5}, "other")["zeros"].item() == b"a\0"
        with pytest.raises(RuntimeError, match=r"one of the signatures \[.*\], received 'none'"):
            model.run({"z": 5}, "none")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="SavedModel file does not exist"):
        SavedModel(tmp_path)


def test_runs_in_threads_get_their_own_answers_and_errors(tmp_path):
    spec = tf.TensorSpec([None, None], name="x")
    path = save(tmp_path / "model", lambda x: {"y": tf.linalg.matmul(x, x)}, spec)
    with SavedModel(path) as model, ThreadPoolExecutor(4) as pool:

        def work(i):
            if i % 5 == 0:
                with pytest.raises(RuntimeError, match="Matrix size-incompatible"):
                    model.run({"x": np.ones((2, 3))})
            x = np.full((20, 20), i, "float32")
            np.testing.assert_array_equal(model.run({"x": x})["y"], 20.0 * i * x)
            return i

        assert list(pool.map(work, range(40))) == list(range(40))


def failure(path, tmp_path):
    """How a fresh process fails on a SavedModel of one input x."""
    np.savez(tmp_path / "in.npz", x=np.ones(2, "float32"))
    done = script(path, tmp_path / "in.npz", tmp_path / "out.npz")
    assert done.returncode == 1
    assert not (tmp_path / "out.npz").exists()
    return done.stderr


def test_python_in_the_graph_fails_in_a_fresh_process(tmp_path):
    """It runs in this one, where TensorFlow finds the function."""

    def call(x):
        return {"y": tf.py_function(lambda x: 2 * x, [x], tf.float32)}

    path = save(tmp_path / "model", call, tf.TensorSpec([2], name="x"))
    with SavedModel(path) as model:
        assert model.run({"x": [1, 2]})["y"].tolist() == [2, 4]
    assert "Could not find callback" in failure(path, tmp_path)


def test_operation_that_is_not_registered_fails(tmp_path):
    path = save(tmp_path / "model", lambda x: {"y": tf.tanh(x)}, tf.TensorSpec([2], name="x"))
    written = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for function in written.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = node.op.replace("Tanh", "OfAnotherPackage")
    (path / "saved_model.pb").write_bytes(written.SerializeToString())
    assert "OfAnotherPackage" in failure(path, tmp_path)


PROBE = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path[:0] = [p for p in PATHS if p]
runpy.run_path(sys.argv[0], run_name="__main__")
for name in ("keras", "tf_keras", "tf_leaky"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"imports {name}")
"""


def test_fresh_process_cannot_import_keras_or_this_package(every_dtype, rng, tmp_path):
    """Even where they are on its path."""
    write_arrays(tmp_path / "in.npz", inputs_of_every_dtype(rng))
    code = PROBE.replace("PATHS", repr([*sys.path, str(Path(running.__file__).parents[2])]))
    command = [sys.executable, "-I", "-c", code, running.__file__]
    arguments = [str(every_dtype), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[-500:] if done.returncode else "") == (0, "")


def test_arrays_of_any_name_and_strings_survive_the_file(tmp_path):
    arrays = {
        "file": np.arange(3),
        "a/b c": np.array([[b"zeros\0\0", b"\0"], [b"", b"y"]], object),
        "none": np.empty((0, 2), object),
        "scalar": np.array(b"s\0", object),
        "half": np.array([[0.5]], "float16"),
    }
    write_arrays(tmp_path / "arrays.npz", arrays)
    found = read_arrays(tmp_path / "arrays.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].tolist() == array.tolist()
    np.savez(tmp_path / "plain.npz", x=np.ones(2), s=np.array([b"a"]))
    assert read_arrays(tmp_path / "plain.npz")["s"].tolist() == [b"a"]
