"""Files of every release load, and compute what they computed on the day they were written."""

import hashlib
import io
import json
import zipfile
from importlib.metadata import version

import cases
import numpy as np
import pytest
import tensorflow as tf
import write_goldens

import tf_leaky

KERAS_3 = write_goldens.KERAS_3
GOLDENS = sorted(path.parent for path in write_goldens.FOLDER.rglob("expected.json"))
# The class of a user's that no file can find by itself.
CUSTOM_OBJECTS = {"Unregistered": cases.Unregistered}
# How each Keras loads the files of each. tf_keras loads none of Keras 3 but its SavedModels.
FILES = ("model.keras", "model.weights.h5", "model.h5", "export")
FORMATS = {
    ("keras3", "keras3"): FILES,
    ("keras3", "tf_keras"): (*FILES, "model_tf"),
    ("tf_keras", "keras3"): ("export",),
    ("tf_keras", "tf_keras"): (*FILES, "model_tf"),
}


def named(golden):
    return "-".join(golden.parts[-3:])


def release(text):
    return tuple(int(number) for number in text.split(".")[:2])


def is_of_a_later_keras(archive):
    """Whether a later version than this one, of Keras 3 or of tf_keras, wrote a golden."""
    with zipfile.ZipFile(io.BytesIO(archive.read("model.keras"))) as file:
        wrote = json.loads(file.read("metadata.json"))["keras_version"]
    return release(wrote) > release(version("keras" if KERAS_3 else "tf_keras"))


def in_every_format():
    for golden in GOLDENS:
        with zipfile.ZipFile(golden / "files.zip") as archive:
            there = {name.split("/")[0] for name in archive.namelist()}
            # Keras 3.15 wrote a new argument of Dense, tf_keras 2.21 one of InputLayer.
            own = golden.parts[-2] == write_goldens.KERAS
            new = own and (not KERAS_3 or "activation" in golden.name)
            if new and is_of_a_later_keras(archive):
                there = {"export"}
        if KERAS_3 and golden.parts[-2:] == ("tf_keras", "mixed-float16"):
            there -= {"model.keras", "model.h5"}  # Keras 3 reads no policies of tf_keras
        for name in FORMATS[write_goldens.KERAS, golden.parts[-2]]:
            if name in there:
                marks = pytest.mark.smoke if name == "model.keras" else ()
                yield pytest.param(golden, name, marks=marks, id=f"{named(golden)}-{name}")


def test_every_public_case_has_a_golden_of_this_version():
    """If it fails, a case or the version is new: `make goldens` adds what is missing."""
    wanted = {cases.names(case) for case in cases.FILES}
    for keras in ("keras3", "tf_keras"):
        folder = write_goldens.FOLDER / tf_leaky.__version__ / keras
        there = {path.parent.name for path in folder.glob("*/expected.json")}
        assert wanted <= there, f"missing under {keras}: {sorted(wanted - there)}"


@pytest.mark.parametrize("golden", GOLDENS, ids=named)
def test_golden_is_as_it_was_written(golden):
    expected = json.loads((golden / "expected.json").read_text())
    archive = golden / "files.zip"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert found == expected["sha256 of files.zip"]
    assert (golden.parts[-3], golden.parts[-2]) == (expected["tf_leaky"], expected["keras"])
    with zipfile.ZipFile(archive) as files:
        assert files.testzip() is None
        there = {name.split("/")[0] for name in files.namelist()}
    wanted = set(FORMATS[expected["keras"], expected["keras"]])
    if expected["keras"] == "tf_keras" and "activation" in golden.name:
        wanted -= {"model.h5"}
    assert there == wanted


def call_and_variables(name, path, expected):
    """What a file loads as: a function of x, its weights and those that have a gradient."""
    if name in ("export", "model_tf") and (name == "export" or KERAS_3):
        loaded = tf.saved_model.load(str(path))
        serve = loaded.signatures["serving_default"]
        (key,) = serve.structured_input_signature[1]
        variables = loaded.variables if name == "export" else serve.variables
        trained = list(serve.trainable_variables)
        return (lambda x: next(iter(serve(**{key: x}).values()))), list(variables), trained
    if name == "model.weights.h5":
        if KERAS_3 and expected["keras"] == "tf_keras":  # it reads these weights, not this JSON
            (case,) = (case for case in cases.FILES if cases.names(case) == expected["case"])
            model = write_goldens.make(case)
            model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
        else:
            model = tf.keras.models.model_from_json(expected["model"], CUSTOM_OBJECTS)
            model(np.zeros((1, *model.input_shape[1:])))  # makes the slope of an activation
        model.load_weights(path)
    else:
        model = tf.keras.models.load_model(path, CUSTOM_OBJECTS, compile=False)
    return model, model.weights, model.trainable_variables


# What Keras 3 says of any class without a `build` of its own, which most users write.
@pytest.mark.filterwarnings("ignore:.build... was called on layer 'block':UserWarning")
@pytest.mark.parametrize(("golden", "name"), list(in_every_format()))
def test_golden_loads_and_reproduces(golden, name, tmp_path):
    expected = json.loads((golden / "expected.json").read_text())
    with zipfile.ZipFile(golden / "files.zip") as archive:
        archive.extractall(tmp_path)
    call, weights, variables = call_and_variables(name, tmp_path / name, expected)
    found, wanted = [np.ravel(weight) for weight in weights], expected["weights"]
    if name == "export":  # those of Keras 3 list the trained ones first
        found, wanted = sorted(found, key=list), sorted(wanted)
    assert len(found) == len(wanted)
    for flat, numbers in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(flat, np.array(numbers, flat.dtype))
    x = np.array(expected["x"], "float32").reshape(-1, *expected["input_shape"])
    upstream = np.array(expected["upstream"], "float32")
    y, *gradients = write_goldens.results(call, variables, x, upstream)
    # One multiplication gives the same bits everywhere; the product of a Dense layer, sums and
    # roots not.
    exact = not any(word in golden.name for word in ("activation", "batch-norm", "converted"))
    check = np.testing.assert_array_equal if exact else close
    check(y.ravel(), np.array(expected["y"], y.dtype))
    assert len(gradients) == len(expected["gradients"])
    check(gradients[0].ravel(), np.array(expected["gradients"][0], "float32"))
    for found, numbers in zip(gradients[1:], expected["gradients"][1:], strict=True):
        close(found.ravel(), np.array(numbers, found.dtype))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
