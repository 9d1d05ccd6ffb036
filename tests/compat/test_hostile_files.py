"""Files that were made to run something: none of it runs, and each ends in an error or a layer.

Each payload leaves a canary, a file, as soon as any of it is imported, made or called.
"""

import base64
import itertools
import json
import marshal
import pickle
import shutil
import sys
import zipfile

import cases
import h5py
import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, convert
from tf_leaky.conversion.frozen import FrozenLeakyReLU
from tf_leaky.serving import running

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


def is_right_layer(model, key, payload):
    """Whether the entry was one that may be passed over: what is there then is a plain layer."""
    layer = model.layers[-1]
    if key == "axis":  # Keras 3 drops one that is no integer from `.h5`
        return layer.axis is None
    foreign = payload == "class of Keras from elsewhere"  # it is found in Keras, and only there
    return foreign and type(layer.alpha_constraint) is tf.keras.constraints.NonNeg


def _hostile_files():
    """Each payload in each entry; in `.h5` and JSON, those that are read as numbers are slow."""
    for key, payload, form in itertools.product(OURS, PAYLOADS, FORMATS):
        quick = form == "keras" or key in ("alpha_constraint", "alpha_regularizer")
        yield pytest.param(key, payload, form, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(("key", "payload", "form"), list(_hostile_files()))
def test_no_entry_of_ours_runs_a_thing(key, payload, form, honest, canary, tmp_path):
    path = tmp_path / f"model.{form}"
    edited(honest.with_suffix(path.suffix), path, entry(key, PAYLOADS[payload]))
    error, model = error_of(path)
    assert not canary.exists()
    if error is None:
        assert is_right_layer(model, key, payload)
    elif KERAS_3 and payload == MADE_BY_KERAS and form == "h5":
        assert "Lambda" in str(error)  # Keras's own error, before our layer is made
    else:
        spelt = {"negative_slope": "alpha", "axes": "axis"}.get(key, key)
        assert isinstance(error, TypeError | ValueError)
        assert f"LeakyReLU: expected {spelt} to be" in str(error)


@pytest.mark.parametrize("key", ["alpha_constraint", "alpha_regularizer"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_without_safe_mode_none_runs_either(payload, key, honest, canary, tmp_path):
    path = tmp_path / "model.keras"
    edited(honest.with_suffix(".keras"), path, entry(key, PAYLOADS[payload]))
    error, model = error_of(path, safe_mode=False)
    assert not canary.exists()
    if error is None:
        assert is_right_layer(model, key, payload)
    else:
        assert f"LeakyReLU: expected {key} to be" in str(error)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_slope_as_keras_2_0_wrote_it_runs_no_thing(payload, honest, canary, tmp_path):
    value = {"type": "ndarray", "value": PAYLOADS[payload]}
    edited(honest.with_suffix(".keras"), tmp_path / "model.keras", entry("alpha", value))
    error, _ = error_of(tmp_path / "model.keras")
    assert not canary.exists()
    assert "LeakyReLU: expected alpha to be a real number" in str(error)


@pytest.mark.parametrize("key", ["form", "alpha", "alpha_constraint", "alpha_regularizer"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_entry_of_a_frozen_layer_runs_a_thing(key, payload, canary):
    layer = FrozenLeakyReLU([0.5, 0.25, 0.1], axis=-1, form="by where", name="ours")
    config = json.loads(model_of(layer).to_json())
    entry(key, PAYLOADS[payload])(config["config"]["layers"][-1])
    (canary.parent / "model.json").write_text(json.dumps(config))
    error, model = error_of(canary.parent / "model.json")
    assert not canary.exists()
    if error is None:
        assert is_right_layer(model, key, payload)
    else:
        assert isinstance(error, TypeError | ValueError)
        assert "LeakyReLU: expected" in str(error) or (payload, KERAS_3) == (MADE_BY_KERAS, True)


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


@pytest.mark.parametrize("payload", OPEN_IN_TF_KERAS)
@pytest.mark.parametrize("key", ["activity_regularizer", "dtype", "name", "trainable"])
def test_what_keras_reads_of_every_layer_it_reads_of_ours_alike(key, payload, canary, tmp_path):
    found = []
    for layer in (LeakyReLU(), tf.keras.layers.LeakyReLU()):
        model_of(layer).save(tmp_path / "honest.keras")
        change = entry(key, PAYLOADS[payload])
        edited(tmp_path / "honest.keras", tmp_path / "model.keras", change)
        error_of(tmp_path / "model.keras")
        found.append(canary.exists())
        canary.unlink(missing_ok=True)
        sys.modules.pop("payload", None)
    assert found[0] == found[1]


@pytest.mark.parametrize("case", cases.FILES, ids=cases.names)
def test_honest_files_load_in_safe_mode(case, tmp_path):
    model = tf.keras.Sequential([tf.keras.Input(case.input_shape), *cases.hosts(case)])
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, *case.input_shape))
    again = tf.keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


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


class Run:
    """Whose pickle leaves a canary where it is loaded."""

    def __reduce__(self):
        return exec, ("open('canary', 'w').close()",)


def test_arrays_of_a_request_are_read_without_a_pickle(canary, tmp_path):
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.array([Run()], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        running.read_arrays(path)
    path.write_bytes(pickle.dumps(Run()))
    with pytest.raises(ValueError, match="allow_pickle"):
        running.read_arrays(path)
    assert not canary.exists()
    pickle.loads(path.read_bytes())
    assert canary.exists()
