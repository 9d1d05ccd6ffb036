"""Every argument of every public name, given what is wrong for it.

Each of the things in `wrong.py` goes to each argument, the others being right: a seeded sample of
them in `make test`, all in `make test-slow`. It ends in an answer, or in an error of ours that is
in the docstring, in the house form, speaks of the argument, is short and leaves nothing behind.
Anything else fails: another error, a warning, a file, a figure.

Two things are Keras's own: errors about `name`, `dtype` and `trainable`, which every layer has, and
those that it raises for a layer before the layer is asked.
"""

import dataclasses
import functools
import inspect
import os
import random
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf
import wrong

import tf_leaky

mpl.use("Agg")
from matplotlib import pyplot  # after the backend is chosen

pytestmark = pytest.mark.usefixtures("in_this_process", "back_to_this_folder")

LONGEST = 2000  # characters of a message, with what TensorFlow said in it
HOUSE = re.compile(r"(?P<subject>\w+): expected .+?\. Received: (?P<received>.+\. .+)", re.DOTALL)
MODELS_OWN = "the error above is of"
PACKAGE = str(Path(tf_leaky.__file__).parent)
X = np.float32([[1, -2, 3], [-4, 5, -6]])
# What raises an error of its own while it is read.
FAIL = ("(1 / 0 for _ in range(2))", "Fails()", "tf.TensorShape(None)")
KERAS_KEYS = ("name", "dtype", "trainable")  # Keras says which
CONFIG = tf_leaky.LeakyReLU(0.3, trainable_alpha=True, axis=-1).get_config()


def from_config(config):
    return tf_leaky.LeakyReLU.from_config(config)(X)


def monitored(**arguments):
    """A monitor that has looked once, without a training."""
    monitor = tf_leaky.ActivationMonitor(**arguments)
    monitor.set_model(wrong.kept("our_model()"))
    try:
        monitor.on_train_begin()
        monitor.on_epoch_end(0, {})
    finally:
        monitor.on_train_end()
    return monitor.plot()


@dataclasses.dataclass(frozen=True)
class Face:
    """A public name, and how to call it.

    `given` has the right arguments, or what makes them; `subjects` are whom errors speak for, and
    `says` how they name an argument. Keras calls it `through_keras`, and speaks about those in
    `keras`. Errors of things in `own` go through; `begun` is only known when training begins.
    """

    public: Callable
    given: dict
    call: Callable | None = None
    subjects: tuple = ()
    says: dict = dataclasses.field(default_factory=dict)
    keras: tuple = ()
    through_keras: bool = False
    own: tuple = ()
    begun: tuple = ()


def defaults(public, **given):
    """The arguments of a public name with their defaults, but for those that are given."""
    parameters = inspect.signature(public).parameters.values()
    named = {each.name: each.default for each in parameters if each.kind != each.VAR_KEYWORD}
    return named | given


our_model = functools.partial(wrong.kept, "our_model()")
stock_model = functools.partial(wrong.kept, "model(layers.ReLU(name='relu'))")
layer_face = functools.partial(Face, tf_leaky.LeakyReLU, through_keras=True)
of_every_layer = {"name": None, "dtype": None, "trainable": True}
# What BatchNormLeakyReLU hands on to Keras, or takes as Keras's layer does.
_batch_norm = defaults(tf_leaky.BatchNormLeakyReLU, **of_every_layer)
_parts = ("initializer", "regularizer", "constraint")
_as_keras = [name for name in _batch_norm if name.endswith(_parts) and "alpha" not in name]
_as_keras += ["center", "scale", "synchronized", "momentum", "epsilon", *KERAS_KEYS]
FACES = {
    "leaky_relu": Face(tf_leaky.leaky_relu, defaults(tf_leaky.leaky_relu, x=X)),
    "LeakyReLU": layer_face(
        defaults(tf_leaky.LeakyReLU, trainable_alpha=True, **of_every_layer),
        lambda **arguments: tf_leaky.LeakyReLU(**arguments)(X),
        keras=KERAS_KEYS,
    ),
    "LeakyReLU.__call__": layer_face(
        {"inputs": X},
        lambda inputs: tf_leaky.LeakyReLU(0.5)(inputs),
        ("leaky_relu",),
        says={"inputs": ("inputs", "x", "input_shape")},
    ),
    "LeakyReLU.build": layer_face(
        {"input_shape": (None, 3)},
        lambda input_shape: tf_leaky.LeakyReLU(trainable_alpha=True).build(input_shape),
    ),
    "LeakyReLU.from_config": layer_face(
        {"config": CONFIG}, from_config, says={"config": ("config", *CONFIG)}
    ),
    "BatchNormLeakyReLU": Face(
        tf_leaky.BatchNormLeakyReLU,
        _batch_norm,
        lambda **arguments: tf_leaky.BatchNormLeakyReLU(**arguments)(X),
        keras=tuple(_as_keras),
        through_keras=True,
    ),
    "convert": Face(
        tf_leaky.convert, defaults(tf_leaky.convert, model=stock_model), subjects=("LeakyReLU",)
    ),
    "freeze": Face(tf_leaky.freeze, defaults(tf_leaky.freeze, model=our_model)),
    "to_keras": Face(tf_leaky.to_keras, {"model": our_model}),
    "export_saved_model": Face(
        tf_leaky.export_saved_model,
        defaults(tf_leaky.export_saved_model, model=our_model, base_path="base"),
    ),
    "activation_memory": Face(
        tf_leaky.activation_memory,
        {"model": our_model, "inputs": X},
        says={"model": ("model", "inputs")},
        own=FAIL,
    ),
    "plot_leaky_relu": Face(tf_leaky.plot_leaky_relu, defaults(tf_leaky.plot_leaky_relu)),
    "plot_activations": Face(
        tf_leaky.plot_activations,
        defaults(tf_leaky.plot_activations, model=our_model, inputs=X),
        says={"inputs": ("data",), "model": ("model", "data")},
        own=FAIL,
    ),
    "ActivationMonitor": Face(
        tf_leaky.ActivationMonitor,
        defaults(tf_leaky.ActivationMonitor, data=X),
        monitored,
        own=FAIL,
        begun=("data",),
    ),
}
ARGUMENTS = [(name, argument) for name, each in FACES.items() for argument in each.given]


@pytest.fixture
def back_to_this_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def on_disk(folder):
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def documented(public):
    """The errors in the section Raises of a docstring."""
    section = inspect.getdoc(public).partition("Raises:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"^    (\w+):", section, re.MULTILINE))


def raised_by_keras_alone(error):
    """Whether no frame of the package took part."""
    frames = traceback.extract_tb(error.__traceback__)
    within = any(frame.filename.startswith(PACKAGE) for frame in frames)
    return isinstance(error, RecursionError) or not within  # it goes through what is given first


def fault_of_error(face, argument, thing, error):
    """What is wrong with an error about a thing as an argument, or nothing."""
    if thing in face.own or argument in face.keras:
        return ""
    # A model's own error goes through, with a note of what it was called on; Python 3.10 has none.
    notes = getattr(error, "__notes__", ()) if sys.version_info >= (3, 11) else (MODELS_OWN,)
    runs_a_model = argument in ("data", "inputs", "model", "warmup")
    if runs_a_model and any(MODELS_OWN in note for note in notes):
        return ""
    # What Keras 3 prints in bold, and what either adds.
    message = re.sub("\033\\[[0-9]*m", "", str(error))
    if face.through_keras:
        message = re.split(r"\n+(?:Call a|A)rguments received", message)[0]
        if raised_by_keras_alone(error) or re.match("Unrecognized keyw|.*not understood", message):
            return ""
    if not {kind.__name__ for kind in type(error).__mro__} & documented(face.public):
        return "not documented"
    if len(message) > LONGEST:
        return f"of {len(message)} characters"
    subjects = (*face.subjects, face.public.__name__)
    found = HOUSE.search(message) if face.through_keras else HOUSE.fullmatch(message)
    if isinstance(error, tf.errors.OpError) or not found or found["subject"] not in subjects:
        return "not in the house form"
    spoken = face.says.get(argument, (argument,))
    if not any(re.search(rf"\b{word}\b", found["received"]) for word in spoken):
        return f"doesn't speak of {spoken}"
    return ""


def fault(face, argument, thing, folder):
    """What is wrong with what comes of a call with this thing as this argument, or nothing."""
    folder.mkdir()
    (folder / "there.txt").write_text("there")
    arguments = {name: value() if callable(value) else value for name, value in face.given.items()}
    arguments[argument] = wrong.make(thing, folder)
    before, figures = on_disk(folder), pyplot.get_fignums()
    try:
        os.chdir(folder)
        (face.call or face.public)(**arguments)
        return ""
    except Exception as error:
        what = fault_of_error(face, argument, thing, error)
        begun = any(f"expected {name} " in str(error) for name in face.begun)
        if not what and not begun and (on_disk(folder), pyplot.get_fignums()) != (before, figures):
            what = "left something behind"
        return what and f"{what}: {type(error).__name__}: {str(error)[:300]}"
    finally:
        pyplot.close("all")


@pytest.mark.parametrize("count", [5, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("public", "argument"), ARGUMENTS)
def test_each_argument(public, argument, count, tmp_path):
    names = wrong.NAMES if count is None else random.Random(argument).sample(wrong.NAMES, count)
    faults = {
        name: fault(FACES[public], argument, name, tmp_path / str(i))
        for i, name in enumerate(names)
    }
    assert not {name: what for name, what in faults.items() if what}


@pytest.mark.parametrize("key", CONFIG)
def test_config_with_a_key_left_out(key):
    from_config({name: value for name, value in CONFIG.items() if name != key})


def test_every_argument_of_every_public_name_is_here():
    names = {*tf_leaky.__all__} - {"DEFAULT_ALPHA"}
    assert names == {name for name in FACES if "." not in name}
    for name in names:
        assert defaults(getattr(tf_leaky, name)).keys() <= FACES[name].given.keys(), name


HOUSE_FORM = "leaky_relu: expected x. Received: x=1. Give another."


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (TypeError(HOUSE_FORM), r"^$"),
        (KeyError(HOUSE_FORM), "documented"),
        (TypeError(HOUSE_FORM.replace("leaky_relu", "other")), "in the house form"),
        (TypeError(HOUSE_FORM.replace("x=1", "y=1")), "speak of"),
        (TypeError(HOUSE_FORM.replace("x.", LONGEST * "x" + ".")), "characters"),
    ],
)
@pytest.mark.parametrize("leaves", [False, True])
def test_what_is_a_fault(error, match, leaves, tmp_path):
    """The test of the test."""

    def call(**_):
        if leaves:
            Path("half").touch()
        raise error

    match = "left something behind" if leaves and match == "^$" else match
    face = dataclasses.replace(FACES["leaky_relu"], call=call)
    assert re.search(match, fault(face, "x", "1", tmp_path / "folder"))
