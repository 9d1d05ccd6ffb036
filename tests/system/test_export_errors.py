"""What `export_saved_model` refuses, in which words; and that nothing is published then."""

import os
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, export_saved_model, keras_compat
from tf_leaky.serving import checking, publishing

KERAS_3 = tf.keras.Model.__module__.startswith("keras.")
layers = tf.keras.layers


def small_model():
    case = cases.LAYERS[0]
    return tf.keras.Sequential([tf.keras.Input(case.input_shape, name="features"), case.make()])


def refused(kind, match, *arguments, **keywords):
    with pytest.raises(kind, match=r"^export_saved_model: expected .*" + match):
        export_saved_model(*arguments, **keywords)


def test_existing_version_is_never_overwritten(tmp_path, in_this_process):
    version = export_saved_model(small_model(), tmp_path, version=3)
    before = (version / "saved_model.pb").read_bytes()
    refused(
        FileExistsError, r"not there yet\. Received: version=3", small_model(), tmp_path, version=3
    )
    assert (version / "saved_model.pb").read_bytes() == before


@pytest.mark.parametrize("name", ["12", "0012", "+12"])
@pytest.mark.parametrize("kind", ["folder", "file", "link to nothing"])
def test_what_a_server_reads_as_the_version_is_it(name, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_compat, "write", None)  # it is told before anything is written
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("")
    else:
        path.symlink_to("nowhere")
    refused(FileExistsError, r"version=12, and .*12' exists", small_model(), tmp_path, version=12)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_version_that_appears_meanwhile_is_not_overwritten(
    tmp_path, monkeypatch, in_this_process
):
    """By whatever wrote it, even if it is still empty; with version=None it is the next one."""
    write = keras_compat.write

    def write_and_lose(traced, path):
        write(traced, path)
        (tmp_path / "5").mkdir(exist_ok=True)

    monkeypatch.setattr(keras_compat, "write", write_and_lose)
    refused(FileExistsError, r"version=5, and .*5' exists", small_model(), tmp_path, version=5)
    assert list((tmp_path / "5").iterdir()) == []
    assert export_saved_model(small_model(), tmp_path).name == "6"


@pytest.mark.parametrize("version", [0, -1, 2**63, 10**30])
def test_version_out_of_range(version, tmp_path):
    bound = r"above 0\." if version < 1 else r"below 2\*\*63, .*"
    match = rf"version to be {bound} ?Received: version="
    refused(ValueError, match, small_model(), tmp_path / "model", version=version)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "version", ["1", 1.0, True, np.bool_(True)], ids=["1", "1.0", "True", "np.True"]
)
def test_version_that_is_no_integer(version, tmp_path):
    match = r"version to be an integer or None\. Received: version="
    refused(TypeError, match, small_model(), tmp_path / "model", version=version)
    assert not (tmp_path / "model").exists()


def test_check_that_is_not_true_or_false(tmp_path):
    match = r"check to be True or False\. Received: check='no'\. False skips"
    refused(TypeError, match, small_model(), tmp_path, check="no")


def test_no_version_above_the_highest(tmp_path, in_this_process):
    (tmp_path / str(2**63 - 1)).mkdir()
    refused(
        ValueError,
        r"room above the highest version\. Received: version=None",
        small_model(),
        tmp_path,
    )
    assert export_saved_model(small_model(), tmp_path, version=7).name == "7"
    highest = export_saved_model(small_model(), tmp_path / "made" / "too", version=2**63 - 1)
    assert highest == tmp_path / "made" / "too" / str(2**63 - 1)


@pytest.mark.parametrize("base_path", [None, 3, b"models", True], ids=repr)
def test_base_path_that_is_no_path(base_path):
    refused(
        TypeError,
        r"base_path to be a str or a path\. Received: base_path=",
        small_model(),
        base_path,
    )


def test_long_path_is_not_said_twice():
    with pytest.raises(OSError, match="File name too long") as error:
        export_saved_model(small_model(), "x" * 100_000)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("base_path", ["", "  ", "a\0b"], ids=repr)
def test_base_path_that_names_no_folder(base_path):
    refused(
        ValueError, r"base_path to name a folder\. Received: base_path=", small_model(), base_path
    )


@pytest.mark.parametrize(
    "base_path",
    ["gs://bucket/model", "s3://b/m", "hdfs://h:80/m", "file:///m", Path("gs://b/m")],
    ids=str,
)
def test_base_path_that_is_a_url(base_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(ValueError, r"local or mounted folder\. Received: base_path=", small_model(), base_path)
    assert list(tmp_path.iterdir()) == []


def test_base_path_in_the_home_of_nobody(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(
        ValueError,
        r"home folder that is there\. .*Give the",
        small_model(),
        "~nobody-of-that-name/m",
    )


@pytest.mark.parametrize("target", [None, "file", "nowhere"])
def test_base_path_that_is_no_folder(target, tmp_path):
    what = "a link to nothing" if target == "nowhere" else "a file"
    (tmp_path / "file").write_text("")
    if target is None:
        (tmp_path / "model").write_text("")
    else:
        (tmp_path / "model").symlink_to(tmp_path / target)
    match = rf"base_path to be a folder\. Received: base_path=.*, which is {what}"
    refused(FileExistsError, match, small_model(), tmp_path / "model")


@pytest.mark.parametrize("parent", ["a file", "a link to nothing"])
def test_base_path_below_what_is_no_folder(parent, tmp_path):
    if parent == "a file":
        (tmp_path / "parent").write_text("")
    else:
        (tmp_path / "parent").symlink_to(tmp_path / "missing" / "nowhere")
    match = r"that can be written, .* Received: base_path=.*parent/model"
    refused(OSError, match, small_model(), tmp_path / "parent" / "model")


def test_read_only_folder():
    """/proc is one for root too, whom no mode stops."""
    refused(
        OSError,
        r"that can be written, .* Received: base_path=.*/proc/1/model",
        small_model(),
        "/proc/1/model",
    )


def test_permission_errors_stay_permission_errors(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(publishing.tempfile, "mkdtemp", fail)
    refused(
        PermissionError, r"that can be written, .*Permission denied", small_model(), tmp_path / "m"
    )


FULL = """
import resource, sys
import numpy as np, tensorflow as tf
from tf_leaky import export_saved_model
model = tf.keras.Sequential([tf.keras.Input((300,)), tf.keras.layers.Dense(300)])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    export_saved_model(model, sys.argv[1], warmup=np.ones((1, 300)))
except OSError as error:
    print("refused", error)
"""


def test_full_disk(tmp_path):
    """Files can't grow past 100 kB, where the weights need 360 kB."""
    command = [sys.executable, "-c", FULL, tmp_path / "model", "100000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "refused export_saved_model: expected base_path" in done.stdout, done.stderr[-2000:]
    assert "with room for the model" in done.stdout
    assert list((tmp_path / "model").iterdir()) == []


def test_disk_that_fills_up_with_the_answers(tmp_path, monkeypatch):
    """In the other process, after the model was written."""
    code = "raise OSError(28, 'No space left on device')"
    monkeypatch.setattr(checking, "_START", code)
    refused(OSError, "with room for the .*No space left on device", small_model(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a[1]", "what?", "all*", "back\\slash"])
def test_path_that_tensorflow_takes_for_a_pattern(name, tmp_path):
    refused(
        ValueError, r"takes for a pattern\. Received: base_path=", small_model(), tmp_path / name
    )
    assert list(tmp_path.iterdir()) == []


def test_path_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9")
    refused(ValueError, r"to be UTF-8, .* Received: base_path=", small_model(), path)
    assert list(tmp_path.iterdir()) == []


def test_failed_export_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail_halfway(traced, path):
        Path(path).mkdir()
        (Path(path) / "half").write_text("written")
        raise OSError("disk full")

    monkeypatch.setattr(keras_compat, "write", fail_halfway)
    refused(OSError, "disk full", small_model(), tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


@pytest.mark.parametrize("model", [None, "model", LeakyReLU()], ids=lambda m: type(m).__name__)
def test_what_is_no_model(model, tmp_path):
    refused(TypeError, r"a model of .* Received: model=", model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_model_that_is_not_built(tmp_path):
    model = tf.keras.Sequential([layers.Dense(2)])
    refused(
        ValueError, r"model to be built\. Received: model='sequential", model, tmp_path / "model"
    )
    assert not (tmp_path / "model").exists()


class NeverCalled(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.built = True

    def call(self, x):
        return self.dense(x)


def test_subclassed_model_that_was_never_called(tmp_path, in_this_process):
    model = NeverCalled()
    model.build((None, 4))
    match = r"model to have been called, .*, never called\. Call it once on data"
    refused(ValueError, match, model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    model(np.ones((1, 4), "float32"))
    assert export_saved_model(model, tmp_path / "model").name == "1"


@pytest.mark.parametrize("kind", ["sparse", "ragged"])
def test_sparse_and_ragged_inputs(kind, tmp_path):
    x = tf.keras.Input((None,), **{kind: True})
    model = tf.keras.Model(x, layers.Lambda(lambda t: t, output_shape=(None,))(x))
    refused(
        ValueError, r"inputs that are dense tensors\. Received: model=", model, tmp_path / "model"
    )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("shape", [None, ()], ids=str)
def test_input_of_unknown_rank(shape, tmp_path, monkeypatch):
    """Keras 3 makes no such Input itself."""
    model = small_model()
    if KERAS_3:
        with pytest.raises(ValueError, match="shape"):
            tf.keras.Input(shape=None)
        spec = tf.TensorSpec(shape, name="x")
        monkeypatch.setattr(keras_compat, "recorded_inputs", lambda model: spec)
    else:
        x = tf.keras.Input(type_spec=tf.TensorSpec(shape, tf.float32))
        model = tf.keras.Model(x, layers.Activation("relu")(x))
    refused(ValueError, r"of a known rank, with a batch axis\. Received", model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("warmup", "match"),
    [
        (np.ones((2, 5)), r"input 'features', of shape \(None, 6\) .*of shape \(2, 5\)"),
        (np.ones(6), r"to fit the input 'features', .*of shape \(6,\)"),
        (np.float32(1), r"to fit the input 'features', .*of shape \(\)"),
        ([["a"] * 6], r"to fit the input 'features', .*expected 'features' to hold float32"),
        ([[1], [1, 2]], r"to fit the input 'features', .*inhomogeneous"),
        (np.full((2, 6), 1e300), r"to fit the input 'features', .*overflow"),
        ([object()] * 2, r"to fit the input 'features', .*Received: warmup"),
        (np.ones((0, 6)), r"at least one\. Received: warmup with \{'features': 0\}"),
        ({"x": np.ones((2, 6))}, r"for the inputs \['features'\]\. Received: warmup=\['x'\]"),
        ({}, r"for the inputs \['features'\]\. Received: warmup='dict'"),
    ],
)
def test_warmup_that_does_not_fit(warmup, match, tmp_path):
    refused(ValueError, match, small_model(), tmp_path / "model", warmup=warmup)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("warmup", "match"),
    [
        ([np.ones((2, 4))], r"for the inputs \['a', 'b'\]\. Received: warmup='list'"),
        (np.ones((2, 4)), r"for the inputs \['a', 'b'\]\. Received: warmup='ndarray'"),
        ([np.ones((2, 4)), np.ones((3, 4))], r"warmup with \{'a': 2, 'b': 3\}"),
    ],
)
def test_warmup_of_several_inputs_that_does_not_fit(warmup, match, tmp_path):
    inputs = [tf.keras.Input((4,), name=name) for name in "ab"]
    model = tf.keras.Model(inputs, layers.Add()(inputs))
    refused(ValueError, match, model, tmp_path / "model", warmup=warmup)
    assert not (tmp_path / "model").exists()


def test_warmup_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    match = r"tensorflow-serving-api to be installed, .*tf_leaky\[serving\]"
    refused(ImportError, match, small_model(), tmp_path / "model", warmup=np.ones((1, 6)))
    assert not (tmp_path / "model").exists()


def test_keras_still_exports_a_model_that_was_compiled(tmp_path, in_this_process):
    """A model compiled with jit_compile=True is not one with XLA in its forward pass."""
    model = small_model()
    model.compile("sgd", "mse", jit_compile=True)
    assert export_saved_model(model, tmp_path).name == "1"
