"""The first form of `export_saved_model`, and the runner that answers without Python TensorFlow."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tf_leaky import LeakyReLU, export_saved_model, native

NATIVE = Path(native.__file__)


def small_model(case):
    return tf.keras.Sequential([tf.keras.Input(case.input_shape), case.make()])


def answer(version, inputs, folder):
    """What the C API answers, in a process without Python TensorFlow."""
    np.savez(folder / "in.npz", **inputs)
    paths = [version, folder / "in.npz", folder / "out.npz"]
    done = subprocess.run(
        [sys.executable, "-I", NATIVE, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "imported of it: nothing" in done.stdout
    with np.load(folder / "out.npz") as outputs:
        return dict(outputs)


def input_name(version):
    signature = tf.saved_model.load(version).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return name


@pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)
def test_export_answers_without_python_tensorflow(case, tmp_path, rng):
    model = small_model(case)
    version = export_saved_model(model, tmp_path / "model")
    assert version == tmp_path / "model" / "1"
    x = rng.normal(size=(3, *case.input_shape)).astype("float32")
    outputs = answer(version, {input_name(version): x}, tmp_path)
    np.testing.assert_allclose(outputs["output_0"], model.predict(x, verbose=0), rtol=1e-6)


def test_versions_count_up(tmp_path):
    model = small_model(cases.LAYERS[0])
    (tmp_path / "not a version").mkdir()
    names = [export_saved_model(model, tmp_path).name for _ in range(2)]
    names.append(export_saved_model(model, str(tmp_path), version=10).name)
    names.append(export_saved_model(model, tmp_path).name)
    assert names == ["1", "2", "10", "11"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1",
        "10",
        "11",
        "2",
        "not a version",
    ]


def compiled_functions(version):
    """The functions in a SavedModel that a server would have to compile with XLA."""
    model = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return [
        function.signature.name
        for function in model.meta_graphs[0].graph_def.library.function
        if function.attr["_XlaMustCompile"].b
    ]


def test_forward_graph_has_no_xla_in_it(tmp_path):
    """TensorFlow Serving answers 'XLA compilation disabled' to a graph that has."""
    for i, case in enumerate(cases.LAYERS):
        version = export_saved_model(small_model(case), tmp_path, version=i + 1)
        assert compiled_functions(version) == []

    class Compiled(tf.keras.layers.Layer):
        @tf.function(jit_compile=True)
        def call(self, x):
            return x + 1.0

    model = tf.keras.Sequential([tf.keras.Input((2,)), Compiled()])
    assert compiled_functions(export_saved_model(model, tmp_path / "compiled")) != []


def test_existing_version_is_never_overwritten(tmp_path):
    model = small_model(cases.LAYERS[0])
    version = export_saved_model(model, tmp_path, version=3)
    before = (version / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match=r"not there yet\. Received: version=3"):
        export_saved_model(model, tmp_path, version=3)
    assert (version / "saved_model.pb").read_bytes() == before


@pytest.mark.parametrize("version", [0, -1])
def test_version_below_one(version, tmp_path):
    with pytest.raises(ValueError, match=r"version to be above 0\. Received: version="):
        export_saved_model(small_model(cases.LAYERS[0]), tmp_path / "model", version=version)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("version", ["1", 1.0, True], ids=repr)
def test_version_that_is_no_integer(version, tmp_path):
    with pytest.raises(TypeError, match=r"version to be an integer or None\. Received: version="):
        export_saved_model(small_model(cases.LAYERS[0]), tmp_path / "model", version=version)
    assert not (tmp_path / "model").exists()


def test_base_path_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match=r"base_path to be a folder\. Received: base_path="):
        export_saved_model(small_model(cases.LAYERS[0]), tmp_path / "file")


@pytest.mark.parametrize("model", [None, "model", LeakyReLU()], ids=lambda m: type(m).__name__)
def test_what_is_no_model(model, tmp_path):
    with pytest.raises(
        TypeError, match=r"export_saved_model: expected a model of .* Received: mod"
    ):
        export_saved_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_model_that_is_not_built(tmp_path):
    model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"model to be built\. Received: model='sequential"):
        export_saved_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_failed_export_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail_halfway(self, path, **_):
        Path(path).mkdir()
        (Path(path) / "half").write_text("written")
        raise OSError("disk full")

    monkeypatch.setattr(tf.keras.Sequential, "export", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(small_model(cases.LAYERS[0]), tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_runner_names_a_wrong_input(tmp_path):
    version = export_saved_model(small_model(cases.LAYERS[0]), tmp_path / "model")
    np.savez(tmp_path / "in.npz", wrong=np.ones((1, 6), "float32"))
    command = [sys.executable, "-I", NATIVE, version, tmp_path / "in.npz", tmp_path / "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "expected inputs" in done.stderr
    assert not (tmp_path / "out.npz").exists()


def test_runner_without_tensorflow_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="expected tensorflow to be installed"):
        native._load_library.__wrapped__()


def test_runner_catches_an_export_that_python_does_not(tmp_path):
    """Why nothing goes through `tf.saved_model.save`: under Keras 3 it fails outside Python."""
    model = tf.keras.Sequential([tf.keras.Input((2,)), LeakyReLU(0.5, trainable_alpha=True)])
    tf.saved_model.save(model, str(tmp_path / "model"))
    name = input_name(tmp_path / "model")
    np.savez(tmp_path / "in.npz", **{name: np.ones((1, 2), "float32")})
    command = [sys.executable, "-I", NATIVE, tmp_path / "model", tmp_path / "in.npz"]
    done = subprocess.run(
        [*command, tmp_path / "out.npz"], capture_output=True, text=True, check=False
    )
    if tf.keras.Model.__module__.startswith("keras."):
        assert done.returncode != 0
        assert "Could not find variable" in done.stderr
    else:
        assert done.returncode == 0
