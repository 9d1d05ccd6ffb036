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
from tf_leaky.conversion.frozen import FrozenLeakyReLU

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
    pytest.mark.filterwarnings("ignore:The model does not have any trainable:UserWarning"),
]
KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
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
OLD_LAMBDA = {
    **dict.fromkeys(("module", "output_shape", "output_shape_module")),
    "name": "old",
    "function": bytecode(),
    "function_type": "lambda",
    "output_shape_type": "raw",
    "arguments": {},
}
OLD_LAMBDA = thing("keras.layers", "Lambda", config=OLD_LAMBDA)
IMPORTED = thing("payload", "Payload")
MADE_BY_KERAS = "Lambda that legacy formats make by themselves"
OF_KERAS = "class of Keras from elsewhere"
PAYLOADS = {
    "class": IMPORTED,
    "class by a string": thing("payload", "Payload", config="tf_leaky>leaky_relu"),
    "class under a registered name": thing("payload", "Payload", "tf_leaky>LeakyReLU"),
    "class as a registered one": thing("payload", "tf_leaky>LeakyReLU"),
    OF_KERAS: thing("payload", "NonNeg"),
    "function": function("payload", "leave", "leave"),
    "function under a registered name": function("payload", "leave"),
    "builtin": function("builtins", "exec"),
    "function of Keras": function("keras.utils", "get_file"),
    "lambda": {**LAMBDA, "registered_name": "tf_leaky>LeakyReLU"},
    "Lambda": thing("keras.layers", "Lambda", config={"function": LAMBDA, "name": "new"}),
    MADE_BY_KERAS: {**OLD_LAMBDA, "__passive_serialization__": True},
    "typespec": {**thing("payload", "__typespec__"), "spec_name": "Payload"},
    "Keras's own deserializer": {
        "class_name": "deserialize_keras_object",
        "config": {"config": IMPORTED, "safe_mode": False},
    },
    "Keras's own get": {"class_name": "get", "config": {"identifier": IMPORTED}},
    "name of a function": "payload.leave",
    "list": [IMPORTED, LAMBDA],
}
OURS = ("alpha", "negative_slope", "trainable_alpha", "axis", "axes")
OURS = (*OURS, "alpha_constraint", "alpha_regularizer", "ndarray")  # as Keras 2.0 wrote numbers
WAYS = ("keras", "keras without safe mode", "h5", "json", "json of a frozen layer")


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


def entry(key, value):
    def edit(layer):
        layer["config"].pop("alpha" if key == "negative_slope" else None, None)
        layer["config"][key] = value

    return edit


def hostile_files():
    """Each payload in each entry, of which three are quick."""
    every = [*itertools.product(OURS, WAYS[:-1])]
    every += itertools.product(("form", "alpha", *OURS[-3:-1]), WAYS[-1:])
    for payload in PAYLOADS:
        quick = [("alpha_constraint", "keras"), *random.Random(payload).sample(every, 2)]
        for each in every:
            marks = () if each in quick else pytest.mark.slow
            yield pytest.param(*each, payload, marks=marks, id="-".join((*each, payload)))


@pytest.mark.parametrize(("key", "way", "payload"), list(hostile_files()))
def test_no_entry_of_ours_runs_a_thing(key, way, payload, honest, canary, tmp_path):
    path, value = tmp_path / f"model.{way.split()[0]}", PAYLOADS[payload]
    if way == WAYS[-1]:
        layer = FrozenLeakyReLU([0.5, 0.25, 0.1], axis=-1, form="by where", name="ours")
        honest = tmp_path / "honest"
        honest.with_suffix(".json").write_text(model_of(layer).to_json())
    array = {"type": "ndarray", "value": value}
    edit = entry("alpha", array) if key == "ndarray" else entry(key, value)
    edited(honest.with_suffix(path.suffix), path, edit)
    error, model = error_of(path, **({"safe_mode": False} if "safe" in way else {}))
    assert not canary.exists()
    if error is None:  # the entry was one that may be passed over: a plain layer is there
        layer = model.layers[-1]
        dropped = key == "axis" and layer.axis is None  # of `.h5`, by Keras 3
        assert dropped or (payload == OF_KERAS and type(layer.alpha_constraint) is NonNeg)
        return
    assert isinstance(error, TypeError | ValueError)
    spelt = {"negative_slope": "alpha", "axes": "axis", "ndarray": "alpha"}.get(key, key)
    by_keras = KERAS_3 and payload == MADE_BY_KERAS and ("h5" in way or "frozen" in way)
    assert f"LeakyReLU: expected {spelt} to be" in str(error) or (
        by_keras and "Lambda" in str(error)  # Keras's own error, before our layer is made
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": "payload"}, None),
        ({"module": "payload", "class_name": "Payload"}, None),
        ({"registered_name": "tf_leaky>leaky_relu"}, "leaky_relu"),
        ({"build_config": {"input_shape": IMPORTED}}, ""),
        ({"compile_config": {"optimizer": IMPORTED}}, "compile_from_config"),
        ({"shared_object_id": IMPORTED}, "unhashable"),
    ],
    ids=["module", "class", "our function as a layer", "built", "compiled", "shared"],
)
def test_our_registered_name_leads_to_our_layer_and_nowhere_else(
    changes, message, honest, canary, tmp_path
):
    path = tmp_path / "model.keras"
    edited(honest.with_suffix(".keras"), path, lambda layer: layer.update(changes))
    error, model = error_of(path)
    assert not canary.exists()
    if message is None:
        assert type(model.layers[-1]) is LeakyReLU
    else:
        assert message in str(error)
        assert error is not None


def with_dense(folder, key, value):
    """The path of a model of Keras's own layers, with a hostile entry in it."""
    model_of(tf.keras.layers.Dense(3)).save(folder / "honest.keras")
    edited(folder / "honest.keras", folder / "model.keras", entry(key, value))
    return folder / "model.keras"


@pytest.mark.parametrize(
    "value", ["tf_leaky>LeakyReLU", function("os", "tf_leaky>LeakyReLU", "tf_leaky>LeakyReLU")]
)
def test_our_class_is_no_activation(value, canary, tmp_path):
    """Keras hands it the tensor as its slope."""
    error, _ = error_of(with_dense(tmp_path, "activation", value))
    refused = "Could not interpret activation" in str(error)  # Keras 3, of a name in a string
    assert refused or "LeakyReLU: expected alpha to be a real number" in str(error)


@pytest.mark.parametrize(
    "payload", ["class as a registered one", "function under a registered name"]
)
def test_tf_keras_imports_what_a_file_names_for_its_own_layers(payload, canary, tmp_path):
    """A sentence of the README: why a file for tf_keras has to be trusted, ours in it or not."""
    error, _ = error_of(with_dense(tmp_path, "kernel_constraint", PAYLOADS[payload]))
    assert isinstance(error, TypeError | ValueError)
    assert canary.exists() == (not KERAS_3)


@tf.keras.utils.register_keras_serializable("test_hostile_files")
class Double(tf.keras.constraints.Constraint):
    """A user's own constraint, registered."""

    def __init__(self, share=2.0):
        self.share = share

    def __call__(self, weight):
        return weight * self.share

    def get_config(self):
        return {"share": self.share}


@tf.keras.utils.register_keras_serializable("test_hostile_files")
def grow(weight):
    """A user's own regularizer, registered."""
    return -tf.reduce_sum(weight**2)


class Halve(Double):
    """One that isn't."""


def shrink(weight):
    """One that isn't."""
    return tf.reduce_sum(weight**2)


@pytest.mark.filterwarnings("ignore:The `keras.regularizers.serialize:UserWarning")
@pytest.mark.parametrize("form", ["keras", "h5", "json"])
def test_own_constraints_and_regularizers_come_back_where_they_are_known(form, tmp_path):
    """And are imported from nowhere."""

    def reloaded(constraint, regularizer, **scope):
        own = {"alpha_constraint": constraint, "alpha_regularizer": regularizer}
        model, path = model_of(LeakyReLU(0.25, trainable_alpha=True, **own)), tmp_path / f"m.{form}"
        if form == "json":
            path.write_text(model.to_json())
        else:
            model.save(path)
        with tf.keras.utils.custom_object_scope(scope):
            return read(path).layers[-1]

    for constraint, regularizer, scope in (
        (Double, grow, {}),
        (Halve, shrink, {"Halve": Halve, "shrink": shrink}),
    ):
        layer = reloaded(constraint(0.25), regularizer, **scope)
        assert type(layer.alpha_constraint) is constraint
        assert layer.alpha_constraint.share == 0.25
        assert layer.alpha_regularizer is regularizer
    for name, own in (("constraint", (Halve(), None)), ("regularizer", (None, shrink))):
        match = rf"alpha_{name} to be .*; register your own"
        with pytest.raises((TypeError, ValueError), match=match):
            reloaded(*own)
