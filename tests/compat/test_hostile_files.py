"""Files that were made to run something: none of it runs, and each ends in an error or a layer.

Each payload leaves a canary, a file, as soon as any of it is imported, made or called.
"""

import base64
import json
import marshal
import shutil
import sys
import zipfile

import h5py
import pytest
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import LeakyReLU

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
]
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


LAMBDA = {"class_name": "__lambda__", "config": {"value": bytecode()}}
IMPORTED = thing("payload", "Payload")
PAYLOADS = {
    "class": IMPORTED,
    "class under a registered name": thing("payload", "Payload", "tf_leaky>LeakyReLU"),
    "function under a registered name": thing(
        "payload", "function", "tf_leaky>leaky_relu", "leave"
    ),
    "builtin": thing("builtins", "function", "tf_leaky>leaky_relu", "exec"),
    "lambda": {**LAMBDA, "registered_name": "tf_leaky>LeakyReLU"},
    "Lambda": thing("keras.layers", "Lambda", config={"function": LAMBDA, "name": "new"}),
    "Keras's own deserializer": {
        "class_name": "deserialize_keras_object",
        "config": {"config": IMPORTED, "safe_mode": False},
    },
    "name of a function": "payload.leave",
}
ENTRIES = ("alpha", "trainable_alpha", "axis", "alpha_constraint", "alpha_regularizer", "ndarray")
WAYS = ("keras", "h5")


def model_of(layer):
    return tf.keras.Sequential([tf.keras.Input((3,)), layer])


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Honest files of a trained slope in each format; `.keras` before `.h5`, which spoils it."""
    path = tmp_path_factory.mktemp("honest") / "model"
    model = model_of(LeakyReLU(0.25, trainable_alpha=True, name="ours"))
    for way in WAYS:
        model.save(path.with_suffix(f".{way}"))
    return path


def edited(source, path, edit):
    """A copy of a model's file, with the config of its last layer as `edit` left it."""

    def text(config):
        config = json.loads(config)
        edit(config["config"]["layers"][-1])
        return json.dumps(config)

    shutil.copy(source, path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = text(file.attrs["model_config"])
    else:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                part = old.read(name)
                new.writestr(name, text(part) if name == "config.json" else part)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_entry_of_ours_runs_a_thing(payload, entry, way, honest, canary, tmp_path):
    """Without Keras's safe mode, which would find some of them."""
    path, change = tmp_path / f"model.{way}", {entry: PAYLOADS[payload]}
    if entry == "ndarray":  # as Keras 2.0 wrote numbers
        change = {"alpha": {"type": "ndarray", "value": PAYLOADS[payload]}}
    edited(honest.with_suffix(path.suffix), path, lambda layer: layer["config"].update(change))
    options = {"safe_mode": False} if way == "keras" else {}
    if KERAS_3 and (entry, way) == ("axis", "h5"):  # Keras 3 drops it
        assert tf.keras.models.load_model(path, compile=False).layers[-1].axis is None
    else:
        match = f"LeakyReLU: expected {entry.replace('ndarray', 'alpha')} to be"
        with pytest.raises((TypeError, ValueError), match=match):
            tf.keras.models.load_model(path, compile=False, **options)
    assert not canary.exists()


@pytest.mark.parametrize("changes", [{}, {"class_name": "Payload"}], ids=["module", "class"])
def test_our_registered_name_leads_to_our_layer(changes, honest, canary, tmp_path):
    """Whatever module and class a file names beside it."""
    path = tmp_path / "model.keras"
    edited(honest.with_suffix(".keras"), path, lambda la: la.update(module="payload", **changes))
    model = tf.keras.models.load_model(path)
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
    found = tf.keras.models.load_model(tmp_path / name).layers[-1].alpha_constraint
    assert (type(found), found.share) == (Halve, 0.25)
    model_of(LeakyReLU(trainable_alpha=True, alpha_regularizer=shrink)).save(tmp_path / name)
    with pytest.raises((TypeError, ValueError), match=r"alpha_regularizer .*; register your own"):
        tf.keras.models.load_model(tmp_path / name)
    with tf.keras.utils.custom_object_scope({"shrink": shrink}):
        assert tf.keras.models.load_model(tmp_path / name).layers[-1].alpha_regularizer is shrink
