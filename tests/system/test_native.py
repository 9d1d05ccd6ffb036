"""The runner on TensorFlow's C API: every dtype, strings, signatures, threads, and no leaks."""

import collections
import gc
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tf_leaky.serving import running
from tf_leaky.serving.running import SavedModel, TensorInfo, read_arrays, write_arrays

NUMBERS = [
    *["float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"],
    *["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
]


def save(path, function, *specs, weights=None, **signatures):
    """Writes a SavedModel of a function that returns a dict, and of more signatures."""
    module = tf.Module()
    module.weights = weights
    module.call = tf.function(function, input_signature=specs)
    module.others = {name: tf.function(f, input_signature=s) for name, (f, s) in signatures.items()}
    traced = {name: f.get_concrete_function() for name, f in module.others.items()}
    tf.saved_model.save(
        module, str(path), {"serving_default": module.call.get_concrete_function(), **traced}
    )
    return path


@pytest.fixture(scope="module")
def every_dtype(tmp_path_factory):
    """A model that returns what it is given, by dtype, and the same in rows after one another."""
    specs = [tf.TensorSpec([None, 2], dtype, name=dtype) for dtype in (*NUMBERS, "string")]

    def call(*tensors):
        return {
            spec.name: tf.reshape(x, tf.shape(x)) for spec, x in zip(specs, tensors, strict=True)
        }

    with SavedModel(save(tmp_path_factory.mktemp("dtypes") / "model", call, *specs)) as model:
        yield model


def inputs_for(model, shape, rng, **given):
    made = {}
    for name, info in model.inputs.items():
        if info.dtype_name == "string":
            made[name] = np.full(shape, b"", object)
        elif info.dtype_name.startswith("complex"):
            made[name] = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(name)
        elif "float" in info.dtype_name:
            number = tf.constant(rng.normal(size=shape), name)
            made[name] = (
                tf.cast(number, "float32").numpy() if name == "bfloat16" else number.numpy()
            )
        else:
            made[name] = rng.integers(0, 2, shape).astype(name)
    return made | given


def test_every_dtype_comes_back_as_it_went(every_dtype, rng):
    texts = np.array(
        [[b"", b"short"], ["ünï".encode(), b"zeros\0\0"], [b"x" * 1000, b"\0"]], object
    )
    given = inputs_for(every_dtype, (3, 2), rng, string=texts)
    answer = every_dtype.run(given)
    assert answer.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(answer[name], array)
        assert answer[name].dtype == array.dtype


@pytest.mark.parametrize("shape", [(0, 2), (1, 2)], ids=str)
def test_small_and_empty_batches(shape, every_dtype, rng):
    given = inputs_for(every_dtype, shape, rng)
    for name, array in every_dtype.run(given).items():
        np.testing.assert_array_equal(array, given[name])
        assert array.shape == shape


def test_bfloat16_rounds_as_tensorflow_does(every_dtype, rng):
    numbers = rng.normal(size=(500, 2)).astype("float32")
    numbers[:4, 0] = [np.inf, -np.inf, np.nan, -0.0]
    numbers[:2, 1] = [1 + 2.0**-8, 1 + 3 * 2.0**-8]  # ties go to the even neighbour
    found = every_dtype.run(inputs_for(every_dtype, (1, 2), rng) | {"bfloat16": numbers})
    expected = tf.cast(tf.cast(numbers, tf.bfloat16), tf.float32).numpy()
    np.testing.assert_array_equal(found["bfloat16"], expected)
    assert np.signbit(found["bfloat16"][3, 0])


def test_bfloat16_arrays_are_taken_where_numpy_knows_them(every_dtype, rng):
    numbers = tf.constant(rng.normal(size=(3, 2)), tf.bfloat16)
    given = inputs_for(every_dtype, (1, 2), rng) | {"bfloat16": numbers.numpy()}
    found = every_dtype.run(given)["bfloat16"]
    np.testing.assert_array_equal(found, tf.cast(numbers, tf.float32))


def test_text_and_bytes_and_lists_are_taken(every_dtype, rng):
    for texts in ([["ü", "b"]], np.array([["ü", "b"]]), np.array([["ü".encode(), b"b"]])):
        given = inputs_for(every_dtype, (1, 2), rng, string=texts, int8=[[1, 2]], float16=[[1, 2]])
        answer = every_dtype.run(given)
        assert answer["string"].tolist() == [["ü".encode(), b"b"]]
        assert answer["int8"].tolist() == answer["float16"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("name", "value", "received"),
    [
        ("int32", [[0.5, 1.0]], "float64"),
        ("int8", [[1, 300]], "int64"),
        ("uint8", [[1, -1]], "int64"),
        ("bool", [[1, 0]], "int64"),
        ("float32", [["a", "b"]], "<U1"),
        ("float32", [[1j, 2]], "complex128"),
        ("string", [[1, 2]], "int64"),
    ],
)
def test_a_dtype_that_does_not_fit_is_refused(name, value, received, every_dtype, rng):
    given = inputs_for(every_dtype, (1, 2), rng, **{name: value})
    with pytest.raises(RuntimeError, match=rf"expected '{name}' to hold .*, received {received}"):
        every_dtype.run(given)


def test_other_names_are_refused(every_dtype):
    with pytest.raises(RuntimeError, match=r"expected inputs \['bfloat16', .* received \['x'\]"):
        every_dtype.run({"x": 1})


def test_signatures_are_described(tmp_path):
    path = save(
        tmp_path / "model",
        lambda x: {"y": tf.reduce_sum(x), "text": tf.strings.as_string(x)},
        tf.TensorSpec([None, 3], name="x"),
        other=(lambda z: {"z": z}, [tf.TensorSpec(None, tf.int64, name="z")]),
        scalar=(lambda: {"one": tf.constant(1.0)}, []),
    )
    with SavedModel(path) as model:
        assert {"serving_default", "other", "scalar"} <= set(model.signature_names)
        assert model.inputs["x"] == TensorInfo("serving_default_x:0", 1, (-1, 3))
        assert model.inputs["x"].dtype_name == "float32"
        assert (model.outputs["y"].shape, model.outputs["text"].dtype_name) == ((), "string")
        assert model.run({"x": np.ones((1, 3))})["y"] == 3
    with SavedModel(path, "other") as model:
        assert model.inputs["z"].shape is None
        assert model.run({"z": 5})["z"].shape == ()
        assert model.run({"z": [[5]]})["z"].tolist() == [[5]]
    with SavedModel(path, "scalar") as model:
        assert model.run({})["one"] == 1
    with pytest.raises(RuntimeError, match=r"one of the signatures \[.*\], received 'none'"):
        SavedModel(path, "none")


def test_a_dtype_that_arrays_cannot_hold_is_named(tmp_path):
    path = save(
        tmp_path / "model",
        lambda x: {"y": tf.quantization.quantize(x, -1.0, 1.0, tf.qint8).output},
        tf.TensorSpec([2], name="x"),
    )
    with SavedModel(path) as model:
        assert model.outputs["y"].dtype_name == "dtype 11"
        with pytest.raises(
            RuntimeError, match=r"expected 'y' to be of bfloat16, .* TF_DataType 11"
        ):
            model.run({"x": [0.0, 1.0]})


def test_a_signature_of_no_tensor_in_the_graph_is_refused(tmp_path):
    path = save(tmp_path / "model", lambda x: {"y": x}, tf.TensorSpec([], name="x"))
    written = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signature = written.meta_graphs[0].signature_def["serving_default"]
    signature.inputs["x"].name = "missing:0"
    (path / "saved_model.pb").write_bytes(written.SerializeToString())
    with pytest.raises(RuntimeError, match=r"expected 'x' to be one tensor .*, received 'missing"):
        SavedModel(path)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="Could not find SavedModel"):
        SavedModel(tmp_path)


def test_without_tensorflow_it_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="expected tensorflow to be installed"):
        running._load_library.__wrapped__()


def test_closed_models_are_refused_and_closing_twice_is_fine(tmp_path):
    path = save(tmp_path / "model", lambda x: {"y": x}, tf.TensorSpec([], name="x"))
    model = SavedModel(path)
    model.close()
    model.close()
    with pytest.raises(RuntimeError, match="expected an open SavedModel"):
        model.run({"x": 1.0})


def test_threads_run_and_close_at_once(tmp_path, rng):
    """Each gets its own answer, errors stay with their caller, and close waits for the last."""
    path = save(
        tmp_path / "model",
        lambda x, s: {"y": tf.linalg.matmul(x, x), "s": tf.strings.join([s, s])},
        tf.TensorSpec([None, None], name="x"),
        tf.TensorSpec([], tf.string, name="s"),
    )
    model = SavedModel(path)

    def work(i):
        if i % 5 == 0:
            with pytest.raises(RuntimeError, match=r"Matrix size-incompatible"):
                model.run({"x": np.ones((2, 3)), "s": ""})
        x = np.full((20, 20), i, "float32")
        answer = model.run({"x": x, "s": b"%030d" % i})
        np.testing.assert_array_equal(answer["y"], 20.0 * i * x)
        assert answer["s"].item() == b"%030d" % i * 2
        return i

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(100))) == list(range(100))
        late = [pool.submit(model.run, {"x": np.ones((400, 400)), "s": ""}) for _ in range(4)]
        model.close()
        for run in late:
            error = run.exception()
            assert error is None or "expected an open SavedModel" in str(error)


def resident():
    """Bytes of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_no_leak_in_runs_and_in_errors(tmp_path):
    """10 000 runs that each hold 100 kB of numbers and strings, and 1000 that fail."""
    path = save(
        tmp_path / "model",
        lambda x, s: {"y": x + tf.ones([10_000]), "s": tf.strings.join([s, "!"])},
        tf.TensorSpec([10_000], name="x"),
        tf.TensorSpec([10], tf.string, name="s"),
    )
    given = {"x": np.ones(10_000, "float32"), "s": np.array([b"text" * 250] * 10, object)}
    wrong = given | {"x": np.ones(9_999, "float32")}
    with SavedModel(path) as model:

        def calls(count):
            for i in range(count):
                model.run(given)
                if i % 10 == 0:
                    with pytest.raises(RuntimeError):
                        model.run(wrong)

        calls(1000)
        before = resident()
        calls(10_000)
        assert resident() - before < 20e6
    assert running._STRINGS == {}


def test_all_that_was_made_is_freed_once(tmp_path, monkeypatch, rng):
    calls = collections.Counter()

    class Counted:
        def __getattr__(self, name):
            def call(*arguments):
                calls[name] += 1
                return getattr(library, name)(*arguments)

            return call

    library = running._load_library()
    monkeypatch.setattr(running, "_load_library", Counted)
    spec = tf.TensorSpec([None, 2], name="x")
    path = save(tmp_path / "model", lambda x: {"y": x + 1}, spec)
    with SavedModel(path) as model:
        model.run({"x": rng.normal(size=(3, 2)).astype("float32")})
    with pytest.raises(RuntimeError, match="expected one of the signatures"):
        SavedModel(path, "no_such")
    assert calls["TF_LoadSessionFromSavedModel"] == calls["TF_CloseSession"] == 2
    assert calls["TF_DeleteSession"] == 2
    for kind in ("Graph", "Buffer", "SessionOptions", "Status"):
        assert calls[f"TF_New{kind}"] == calls[f"TF_Delete{kind}"] > 1, kind
    assert calls["TF_DeleteTensor"] == 2


def test_no_leak_in_loading_and_in_failing_to_load(tmp_path):
    """30 models of 4 MB."""
    weights = tf.Variable(tf.ones([1_000_000]))
    spec = tf.TensorSpec([], name="x")
    path = save(tmp_path / "model", lambda x: {"y": x * weights[0]}, spec, weights=weights)

    def load(count):
        for _ in range(count):
            with SavedModel(path) as model:
                assert model.run({"x": 2.0})["y"] == 2
            with pytest.raises(RuntimeError):
                SavedModel(path, "none")

    load(5)
    before = resident()
    load(30)
    assert resident() - before < 40e6


def test_arrays_of_any_name_and_strings_survive_the_file(tmp_path):
    arrays = {
        "file": np.arange(3),
        "a/b c": np.array([[b"zeros\0\0", b"\0"], [b"", b"y"]], object),
        "text": np.array(["ü", "long text"]),
        "none": np.empty((0, 2), object),
        "scalar": np.array(b"s\0", object),
        "half": np.array([[0.5]], "float16"),
    }
    write_arrays(tmp_path / "arrays.npz", arrays)
    found = read_arrays(tmp_path / "arrays.npz")
    assert found.keys() == arrays.keys()
    assert found["text"].tolist() == ["ü".encode(), b"long text"]
    del arrays["text"]
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].tolist() == array.tolist()
    np.savez(tmp_path / "plain.npz", x=np.ones(2), s=np.array([b"a"]))
    assert read_arrays(tmp_path / "plain.npz")["s"].tolist() == [b"a"]
