"""What `export_saved_model` refuses, in which words; and that nothing is published then."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3, run_python
from exports import model_of, of_batches_of_4, refused, through, two_inputs

from tf_leaky import LeakyReLU, export_saved_model, keras_compat
from tf_leaky.serving import checking, publishing

Input, layers = tf.keras.Input, tf.keras.layers


@pytest.fixture
def model():
    return model_of(LeakyReLU())


@pytest.fixture
def untraced(monkeypatch):
    """What is refused here is refused before the model is traced, which may take long."""
    monkeypatch.setattr(keras_compat, "call_traced", None)


@pytest.mark.parametrize(
    ("kind", "match", "arguments"),
    [
        (ValueError, r"version to be above 0\. Received: version=0", {"version": 0}),
        (ValueError, r"version to be below 2\*\*63, .* Received: version=9", {"version": 2**63}),
        (TypeError, "version to be an integer or None. Received: version='1'", {"version": "1"}),
        (TypeError, r"True or False\. Received: check='no'\. False skips", {"check": "no"}),
        (TypeError, "base_path to be a str or a path. Received: b.*=None", {"base_path": None}),
        (ValueError, "to name a folder. Received: base_path='a", {"base_path": "a\0b"}),
        (ValueError, "local or mounted folder. Received: b.*='gs:", {"base_path": "gs://b/m"}),
        (ValueError, "local or mounted folder. Rec.*'s3:", {"base_path": Path("s3://b/m")}),
        (ValueError, "home folder that exists. .*Give the", {"base_path": "~nobody-there/m"}),
        (ValueError, r"as patterns\. Received: base_path='a\[1\]", {"base_path": "a[1]"}),
        (ValueError, "UTF-8, .* Received: b", {"base_path": os.fsdecode(b"caf\xe9")}),
        (FileExistsError, "to be a folder. .*, which is a file", {"base_path": "file"}),
        (FileExistsError, "to be a folder. .*, which is a broken link", {"base_path": "lost"}),
    ],
)
def test_arguments_that_can_not_be(kind, match, arguments, model, tmp_path, monkeypatch, untraced):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "lost").symlink_to("nowhere")
    refused(kind, match, model, tmp_path, **arguments)


@pytest.mark.parametrize("base_path", ["file/model", "lost/model", "/proc/1/model"])
def test_folder_that_can_not_be_written(base_path, model, tmp_path, monkeypatch):
    """/proc is one for root too, whom no mode stops."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "lost").symlink_to(tmp_path / "missing" / "nowhere")
    match = rf"that can be written, .* Received: base_path=.*{base_path}"
    refused(OSError, match, model, tmp_path, base_path=base_path)


def test_permission_errors_stay_permission_errors(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(publishing.tempfile, "mkdtemp", fail)
    refused(PermissionError, r"that can be written, .*Permission denied", model, tmp_path)


FULL = """
import resource, sys
import numpy as np, tensorflow as tf
from tf_leaky import export_saved_model
model = tf.keras.Sequential([tf.keras.Input((300,)), tf.keras.layers.Dense(300)])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    export_saved_model(model, sys.argv[1], warmup=np.ones((1, 300)))
except OSError as error:
    print("refused", error)
"""


def test_full_disk(tmp_path):
    """Files can't grow past 100 kB, where the weights need 360 kB."""
    done = run_python("-c", FULL, tmp_path / "model")
    assert "refused export_saved_model: expected base_path" in done.stdout, done.stderr[-2000:]
    assert "with room for the model" in done.stdout
    assert list((tmp_path / "model").iterdir()) == []


def test_disk_that_fills_up_with_the_answers(model, tmp_path, monkeypatch):
    """In the other process, after the model was written."""
    code = "raise OSError(28, 'No space left on device')"
    monkeypatch.setattr(checking, "_START", code)
    refused(OSError, "with room for the .*No space left on device", model, tmp_path)


@pytest.mark.parametrize("name", ["12", "0012", "+12"])
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_a_server_reads_as_the_version_is_it(name, make, model, tmp_path, untraced):
    make(tmp_path / name)
    refused(FileExistsError, r"version=12, and .*12' exists", model, tmp_path, version=12)


def test_a_version_that_appears_meanwhile_is_not_overwritten(
    model, tmp_path, monkeypatch, in_this_process
):
    """By whatever wrote it, even if it is still empty; with version=None it is the next one."""
    write, made = keras_compat.write, tmp_path / "5"

    def write_and_lose(traced, path):
        write(traced, path)
        made.mkdir(exist_ok=True)

    monkeypatch.setattr(keras_compat, "write", write_and_lose)
    with pytest.raises(FileExistsError, match=r"version=5, and .*5' exists"):
        export_saved_model(model, tmp_path, version=5)
    assert list(tmp_path.rglob("*")) == [made]
    assert export_saved_model(model, tmp_path).name == "6"


def test_no_version_above_the_highest(model, tmp_path, in_this_process):
    folder = tmp_path / "made" / "too"
    highest = export_saved_model(model, folder, version=2**63 - 1)
    assert highest == folder / str(2**63 - 1)
    match = r"room above the highest version\. Received: version=None"
    refused(ValueError, match, model, folder)
    assert export_saved_model(model, folder, version=7).name == "7"


class NeverCalled(tf.keras.Model):
    def call(self, x):
        return 2 * x


def test_subclassed_model_that_was_never_called(tmp_path, in_this_process):
    model = NeverCalled()
    model.build((None, 4))
    assert export_saved_model(model, tmp_path).name == "1"


class OfUnknownInputs(NeverCalled):
    def __init__(self):
        super().__init__()
        self.built = True


class OfIntegers(tf.keras.Model):
    def call(self, x):
        return tf.one_hot(x, 3)


@pytest.mark.skipif(not KERAS_3, reason="tf_keras records dtypes")
@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="a note")
def test_wrong_guess_of_dtypes_is_noted(tmp_path):
    model = OfIntegers()
    model(np.ones((1, 4), "int32"))
    with pytest.raises(TypeError) as error:
        export_saved_model(model, tmp_path)
    assert "If these are wrong, give examples as warmup" in error.value.__notes__[0]


def of_tensors(*shape, **kind):
    unchanged = layers.Lambda(lambda x: x, output_shape=(None,))
    return through(Input(*shape, **kind), unchanged)


def of_rank(shape):
    return of_tensors(type_spec=tf.TensorSpec(shape, tf.float32))


DENSE, RANK = r"inputs that are dense tensors\.", r"of a known rank, with a batch axis\."
NO_SUCH_INPUT = pytest.mark.skipif(KERAS_3, reason="it makes no such Input")


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda: None, TypeError, "a model of .* Received: model=None"),
        (lambda: tf.keras.Sequential([layers.Dense(2)]), ValueError, "model to be built. Received"),
        (OfUnknownInputs, ValueError, r"inputs are known\. .* recorded no shapes\. Call the model"),
        (lambda: of_tensors((None,), sparse=True), ValueError, DENSE),
        (lambda: of_tensors((None,), ragged=True), ValueError, DENSE),
        pytest.param(lambda: of_rank(None), ValueError, RANK, marks=NO_SUCH_INPUT),
        pytest.param(lambda: of_rank(()), ValueError, RANK, marks=NO_SUCH_INPUT),
    ],
    ids=["None", "not built", "unknown inputs", "sparse", "ragged", "unknown rank", "no batch"],
)
def test_what_can_not_be_exported(make, kind, match, tmp_path):
    refused(kind, match, make(), tmp_path)


def subclassed():
    model = NeverCalled()
    model(np.ones((1, 4), "float32"))
    return model


FOUR = np.ones((2, 4))


@pytest.mark.parametrize(
    ("make", "warmup", "match"),
    [
        (None, np.ones((2, 5)), r"input 'x', of shape \(None, 4\) .*of shape \(2, 5\)"),
        (None, np.ones(4), r"to fit the input 'x', .*of shape \(4,\)"),
        (None, [["a"] * 4], r"to fit the input 'x', .*expected 'x' to be float32"),
        (None, [[1], [1, 2]], r"to fit the input 'x', .*inhomogeneous"),
        (None, np.full((2, 4), 1e300), r"to fit the input 'x', .*overflow"),
        (None, np.ones((0, 4)), r"at least one\. Received: warmup with \{'x': 0\}"),
        (None, {"z": FOUR}, r"for the inputs \['x'\]\. Received: warmup=\['z'\]"),
        (subclassed, [[1], [1, 2]], r"to fit the input .*inhomogeneous"),
        (two_inputs, [FOUR], r"for the inputs \['features', 'counts'\]\. Received: warmup='list'"),
        (two_inputs, FOUR, r"for the inputs \[.*\]\. Received: warmup='ndarray'"),
        (two_inputs, [FOUR, np.ones((3, 2), int)], r"warmup with \{'features': 2, 'counts': 3\}"),
        (of_batches_of_4, np.ones((2, 3)), r"warmup to fit the input 'x', of shape \(4, 3\)"),
    ],
)
def test_warmup_that_does_not_fit(make, warmup, match, model, tmp_path):
    refused(ValueError, match, make() if make else model, tmp_path, warmup=warmup)


def test_warmup_without_its_package(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    match = r"tensorflow-serving-api to be installed, .*tf_leaky\[serving\]"
    refused(ImportError, match, model, tmp_path, warmup=FOUR)
