"""What `export_saved_model` publishes: answers, names, gradients, versions, warm-up records."""

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tf_leaky import LeakyReLU, export_saved_model
from tf_leaky.serving import running, signatures

pytestmark = pytest.mark.usefixtures("covered_processes")
KERAS_3 = tf.keras.Model.__module__.startswith("keras.")
layers = tf.keras.layers


def small_model(case=cases.LAYERS[0]):
    return tf.keras.Sequential([tf.keras.Input(case.input_shape, name="features"), case.make()])


def run(version, **inputs):
    """What TensorFlow's session loader answers."""
    with running.SavedModel(version) as model:
        return model.run(inputs)


@pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)
def test_answers_and_gradients_of_every_variable(case, tmp_path, rng, in_this_process):
    dense = layers.Dense(case.input_shape[-1])
    model = tf.keras.Sequential([tf.keras.Input(case.input_shape, name="x"), dense, case.make()])
    version = export_saved_model(model, tmp_path / "model")
    assert version == tmp_path / "model" / "1"
    x = rng.normal(size=(3, *case.input_shape)).astype("float32")
    (answer,) = run(version, x=x).values()
    np.testing.assert_allclose(answer, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)

    def gradients(function, variables):
        with tf.GradientTape() as tape:
            tape.watch(point)
            y = tf.reduce_sum(function(point) ** 2)
        return tape.gradient(y, [point, *variables])

    loaded = tf.saved_model.load(version)
    serve, point = loaded.signatures["serving_default"], tf.constant(x)
    (output,) = serve.structured_outputs
    served = gradients(lambda x: serve(x=x)[output], serve.trainable_variables)
    trained = gradients(model, model.trainable_variables)
    assert len(loaded.trainable_variables) == len(trained) - 1 == 2 + case.trained
    for mine, theirs in zip(served, trained, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def two_inputs():
    a = tf.keras.Input((4,), name="features")
    b = tf.keras.Input((2,), name="counts", dtype="int64")
    numbers = layers.Lambda(lambda x: tf.cast(x, "float32"), output_shape=(2,))(b)
    scores = layers.Dense(3, name="scores")(layers.Concatenate()([a, numbers]))
    return a, b, scores, layers.Dense(1, name="value")(scores)


def of_lists():
    a, b, scores, value = two_inputs()
    return tf.keras.Model([a, b], [scores, value])


def of_dicts():
    a, b, scores, value = two_inputs()
    return tf.keras.Model({"features": a, "counts": b}, {"value of it": value, "s": scores})


def nested():
    a, b, scores, value = two_inputs()
    return tf.keras.Model({"z": [a, b]}, {"value": value, "both": [scores, scores]})


def one_layer_twice():
    a = tf.keras.Input((4,), name="A")
    dense = layers.Dense(4, name="dense")
    return tf.keras.Model(a, [dense(a), dense(dense(a))])


def of_one_letter():
    """TensorFlow takes no two names that differ in case only."""
    inputs = [tf.keras.Input((4,), name=name) for name in ("A", "a")]
    return tf.keras.Model(inputs, layers.Add(name="sum")(inputs))


def of_text():
    text = tf.keras.Input((1,), dtype="string", name="text")
    joined = layers.Lambda(
        lambda x: tf.strings.join([x, x]), output_shape=(1,), name="joined", dtype="string"
    )(text)
    return tf.keras.Model(text, joined)


def of_unknown_size():
    image = tf.keras.Input((None, None, 3), name="image")
    return tf.keras.Model(image, LeakyReLU(name="leaky")(layers.Conv2D(2, 3)(image)))


def unnamed():
    return tf.keras.Sequential([tf.keras.Input((4,)), layers.Dense(2, name="digit")])


def fixed_batch():
    x = tf.keras.Input((4,), batch_size=5, name="x")
    return tf.keras.Model(x, layers.Dense(2, name="y")(x))


def mixed(policy):
    def make():
        a = tf.keras.Input((64,), name="x")
        hidden = layers.Dense(64, dtype=policy)(a)
        hidden = LeakyReLU(0.25, trainable_alpha=True, axis=-1, dtype=policy)(hidden)
        return tf.keras.Model(a, layers.Dense(3, dtype=policy, name="half")(hidden))

    make.__name__ = policy
    return make


class Subclassed(tf.keras.Model):
    """Takes a dict, a list or a tensor, and answers in kind."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)
        self.drop = layers.Dropout(0.5)

    def call(self, x, training=True):
        if isinstance(x, dict):
            return {"y": self.drop(self.dense(x["a"]), training=training), "z": x["b"]}
        if isinstance(x, list | tuple):
            return [self.dense(x[0]), self.dense(x[1])]
        return self.drop(self.dense(x), training=training)


def subclassed_dict():
    model = Subclassed()
    model({"a": np.ones((3, 4), "float32"), "b": np.ones((3, 1), "float32")})
    return model


def subclassed_list():
    model = Subclassed()
    model([np.ones((3, 4), "float32"), np.ones((3, 4), "float32")])
    return model


def trained_states():
    """Normalisation and dropout answer as in `predict`."""
    x = tf.keras.Input((4,), name="x")
    return tf.keras.Model(x, layers.Dropout(0.9)(layers.BatchNormalization(name="norm")(x)))


MODELS = {
    of_lists: ({"features", "counts"}, {"scores", "value"}),
    of_dicts: ({"features", "counts"}, {"value_of_it", "s"}),
    nested: ({"features", "counts"}, None),
    one_layer_twice: ({"A"}, {"dense", "dense_1"}),
    of_one_letter: ({"A", "a_1"}, {"sum"}),
    of_text: ({"text"}, {"joined"}),
    of_unknown_size: ({"image"}, {"leaky"}),
    unnamed: ({"input_0"} if KERAS_3 else None, {"digit"}),
    fixed_batch: ({"x"}, {"y"}),
    mixed("mixed_float16"): ({"x"}, {"half"}),
    mixed("mixed_bfloat16"): ({"x"}, {"half"}),
    mixed("float64"): ({"x"}, {"half"}),
    subclassed_dict: ({"a", "b"}, {"y", "z"}),
    subclassed_list: ({"input_0", "input_1"} if KERAS_3 else None, {"output_0", "output_1"}),
    trained_states: ({"x"}, None),
}


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_names_and_answers(make, tmp_path, rng, in_this_process):
    model = make()
    version = export_saved_model(model, tmp_path)
    inputs, outputs = MODELS[make]
    with running.SavedModel(version) as served:
        assert inputs is None or served.inputs.keys() == inputs
        assert outputs is None or served.outputs.keys() == outputs
        shapes = {
            name: tf.TensorShape(info.tensor_shape).as_list()
            for name, info in served.inputs.items()
        }
        assert {shape[0] for shape in shapes.values()} == {None}
        for batch in (1, 5):
            given = {}
            for name, info in served.inputs.items():
                shape = [batch, *(size or 11 for size in shapes[name][1:])]
                given[name] = (
                    np.full(shape, b"text\0", object)
                    if info.dtype == tf.string.as_datatype_enum
                    else rng.normal(size=shape).astype(tf.as_dtype(info.dtype).as_numpy_dtype)
                )
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
    model = small_model()
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
    assert export_saved_model(small_model(), "here/models") == Path("here/models/1")
    assert export_saved_model(small_model(), "~/models") == tmp_path / "home/models/1"
    (tmp_path / "link").symlink_to(tmp_path / "here/models")
    assert export_saved_model(small_model(), tmp_path / "link").resolve().name == "2"


def test_everything_is_on_the_disk_before_it_is_published(tmp_path, monkeypatch, in_this_process):
    """Each file and folder of the version first, then the folder that it appears in."""
    synced, sync = [], os.fsync

    def record(file):
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        assert (tmp_path / "1").exists() == (synced[-1] == tmp_path)
        sync(file)

    monkeypatch.setattr(os, "fsync", record)
    version = export_saved_model(small_model(), tmp_path)
    draft = synced[-2]
    files = {path.relative_to(version) for path in version.rglob("*")}
    assert {path.relative_to(draft) for path in synced[:-2]} == files
    assert synced[-1] == tmp_path


def test_nothing_is_printed_and_stdout_stays_itself(tmp_path, capfd):
    before = sys.stdout
    model = small_model()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: export_saved_model(model, tmp_path), range(2)))
    assert sys.stdout is before
    print("alive")
    assert capfd.readouterr().out == "alive\n"


@pytest.mark.skipif(KERAS_3, reason="tf_keras has a switch for what it prints")
@pytest.mark.parametrize("loud", [True, False])
def test_interactive_logging_stays_as_it_was(loud, tmp_path, monkeypatch, in_this_process):
    utils = tf.keras.utils
    (utils.enable_interactive_logging if loud else utils.disable_interactive_logging)()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    try:
        export_saved_model(small_model(), tmp_path)
        assert utils.is_interactive_logging_enabled() == loud
    finally:
        utils.enable_interactive_logging()


def warmup_records(version):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        yield prediction_log_pb2.PredictionLog.FromString(record).predict_log.request


def test_warmup_is_the_first_example_and_the_batch(tmp_path, rng):
    x = rng.normal(size=(3, 6))
    version = export_saved_model(small_model(), tmp_path / "digits", warmup=x)
    records = list(warmup_records(version))
    assert [r.model_spec.name for r in records] == ["digits"] * 2
    assert [r.model_spec.signature_name for r in records] == ["serving_default"] * 2
    found = [tf.make_ndarray(record.inputs["features"]) for record in records]
    np.testing.assert_array_equal(found[0], x[:1].astype("float32"))
    np.testing.assert_array_equal(found[1], x.astype("float32"))


def test_warmup_of_one_example_is_one_record(tmp_path, in_this_process):
    version = export_saved_model(small_model(), tmp_path, warmup=[[1, 2, 3, 4, 5, 6]])
    assert len(list(warmup_records(version))) == 1


@pytest.mark.parametrize(
    "warmup",
    [
        {"features": np.ones((2, 4)), "counts": np.ones((2, 2), int)},
        [np.ones((2, 4), "float32"), [[1, 2], [3, 4]]],
    ],
    ids=["dict", "list"],
)
def test_warmup_of_several_inputs(warmup, tmp_path, in_this_process):
    version = export_saved_model(of_lists(), tmp_path, warmup=warmup)
    for record in warmup_records(version):
        found = {name: tf.make_ndarray(value) for name, value in record.inputs.items()}
        assert {name: a.dtype.name for name, a in found.items()} == {
            "features": "float32",
            "counts": "int64",
        }


def test_warmup_of_strings_and_bfloat16(tmp_path):
    version = export_saved_model(of_text(), tmp_path, warmup=np.array([["ü"], ["zero\0x"]]))
    first, _ = warmup_records(version)
    assert tf.make_ndarray(first.inputs["text"]).tolist() == [["ü".encode()]]
    x = tf.keras.Input((2,), dtype="bfloat16", name="x")
    model = tf.keras.Model(x, LeakyReLU(dtype="bfloat16")(x))
    version = export_saved_model(model, tmp_path, warmup=[[0.1, -0.1], [1.0, 2.0]])
    for record in warmup_records(version):  # a server would refuse another dtype
        (tensor,) = record.inputs.values()
        assert tf.as_dtype(tensor.dtype) == tf.bfloat16


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("self", "x_self"),
        ("in", "x_in"),
        ("é", "x_"),
        ("-x", "x_x"),
        ("图", "x_"),
        ("9x", "9x"),
        (".x", ".x"),
    ],
)
def test_names_that_are_no_arguments_begin_with_x(name, argument):
    assert signatures._argument(name) == argument


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning")
def test_input_of_any_name_is_exported(tmp_path, in_this_process):
    names = ["self", "图", "in"]
    inputs = {name: tf.keras.Input((1,), name=f"input_{i}") for i, name in enumerate(names)}
    model = tf.keras.Model(inputs, layers.Add(name="sum")(list(inputs.values())))
    version = export_saved_model(model, tmp_path)
    ones = dict.fromkeys(["x_self", "x_", "x_in"], np.ones((2, 1), "f4"))
    assert run(version, **ones)["sum"].tolist() == [[3.0], [3.0]]


class Ids(tf.keras.Model):
    def call(self, ids):
        return ids + 1


class Lengths(tf.keras.Model):
    def call(self, texts):
        return tf.strings.length(texts)


@pytest.mark.parametrize(
    ("model", "warmup", "expected"),
    [
        (Ids(), np.array([[2**24 + 1]], "int64"), [[2**24 + 2]]),
        (Ids(), np.array([[1.5]]), [[2.5]]),
        (Lengths(), np.array([["abc"], ["a"]]), [[3], [1]]),
    ],
    ids=["ids", "floats", "texts"],
)
def test_warmup_has_the_dtypes_that_keras_does_not_record(model, warmup, expected, tmp_path):
    model(tf.constant(warmup))
    version = export_saved_model(model, tmp_path, warmup=warmup)
    with running.SavedModel(version) as loaded:
        (name,) = loaded.inputs
        (answer,) = loaded.run({name: warmup}).values()
    assert answer.tolist() == expected


def needs_batches_of_4():
    x = tf.keras.Input((3,), batch_size=4, name="x")
    add = layers.Lambda(lambda x: x + tf.ones((4, 3)), name="y")
    return tf.keras.Model(x, add(x))


@pytest.mark.parametrize("warmup", [None, np.ones((4, 3))], ids=["alone", "warm-up"])
def test_batch_that_is_fixed_is_in_the_signature(warmup, tmp_path):
    version = export_saved_model(needs_batches_of_4(), tmp_path, warmup=warmup)
    with running.SavedModel(version) as loaded:
        assert tf.TensorShape(loaded.inputs["x"].tensor_shape) == (4, 3)
        assert loaded.run({"x": np.ones((4, 3))})["y"].tolist() == [[2.0] * 3] * 4
    if warmup is not None:
        assert len(list(warmup_records(version))) == 1


def test_warmup_of_another_batch_than_the_fixed_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"warmup to fit the input 'x', of shape \(4, 3\)"):
        export_saved_model(needs_batches_of_4(), tmp_path, warmup=np.ones((2, 3)))
