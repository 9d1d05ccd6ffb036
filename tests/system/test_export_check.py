"""The check before an export is published: what it catches, and what it lets through."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3
from exports import model_of, refused, through

from tf_leaky import LeakyReLU, export_saved_model
from tf_leaky.serving import checking, comparing, running, signatures

layers = tf.keras.layers


def test_python_in_the_graph_is_caught(tmp_path):
    """It runs in this process, where TensorFlow finds the function."""
    double = layers.Lambda(
        lambda x: tf.ensure_shape(tf.py_function(lambda x: 2 * x, [x], x.dtype), [None, 4]),
        output_shape=(4,),
    )
    match = r"to answer in a fresh process(?s:.*)Could not find callback"
    refused(RuntimeError, match, model_of(double), tmp_path)


def ids_below_5(dtype="float32"):
    ids = tf.keras.Input((3,), dtype="int32", name="ids")
    return through(ids, layers.Lambda(lambda x: tf.gather(tf.ones([5, 2], dtype), x), (3, 2)))


@pytest.fixture
def otherwise(monkeypatch, in_this_process):
    """Makes exports serve `change(y)` where a model predicts y."""

    def serve(change):
        named = signatures.named_outputs

        def changed(model, outputs):
            predicted = isinstance(outputs, np.ndarray)
            return named(model, outputs if predicted else change(outputs))

        monkeypatch.setattr(signatures, "named_outputs", changed)

    return serve


def noise(x):
    return x + tf.random.normal(tf.shape(x))


def small_numbers(policy):
    return model_of(layers.Dense(100, dtype=policy), layers.Rescaling(0.01, dtype=policy))


def sampling():
    return model_of(layers.Lambda(noise, (4,)))


# A model, what is served in place of its outputs, and what is said of that.
OTHERS = {
    "factor": (None, lambda x: x * 1.001, r"up to 0\.00.*, allowed are 1e-05 \+ 0\.0001"),
    "offset": (None, lambda x: x + 2e-4, r"up to 0\.0002, allowed"),
    "dtype": (None, lambda x: tf.cast(x, "float64"), r"float64 \(2, 4\), expected float32"),
    "shape": (None, lambda x: x[:, :3], r"float32 \(2, 3\), expected float32 \(2, 4\)"),
    "inf": (None, lambda x: x / 0.0, "up to inf"),
    "nan": (None, lambda x: x * np.nan, "up to nan"),
    "integers": (lambda: ids_below_5("int32"), lambda x: x + 1, "12 of 12 values"),
    "slope": (
        lambda: small_numbers("mixed_float16"),
        lambda x: tf.where(x > 0, x, 0 * x),
        "allowed are 1e-05",
    ),
    "classes": (
        lambda: small_numbers("mixed_bfloat16"),
        lambda x: tf.roll(x, 1, -1),
        "allowed are 1e-05",
    ),
    "samples of another shape": (sampling, lambda x: x[:, :3], r"float32 \(2, 3\), expected"),
    "samples that are not finite": (sampling, lambda x: x / 0.0, "finite, unlike"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_answer_is_caught(name, tmp_path, otherwise):
    make, change, match = OTHERS[name]
    model = make() if make else model_of(LeakyReLU())
    otherwise(change)
    message = refused(RuntimeError, "the export to answer as .*" + match, model, tmp_path)
    assert "as model.predict does. Received: model='" in message
    assert "Nothing was published." in message


def test_what_is_far_below_the_tolerance_is_not(tmp_path, otherwise):
    otherwise(lambda x: x * (1 + 1e-6))
    assert export_saved_model(model_of(LeakyReLU()), tmp_path).name == "1"


def test_tolerance_goes_by_where_predict_runs(monkeypatch):
    def nodes(*dtypes):
        with tf.Graph().as_default() as graph:
            for dtype in dtypes:
                tf.raw_ops.Placeholder(dtype=dtype)
        return list(graph.as_graph_def().node)

    half, brain = nodes(tf.float32, tf.half), nodes(tf.half, tf.bfloat16)
    model = model_of(LeakyReLU())
    assert comparing.tolerance(model, half) == comparing.tolerance(model, brain) == 1e-4
    model.compile("sgd", "mse", jit_compile=True)
    assert comparing.tolerance(model, nodes(tf.float32, tf.int64)) == 1e-4
    assert comparing.tolerance(model, half) == 1e-2
    assert comparing.tolerance(model, brain) == 5e-2
    model.compile("sgd", "mse", jit_compile=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert comparing.tolerance(model, nodes(tf.float32)) == 1e-2
    small = np.array([1e-3, 5e-4], "f4")  # a loose one goes by the largest value
    assert comparing._difference(small, small + 8e-6, 1e-2) == ""
    assert "up to 0.0005" in comparing._difference(small, small[::-1], 1e-2)


def test_model_that_seldom_samples_is_found_out(caplog):
    """Here its fifth prediction differs from the first, as the export's does."""
    one, other = ([{"y": np.float32([value])}] for value in (1, -1))
    predictions = iter([one, one, one, other])
    comparing.compare(model_of(LeakyReLU()), 1e-4, one, other, lambda: next(predictions))
    assert "two predictions of " in caplog.text


def half(dtype, *last):
    x = tf.keras.Input((4,), name="x", dtype="float32" if last else dtype)
    return through(x, layers.Dense(2, dtype=dtype, name="y"), *last)


HALF = "takes or returns float16 or bfloat16 in ['x', 'y']"


def floats_below_5():
    """As an Embedding takes them that is the first layer of a Sequential of tf_keras."""
    taken = lambda x: tf.gather(tf.ones([5, 2]), tf.cast(x, "int32"))  # noqa: E731
    return through(tf.keras.Input((30,)), layers.Lambda(taken, (30, 2)))  # some are below -1


LOGGED = {
    "honest": (lambda: model_of(LeakyReLU()), None),
    "ids": (ids_below_5, None),  # which are 0 in the examples, as a larger one could be too large
    "floats as ids": (floats_below_5, None),
    "samples": (sampling, "only the shapes, dtypes and fini"),
    "not finite": (lambda: model_of(layers.Lambda(tf.math.log, (4,), name="log")), "in ['log']"),
    "float16": (lambda: half("float16"), HALF),
    "bfloat16": (lambda: half("bfloat16"), HALF),
    # what that says helps, does
    "as told": (lambda: half("float16", layers.Activation("linear", dtype="float32")), None),
}


@pytest.mark.parametrize("name", LOGGED)
def test_what_is_right_and_may_surprise_is_published_and_logged(
    name, tmp_path, caplog, in_this_process
):
    make, logged = LOGGED[name]
    with caplog.at_level(logging.INFO, logger="tf_leaky"):
        assert export_saved_model(make(), tmp_path).name == "1"
    said = [each.getMessage() for each in caplog.records if each.name == "tf_leaky"]
    assert len(said) == (logged is not None)
    assert logged is None or logged in said[0]


def test_error_of_predict_stays_itself_and_says_on_which_examples(tmp_path, caplog):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        export_saved_model(ids_below_5(), tmp_path, warmup=np.full((2, 3), 7))
    said = "".join(getattr(caught.value, "__notes__", [])) or caplog.text  # by Python 3.10
    assert "on examples of shapes [{'ids': (1, 3)}, {'ids': (2, 3)}]. Nothing was pub" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["predict", "tracing"])
@pytest.mark.parametrize(
    "error", [OSError("its"), OverflowError("its"), tf.errors.UnknownError(None, None, "its")]
)
def test_errors_of_the_model_are_not_taken_for_those_of_the_disk(
    error, where, tmp_path, monkeypatch, otherwise
):
    def fail(*_, **__):
        raise error

    model = model_of(LeakyReLU())
    if where == "predict":
        monkeypatch.setattr(type(model), "predict", fail)
    else:
        otherwise(fail)
    with pytest.raises(Exception, match="its") as caught:  # tf_keras traces it to another type
        export_saved_model(model, tmp_path)
    assert isinstance(caught.value, type(error)) or (not KERAS_3 and where == "tracing")
    assert "base_path" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_the_check_nothing_is_run(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("it was run")

    model = ids_below_5()
    for where, name in ((type(model), "predict"), (subprocess, "run"), (subprocess, "Popen")):
        monkeypatch.setattr(where, name, never)
    version = export_saved_model(model, tmp_path, check=False, warmup=np.full((2, 3), 7))
    assert {path.name for path in version.iterdir()} > {"saved_model.pb", "assets.extra"}
    fixed = through(tf.keras.Input((4,), batch_size=5, name="x"), layers.Dense(2))
    version = export_saved_model(fixed, tmp_path, check=False)
    monkeypatch.undo()
    with running.SavedModel(version) as loaded:
        assert tf.TensorShape(loaded.inputs["x"].tensor_shape) == (5, 4)


@pytest.mark.parametrize("check", [True, False])
def test_grouped_convolutions_are_refused_with_a_way_out(check, tmp_path, in_this_process):
    """TensorFlow Serving answers 'XLA compilation disabled' to a graph that has it."""
    grouped = layers.Conv2D(4, 3, groups=2)
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 4)), grouped])
    match = r"(?s:without jit_compile.*with '.*conv2d.*' compiled.* Split the channels wi)"
    refused(ValueError, match, model, tmp_path, check=check)


@tf.custom_gradient
def compiled_backward(x):
    return x + 1.0, tf.function(lambda upstream: 3.0 * upstream, jit_compile=True)


def test_xla_in_the_backward_graph_is_fine(tmp_path, in_this_process):
    model = model_of(layers.Lambda(compiled_backward, output_shape=(4,)))
    loaded = tf.saved_model.load(export_saved_model(model, tmp_path))
    x = tf.ones((1, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        (y,) = loaded.signatures["serving_default"](x=x).values()
    np.testing.assert_array_equal(tape.gradient(y, x), 3 * np.ones((1, 4)))


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("import os; os.abort()", "signal 6"),
        ("raise RuntimeError('two\\nlines')", "two\nlines"),
        ("import time; time.sleep(600)", ".*timed out after 0.2 seconds"),
        (None, ".*missing"),  # as where Python is embedded in another program
    ],
    ids=["abort", "error", "silence", "no Python"],
)
def test_a_process_that_fails_is_reported(code, match, tmp_path, monkeypatch):
    if code is None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    else:
        monkeypatch.setattr(checking, "_START", code)
        if "sleep" in code:
            monkeypatch.setattr(checking, "_PATIENCE", 0.2)
    match = "whose export failed: " + match
    refused(RuntimeError, f".*{match}", model_of(LeakyReLU()), tmp_path)


def test_the_other_process_sees_no_gpu_and_no_python_path(tmp_path, monkeypatch, capfd):
    """The GPU's memory is this process's, and PYTHONPATH could bring anything in."""
    asked, run = [], subprocess.run

    def record(command, **arguments):
        asked.append((command, arguments["env"]["CUDA_VISIBLE_DEVICES"]))
        return run(command, **arguments)

    monkeypatch.setattr(checking.subprocess, "run", record)
    export_saved_model(model_of(LeakyReLU()), tmp_path)
    ((command, gpus),) = asked
    assert command[:2] == [sys.executable, "-I"]
    assert gpus == "-1"
    assert Path(tf.__file__).parents[1].as_posix() in json.loads(command[4])
    assert Path(command[5]) == Path(running.__file__)
    assert capfd.readouterr().out == ""
