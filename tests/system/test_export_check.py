"""The check before an export is published: what it catches, and what it lets through."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exports import model_of, refused, through

from tf_leaky import LeakyReLU, checks, export_saved_model, keras_compat
from tf_leaky.serving import checking, comparing, running, signatures

KERAS_3 = tf.keras.Model.__module__.startswith("keras.")
layers = tf.keras.layers


def write_by_saved_model(traced, path):
    """The short way: reloads and runs in Python, and under Keras 3 fails every request."""
    model, inputs = traced
    module = tf.Module()
    module.model = model
    module.serve = tf.function(lambda x: {"y": model(x)}, input_signature=[inputs])
    tf.saved_model.save(module, str(path), {"serving_default": module.serve})
    loaded = tf.saved_model.load(str(path))
    np.testing.assert_allclose(loaded.serve(tf.ones((1, 4)))["y"], model(np.ones((1, 4))))


def test_trap_of_saved_model_save_is_caught(tmp_path, monkeypatch):
    """Under Keras 3 alone; tf_keras's variables are TensorFlow's own."""
    monkeypatch.setattr(signatures, "traced", lambda model, inputs: (model, inputs))
    monkeypatch.setattr(keras_compat, "write", write_by_saved_model)
    model = model_of(LeakyReLU(0.5, trainable_alpha=True, name="y"))
    if KERAS_3:
        match = "to answer in a fresh process, .*Could not find variable"
        refused(RuntimeError, match, model, tmp_path)
    else:
        assert export_saved_model(model, tmp_path).name == "1"


def test_python_in_the_graph_is_caught(tmp_path):
    """It runs in this process, where TensorFlow finds the function."""
    double = layers.Lambda(
        lambda x: tf.ensure_shape(tf.py_function(lambda x: 2 * x, [x], x.dtype), [None, 4]),
        output_shape=(4,),
    )
    match = r"to answer in a fresh process(?s:.*)Could not find callback"
    refused(RuntimeError, match, model_of(double), tmp_path)


class OtherwiseServed(layers.Layer):
    """Differs by `change(x)` from what it predicts, once it is traced for an export."""

    exporting = False

    def __init__(self, change):
        super().__init__()
        self.change = change

    def call(self, x):
        return self.change(x) if OtherwiseServed.exporting else x


@pytest.fixture
def otherwise(monkeypatch, in_this_process):
    """Makes each `OtherwiseServed` one."""
    traced = signatures.traced

    def traced_otherwise(model, inputs):
        OtherwiseServed.exporting = True
        try:
            return traced(model, inputs)
        finally:
            OtherwiseServed.exporting = False

    monkeypatch.setattr(signatures, "traced", traced_otherwise)


def of_precision(policy, *last):
    small = layers.Rescaling(0.01, dtype=policy)
    return [layers.Dense(100, dtype=policy), small, *last]


@pytest.mark.parametrize(
    ("change", "match", "before"),
    [
        (lambda x: x * 1.001, r"up to 0\.00.*, allowed are 1e-05 \+ 0\.0001", []),
        (lambda x: x + 2e-4, r"up to 0\.0002, allowed", []),
        (lambda x: tf.cast(x, "float64"), r"float64 \(2, 4\), expected float32 \(2, 4\)", []),
        (lambda x: x[:, :3], r"float32 \(2, 3\), expected float32 \(2, 4\)", []),
        (lambda x: x / 0.0, "up to inf", []),
        (lambda x: x * np.nan, "up to nan", []),
        (
            lambda x: tf.where(x > 0, x, 0 * x),
            "up to .*, allowed are 1e-05",
            of_precision("mixed_float16"),
        ),
        (
            lambda x: tf.roll(x, 1, -1),
            "up to .*, allowed are 1e-05",
            of_precision("mixed_bfloat16", layers.Softmax(dtype="float32")),
        ),
    ],
    ids=["factor", "offset", "dtype", "shape", "inf", "nan", "another slope", "other classes"],
)
def test_another_answer_is_caught(change, match, before, tmp_path, otherwise):
    model = model_of(*before, OtherwiseServed(change))
    message = refused(RuntimeError, "the export to answer as .*" + match, model, tmp_path)
    assert "as model.predict does. Received: model='sequential" in message
    assert "Nothing was published." in message


def test_what_is_far_below_the_tolerance_is_not(tmp_path, otherwise):
    model = model_of(OtherwiseServed(lambda x: x * (1 + 1e-6)))
    assert export_saved_model(model, tmp_path).name == "1"


def test_integers_and_names_are_compared_exactly():
    def differences(expected, found):
        return comparing._differences({"a": expected}, {"a": found}, 1e-4)

    whole = np.array([1, 2, 3])
    assert differences(whole, whole) == []
    assert differences(whole, np.array([1, 2, 4])) == ["'a': 1 of 3 values"]
    assert comparing._differences({"a": whole}, {"b": whole}, 1e-4) == [
        "'a': it is missing",
        "'b': it is not an output of predict",
    ]
    assert "up to 1," in differences(np.array([1j]), np.array([0j]))[0]
    three = np.array([1.0, np.nan, np.inf])
    assert "up to 1," in differences(three, np.array([2.0, np.nan, np.inf]))[0]
    assert differences(three, three) == []


def test_samples_are_compared_in_what_no_sample_changes():
    def unlike(first, again, found):
        return comparing._unlike_samples({"a": first}, {"a": again}, {"a": found})

    two, three, nan = np.ones(2), np.ones(3), np.array([1.0, np.nan])
    assert unlike(two, 2 * two, 3 * two) == []
    assert unlike(nan, nan, nan * 2) == []
    assert "finite, unlike" in unlike(nan, nan, two)[0]
    assert unlike(two, two, three) == ["'a': float64 (3,), expected float64 (2,)"]
    assert unlike(two, three, np.ones(4)) == []  # a size that is sampled too
    assert unlike(two, three, np.ones(4, "f4")) == ["'a': float32 (4,), expected float64 (2,)"]


def test_tolerance_goes_by_where_predict_runs(monkeypatch):
    def node(**types):
        graph = tf.Graph()
        with graph.as_default():
            for name, dtype in types.items():
                tf.raw_ops.Placeholder(dtype=dtype, name=name)
        return list(graph.as_graph_def().node)

    half, brain = node(a=tf.float32, b=tf.half), node(a=tf.half, b=tf.bfloat16)
    model = model_of(LeakyReLU())
    for nodes in (half, brain):
        assert comparing.tolerance(model, nodes) == 1e-4
    model.compile("sgd", "mse", jit_compile=True)
    assert comparing.tolerance(model, node(a=tf.float32, b=tf.int64)) == 1e-4
    assert comparing.tolerance(model, half) == 1e-2
    assert comparing.tolerance(model, brain) == 5e-2
    model.compile("sgd", "mse", jit_compile=False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert comparing.tolerance(model, node(a=tf.float32)) == 1e-2


def test_loose_tolerance_goes_by_the_largest_value():
    small = np.array([1e-3, 5e-4], "f4")
    assert comparing._difference(small, small + 8e-6, 1e-2) == ""
    assert "up to 0.0005" in comparing._difference(small, small[::-1], 1e-2)


class Coin(layers.Layer):
    """Negates its input every fourth time that predict asks."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign(self.count + 1)
        return tf.where(tf.math.floormod(self.count, 4.0) == 0, -x, x)


def test_model_that_seldom_samples_is_found_out(tmp_path, caplog, monkeypatch, in_this_process):
    answers = checking.answers
    monkeypatch.setattr(
        checking, "answers", lambda *a: [{k: -v for k, v in d.items()} for d in answers(*a)]
    )
    with caplog.at_level(logging.WARNING, logger="tf_leaky"):
        export_saved_model(model_of(Coin()), tmp_path)
    assert "two predictions of " in caplog.text


def noise(x):
    return x + tf.random.normal(tf.shape(x))


def half(dtype, *last):
    x = tf.keras.Input((4,), name="x", dtype="float32" if last else dtype)
    return through(x, layers.Dense(2, dtype=dtype, name="y"), *last)


HALF = "takes or returns float16 or bfloat16 in ['x', 'y']"


@pytest.mark.parametrize(
    ("make", "logged"),
    [
        (lambda: model_of(LeakyReLU()), None),
        (lambda: model_of(layers.Lambda(noise, (4,))), "only the shapes, dtypes and finiteness"),
        (
            lambda: model_of(layers.Lambda(tf.math.log, (4,), name="log")),
            "predicts NaN or infinities in ['log']",
        ),
        (lambda: half("float16"), HALF),
        (lambda: half("bfloat16"), HALF),
        # what that says helps, does
        (lambda: half("float16", layers.Activation("linear", dtype="float32")), None),
    ],
    ids=["honest", "samples", "not finite", "float16", "bfloat16", "float32 outside"],
)
def test_what_is_right_and_may_surprise_is_published_and_logged(
    make, logged, tmp_path, caplog, in_this_process
):
    with caplog.at_level(logging.INFO, logger="tf_leaky"):
        version = export_saved_model(make(), tmp_path)
    said = [each.getMessage() for each in caplog.records if each.name == "tf_leaky"]
    assert len(said) == (logged is not None)
    assert logged is None or logged in said[0]
    assert version.name == "1"


def test_examples_would_show_a_wrong_slope():
    """Negative and positive ones, the same each time; zeros would not."""
    specs = [
        tf.TensorSpec([None, None, 3], tf.float32, "float"),
        tf.TensorSpec([None], tf.int32, "int"),
        tf.TensorSpec([None, 2], tf.string, "text"),
    ]
    made = checking.examples(specs)
    shapes = {name: array.shape for name, array in made.items()}
    assert shapes == {"float": (2, 8, 3), "int": (2,), "text": (2, 2)}
    assert made["float"].min() < -0.5 < 0.5 < made["float"].max()
    assert not made["int"].any()
    assert made["text"].tolist() == [[b"", b""]] * 2
    np.testing.assert_array_equal(made["float"], checking.examples(specs)["float"])


def ids_below_5():
    ids = tf.keras.Input((3,), dtype="int32", name="ids")
    return through(ids, layers.Lambda(lambda x: tf.gather(tf.ones([5, 2]), x), (3, 2)))


@pytest.mark.parametrize("notes", [True, False], ids=["note", "log"])
def test_error_of_predict_stays_itself_and_says_on_which_examples(
    notes, tmp_path, monkeypatch, caplog
):
    """Python 3.10 has no notes: there it is logged."""
    if not notes:
        monkeypatch.setattr(checks, "hasattr", lambda *_: False, raising=False)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        export_saved_model(ids_below_5(), tmp_path, warmup=np.full((2, 3), 7))
    said = "".join(getattr(caught.value, "__notes__", [])) or caplog.text
    assert "on examples of shapes [{'ids': (1, 3)}, {'ids': (2, 3)}]. Nothing was pub" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [OSError, tf.errors.ResourceExhaustedError, OverflowError])
@pytest.mark.parametrize("where", ["predict", "tracing"])
def test_errors_of_the_model_are_not_taken_for_those_of_the_disk(
    kind, where, tmp_path, monkeypatch, otherwise
):
    error = kind(None, None, "its own") if issubclass(kind, tf.errors.OpError) else kind("its own")

    def fail(*_, **__):
        raise error

    if where == "tracing":
        model = model_of(OtherwiseServed(fail))
    else:
        model = model_of(LeakyReLU())
        monkeypatch.setattr(type(model), "predict", fail)
    with pytest.raises(Exception, match="its own") as caught:  # tf_keras gives it another type
        export_saved_model(model, tmp_path)
    assert isinstance(caught.value, kind) or (not KERAS_3 and where == "tracing")
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


def test_grouped_convolutions_are_refused_with_a_way_out_that_works(tmp_path, in_this_process):
    """TensorFlow Serving answers 'XLA compilation disabled' to a graph that has it."""
    grouped = layers.Conv2D(4, 3, groups=2)
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 4)), grouped])
    match = r"(?s:without jit_compile.*with '.*conv2d.*' compiled.* Split the channels wi)"
    for check in (True, False):
        refused(ValueError, match, model, tmp_path, check=check)
    x = tf.keras.Input((8, 8, 4), name="x")
    parts = layers.Lambda(lambda x: tf.split(x, 2, axis=-1), output_shape=[(8, 8, 2)] * 2)(x)
    both = [layers.Conv2D(2, 3) for _ in parts]
    answers = [one(part) for one, part in zip(both, parts, strict=True)]
    split = tf.keras.Model(x, layers.Concatenate()(answers))
    kernel, bias = grouped.get_weights()
    for i, one in enumerate(both):
        one.set_weights([kernel[..., 2 * i : 2 * i + 2], bias[2 * i : 2 * i + 2]])
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(split(images), model(images), rtol=1e-5, atol=1e-6)
    assert export_saved_model(split, tmp_path).name == "1"


class CompiledBackward(layers.Layer):
    def call(self, x):
        @tf.function(jit_compile=True)
        def gradient(upstream):
            return 3.0 * upstream

        @tf.custom_gradient
        def operation(x):
            return x + 1.0, gradient

        return operation(x)


def test_xla_in_the_backward_graph_is_fine(tmp_path, in_this_process):
    version = export_saved_model(model_of(CompiledBackward()), tmp_path)
    loaded = tf.saved_model.load(version)
    x = tf.ones((1, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        (y,) = loaded.signatures["serving_default"](x=x).values()
    np.testing.assert_array_equal(tape.gradient(y, x), 3 * np.ones((1, 4)))


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("import os; os.abort()", "signal 6"),
        ("raise SystemExit('out of order')", "out of order"),
        ("raise RuntimeError('two\\nlines')", "two\nlines"),
        ("import time; time.sleep(600)", ".*timed out after 0.2 seconds"),
        (None, ".*missing"),  # as where Python is embedded in another program
    ],
    ids=["abort", "exit", "error", "silence", "no Python"],
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
    """The GPU's memory is this process's, and PYTHONPATH could bring anything in.

    Where TensorFlow is found by PYTHONPATH, its folder is named to the process. Nothing is printed.
    """
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
