"""The check before an export is published: what it catches, and what it lets through."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tf_leaky import LeakyReLU, checks, export_saved_model, keras_compat
from tf_leaky.serving import checking, comparing, running, signatures

KERAS_3 = tf.keras.Model.__module__.startswith("keras.")
layers = tf.keras.layers


def model_of(*parts):
    return tf.keras.Sequential([tf.keras.Input((4,), name="x"), *parts])


def broken(tmp_path, match, model, **arguments):
    with pytest.raises(RuntimeError, match=r"^export_saved_model: expected .*" + match) as caught:
        export_saved_model(model, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


def traced_for_saved_model(model, inputs):
    return model, inputs


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
    monkeypatch.setattr(signatures, "traced", traced_for_saved_model)
    monkeypatch.setattr(keras_compat, "write", write_by_saved_model)
    model = model_of(LeakyReLU(0.5, trainable_alpha=True, name="y"))
    if KERAS_3:
        broken(tmp_path, "to answer in a fresh process, .*Could not find variable", model)
    else:
        assert export_saved_model(model, tmp_path).name == "1"


class OtherwiseServed(layers.Layer):
    """Differs by `change(x)` from what it predicts, once it is traced for an export."""

    exporting = False

    def __init__(self, change):
        super().__init__()
        self.change = change

    def call(self, x):
        return self.change(x) if OtherwiseServed.exporting else x


def serve_otherwise(monkeypatch):
    traced = signatures.traced

    def traced_otherwise(model, inputs):
        OtherwiseServed.exporting = True
        try:
            return traced(model, inputs)
        finally:
            OtherwiseServed.exporting = False

    monkeypatch.setattr(signatures, "traced", traced_otherwise)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x * 1.001, r"up to 0\.00.*, where 1e-05 \+ 0\.0001"),
        (lambda x: x + 2e-4, r"up to 0\.0002, where"),
        (lambda x: tf.cast(x, "float64"), r"float64 \(2, 4\), expected float32 \(2, 4\)"),
        (lambda x: x[:, :3], r"float32 \(2, 3\), expected float32 \(2, 4\)"),
        (lambda x: x / 0.0, "up to inf"),
        (lambda x: x * np.nan, "up to nan"),
    ],
    ids=["factor", "offset", "dtype", "shape", "inf", "nan"],
)
def test_another_answer_is_caught(change, match, tmp_path, monkeypatch, in_this_process):
    serve_otherwise(monkeypatch)
    message = broken(tmp_path, match, model_of(OtherwiseServed(change)))
    assert "as model.predict does. Received: model='sequential" in message
    assert "Nothing was published." in message


def test_what_is_far_below_the_tolerance_is_not(tmp_path, monkeypatch, in_this_process):
    serve_otherwise(monkeypatch)
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
        "'b': it is no output of predict",
    ]
    assert "up to 1," in differences(np.array([1j]), np.array([0j]))[0]
    three = np.array([1.0, np.nan, np.inf])
    assert "up to 1," in differences(three, np.array([2.0, np.nan, np.inf]))[0]
    nan = np.array([1.0, np.nan])
    assert differences(nan, nan) == []


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


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("change", "last"),
    [
        (lambda x: tf.where(x > 0, x, 0 * x), []),
        (lambda x: tf.roll(x, 1, -1), [layers.Softmax(dtype="float32")]),
    ],
    ids=["another slope", "probabilities of other classes"],
)
def test_another_answer_is_caught_in_half_precision(
    policy, change, last, tmp_path, monkeypatch, in_this_process
):
    serve_otherwise(monkeypatch)
    dense, small = layers.Dense(100, dtype=policy), layers.Rescaling(0.01, dtype=policy)
    model = model_of(dense, small, *last, OtherwiseServed(change))
    broken(tmp_path, "up to .*, where 1e-05", model)


def test_a_model_that_samples_is_published_and_logged(tmp_path, caplog, in_this_process):
    noise = layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x)), output_shape=(4,))
    with caplog.at_level(logging.WARNING, logger="tf_leaky"):
        assert export_saved_model(model_of(noise), tmp_path).name == "1"
    assert "two predictions of 'sequential" in caplog.text
    assert "only the shapes, dtypes and finiteness" in caplog.text


def test_predictions_that_are_not_finite_are_published_and_logged(
    tmp_path, caplog, in_this_process
):
    """They are the model's own: the export is right. A client may choke on them."""
    part = layers.Lambda(lambda x: tf.math.log(x), output_shape=(4,), name="log")
    with caplog.at_level(logging.WARNING, logger="tf_leaky"):
        assert export_saved_model(model_of(part), tmp_path).name == "1"
    assert "predicts NaN or infinities in ['log']" in caplog.text


def test_an_honest_export_logs_nothing(tmp_path, caplog, in_this_process):
    with caplog.at_level(logging.INFO, logger="tf_leaky"):
        export_saved_model(model_of(LeakyReLU()), tmp_path)
    assert [record for record in caplog.records if record.name == "tf_leaky"] == []


def test_examples_would_show_a_wrong_slope():
    """Negative and positive ones, the same each time; zeros would not."""
    specs = {
        "float": tf.TensorSpec([None, None, 3], tf.float32, "float"),
        "half": tf.TensorSpec([None, 5], tf.float16, "half"),
        "int": tf.TensorSpec([None], tf.int32, "int"),
        "bool": tf.TensorSpec([None, 2], tf.bool, "bool"),
        "text": tf.TensorSpec([None, 2], tf.string, "text"),
    }
    made = checking.examples(specs)
    assert {name: array.shape for name, array in made.items()} == {
        "float": (2, 8, 3),
        "half": (2, 5),
        "int": (2,),
        "bool": (2, 2),
        "text": (2, 2),
    }
    assert made["float"].min() < -0.5 < 0.5 < made["float"].max()
    assert not made["int"].any()
    assert not made["bool"].any()
    assert made["text"].tolist() == [[b"", b""]] * 2
    np.testing.assert_array_equal(made["float"], checking.examples(specs)["float"])


def ids_below_5():
    ids = tf.keras.Input((3,), dtype="int32", name="ids")
    part = layers.Lambda(lambda x: tf.gather(tf.ones([5, 2]), x), output_shape=(3, 2))
    return tf.keras.Model(ids, part(ids))


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


@pytest.mark.parametrize("kind", [MemoryError, OSError, tf.errors.ResourceExhaustedError])
def test_memory_that_runs_out_in_predict_is_no_error_of_the_disk(kind, tmp_path, monkeypatch):
    model = model_of(LeakyReLU())
    error = kind(None, None, "out of memory") if issubclass(kind, tf.errors.OpError) else kind()

    def predict(*_, **__):
        raise error

    monkeypatch.setattr(type(model), "predict", predict)
    with pytest.raises(kind) as caught:
        export_saved_model(model, tmp_path)
    assert caught.value is error


def never(*_, **__):
    raise AssertionError("it was run")


def test_without_the_check_nothing_is_run(tmp_path, monkeypatch):
    model = ids_below_5()
    for where, name in ((type(model), "predict"), (subprocess, "run"), (subprocess, "Popen")):
        monkeypatch.setattr(where, name, never)
    version = export_saved_model(model, tmp_path, check=False, warmup=np.full((2, 3), 7))
    assert {path.name for path in version.iterdir()} > {"saved_model.pb", "assets.extra"}
    x = tf.keras.Input((4,), batch_size=5, name="x")
    version = export_saved_model(tf.keras.Model(x, layers.Dense(2)(x)), tmp_path, check=False)
    monkeypatch.undo()
    with running.SavedModel(version) as loaded:
        assert tf.TensorShape(loaded.inputs["x"].tensor_shape) == (5, 4)


def test_without_the_check_xla_is_still_refused(tmp_path):
    with pytest.raises(ValueError, match="without jit_compile=True"):
        export_saved_model(model_of(CompiledForward()), tmp_path, check=False)
    assert list(tmp_path.iterdir()) == []


def test_python_in_the_graph_is_caught(tmp_path):
    double = layers.Lambda(
        lambda x: tf.ensure_shape(tf.py_function(lambda x: 2 * x, [x], x.dtype), [None, 4]),
        output_shape=(4,),
    )
    broken(
        tmp_path, r"to answer in a fresh process(?s:.*)Could not find callback", model_of(double)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_that_rest_cannot_carry_is_logged(dtype, tmp_path, caplog, in_this_process):
    """And what the log says helps, does."""
    x = tf.keras.Input((4,), name="x", dtype=dtype)
    y = layers.Dense(2, dtype=dtype, name="y")(x)
    export_saved_model(tf.keras.Model(x, y), tmp_path)
    assert "takes or returns float16 or bfloat16 in ['x', 'y']" in caplog.text
    caplog.clear()
    x = tf.keras.Input((4,), name="x", dtype="float32")
    y = layers.Dense(2, dtype=dtype, name="y")(x)
    y = layers.Activation("linear", dtype="float32")(y)
    version = export_saved_model(tf.keras.Model(x, y), tmp_path)
    assert caplog.text == ""
    with running.SavedModel(version) as loaded:
        info = [*loaded.inputs.values(), *loaded.outputs.values()]
    assert {each.dtype for each in info} == {tf.float32.as_datatype_enum}


def test_check_asks_what_the_warmup_file_asks(tmp_path, monkeypatch):
    asked, run = [], checking.answers

    def record(model, folder, requests, scratch):
        asked.extend(requests)
        return run(model, folder, requests, scratch)

    monkeypatch.setattr(checking, "answers", record)
    x = np.arange(12.0).reshape(3, 4)
    export_saved_model(model_of(LeakyReLU()), tmp_path, warmup=x)
    assert [request["x"].tolist() for request in asked] == [x[:1].tolist(), x.tolist()]


def compiled_functions(version):
    """The functions in a SavedModel that a server would have to compile with XLA."""
    model = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    return [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]


class CompiledForward(layers.Layer):
    @tf.function(jit_compile=True)
    def call(self, x):
        return x + 1.0


class CompiledBackward(layers.Layer):
    def call(self, x):
        @tf.function(jit_compile=True)
        def gradient(upstream):
            return 3.0 * upstream

        @tf.custom_gradient
        def operation(x):
            return x + 1.0, gradient

        return operation(x)


def test_xla_in_the_forward_graph_is_refused(tmp_path):
    """TensorFlow Serving answers 'XLA compilation disabled' to a graph that has it."""
    match = r"^export_saved_model: expected a model without jit_compile=True .* Received: model="
    with pytest.raises(ValueError, match=match):
        export_saved_model(model_of(layers.Dense(4), CompiledForward()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_grouped_convolutions_are_refused_with_a_way_out_that_works(tmp_path, in_this_process):
    grouped = layers.Conv2D(4, 3, groups=2)
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 4)), grouped])
    with pytest.raises(ValueError, match=r"(?s)with '.*conv2d.*' compiled.* Split the channels wi"):
        export_saved_model(model, tmp_path)
    x = tf.keras.Input((8, 8, 4), name="x")
    parts = layers.Lambda(lambda x: tf.split(x, 2, axis=-1), output_shape=[(8, 8, 2)] * 2)(x)
    convolutions = [layers.Conv2D(2, 3) for _ in parts]
    joined = layers.Concatenate()(
        [one(part) for one, part in zip(convolutions, parts, strict=True)]
    )
    split = tf.keras.Model(x, joined)
    kernel, bias = grouped.get_weights()
    for i, one in enumerate(convolutions):
        one.set_weights([kernel[..., 2 * i : 2 * i + 2], bias[2 * i : 2 * i + 2]])
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(split(images), model(images), rtol=1e-5, atol=1e-6)
    assert export_saved_model(split, tmp_path).name == "1"


def test_xla_in_the_backward_graph_is_fine(tmp_path, in_this_process):
    version = export_saved_model(model_of(CompiledBackward()), tmp_path)
    loaded = tf.saved_model.load(version)
    x = tf.ones((1, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        (y,) = loaded.signatures["serving_default"](x=x).values()
    np.testing.assert_array_equal(tape.gradient(y, x), 3 * np.ones((1, 4)))


def test_forward_graph_of_ours_has_no_xla_in_it(tmp_path, in_this_process):
    ours = [
        LeakyReLU(0.1),
        LeakyReLU(-0.5),
        LeakyReLU(0.25, trainable_alpha=True),
        LeakyReLU(0.25, trainable_alpha=True, axis=-1, alpha_constraint=None),
    ]
    assert compiled_functions(export_saved_model(model_of(*ours), tmp_path)) == []


def node(**types):
    graph = tf.Graph()
    with graph.as_default():
        for name, dtype in types.items():
            tf.raw_ops.Placeholder(dtype=dtype, name=name)
    return list(graph.as_graph_def().node)


def test_tolerance_goes_by_where_predict_runs(monkeypatch):
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


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("import os; os.abort()", "its export failed: signal 6"),
        ("raise SystemExit('out of order')", "its export failed: out of order"),
        ("raise RuntimeError('two\\nlines')", "its export failed: two\nlines"),
        ("import time; time.sleep(60)", "its export failed: .*timed out after 0.2 seconds"),
    ],
    ids=["abort", "exit", "error", "silence"],
)
def test_a_process_that_fails_is_reported(code, match, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "_START", code)
    if "sleep" in code:
        monkeypatch.setattr(checking, "_PATIENCE", 0.2)
    broken(tmp_path, match.replace("its", "whose"), model_of(LeakyReLU()))


def test_a_python_that_is_not_there_is_reported(tmp_path, monkeypatch):
    """As where Python is embedded in another program."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    broken(tmp_path, "whose export failed: .*missing", model_of(LeakyReLU()))


@pytest.mark.parametrize("kind", [OverflowError, OSError, FileNotFoundError])
def test_errors_of_the_model_stay_its_own(kind, tmp_path, monkeypatch):
    """And are not taken for those of the disk."""

    def fail(x):
        raise kind("the layer's own error")

    serve_otherwise(monkeypatch)
    # tf_keras gives it another type.
    with pytest.raises(kind if KERAS_3 else Exception, match="the layer's own error") as caught:
        export_saved_model(model_of(OtherwiseServed(fail)), tmp_path)
    assert "base_path" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_other_process_sees_no_gpu_and_no_python_path(tmp_path, monkeypatch):
    """The GPU's memory is this process's, and PYTHONPATH could bring anything in.

    Where TensorFlow is found by PYTHONPATH, its folder is named to the process.
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
