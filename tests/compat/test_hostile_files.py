"""Files that were made to run something: none of it runs, and each ends in an error or a layer.

Each payload leaves a canary, a file, as soon as any of it is imported, made or called.
"""

import base64
import itertools
import json
import marshal
import random
import shutil
import sys
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, convert

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
    pytest.mark.filterwarnings("ignore:The model does not have any trainable:UserWarning"),
]
NonNeg = tf.keras.constraints.NonNeg
PAYLOAD = """
from pathlib import Path

def leave(*args, **kwargs):
    Path(__file__).with_name("canary").touch()

class Payload:
    from_config = __init__ = __call__ = leave

leave()
"""


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that is there as soon as the module `payload` is imported, or a Lambda is called."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "payload.py").write_text(PAYLOAD)
    yield tmp_path / "canary"
    sys.modules.pop("payload", None)


def bytecode():
    """A function as Keras writes a Lambda's, which leaves a canary in the working directory."""

    def leave(*args, **kwargs):
        open("canary", "w").close()  # noqa: PTH123

    return [base64.b64encode(marshal.dumps(leave.__code__)).decode(), None, None]


def thing(module, name, registered=None, config=None):
    """A class as Keras writes it, or, where `config` is a name, a function."""
    written = {"module": module, "class_name": name, "config": config or {}}
    return {**written, "registered_name": registered}


def function(module, name, registered="tf_leaky>leaky_relu"):
    return thing(module, "function", registered, name)


LAMBDA = {"class_name": "__lambda__", "config": {"value": bytecode()}}
IMPORTED = thing("payload", "Payload")
OF_KERAS = "class of Keras from elsewhere"
PAYLOADS = {
    "class": IMPORTED,
    "class under a registered name": thing("payload", "Payload", "tf_leaky>LeakyReLU"),
    OF_KERAS: thing("payload", "NonNeg"),
    "function under a registered name": function("payload", "leave"),
    "builtin": function("builtins", "exec"),
    "lambda": {**LAMBDA, "registered_name": "tf_leaky>LeakyReLU"},
    "Lambda": thing("keras.layers", "Lambda", config={"function": LAMBDA, "name": "new"}),
    "Keras's own deserializer": {
        "class_name": "deserialize_keras_object",
        "config": {"config": IMPORTED, "safe_mode": False},
    },
    "name of a function": "payload.leave",
    "list": [IMPORTED, LAMBDA],
}
OURS = ("alpha", "negative_slope", "trainable_alpha", "axis", "axes")
OURS = (*OURS, "alpha_constraint", "alpha_regularizer", "ndarray")  # as Keras 2.0 wrote numbers
WAYS = ("keras", "keras without safe mode", "h5", "json")


def model_of(layer):
    return tf.keras.Sequential([tf.keras.Input((3,)), layer])


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Honest files of a trained slope in each format; `.keras` before `.h5`, which spoils it."""
    path = tmp_path_factory.mktemp("honest") / "model"
    model = model_of(LeakyReLU(0.25, trainable_alpha=True, name="ours"))
    path.with_suffix(".json").write_text(model.to_json())
    for suffix in (".keras", ".h5"):
        model.save(path.with_suffix(suffix))
    return path


def edited(source, path, edit):
    """A copy of a model's file, with the config of its last layer as `edit` left it."""

    def text(config):
        config = json.loads(config)
        edit(config["config"]["layers"][-1])
        return json.dumps(config)

    if path.suffix == ".json":
        path.write_text(text(source.read_text()))
    elif path.suffix == ".h5":
        shutil.copy(source, path)
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = text(file.attrs["model_config"])
    else:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                part = old.read(name)
                new.writestr(name, text(part) if name == "config.json" else part)


def read(path, **options):
    if path.suffix == ".json":
        return tf.keras.models.model_from_json(path.read_text())
    return tf.keras.models.load_model(path, compile=False, **options)


def used(model):
    """What a user does with a model that loads: ask it, train it, take it over, copy it."""
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.array([[-1.0, 0.0, 2.0]], "float32")
    model.predict(x, verbose=0)
    model.fit(x, x, verbose=0)
    tf.keras.models.clone_model(convert(model)).get_config()


def error_of(path, **options):
    """The error that loading and using a file ends in, None where there is none; and the model."""
    try:
        model = read(path, **options)
        used(model)
    except Exception as error:
        return error, None
    return None, model


def hostile_files():
    """Each payload in each entry, of which three are quick."""
    every = [*itertools.product(OURS, WAYS)]
    for payload in PAYLOADS:
        quick = [("alpha_constraint", "keras"), *random.Random(payload).sample(every, 2)]
        for each in every:
            marks = () if each in quick else pytest.mark.slow
            yield pytest.param(*each, payload, marks=marks, id="-".join((*each, payload)))


@pytest.mark.parametrize(("key", "way", "payload"), list(hostile_files()))
def test_no_entry_of_ours_runs_a_thing(key, way, payload, honest, canary, tmp_path):
    path, change = tmp_path / f"model.{way.split()[0]}", {key: PAYLOADS[payload]}
    if key == "ndarray":
        change = {"alpha": {"type": "ndarray", "value": PAYLOADS[payload]}}
    edited(honest.with_suffix(path.suffix), path, lambda layer: layer["config"].update(change))
    error, model = error_of(path, **({"safe_mode": False} if "safe" in way else {}))
    assert not canary.exists()
    if error is None:  # the entry was one that may be passed over: a plain layer is there
        layer = model.layers[-1]
        dropped = key == "axis" and layer.axis is None  # of `.h5`, by Keras 3
        assert dropped or (payload == OF_KERAS and type(layer.alpha_constraint) is NonNeg)
        return
    assert isinstance(error, TypeError | ValueError)
    spelt = {"negative_slope": "alpha", "axes": "axis", "ndarray": "alpha"}.get(key, key)
    assert f"LeakyReLU: expected {spelt} to be" in str(error)


@pytest.mark.parametrize("changes", [{}, {"class_name": "Payload"}], ids=["module", "class"])
def test_our_registered_name_leads_to_our_layer(changes, honest, canary, tmp_path):
    """Whatever module and class a file names beside it."""
    path = tmp_path / "model.keras"
    edited(honest.with_suffix(".keras"), path, lambda la: la.update(module="payload", **changes))
    _, model = error_of(path)
    assert not canary.exists()
    assert type(model.layers[-1]) is LeakyReLU


@tf.keras.utils.register_keras_serializable("test_hostile_files")
class Halve(tf.keras.constraints.Constraint):
    """A user's own constraint, which is found by itself."""

    def __init__(self, share=0.5):
        self.share = share

    def __call__(self, weight):
        return weight * self.share

    def get_config(self):
        return {"share": self.share}


def shrink(weight):
    """A user's own regularizer, which is not."""
    return tf.reduce_sum(weight**2)


@pytest.mark.filterwarnings("ignore:The `keras.regularizers.serialize:UserWarning")
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_own_constraints_and_regularizers_come_back_where_they_are_known(name, tmp_path):
    """And are imported from nowhere."""
    model_of(LeakyReLU(trainable_alpha=True, alpha_constraint=Halve(0.25))).save(tmp_path / name)
    found = read(tmp_path / name).layers[-1].alpha_constraint
    assert (type(found), found.share) == (Halve, 0.25)
    model_of(LeakyReLU(trainable_alpha=True, alpha_regularizer=shrink)).save(tmp_path / name)
    with pytest.raises((TypeError, ValueError), match=r"alpha_regularizer .*; register your own"):
        read(tmp_path / name)
    with tf.keras.utils.custom_object_scope({"shrink": shrink}):
        assert read(tmp_path / name).layers[-1].alpha_regularizer is shrink
