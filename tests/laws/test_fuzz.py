"""Every argument of every public name, given what is wrong for it.

Each of the things in `wrong.py` goes to each argument, the others being right: a seeded sample of
them in `make test`, all in `make test-slow`. It has to end in an error of ours that is in the
docstring, in the house form, speaks of the argument, is short and leaves nothing behind; or, where
the thing is in `right` below, in an answer. Anything else fails: another error, an answer where
none is expected, a warning, a file, a figure.

Two things are Keras's own: errors about `name`, `dtype` and `trainable`, which every layer has, and
those that it raises for a layer before the layer is asked.
"""

import contextlib
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

import cases
import matplotlib as mpl
import numpy as np
import oracle
import pytest
import tensorflow as tf
import wrong
from conftest import KERAS_3
from wrong import things

import tf_leaky
from tf_leaky.checks import shown

mpl.use("Agg")
from matplotlib import pyplot  # after the backend is chosen

pytestmark = pytest.mark.usefixtures("in_this_process")

LONGEST = 2000  # characters of a message, with what TensorFlow said in it
HOUSE = re.compile(r"(?P<subject>\w+): expected .+?\. Received: (?P<received>.+\. .+)", re.DOTALL)
MODELS_OWN = "the error above is of"
PACKAGE = str(Path(tf_leaky.__file__).parent)
X = np.float32([[1, -2, 3], [-4, 5, -6]])


def value_is_the_formula(given, y):
    """Of the first numbers, as the oracle is slow; subnormals may be 0."""
    x = tf.convert_to_tensor(given.get("x", X))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    alpha = np.float64(np.asarray(given["alpha"]))
    alpha = np.broadcast_to(alpha, x.shape).ravel()[:60] if alpha.ndim else alpha
    x64, y64 = (np.float64(np.asarray(tf.reshape(each, [-1])[:60])) for each in (x, y))
    rtol = cases.TOLERANCE[tf.as_dtype(x.dtype).name]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(y64, oracle.value(x64, alpha), rtol=rtol, atol=1e-37)


def called_layer(**arguments):
    layer = tf_leaky.LeakyReLU(**arguments)
    value_is_the_formula({"alpha": layer.alpha}, layer(X))
    return layer


def from_config(config):
    layer = tf_leaky.LeakyReLU.from_config(config)
    layer(X)
    return layer


def called_batch_norm(**arguments):
    return tf_leaky.BatchNormLeakyReLU(**arguments)(X)


def built(input_shape):
    tf_leaky.LeakyReLU(0.5, trainable_alpha=True).build(input_shape)


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

    `given` makes the right arguments; `right` names, for each, the things that are right for it
    too, and `either` those that it may also refuse in our words. `check` gets what was given and
    the answer. `subjects` are whom errors speak for, `says` how they name an argument, `keras` the
    arguments about which Keras may speak; `through_keras` is for layers, which Keras calls; the
    errors of things in `own` go through, and what is only known when training begins is in `begun`.
    """

    call: Callable
    given: dict
    right: dict
    public: Callable
    subjects: tuple
    check: Callable = lambda given, answer: None
    either: dict = dataclasses.field(default_factory=dict)
    says: dict = dataclasses.field(default_factory=dict)
    keras: tuple = ()
    through_keras: bool = False
    own: tuple = ()
    begun: tuple = ()


NUMBERS = {*things("0  -0.0  1  -1  3  0.5  -2.5  1e-320  2**63  np.int64(2)  np.array(0.25)")}
NUMBERS |= {"fractions.Fraction(1, 4)"}
POSITIVE = NUMBERS - {"0", "-0.0", "-1", "-2.5", "1e-320"}  # enough to be trained from
THREE = {"np.array([0.1, 0.2, 0.3])", "np.ma.masked_array([0.1, 0.2, 0.3], [0, 1, 0])"}
THREE |= {"array.array('d', [0.1, 0.2, 0.3])"}
TWO_BY_THREE = {"np.float32([[1, -2, 3], [-4, 5, -6]])", "np.broadcast_to(np.float32(0.5), (2, 3))"}
ROWS = {*things("(1,)  range(3)  collections.deque([0.1])  np.ones((2, 3), int)")}
ROWS |= {*THREE, *TWO_BY_THREE}  # of three slopes or one; or of two rows
MATRIX = "tf.constant([[1.0, -2, 3], [-4, 5, -6]])"
SLOPES = {"tf.constant(0.25)", MATRIX, "tf.constant([0.1, 0.2, 0.3], 'float64')"}
SLOPES |= {"tf.Variable([0.1, 0.2, 0.3])"}
PAIR = "collections.namedtuple('Pair', 'a b')(0.1, 0.2)"
WIDE = {"np.ones((2, 7), 'f')", "np.ones((1,) * 8, 'f')"}
HUGE = "np.full((2, 3), 1e300)"
FLOATS = {
    *things("np.float16('nan')  np.array([])  np.zeros((0, 3), 'f')  np.array(0.25)"),
    *things("np.array([0.1, np.nan, 0.3])  np.full((2, 3), np.nan, 'f')  np.ones(10**6, 'f')"),
    *(THREE - {"array.array('d', [0.1, 0.2, 0.3])"}),
    *(HUGE, *TWO_BY_THREE, *WIDE, *SLOPES),
}
SCALARS = {*things("-0.0  0.5  -2.5  1e-320  math.nan  math.inf  -math.inf")}
TABLES = {*TWO_BY_THREE, MATRIX, "np.full((2, 3), np.nan, 'f')"}
TABLES |= {"np.ones((2, 3), int)", "np.ones((2, 3), bool)"}
DATA = {HUGE, "np.ones((2, 3), complex)", *TABLES}
DATA |= {"tf.data.Dataset.from_tensor_slices(tf.ones([4, 3])).batch(2)"}
DATA |= {"tf.data.Dataset.from_tensors((tf.ones([2, 3]), tf.ones([2, 1])))"}
TEXTS = {
    *things("'text'  '0.1'  'positive'  'relu'  'leaky'  'litert'  'non_neg'  np.str_('text')")
}
FOLDERS = {"folder", "str(folder)", "folder / 'new' / 'newer'"}
# Any function may be meant, and Keras 3 makes an instance of a class.
CONSTRAINTS = {*things("None  'positive'  'non_neg'  len  lambda x: x"), "model_of_other_keras()"}
CONSTRAINTS |= {"tf.keras.constraints.NonNeg()"}
CONSTRAINTS |= {"tf.keras.constraints.NonNeg"} if KERAS_3 else set()
REGULARIZERS = {
    *things("None  len  lambda x: x  tf.keras.regularizers.L2(0.1)"),
    "model_of_other_keras()",
}
REGULARIZERS |= {"tf.keras.regularizers.L2"} if KERAS_3 else set()
_STARTS = ("model(", "our_model(", "identity_model(", "model_of_two", "called(")
MODELS = {name for name in wrong.KEPT if name.startswith(_STARTS) and name.endswith(")")}
# What raises an error of its own while it is read.
FAIL = ("(1 / 0 for _ in range(2))", "Hostile()", "tf.TensorShape(None)", "dataset_that_fails()")

CONFIG = tf_leaky.LeakyReLU(0.3, trainable_alpha=True, axis=-1).get_config()
KERAS_KEYS = ("name", "dtype", "trainable")  # Keras says which
OLD_KEYS = ("negative_slope", "axes")
BOOLS = {"True", "False"}
AXES = {"None", "1", "-1", "(1,)"}
OF_AXIS = {*THREE, "{'value': 0.5}"}
LAYER = {
    "alpha": POSITIVE,
    "trainable_alpha": BOOLS,
    "axis": AXES,
    "alpha_constraint": CONSTRAINTS,
    "alpha_regularizer": REGULARIZERS,
}


def from_keys(**config):
    """With the keys of other Kerases only if they are given."""
    return from_config({k: v for k, v in config.items() if not (k in OLD_KEYS and v is None)})


def face(public, subjects=(), call=None, *, given, right, **kwargs):
    """A face whose `given` and `right` are by argument; a given value that is no maker is one."""
    makers = {
        name: value if callable(value) else functools.partial(lambda value: value, value)
        for name, value in given.items()
    }
    if call is None:  # what this version does not take is left out
        known = inspect.signature(public).parameters
        makers = {name: make for name, make in makers.items() if name in known}
    right = {name: {*right.get(name, ())} for name in makers}
    return Face(call or public, makers, right, public, (*subjects, public.__name__), **kwargs)


our_model = functools.partial(wrong.kept, "our_model()")
layer_face = functools.partial(face, tf_leaky.LeakyReLU, through_keras=True)
FACES = {
    "leaky_relu": face(
        tf_leaky.leaky_relu,
        given={"x": X, "alpha": 0.3, "positive_alpha": False},
        right={
            "x": FLOATS
            | SCALARS
            | {*things("[]  ()  [math.nan]  collections.deque([0.1])  nested(100)"), PAIR}
            | {
                *things(
                    "[0.1] * 100_000  array.array('d', [0.1, 0.2, 0.3])  [tf.constant(0.1)] * 3"
                )
            },
            "alpha": NUMBERS | ROWS | SLOPES,
            "positive_alpha": BOOLS,
        },
        check=value_is_the_formula,
    ),
    "LeakyReLU": layer_face(
        call=called_layer,
        given={
            "alpha": 0.3,
            "trainable_alpha": True,
            "axis": None,
            "alpha_constraint": "positive",
            "alpha_regularizer": None,
            "name": None,
            "dtype": None,
            "trainable": True,
        },
        right=LAYER,
        keras=KERAS_KEYS,
    ),
    "LeakyReLU.__call__": layer_face(
        ("leaky_relu",),
        lambda inputs: tf_leaky.LeakyReLU(0.5)(inputs),
        given={"inputs": X},
        right={"inputs": FLOATS | {"tf.keras.Input((3,))"} | (set() if KERAS_3 else SCALARS)},
        says={"inputs": ("inputs", "x", "input_shape")},
    ),
    "LeakyReLU.build": layer_face(
        call=built,
        given={"input_shape": (None, 3)},
        right={
            "input_shape": things(
                "None  []  ()  (1,)  [None]  tf.TensorShape([None, 3])  tf.TensorShape(None)"
            )
        },
    ),
    "LeakyReLU.from_config": layer_face(
        call=from_config,
        given={"config": CONFIG},
        right={"config": {"{}"}},
        says={"config": ("config", *CONFIG)},
    ),
    "LeakyReLU.from_config, by keys": layer_face(
        call=from_keys,
        given={key: CONFIG.get(key) for key in (*CONFIG, *OLD_KEYS)},
        right=LAYER
        | {"alpha": POSITIVE | OF_AXIS, "negative_slope": POSITIVE | OF_AXIS | {"None"}}
        | {"axes": AXES},
        says={"negative_slope": ("alpha",), "axes": ("axis",)},
        keras=KERAS_KEYS,
    ),
    "convert": face(
        tf_leaky.convert,
        ("LeakyReLU",),
        given={
            "model": functools.partial(wrong.kept, "model(layers.ReLU(name='relu'))"),
            "alpha": None,
            "trainable_alpha": None,
            "axis": None,
            "fuse_batch_norm": False,
            "strict": False,
        },
        right={"alpha": NUMBERS | {"None"}, "trainable_alpha": {"None", "False"}, "axis": {"None"}}
        | dict.fromkeys(("fuse_batch_norm", "strict"), BOOLS),
        either={"model": MODELS},
    ),
    "freeze": face(
        tf_leaky.freeze,
        given={"model": our_model, "target": "serving", "fold_batch_norm": False},
        right={"target": {"'litert'"}, "fold_batch_norm": BOOLS},
        either={"model": MODELS},
    ),
    "to_keras": face(
        tf_leaky.to_keras, given={"model": our_model}, right={}, either={"model": MODELS}
    ),
    "export_saved_model": face(
        tf_leaky.export_saved_model,
        given={
            "model": our_model,
            "base_path": "base",
            "version": None,
            "warmup": None,
            "check": True,
        },
        right={
            "model": MODELS,
            "base_path": TEXTS | FOLDERS | {"PathOf(str(folder))"},
            "version": {"None", "1", "3", "np.int64(2)"},
            "warmup": TABLES | {"None"},
            "check": BOOLS,
        },
    ),
    "plot_leaky_relu": face(
        tf_leaky.plot_leaky_relu,
        given={"alpha": 0.3, "ax": None},
        right={
            "alpha": NUMBERS
            | ROWS
            | WIDE
            | {"[-1, 1]", PAIR, "LeakyReLU(0.3)"}
            | {"our_model().layers[-1]"},
            "ax": {"None", "axes()"},
        },
    ),
    "plot_activations": face(
        tf_leaky.plot_activations,
        given={"model": our_model, "inputs": X, "layers": None},
        right={"inputs": DATA, "layers": {"None", "'leaky'"}},
        either={"model": MODELS},
        says={"inputs": ("data",), "model": ("model", "data")},
        own=FAIL,
    ),
    "ActivationMonitor": face(
        tf_leaky.ActivationMonitor,
        call=monitored,
        given={"data": X, "every": 1, "log_dir": None},
        right={
            "data": DATA,
            "every": things("1  3  2**63  10**400  10**5000  np.int64(2)"),
            "log_dir": TEXTS | FOLDERS | {"None", "folder / 'a[1]*'", "'~nobody-of-that-name/new'"},
        },
        own=FAIL,
        begun=("data",),
    ),
}
if hasattr(tf_leaky, "BatchNormLeakyReLU"):
    # What it hands on to Keras, or takes as Keras's layer does.
    _parts = ("initializer", "regularizer", "constraint")
    _arguments = inspect.signature(tf_leaky.BatchNormLeakyReLU).parameters
    _as_keras = [name for name in _arguments if name.endswith(_parts) and "alpha" not in name]
    _as_keras += ["center", "scale", "synchronized", "momentum", "epsilon", *KERAS_KEYS]
    FACES["BatchNormLeakyReLU"] = face(
        tf_leaky.BatchNormLeakyReLU,
        call=called_batch_norm,
        given={
            **{name: each.default for name, each in _arguments.items() if name != "kwargs"},
            "name": None,
            "dtype": None,
            "trainable": True,
        },
        right={
            "alpha": POSITIVE,
            "trainable_alpha": BOOLS,
            "alpha_axis": {"None", "1", "-1"},
            "alpha_constraint": CONSTRAINTS,
            "alpha_regularizer": REGULARIZERS,
            "axis": {"1", "-1"},
        },
        either={"axis": {"0"}, "alpha_axis": {"3"}},
        keras=tuple(_as_keras),
        through_keras=True,
    )
ARGUMENTS = [(name, argument) for name, each in FACES.items() for argument in each.given]


@contextlib.contextmanager
def within(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


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


def fault_of_error(face, given, error):
    """What is wrong with an error, or nothing; `given` are the things by argument."""
    if {*given.values()} & {*face.own} or {*given} & {*face.keras}:
        return ""
    # A model's own error goes through, with a note of what it was called on; Python 3.10 has none.
    runs_a_model = {*given} & {"data", "inputs", "model", "warmup"}
    notes = getattr(error, "__notes__", ()) if sys.version_info >= (3, 11) else (MODELS_OWN,)
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
    found = HOUSE.search(message) if face.through_keras else HOUSE.fullmatch(message)
    if isinstance(error, tf.errors.OpError) or not found or found["subject"] not in face.subjects:
        return "not in the house form"
    spoken = [word for name in given for word in face.says.get(name, (name,))]
    if not any(re.search(rf"\b{word}\b", found["received"]) for word in spoken):
        return f"doesn't speak of {spoken}"
    return ""


def fault(face, given, folder):
    """What is wrong with what comes of a call with these things by argument, or nothing."""
    folder.mkdir()
    (folder / "there.txt").write_text("there")
    arguments = {name: make() for name, make in face.given.items()}
    arguments |= {name: wrong.make(thing, folder) for name, thing in given.items()}
    before, figures = on_disk(folder), pyplot.get_fignums()
    right = all(thing in face.right[name] for name, thing in given.items())
    either = len(given) > 1 or any(
        thing in face.either.get(name, ()) or name in face.keras for name, thing in given.items()
    )
    try:
        with within(folder):
            answer = face.call(**arguments)
            face.check(arguments, answer)
        return "" if right or either else f"answered {shown(answer)[:100]}"
    except Exception as error:
        what = fault_of_error(face, given, error)
        if right and not either:
            what = "an error where an answer is right"
        begun = any(f"expected {name} " in str(error) for name in face.begun)
        if not what and not begun and (on_disk(folder), pyplot.get_fignums()) != (before, figures):
            what = "left something behind"
        return what and f"{what}: {type(error).__name__}: {str(error)[:300]}"
    finally:
        pyplot.close("all")


def assert_no_faults(public, given, folder):
    found = [(each, fault(FACES[public], each, folder / str(i))) for i, each in enumerate(given)]
    assert not any(what for _, what in found), [each for each in found if each[1]]


@pytest.mark.parametrize("count", [5, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("public", "argument"), ARGUMENTS)
def test_each_argument(public, argument, count, tmp_path):
    chosen = wrong.NAMES if count is None else random.Random(argument).sample(wrong.NAMES, count)
    assert_no_faults(public, [{argument: name} for name in chosen], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("public", [name for name, each in FACES.items() if len(each.given) > 1])
def test_pairs_of_arguments(public, tmp_path):
    """Two at once; half of them of what is right, so that not all end at the first check."""
    chance, face = random.Random(public), FACES[public]

    def one(argument):
        right = sorted(face.right[argument]) or wrong.NAMES
        return chance.choice(right if chance.random() < 0.5 else wrong.NAMES)

    pairs = [chance.sample(sorted(face.given), 2) for _ in range(300)]
    assert_no_faults(public, [{each: one(each) for each in pair} for pair in pairs], tmp_path)


@pytest.mark.parametrize("key", CONFIG)
def test_config_with_a_key_left_out(key):
    assert from_config({name: value for name, value in CONFIG.items() if name != key})


def test_every_argument_of_every_public_name_is_here():
    for name in tf_leaky.__all__:
        if callable(getattr(tf_leaky, name)):
            arguments = inspect.signature(getattr(tf_leaky, name)).parameters.values()
            expected = {each.name for each in arguments if each.kind != each.VAR_KEYWORD}
            assert expected <= FACES[name].given.keys(), name
    for name, each in FACES.items():
        used = set().union(*each.right.values(), *each.either.values(), each.own)
        assert used <= {*wrong.NAMES}, (name, used - {*wrong.NAMES})


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
        (leave_a_file, "left something behind"),
        (lambda **_: tf.constant(3.0), "wrong answer|answered|Assertion"),
    ],
)
def test_what_is_a_fault(call, match, tmp_path):
    """The test of the test."""
    face = dataclasses.replace(FACES["leaky_relu"], call=call)
    assert re.search(match, fault(face, {"x": "1"}, tmp_path / "folder"))
