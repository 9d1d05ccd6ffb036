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


def function(module, name, registered=None):
    return {
        "class_name": "function",
        "module": module,
        "config": name,
        "registered_name": registered or name,
    }


def instance(module, name, registered=None, config=None):
    return {
        "class_name": name,
        "module": module,
        "config": {} if config is None else config,
        "registered_name": registered,
    }


LAMBDA = {"class_name": "__lambda__", "config": {"value": bytecode()}}
OLD_LAMBDA = {
    "name": "old",
    "function": bytecode(),
    "function_type": "lambda",
    "module": "os",
    "output_shape": None,
    "output_shape_type": "raw",
    "output_shape_module": None,
    "arguments": {},
}
KERAS_LAMBDA = instance("keras.layers", "Lambda", config={"function": LAMBDA, "name": "new"})
IMPORTED = instance("payload", "Payload")
MADE_BY_KERAS = "Lambda that legacy formats make by themselves"
PAYLOADS = {
    "class": IMPORTED,
    "class by a string": instance("payload", "Payload", config="tf_leaky>leaky_relu"),
    "class under a registered name": instance("payload", "Payload", "tf_leaky>LeakyReLU"),
    "class as a registered one": instance("payload", "tf_leaky>LeakyReLU"),
    "class as a registered function": instance("payload", "Payload", "tf_leaky>leaky_relu"),
    "class of Keras from elsewhere": instance("payload", "NonNeg"),
    "function": function("payload", "leave"),
    "function under a registered name": function("payload", "leave", "tf_leaky>leaky_relu"),
    "builtin": function("builtins", "exec", "tf_leaky>leaky_relu"),
    "os.system": function("os", "system", "tf_leaky>leaky_relu"),
    "function of Keras": function("keras.utils", "get_file", "tf_leaky>leaky_relu"),
    "lambda": LAMBDA,
    "lambda under a registered name": {**LAMBDA, "registered_name": "tf_leaky>LeakyReLU"},
    "Lambda": KERAS_LAMBDA,
    "Lambda under a registered name": {**KERAS_LAMBDA, "registered_name": "tf_leaky>leaky_relu"},
    MADE_BY_KERAS: {
        **instance("keras.layers", "Lambda", config=OLD_LAMBDA),
        "__passive_serialization__": True,
    },
    "typespec": {**instance("payload", "__typespec__"), "spec_name": "Payload"},
    "Keras's own deserializer": {
        "class_name": "deserialize_keras_object",
        "config": {"config": IMPORTED, "safe_mode": False},
    },
    "Keras's own deserialize": {"class_name": "deserialize", "config": {"config": IMPORTED}},
    "Keras's own get": {"class_name": "get", "config": {"identifier": IMPORTED}},
    "name of a function": "payload.leave",
    "name of Keras's own": "deserialize_keras_object",
    "name of a module": "payload",
    "list": [IMPORTED, LAMBDA],
}
OURS = ("alpha", "negative_slope", "trainable_alpha", "axis", "axes", "alpha_constraint")
OURS = (*OURS, "alpha_regularizer")
FORMATS = ("keras", "h5", "json")


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


WAYS = ("keras", "keras without safe mode", "h5", "json", "json of a frozen layer")


def hostile_files():
    """Each payload in each entry, and in an old array; quick are two of each payload."""
    every = [*itertools.product((*OURS, "ndarray"), WAYS[:-1])]
    every += itertools.product(("form", "alpha", *OURS[-2:]), WAYS[-1:])
    for payload in PAYLOADS:
        quick = [(OURS[-2], "keras"), *random.Random(payload).sample(every, 2)]
        for each in every:
            marks = () if each in quick else pytest.mark.slow
            yield pytest.param(*each, payload, marks=marks, id="-".join((*each, payload)))


def hostile_file(key, way, payload, honest, folder):
    path = folder / f"model.{way.split()[0]}"
    if way == WAYS[-1]:
        layer = FrozenLeakyReLU([0.5, 0.25, 0.1], axis=-1, form="by where", name="ours")
        honest = folder / "honest"
        honest.with_suffix(".json").write_text(model_of(layer).to_json())
    if key == "ndarray":  # as Keras 2.0 wrote numbers
        edit = entry("alpha", {"type": "ndarray", "value": PAYLOADS[payload]})
    else:
        edit = entry(key, PAYLOADS[payload])
    edited(honest.with_suffix(path.suffix), path, edit)
    return path


@pytest.mark.parametrize(("key", "way", "payload"), list(hostile_files()))
def test_no_entry_of_ours_runs_a_thing(key, way, payload, honest, canary, tmp_path):
    path = hostile_file(key, way, payload, honest, tmp_path)
    error, model = error_of(path, **({"safe_mode": False} if "safe" in way else {}))
    assert not canary.exists()
    if error is None:  # the entry was one that may be passed over: a plain layer is there
        layer = model.layers[-1]
        dropped = key == "axis" and layer.axis is None  # of `.h5`, by Keras 3
        foreign = payload == "class of Keras from elsewhere"  # it is found in Keras, and only there
        assert dropped or (foreign and type(layer.alpha_constraint) is tf.keras.constraints.NonNeg)
        return
    assert isinstance(error, TypeError | ValueError)
    spelt = {"negative_slope": "alpha", "axes": "axis", "ndarray": "alpha"}.get(key, key)
    by_keras = KERAS_3 and payload == MADE_BY_KERAS and ("h5" in way or "frozen" in way)
    assert f"LeakyReLU: expected {spelt} to be" in str(error) or (
        by_keras and "Lambda" in str(error)  # Keras's own error, before our layer is made
    )


HOSTILE_LAYERS = {
    "module from elsewhere": ({"module": "payload"}, None),
    "class from elsewhere": ({"module": "payload", "class_name": "Payload"}, None),
    "our function as a layer": ({"registered_name": "tf_leaky>leaky_relu"}, "leaky_relu"),
    "built by a class": ({"build_config": {"input_shape": IMPORTED}}, ""),
    "built by shapes": (
        {"build_config": {"shapes_dict": {"alpha_shape": IMPORTED}}},
        "",
    ),
    "compiled": ({"compile_config": {"optimizer": IMPORTED}}, "compile_from_config"),
    "shared": ({"shared_object_id": IMPORTED}, "unhashable"),
}


@pytest.mark.parametrize("name", HOSTILE_LAYERS)
def test_our_registered_name_leads_to_our_layer_and_nowhere_else(name, honest, canary, tmp_path):
    changes, message = HOSTILE_LAYERS[name]
    path = tmp_path / "model.keras"
    edited(honest.with_suffix(".keras"), path, lambda layer: layer.update(changes))
    error, model = error_of(path)
    assert not canary.exists()
    if message is None:
        assert error is None
        assert type(model.layers[-1]) is LeakyReLU
    else:
        assert error is not None
        assert message in str(error)


@pytest.mark.parametrize("value", ["tf_leaky>LeakyReLU", function("os", "tf_leaky>LeakyReLU")])
def test_our_class_is_no_activation(value, canary, tmp_path):
    """Keras hands it the tensor as its slope."""
    model_of(tf.keras.layers.Dense(3)).save(tmp_path / "honest.keras")
    edited(tmp_path / "honest.keras", tmp_path / "model.keras", entry("activation", value))
    error, _ = error_of(tmp_path / "model.keras")
    refused = "Could not interpret activation" in str(error)  # Keras 3, of a name in a string
    assert refused or "LeakyReLU: expected alpha to be a real number" in str(error)


OPEN_IN_TF_KERAS = ("class as a registered one", "function under a registered name")


@pytest.mark.parametrize("payload", OPEN_IN_TF_KERAS)
def test_tf_keras_imports_what_a_file_names_for_its_own_layers(payload, canary, tmp_path):
    """A sentence of the README: why a file for tf_keras has to be trusted, ours in it or not."""
    model_of(tf.keras.layers.Dense(3)).save(tmp_path / "honest.keras")
    change = entry("kernel_constraint", PAYLOADS[payload])
    edited(tmp_path / "honest.keras", tmp_path / "model.keras", change)
    with pytest.raises((TypeError, ValueError)):
        used(read(tmp_path / "model.keras"))
    assert canary.exists() == (not KERAS_3)


class Halve(tf.keras.constraints.Constraint):
    """A user's own constraint."""

    def __init__(self, share=0.5):
        self.share = share

    def __call__(self, weight):
        return weight * self.share

    def get_config(self):
        return {"share": self.share}


def shrink(weight):
    """A user's own regularizer."""
    return 0.1 * tf.reduce_sum(weight**2)


@tf.keras.utils.register_keras_serializable("test_hostile_files")
class Double(Halve):
    """A user's own constraint, registered."""


@tf.keras.utils.register_keras_serializable("test_hostile_files")
def grow(weight):
    """A user's own regularizer, registered."""
    return -shrink(weight)


def reloaded(constraint, regularizer, path, scope):
    layer = LeakyReLU(
        0.25, trainable_alpha=True, alpha_constraint=constraint, alpha_regularizer=regularizer
    )
    if path.suffix == ".json":
        path.write_text(model_of(layer).to_json())
    else:
        model_of(layer).save(path)
    with tf.keras.utils.custom_object_scope(scope):
        return read(path).layers[-1]


@pytest.mark.filterwarnings("ignore:The `keras.regularizers.serialize:UserWarning")
@pytest.mark.parametrize("form", FORMATS)
class TestOwnConstraintsAndRegularizers:
    """They come back where the process knows them, and are imported from nowhere."""

    def test_registered(self, form, tmp_path):
        layer = reloaded(Double(0.25), grow, tmp_path / f"model.{form}", {})
        assert type(layer.alpha_constraint) is Double
        assert layer.alpha_constraint.share == 0.25
        assert layer.alpha_regularizer is grow

    def test_in_a_custom_object_scope(self, form, tmp_path):
        scope = {"Halve": Halve, "shrink": shrink}
        layer = reloaded(Halve(0.25), shrink, tmp_path / f"model.{form}", scope)
        assert type(layer.alpha_constraint) is Halve
        assert layer.alpha_constraint.share == 0.25
        assert layer.alpha_regularizer is shrink

    def test_unknown(self, form, tmp_path):
        path = tmp_path / f"model.{form}"
        with pytest.raises(
            (TypeError, ValueError), match=r"alpha_constraint to be .*, and register one of"
        ):
            reloaded(Halve(), None, path, {})
        with pytest.raises(
            (TypeError, ValueError), match=r"alpha_regularizer to be .*, and register one of"
        ):
            reloaded(None, shrink, path, {})
