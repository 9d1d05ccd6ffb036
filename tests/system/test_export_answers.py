"""What `export_saved_model` publishes: answers, names, gradients, versions, warm-up records."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases
import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3
from exports import model_of, of_batches_of_4, through, two_inputs
from tensorflow_serving.apis import prediction_log_pb2

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, export_saved_model
from tf_leaky.serving import checking, running, signatures

Input, layers = tf.keras.Input, tf.keras.layers


@pytest.mark.parametrize("case", cases.LAYERS[3:], ids=cases.names)  # one number is enough
def test_answers_and_gradients_of_every_variable(case, tmp_path, rng, in_this_process):
    """Those of Keras's own exports are in the goldens."""
    model = through(Input(case.input_shape), layers.Dense(case.input_shape[-1]), case.make())
    version = export_saved_model(model, tmp_path / "model")
    assert version == tmp_path / "model" / "1"
    loaded = tf.saved_model.load(version)
    serve = loaded.signatures["serving_default"]
    (key,), (output,) = serve.structured_input_signature[1], serve.structured_outputs
    x = tf.constant(rng.normal(size=(3, *case.input_shape)), tf.float32)
    np.testing.assert_allclose(serve(**{key: x})[output], model(x), rtol=1e-5, atol=1e-6)

    def gradients(function, variables):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(function(x) ** 2)
        return tape.gradient(y, [x, *variables])

    served = gradients(lambda x: serve(**{key: x})[output], serve.trainable_variables)
    trained = gradients(model, model.trainable_variables)
    assert len(loaded.trainable_variables) == len(trained) - 1 == 2 + case.trained
    for mine, theirs in zip(served, trained, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def of_a_dict():
    return two_inputs(outputs=lambda scores, value: {"value of it": value, "s": scores})


def nested():
    return two_inputs(lambda a, b: {"z": [a, b]}, lambda s, v: {"v": v, "both": [s, s]})


def one_layer_twice():
    x, dense = Input((4,), name="A"), layers.Dense(4, name="dense")
    return tf.keras.Model(x, [dense(x), dense(dense(x))])


def sum_of(*names):
    """A model with an input by each name as the key of a dict."""
    inputs = {name: Input((4,), name=f"input_{i}") for i, name in enumerate(names)}
    return tf.keras.Model(inputs, layers.Add(name="sum")(list(inputs.values())))


def of_text():
    join = layers.Lambda(
        lambda x: tf.strings.join([x, x]), output_shape=(1,), name="joined", dtype="string"
    )
    return through(Input((1,), dtype="string", name="text"), join)


def mixed():
    policy = {"dtype": "mixed_float16"}
    slopes = LeakyReLU(0.25, trainable_alpha=True, axis=-1, **policy)
    last = layers.Dense(3, name="y", **policy)
    return through(Input((64,), name="x"), layers.Dense(64, **policy), slopes, last)


def of_images():
    convolution = layers.Conv2D(2, 3)
    return through(Input((None, None, 3), name="image"), convolution, LeakyReLU(name="y"))


def of_5():
    """Its Input names a batch size that isn't needed."""
    return through(Input((4,), batch_size=5, name="x"), layers.Dense(2, name="y"))


def unnamed():
    return tf.keras.Sequential([Input((4,)), layers.Dense(2, name="digit")])


def normalised():
    return model_of(BatchNormLeakyReLU(trainable_alpha=True, alpha_axis=-1, name="y"))


class Subclassed(tf.keras.Model):
    """Takes a dict or a list, and answers in kind."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)
        self.drop = layers.Dropout(0.5)

    def call(self, x, training=True):
        if isinstance(x, dict):
            return {"y": self.drop(self.dense(x["a"]), training=training), "z": x["b"]}
        return [self.dense(x[0]), self.dense(x[1])]


def called(model, x):
    model(x)
    return model


ONES = np.ones((3, 4), "float32")
ODD = ("A", "a", "-x", ".x", "9x", "in", "self", "é", "图")
# Makes a model; the names of its inputs and outputs, where both Kerases have the same.
MODELS = {
    "lists": (two_inputs, "features counts", "scores value"),
    "a dict": (of_a_dict, "features counts", "value_of_it s"),
    "nested": (nested, "features counts", None),
    "one layer twice": (one_layer_twice, "A", "dense dense_1"),
    "odd names": (lambda: sum_of(*ODD), "A a_1 x_x .x 9x x_in x_self x_ x__1", "sum"),
    "text": (of_text, "text", "joined"),
    "unknown size": (of_images, "image", "y"),
    "unnamed": (unnamed, "input_0" if KERAS_3 else None, "digit"),
    "a batch that isn't needed": (of_5, "x", "y"),
    "mixed float16": (mixed, "x", "y"),
    "subclassed dict": (lambda: called(Subclassed(), {"a": ONES, "b": ONES}), "a b", "y z"),
    "subclassed list": (
        lambda: called(Subclassed(), [ONES, ONES]),
        "input_0 input_1" if KERAS_3 else None,
        "output_0 output_1",
    ),
    "batch norm": (normalised, "x", "y"),
}


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_names_and_answers(name, tmp_path, rng, in_this_process):
    make, inputs, outputs = MODELS[name]
    model = make()
    version = export_saved_model(model, tmp_path)
    with running.SavedModel(version) as served:
        assert inputs is None or served.inputs.keys() == set(inputs.split())
        assert outputs is None or served.outputs.keys() == set(outputs.split())
        for batch in (1, 5):
            given = {}
            for name, info in served.inputs.items():
                first, *sizes = tf.TensorShape(info.tensor_shape).as_list()
                assert first is None
                shape, dtype = (batch, *(size or 11 for size in sizes)), tf.as_dtype(info.dtype)
                given[name] = np.full(shape, b"text\0", object)
                if dtype != tf.string:
                    given[name] = rng.normal(size=shape).astype(dtype.as_numpy_dtype)
            spec = signatures.inputs_of(model, subject="test")
            expected = running.plain(signatures.predict(model, spec, given))
            answer = served.run(given)
            assert answer.keys() == expected.keys()
            for name, array in answer.items():
                assert array.dtype == expected[name].dtype
                if array.dtype == object:
                    assert array.tolist() == expected[name].tolist()
                else:
                    np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6)


def test_versions_count_up(tmp_path, in_this_process):
    model = model_of(LeakyReLU())
    (tmp_path / "not a version").mkdir()
    names = [export_saved_model(model, tmp_path).name for _ in range(2)]
    names.append(export_saved_model(model, str(tmp_path), version=np.int64(10)).name)
    (tmp_path / "0012").mkdir()
    (tmp_path / str(10**30)).mkdir()  # no number to TensorFlow Serving
    names.append(export_saved_model(model, tmp_path).name)
    assert names == ["1", "2", "10", "13"]
    there = {"1", "2", "10", "0012", "13", "not a version", str(10**30)}
    assert {path.name for path in tmp_path.iterdir()} == there


def test_relative_and_home_folders(tmp_path, monkeypatch, in_this_process):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    model = model_of(LeakyReLU())
    assert export_saved_model(model, "here/models") == Path("here/models/1")
    assert export_saved_model(model, "~/models") == tmp_path / "home/models/1"
    (tmp_path / "link").symlink_to(tmp_path / "here/models")
    assert export_saved_model(model, tmp_path / "link").resolve().name == "2"


def test_everything_is_on_the_disk_before_it_is_published(tmp_path, monkeypatch, in_this_process):
    """Each file and folder of the version first, then the folder that it appears in."""
    synced, sync = [], os.fsync

    def record(file):
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        assert (tmp_path / "1").exists() == (synced[-1] == tmp_path)
        sync(file)

    monkeypatch.setattr(os, "fsync", record)
    version = export_saved_model(model_of(LeakyReLU()), tmp_path)
    *parts, draft, base = synced
    files = {path.relative_to(version) for path in version.rglob("*")}
    assert {path.relative_to(draft) for path in parts} == files
    assert base == tmp_path


def test_nothing_is_printed_and_stdout_stays_itself(tmp_path, capfd, in_this_process):
    before = sys.stdout
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: export_saved_model(model_of(LeakyReLU()), tmp_path), range(2)))
    assert sys.stdout is before
    assert tf.keras.utils.is_interactive_logging_enabled()
    print("alive")
    assert capfd.readouterr().out == "alive\n"


class Ids(tf.keras.Model):
    """Keras 3 doesn't record the dtype of its input."""

    def call(self, ids):
        return ids + 1


def in_bfloat16():
    return through(Input((2,), dtype="bfloat16", name="x"), LeakyReLU(dtype="bfloat16"))


BIG, WORDS = np.array([[2**24 + 1], [3]], "int64"), np.array([["ü"], ["zero\0x"]])
TWO_DTYPES = {"features": "float32", "counts": "int64"}
# Makes a model; its warm-up, and the dtype in which that is written.
WARMUPS = {
    "an array": (lambda: model_of(LeakyReLU()), np.arange(12.0).reshape(3, 4), "float32"),
    "one example": (lambda: model_of(LeakyReLU()), [[1, 2, 3, 4]], "float32"),
    "a dict": (two_inputs, {"features": np.ones((2, 4)), "counts": np.eye(2, dtype=int)}, None),
    "a list": (two_inputs, [np.ones((2, 4), "float32"), [[1, 2], [3, 4]]], None),
    "texts": (of_text, WORDS, "string"),
    "bfloat16": (in_bfloat16, [[0.5, -0.5], [1.0, 2.0]], "bfloat16"),  # a server takes no other
    "ids": (lambda: called(Ids(), tf.constant(BIG)), BIG, "int64"),
    "floats": (lambda: called(Ids(), ONES), np.array([[1.5] * 4] * 3), "float32"),
    "a batch of 4": (of_batches_of_4, np.ones((4, 3)), "float32"),
}


@pytest.mark.parametrize("name", WARMUPS)
def test_warmup_is_the_first_example_and_the_batch(name, tmp_path, monkeypatch, in_this_process):
    """And the check asks the same."""
    asked, answers = [], checking.answers
    monkeypatch.setattr(
        checking, "answers", lambda *given: asked.extend(given[2]) or answers(*given)
    )
    make, warmup, dtype = WARMUPS[name]
    version = export_saved_model(make(), tmp_path / "digits", warmup=warmup)
    path, written = version / "assets.extra" / "tf_serving_warmup_requests", []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        spec = request.model_spec
        assert (spec.name, spec.signature_name) == ("digits", "serving_default")
        for each, tensor in request.inputs.items():
            assert tf.as_dtype(tensor.dtype).name == (dtype or TWO_DTYPES[each])
        written.append({each: tf.make_ndarray(tensor) for each, tensor in request.inputs.items()})
    given = dict(zip(TWO_DTYPES, warmup, strict=True)) if name == "a list" else warmup
    for requests in (asked, written):
        batches = [None] if name in ("one example", "a batch of 4") else [1, None]
        for batch, arrays in zip(batches, requests, strict=True):
            for each, array in arrays.items():
                values = np.asarray(given if dtype else given[each])[:batch]
                expected = np.char.encode(values) if dtype == "string" else values
                np.testing.assert_array_equal(array, expected)
