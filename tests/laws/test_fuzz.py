"""Every argument of every public name, given what is wrong for it.

Each of the things in `tests/wrong.py` goes to each argument, the others being right. It has to end
in an error of ours that is in the docstring, in the house form, speaks of the argument, is short
and leaves nothing behind; or, where the thing is in `right` below, in a right answer. Anything else
fails: another error, an answer where none is expected, a warning, a file, a figure, or ten seconds.

Two things are Keras's own: errors about `name`, `dtype` and `trainable`, which every layer has, and
those that it raises for a layer before the layer is asked.
"""

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import random
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import cases
import matplotlib as mpl
import numpy as np
import oracle
import pytest
import tensorflow as tf
import wrong
from conftest import KERAS_3

import tf_leaky
from tf_leaky.checks import shown
from tf_leaky.serving import checking, running, signatures

mpl.use("Agg")
from matplotlib import pyplot  # after the backend is chosen

pytestmark = pytest.mark.usefixtures("in_this_process")

PATIENCE = 10  # seconds for one call
LONGEST = 2000  # characters of a message, with what TensorFlow said in it
HOUSE = re.compile(r"(?P<subject>\w+): expected .+?\. Received: (?P<received>.+\. .+)", re.DOTALL)
X = np.float32([[1, -2, 3], [-4, 5, -6]])


@dataclasses.dataclass(frozen=True)
class Face:
    """A public name, and how to call it.

    `given` makes the right arguments; `right` names, for each argument, the things that are right
    for it too; `answers` asserts that an answer is, given the arguments and the result. `subjects`
    are whom errors speak for, by what `says` names the arguments, `keras` the arguments about which
    Keras may speak; `through_keras` is for layers, which Keras calls; `own` names things
    whose own errors go through, and `begun` arguments of which
    more is known when training has begun, and the folder is there. A `slow` one is given fewer.
    """

    call: Callable
    given: dict
    right: dict
    answers: Callable
    documented: Callable
    subjects: tuple
    says: dict = dataclasses.field(default_factory=dict)
    keras: tuple = ()
    through_keras: bool = False
    own: dict = dataclasses.field(default_factory=dict)
    slow: bool = False
    begun: tuple = ()


class TookTooLong(BaseException):
    pass


@contextlib.contextmanager
def limited(seconds):
    def stop(*_):
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def within(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def on_disk(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def raised_by_keras_alone(error):
    """Whether no frame of the package took part."""
    package = str(Path(tf_leaky.__file__).parent)
    if isinstance(error, RecursionError):  # it goes through whatever is given first
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return not any(frame.filename.startswith(package) for frame in frames)


def fault_of_error(face, names, error):
    """What is wrong with an error, or nothing."""
    if isinstance(error, TookTooLong):
        return f"took more than {PATIENCE} seconds"
    if any(thing in face.own.get(name, ()) for name, thing in names.items()):
        return ""
    if set(names) & set(face.keras) or (face.through_keras and raised_by_keras_alone(error)):
        return "" if isinstance(error, Exception) else "no Exception"
    # What Keras 3 prints in bold, and what either adds.
    message = re.sub("\033\\[[0-9]*m", "", str(error))
    if face.through_keras:
        message = re.split(r"\n+(?:Call a|A)rguments received", message)[0]
    if face.through_keras and re.match("Unrecognized keyword|.*not understood", message):
        return ""
    if isinstance(error, tf.errors.OpError):
        return "TensorFlow's own"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if not kinds & documented(face.documented):
        return "not documented"
    if len(message) > LONGEST:
        return f"of {len(message)} characters"
    found = HOUSE.search(message) if face.through_keras else HOUSE.fullmatch(message)
    if found is None or found["subject"] not in face.subjects:
        return "not in the house form"
    spoken = [word for name in names for word in face.says.get(name, (name,))]
    if not any(re.search(rf"\b{word}\b", found["received"]) for word in spoken):
        return f"doesn't speak of {names}"
    return ""


def documented(public):
    """The errors in the section Raises of a docstring."""
    section = inspect.getdoc(public).partition("Raises:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"^    (\w+):", section, re.MULTILINE))


def fault(face, things, folder):
    """What is wrong with what comes of a call with these things by argument, or nothing."""
    folder.mkdir()
    (folder / "there.txt").write_text("there")
    try:
        given = {name: make() for name, make in face.given.items()}
        given |= {name: wrong.make(thing, folder) for name, thing in things.items()}
        before, figures = on_disk(folder), pyplot.get_fignums()
        expected = all(thing in face.right.get(name, ()) for name, thing in things.items())
        with within(folder):
            try:
                with limited(PATIENCE):
                    result = face.call(**given)
            except (Exception, TookTooLong) as error:
                what = fault_of_error(face, things, error)
                if expected and len(things) == 1 and not what:
                    what = "an error where an answer is right"
                begun = any(f" {name}=" in str(error) for name in face.begun)
                if not what and not begun and on_disk(folder) != before:
                    what = f"left {sorted(on_disk(folder).keys() ^ before.keys())} behind"
                if not what and pyplot.get_fignums() != figures:
                    what = "left a figure behind"
                return what and f"{what}: {type(error).__name__}: {str(error)[:300]}"
            if not expected and len(things) == 1 and not set(things) & set(face.keras):
                return f"answered {shown(result)[:100]}"
            try:
                with limited(PATIENCE):
                    face.answers(given, result)
            except (Exception, TookTooLong) as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                return f"a wrong answer ({type(error).__name__}: {str(error)[:300]}, {last})"
            return ""
    finally:
        pyplot.close("all")


# What the answers have to be.


def same(y, x, alpha):
    """`y` is what the oracle says of `x`: of the first numbers, as it is slow."""
    assert y.shape == x.shape
    rtol = max(cases.TOLERANCE[tf.as_dtype(each.dtype).name] for each in (x, y))
    if len(x.shape) > 30:  # more than NumPy has, and of one element
        x, y = (tf.reshape(each, [1]) for each in (x, y))
    x64, y64 = (np.float64(np.asarray(each)).ravel()[:60] for each in (x, y))
    alpha = np.broadcast_to(np.float64(np.asarray(alpha)), x.shape).ravel()[:60]
    with np.errstate(all="ignore"):  # subnormals may become 0
        np.testing.assert_allclose(y64, oracle.value(x64, alpha), rtol=rtol, atol=1e-37)


def function_answers(given, y):
    x = tf.convert_to_tensor(given["x"])
    assert y.dtype == x.dtype
    same(y, x, given["alpha"])


def layer_made(**arguments):
    layer = tf_leaky.LeakyReLU(**arguments)
    return layer, layer(X)


def layer_answers(given, made):
    layer, y = made
    same(y, X, np.asarray(layer.alpha))
    functions = [callable(value) for name, value in given.items() if name.startswith("alpha_")]
    if not any(functions) and isinstance(given["trainable"], bool):  # older Kerases take anything
        config = json.loads(json.dumps(layer.get_config()))
        np.testing.assert_array_equal(tf_leaky.LeakyReLU.from_config(config)(X), y)


def called(inputs):
    return tf_leaky.LeakyReLU(0.5)(inputs)


def called_answers(given, y):
    if hasattr(y, "numpy"):
        x = tf.cast(given["inputs"], y.dtype)
        same(y, x, 0.5)
    else:
        assert y.shape == given["inputs"].shape


def built(input_shape):
    layer = tf_leaky.LeakyReLU(0.5, trainable_alpha=True)
    layer.build(input_shape)
    return layer


def built_answers(given, layer):
    assert layer.built
    assert layer.alpha.shape == ()


def from_config(config):
    layer = tf_leaky.LeakyReLU.from_config(config)
    return layer, layer(X)


def from_keys(**config):
    """With the keys of other Kerases only if they are given."""
    return from_config({k: v for k, v in config.items() if not (k in OLD_KEYS and v is None)})


def from_config_answers(given, made):
    layer, y = made
    assert type(layer) is tf_leaky.LeakyReLU
    same(y, X, np.asarray(layer.alpha))


def questions(model):
    inputs = signatures.inputs_of(model, subject="test")
    arrays = checking.examples(inputs)
    return tf.nest.map_structure(lambda spec: tf.cast(arrays[spec.name], spec.dtype), inputs)


def model_answers(given, new):
    model = given["model"]
    assert isinstance(new, tf.keras.Model)
    assert new is not model
    x = questions(model)
    if given.get("alpha") is None:
        np.testing.assert_allclose(new(x), model(x), rtol=1e-6)
    elif model is wrong.make("stock model", None):
        same(new(X), X, given["alpha"])
    else:
        assert new(x).shape == model(x).shape


def exported_answers(given, path):
    assert path.parent.samefile(given["base_path"])
    assert given["version"] is None or path.name == str(int(given["version"]))
    assert sorted(p.name for p in path.parent.iterdir() if p.name != "there.txt") == [path.name]
    with running.SavedModel(path) as served:
        assert served.outputs


def plot_answers(given, ax):
    alpha = given["alpha"]
    assert isinstance(ax, mpl.axes.Axes)
    assert given["ax"] in (None, ax)
    if isinstance(alpha, tf_leaky.LeakyReLU):
        alpha = np.unique(np.asarray(alpha.alpha))
    slopes = np.ravel(np.float64(np.asarray(alpha)))
    new = ax.lines[-2 * len(slopes) :: 2]  # there may be others on the axes
    for line, slope in zip(new, slopes, strict=True):
        x, y = line.get_data()
        same(y, x, np.float32(slope))


def activations_answers(given, figure):
    assert figure.axes


def monitored(**arguments):
    monitor = tf_leaky.ActivationMonitor(**arguments)
    monitor.set_model(trained_model())
    try:
        monitor.on_train_begin()
        monitor.on_epoch_end(0, {})
    finally:
        monitor.on_train_end()
    return monitor, monitor.plot()


@functools.cache
def trained_model():
    head = tf.keras.layers.Dense(1)
    model = wrong.sequential(tf.keras.layers.ReLU(name="relu"), head)
    model.compile(loss="mse", run_eagerly=True)
    return model


def monitored_answers(given, found):
    monitor, figure = found
    assert monitor.epochs == [0]
    assert set(monitor.values) == {
        f"relu/{key}" for key in ("dead", "always_negative", "share_negative")
    }
    assert 0 <= monitor.values["relu/share_negative"][0] <= 1
    assert len(figure.axes) == 4
    logs = trained_model().fit(X, X[:, :1], verbose=0, callbacks=[monitor]).history
    assert "relu/dead" in logs
    if given["log_dir"] is not None:
        assert list(os.scandir(given["log_dir"]))


NUMBERS = {"0", "-0.0", "1", "-1", "3", "0.5", "-2.5", "1e-320", "2**63", "fraction", "np.int64"}
NUMBERS |= {"0-d array"}
POSITIVE = NUMBERS - {"0", "-0.0", "-1", "-2.5", "1e-320"}  # enough to be trained from
ROWS = {"(1,)", "range", "deque", "array.array", "3 numbers", "masked array", "int array"}
ROWS |= {"2 by 3", "read-only array"}  # of three slopes or one; or of two rows
SLOPES = {"tensor", "tensor of 2 by 3", "float64 tensor", "variable"}
MODELS = {"our model", "stock model", "model without activations", "identity model"}
MODELS |= {"model of two inputs", "model of integers", "model of texts", "model in a model"}
MODELS |= {"model with a Lambda", "recurrent model"}
NAMES = {"text", "'0.1'", "'positive'", "'relu'", "'leaky'", "'litert'", "'non_neg'", "np.str_"}
FLOATS = {"np.float16 NaN", "empty array", "array of 0 rows", "0-d array", "3 numbers", "NaN array"}
FLOATS |= {"2 by 3", "2 by 3 of NaN", "2 by 3 of 1e300", "2 by 7", "8-d", "long array"}
FLOATS |= {"masked array", "read-only array", *SLOPES}
SCALARS = {"-0.0", "0.5", "-2.5", "1e-320", "NaN", "inf", "-inf"}
TABLES = {"2 by 3", "2 by 3 of NaN", "int array", "bool array", "read-only array"}
TABLES |= {"tensor of 2 by 3"}

OURS = wrong.EVERYWHERE["our model"]
# Any function may be meant, and Keras 3 makes an instance of a class.
CONSTRAINTS = {"None", "'positive'", "'non_neg'", "constraint", "function", "lambda"}
CONSTRAINTS |= {"model of other Keras"} | ({"constraint class"} if KERAS_3 else set())
REGULARIZERS = {"None", "regularizer", "function", "lambda", "model of other Keras"}
REGULARIZERS |= {"regularizer class"} if KERAS_3 else set()
KERAS_KEYS = {"name": set(), "dtype": set(), "trainable": set()}  # Keras says which
SLOPES_OF_AXIS = {"3 numbers", "masked array", "array.array", "{'value': 0.5}"}
OLD_KEYS = ("negative_slope", "axes")

# What raises an error of its own while it is read.
FAIL = {"generator that fails", "dataset that fails", "hostile object", "unknown shape"}

CONFIG = tf_leaky.LeakyReLU(0.3, trainable_alpha=True, axis=-1).get_config()

FACES = {
    "leaky_relu": Face(
        tf_leaky.leaky_relu,
        {"x": lambda: X, "alpha": lambda: 0.3, "positive_alpha": lambda: False},
        {
            "x": FLOATS
            | SCALARS
            | {"[]", "()", "[NaN]", "deque"}
            | {"100 lists deep", "long list", "named tuple", "array.array", "list of tensors"},
            "alpha": NUMBERS | ROWS | SLOPES,
            "positive_alpha": {"True", "False"},
        },
        function_answers,
        tf_leaky.leaky_relu,
        ("leaky_relu",),
    ),
    "LeakyReLU": Face(
        layer_made,
        {
            "alpha": lambda: 0.3,
            "trainable_alpha": lambda: True,
            "axis": lambda: None,
            "alpha_constraint": lambda: "positive",
            "alpha_regularizer": lambda: None,
            "name": lambda: None,
            "dtype": lambda: None,
            "trainable": lambda: True,
        },
        {
            "alpha": POSITIVE,
            "trainable_alpha": {"True", "False"},
            "axis": {"None", "1", "-1", "(1,)"},
            "alpha_constraint": CONSTRAINTS,
            "alpha_regularizer": REGULARIZERS,
            **KERAS_KEYS,
        },
        layer_answers,
        tf_leaky.LeakyReLU,
        ("LeakyReLU",),
        keras=("name", "dtype", "trainable"),
        through_keras=True,
    ),
    "LeakyReLU.__call__": Face(
        called,
        {"inputs": lambda: X},
        {"inputs": FLOATS | {"symbolic"} | (set() if KERAS_3 else SCALARS)},
        called_answers,
        tf_leaky.LeakyReLU,
        ("LeakyReLU", "leaky_relu"),
        says={"inputs": ("inputs", "x", "input_shape")},
        through_keras=True,
    ),
    "LeakyReLU.build": Face(
        built,
        {"input_shape": lambda: (None, 3)},
        {
            "input_shape": {"None", "[]", "()", "(1,)", "[None]", "shape", "unknown shape"},
        },
        built_answers,
        tf_leaky.LeakyReLU,
        ("LeakyReLU",),
        through_keras=True,
    ),
    "LeakyReLU.from_config": Face(
        from_config,
        {"config": lambda: CONFIG},
        {"config": {"{}"}},
        from_config_answers,
        tf_leaky.LeakyReLU,
        ("LeakyReLU",),
        says={"config": ("config", *CONFIG)},
        through_keras=True,
    ),
    "LeakyReLU.from_config, by keys": Face(
        from_keys,
        {key: functools.partial(CONFIG.get, key) for key in (*CONFIG, *OLD_KEYS)},
        {
            "alpha": POSITIVE | SLOPES_OF_AXIS,
            "trainable_alpha": {"True", "False"},
            "axis": {"None", "1", "-1", "(1,)"},
            "alpha_constraint": CONSTRAINTS,
            "alpha_regularizer": REGULARIZERS,
            **KERAS_KEYS,
            "negative_slope": POSITIVE | SLOPES_OF_AXIS | {"None"},
            "axes": {"None", "1", "-1", "(1,)"},
        },
        from_config_answers,
        tf_leaky.LeakyReLU,
        ("LeakyReLU",),
        says={"negative_slope": ("alpha",), "axes": ("axis",)},
        keras=tuple(KERAS_KEYS),
        through_keras=True,
    ),
    "convert": Face(
        tf_leaky.convert,
        {
            "model": wrong.EVERYWHERE["stock model"],
            "alpha": lambda: None,
            "trainable_alpha": lambda: None,
            "axis": lambda: None,
        },
        {
            "model": MODELS,
            "alpha": NUMBERS | {"None"},
            "trainable_alpha": {"None", "False"},  # True needs alpha
            "axis": {"None"},
        },
        model_answers,
        tf_leaky.convert,
        ("convert", "LeakyReLU"),
    ),
    "freeze": Face(
        tf_leaky.freeze,
        {"model": OURS, "target": lambda: "serving"},
        {"model": MODELS, "target": {"'litert'"}},
        model_answers,
        tf_leaky.freeze,
        ("freeze",),
    ),
    "to_keras": Face(
        tf_leaky.to_keras,
        {"model": OURS},
        {"model": MODELS},
        model_answers,
        tf_leaky.to_keras,
        ("to_keras",),
    ),
    "export_saved_model": Face(
        tf_leaky.export_saved_model,
        {
            "model": OURS,
            "base_path": lambda: "base",
            "version": lambda: None,
            "warmup": lambda: None,
            "check": lambda: True,
        },
        {
            "model": MODELS | {"subclassed model"},
            "base_path": NAMES | {"folder", "folder's name", "new folder", "path of folder"},
            "version": {"None", "1", "3", "np.int64"},
            "warmup": TABLES | {"None"},
            "check": {"True", "False"},
        },
        exported_answers,
        tf_leaky.export_saved_model,
        ("export_saved_model",),
        slow=True,
    ),
    "plot_leaky_relu": Face(
        tf_leaky.plot_leaky_relu,
        {"alpha": lambda: 0.3, "ax": lambda: None},
        {
            "alpha": NUMBERS
            | ROWS
            | {"[-1, 1]", "named tuple", "2 by 7", "8-d", "layer", "built layer"},
            "ax": {"None", "axes"},
        },
        plot_answers,
        tf_leaky.plot_leaky_relu,
        ("plot_leaky_relu",),
    ),
    "plot_activations": Face(
        tf_leaky.plot_activations,
        {"model": OURS, "inputs": lambda: X, "layers": lambda: None},
        {
            "model": {"our model", "stock model", "subclassed model", "model in a model"}
            | {"model with a Lambda"},
            "inputs": TABLES | {"2 by 3 of 1e300", "complex array", "dataset", "dataset of pairs"},
            "layers": {"None", "'leaky'"},
        },
        activations_answers,
        tf_leaky.plot_activations,
        ("plot_activations",),
        says={"inputs": ("data",), "model": ("model", "data")},
        own={"inputs": FAIL},
        slow=True,
    ),
    "ActivationMonitor": Face(
        monitored,
        {"data": lambda: X, "every": lambda: 1, "log_dir": lambda: None},
        {
            "data": TABLES | {"2 by 3 of 1e300", "complex array", "dataset", "dataset of pairs"},
            "every": {"1", "3", "2**63", "10**400", "10**5000", "np.int64"},
            "log_dir": NAMES
            | {"None", "folder", "folder's name", "new folder"}
            | {"path with a pattern", "nobody's home"},
        },
        monitored_answers,
        tf_leaky.ActivationMonitor,
        ("ActivationMonitor",),
        own={"data": FAIL},
        begun=("data",),
        slow=True,
    ),
}
ARGUMENTS = [(name, argument) for name, face in FACES.items() for argument in face.given]


def faults(public, things, tmp_path):
    """What is wrong, for each of the things to be given to a public name, by its arguments."""
    found = {}
    for i, each in enumerate(things):
        what = fault(FACES[public], each, tmp_path / str(i))
        if what:
            found[str(each)] = what
    return "\n".join(f"{each}: {what}" for each, what in found.items())


def things_for(public, argument):
    """Of right things that take long, two; the others are in the slow test."""
    face = FACES[public]
    seldom = sorted(face.right[argument])[2:] if face.slow else []
    return [{argument: name} for name in wrong.NAMES if name not in seldom]


def test_there_are_thousands():
    assert sum(len(things_for(*pair)) for pair in ARGUMENTS) > 8000


@pytest.mark.parametrize(("public", "argument"), ARGUMENTS)
def test_each_argument(public, argument, tmp_path):
    things = things_for(public, argument)
    found = faults(public, things, tmp_path)
    assert not found, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("public", "argument"), [pair for pair in ARGUMENTS if FACES[pair[0]].slow]
)
def test_each_right_thing_that_takes_long(public, argument, tmp_path):
    things = [{argument: name} for name in sorted(FACES[public].right[argument])]
    found = faults(public, things, tmp_path)
    assert not found, found


@pytest.mark.slow
@pytest.mark.parametrize("public", [name for name, face in FACES.items() if len(face.given) > 1])
def test_pairs_of_arguments(public, tmp_path):
    """Two at once; half of them of what is right, so that not all end at the first check."""
    rng = random.Random(public)
    face = FACES[public]
    things = []
    for _ in range(100 if face.slow else 600):
        pair = rng.sample(sorted(face.given), 2)
        good = [sorted(face.right[argument]) or wrong.NAMES for argument in pair]
        things.append(
            {
                argument: rng.choice(some if rng.random() < 0.5 else wrong.NAMES)
                for argument, some in zip(pair, good, strict=True)
            }
        )
    found = faults(public, things, tmp_path)
    assert not found, found


@pytest.mark.parametrize("key", CONFIG)
def test_config_with_a_key_left_out(key):
    layer, y = from_config({name: value for name, value in CONFIG.items() if name != key})
    from_config_answers({}, (layer, y))


# What Keras calls, and gives what it made itself.
HOOKS = {
    *("LeakyReLU.call", "LeakyReLU.compute_output_shape", "LeakyReLU.compute_output_spec"),
    "ActivationMonitor.on_train_begin",
    "ActivationMonitor.on_epoch_end",
    "ActivationMonitor.on_train_end",
}


def test_every_argument_of_every_public_name_is_here():
    """And of their public methods."""
    public = {}
    for name in tf_leaky.__all__:
        found = getattr(tf_leaky, name)
        if callable(found):
            public[name] = found
        for method in vars(found) if isinstance(found, type) else ():
            if not method.startswith("_"):
                public[f"{name}.{method}"] = getattr(found, method)
    for name in public.keys() - HOOKS:
        arguments = inspect.signature(public[name]).parameters.values()
        expected = {each.name for each in arguments if each.kind != each.VAR_KEYWORD} - {"self"}
        given = FACES[name].given if name in FACES else {}
        assert expected <= given.keys(), name
    for name, face in FACES.items():
        assert face.right.keys() == face.given.keys(), name
        assert set().union(*face.right.values()) <= set(wrong.NAMES), name


def refuse(kind, message):
    def call(**_):
        raise kind(message)

    return call


def leave_a_file(**_):
    Path("half").touch()
    raise TypeError("leaky_relu: expected x. Received: x=1. Give another.")


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (refuse(TypeError, "leaky_relu: expected x. Received: x=1. Give another."), r"^$"),
        (refuse(KeyError, "leaky_relu: expected x. Received: x=1. Give another."), "documented"),
        (refuse(TypeError, "unsupported operand"), "house form"),
        (refuse(TypeError, "other: expected x. Received: x=1. Give another."), "in the house form"),
        (refuse(TypeError, "leaky_relu: expected x. Received: y=1. Give another."), "speak of"),
        (refuse(TypeError, f"leaky_relu: expected {LONGEST * 'x'}. Received: x. Y."), "characters"),
        (lambda **_: tf.ones([2]) + tf.ones([3]), "TensorFlow's own"),
        (leave_a_file, r"left \['half'\] behind"),
        (lambda **_: pyplot.figure() and leave_a_file(), "behind"),
        (lambda **_: tf.constant(3.0), "answered"),
        (lambda **_: signal.pause(), "more than"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_a_fault(call, match, tmp_path, monkeypatch):
    """The test of the test."""
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE", 0.5)
    face = dataclasses.replace(FACES["leaky_relu"], call=call)
    assert re.search(match, fault(face, {"x": "1"}, tmp_path / "folder"))


def test_a_wrong_answer_is_a_fault(tmp_path):
    face = dataclasses.replace(FACES["leaky_relu"], call=lambda x, **_: tf.constant(x))
    assert fault(face, {"x": "2 by 3"}, tmp_path / "folder").startswith("a wrong answer")
