"""A few dozen wrong things to give as an argument, by name; each is made when it is asked for.

Few are wrong everywhere: `tests/laws/test_fuzz.py` says where one is right.
"""

import array
import collections
import datetime
import decimal
import fractions
import functools
import importlib
import io
import os
import threading
import types
from pathlib import Path

import numpy as np
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import LeakyReLU

layers = tf.keras.layers


class Hostile:
    """All that may be asked of it fails."""

    def _fail(self, *_, **__):
        raise ZeroDivisionError("hostile")

    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = __contains__ = _fail
    __bool__ = __int__ = __float__ = __index__ = __complex__ = __eq__ = __lt__ = __fspath__ = _fail
    __array__ = __add__ = __mul__ = _fail
    __hash__ = object.__hash__


class ArrayThatFails:
    """Where NumPy and TensorFlow ask what it is as an array."""

    def __array__(self, *_, **__):
        raise RuntimeError("no array today")


class PathOf(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@functools.cache
def other_keras():
    return importlib.import_module("tf_keras" if KERAS_3 else "keras")


def nested(depth, value=0.1):
    for _ in range(depth):
        value = [value]
    return value


def holds_itself():
    rows = [0.1]
    rows.append(rows)
    return rows


def array_of_hostile():
    array = np.empty(1, object)
    array[0] = Hostile()
    return array


def graph_tensor():
    """A tensor of a graph that is gone."""
    kept = []

    @tf.function
    def function(x):
        kept.append(x + 1)
        return x

    function(tf.ones([2, 3]))
    return kept[0]


class Called(tf.keras.Model):
    """A model that is a class of its own; Keras can't rewrite it."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)
        self.act = layers.ReLU()

    def call(self, x):
        return self.act(self.dense(x))


def called():
    model = Called()
    model(np.zeros((1, 3), "float32"))
    return model


def sequential(*parts, size=3, **kwargs):
    return tf.keras.Sequential([tf.keras.Input((size,), **kwargs), *parts])


def ours():
    return sequential(
        layers.Dense(4, activation="relu", name="dense"),
        LeakyReLU(0.3, trainable_alpha=True, axis=-1, name="leaky"),
    )


def identity():
    x = tf.keras.Input((3,))
    try:
        return tf.keras.Model(x, x)
    except ValueError:  # older Kerases want a layer between
        return tf.keras.Model(x, layers.Identity()(x))


def two_inputs():
    x, y = tf.keras.Input((3,), name="one"), tf.keras.Input((3,), name="two")
    return tf.keras.Model([x, y], layers.ReLU()(layers.Add()([x, y])))


def recurrent():
    return tf.keras.Sequential(
        [tf.keras.Input((5, 3)), layers.SimpleRNN(2, activation="relu"), layers.ReLU()]
    )


def axes(**kwargs):
    from matplotlib.figure import Figure

    return Figure().add_subplot(**kwargs)


# A number's places.
NUMBERS = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "0": lambda: 0,
    "-0.0": lambda: -0.0,
    "1": lambda: 1,
    "-1": lambda: -1,
    "3": lambda: 3,
    "0.5": lambda: 0.5,
    "-2.5": lambda: -2.5,
    "1e-320": lambda: 1e-320,
    "1e39": lambda: 1e39,
    "NaN": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: -float("inf"),
    "2**63": lambda: 2**63,
    "10**400": lambda: 10**400,
    "-10**400": lambda: -(10**400),
    "10**5000": lambda: 10**5000,
    "1j": lambda: 1j,
    "fraction": lambda: fractions.Fraction(1, 4),
    "fraction of huge": lambda: fractions.Fraction(10**5000, 3),
    "decimal": lambda: decimal.Decimal("0.1"),
    "np.float16 NaN": lambda: np.float16("nan"),
    "np.longdouble": lambda: np.longdouble("1e4000"),
    "np.int64": lambda: np.int64(2),
    "np.bool_": lambda: np.bool_(True),
    "np.datetime64": lambda: np.datetime64("2026-01-01"),
    "date": lambda: datetime.date(2026, 1, 1),
}
TEXTS = {
    "empty text": lambda: "",
    "spaces": lambda: "  ",
    "text": lambda: "text",
    "'0.1'": lambda: "0.1",
    "'positive'": lambda: "positive",
    "'relu'": lambda: "relu",
    "'leaky'": lambda: "leaky",
    "'litert'": lambda: "litert",
    "'non_neg'": lambda: "non_neg",
    "long text": lambda: "x" * 1_000_000,
    "text with 0": lambda: "a\0b",
    "surrogate": lambda: "a\udcffb",
    "line feeds": lambda: "\n\n",
    "np.str_": lambda: np.str_("text"),
    "bytes": lambda: b"bytes",
    "bytearray": lambda: bytearray(b"bytes"),
    "memoryview": lambda: memoryview(b"bytes"),
}
COLLECTIONS = {
    "[]": list,
    "()": tuple,
    "{}": dict,
    "empty set": set,
    "(1,)": lambda: (1,),
    "[-1, 1]": lambda: [-1, 1],
    "[1, 'a']": lambda: [1, "a"],
    "[None]": lambda: [None],
    "[NaN]": lambda: [float("nan")],
    "ragged lists": lambda: [[0.1], [0.2, 0.3]],
    "list in itself": holds_itself,
    "100 lists deep": lambda: nested(100),
    "5000 lists deep": lambda: nested(5000),
    "long list": lambda: [0.1] * 100_000,
    "list of long texts": lambda: ["x" * 10_000] * 1000,
    "{'a': 1}": lambda: {"a": 1},
    "{1: 2}": lambda: {1: 2},
    "{None: None}": lambda: {None: None},
    "{'leaky': True}": lambda: {"leaky": True},
    "{'value': 0.5}": lambda: {"value": 0.5},
    "{'value': {}}": lambda: {"type": "ndarray", "value": {"value": 0.5}},
    "serialized": lambda: {"class_name": "NoSuch", "config": {}},
    "frozenset": lambda: frozenset([0.1]),
    "range": lambda: range(3),
    "slice": lambda: slice(3),
    "deque": lambda: collections.deque([0.1]),
    "named tuple": lambda: collections.namedtuple("Pair", "a b")(0.1, 0.2),
    "mapping proxy": lambda: types.MappingProxyType({"a": 1}),
    "empty generator": lambda: (each for each in ()),
    "generator": lambda: (each for each in (0.1, 0.2)),
    "generator that fails": lambda: (1 / 0 for _ in range(2)),
    "iterator": lambda: iter([0.1]),
    "array.array": lambda: array.array("d", [0.1, 0.2, 0.3]),
}
ARRAYS = {
    "empty array": lambda: np.array([]),
    "array of 0 rows": lambda: np.zeros((0, 3), "float32"),
    "0-d array": lambda: np.array(0.25),
    "3 numbers": lambda: np.array([0.1, 0.2, 0.3]),
    "NaN array": lambda: np.array([0.1, np.nan, 0.3]),
    "2 by 3": lambda: np.float32([[1, -2, 3], [-4, 5, -6]]),
    "2 by 3 of NaN": lambda: np.full((2, 3), np.nan, "float32"),
    "2 by 3 of 1e300": lambda: np.full((2, 3), 1e300),
    "2 by 7": lambda: np.ones((2, 7), "float32"),
    "8-d": lambda: np.ones((1,) * 8, "float32"),
    "long array": lambda: np.ones(1_000_000, "float32"),
    "int array": lambda: np.ones((2, 3), int),
    "bool array": lambda: np.ones((2, 3), bool),
    "complex array": lambda: np.ones((2, 3), complex),
    "text array": lambda: np.full((2, 3), "text"),
    "object array": lambda: np.full((2, 3), None, object),
    "array of hostile": array_of_hostile,
    "structured array": lambda: np.zeros(2, [("a", float), ("b", int)]),
    "dates": lambda: np.zeros(2, "datetime64[s]"),
    "masked array": lambda: np.ma.masked_array([0.1, 0.2, 0.3], [0, 1, 0]),
    "read-only array": lambda: np.broadcast_to(np.float32(0.5), (2, 3)),
}
TENSORS = {
    "tensor": lambda: tf.constant(0.25),
    "tensor of 2 by 3": lambda: tf.constant([[1.0, -2, 3], [-4, 5, -6]]),
    "float64 tensor": lambda: tf.constant([0.1, 0.2, 0.3], tf.float64),
    "int tensor": lambda: tf.constant(1),
    "text tensor": lambda: tf.constant("a"),
    "resource": lambda: tf.Variable(0.1).handle,
    "variable": lambda: tf.Variable([0.1, 0.2, 0.3]),
    "list of tensors": lambda: [tf.constant(0.1)] * 3,
    "ragged": lambda: tf.ragged.constant([[1.0], []]),
    "sparse": lambda: tf.sparse.from_dense([[1.0, 0, 2]]),
    "tensor array": lambda: tf.TensorArray(tf.float32, 1),
    "graph tensor": graph_tensor,
    "symbolic": lambda: tf.keras.Input((3,)),
    "symbolic of other Keras": lambda: other_keras().Input((3,)),
    "list of symbolic": lambda: [tf.keras.Input((3,))] * 2,
    "spec": lambda: tf.TensorSpec([None, 3]),
    "shape": lambda: tf.TensorShape([None, 3]),
    "unknown shape": lambda: tf.TensorShape(None),
    "shape of negatives": lambda: (None, -3),
    "shape of text": lambda: (None, "3"),
    "dtype": lambda: tf.float32,
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(tf.ones([4, 3])).batch(2),
    "dataset of pairs": lambda: tf.data.Dataset.from_tensors((tf.ones([2, 3]), tf.ones([2, 1]))),
    "unbatched dataset": lambda: tf.data.Dataset.from_tensor_slices(tf.ones([4, 3])),
    "empty dataset": lambda: tf.data.Dataset.from_tensor_slices(tf.ones([0, 3])),
    "infinite dataset": lambda: tf.data.Dataset.from_tensors(tf.ones([2, 3])).repeat(),
    "dataset that fails": lambda: tf.data.Dataset.range(3).map(
        lambda i: tf.debugging.check_numerics(0 / (tf.cast(i, tf.float32) - 1), "hostile")
    ),
    "optimizer": lambda: tf.keras.optimizers.SGD(),
}
MODELS = {
    "our model": ours,
    "stock model": lambda: sequential(layers.ReLU(name="relu")),
    "model without activations": lambda: sequential(layers.Dense(2)),
    "empty model": lambda: tf.keras.Sequential(),
    "model not built": lambda: tf.keras.Sequential([layers.Dense(2), layers.ReLU()]),
    "identity model": identity,
    "subclassed model": called,
    "subclassed model not called": Called,
    "plain tf.keras.Model": lambda: tf.keras.Model(),
    "model of two inputs": two_inputs,
    "model of integers": lambda: sequential(layers.Embedding(3, 2), layers.ReLU(), dtype="int32"),
    "model of texts": lambda: sequential(layers.StringLookup(vocabulary=["a"]), dtype="string"),
    "model in a model": lambda: sequential(ours(), layers.ReLU()),
    "model with a Lambda": lambda: sequential(layers.Lambda(lambda x: 2 * x), layers.ReLU()),
    "recurrent model": recurrent,
    "model of other Keras": lambda: other_keras().Sequential(
        [other_keras().Input((3,)), other_keras().layers.ReLU()]
    ),
    "layer": lambda: LeakyReLU(0.3),
    "built layer": lambda: ours().layers[-1],
    "stock layer": lambda: layers.ReLU(),
    "model class": lambda: tf.keras.Model,
    "layer class": lambda: LeakyReLU,
    "tf.Module": lambda: tf.Module(),
    "constraint": lambda: tf.keras.constraints.NonNeg(),
    "constraint class": lambda: tf.keras.constraints.NonNeg,
    "regularizer": lambda: tf.keras.regularizers.L2(0.1),
    "regularizer class": lambda: tf.keras.regularizers.L2,
}
OBJECTS = {
    "object": object,
    "object class": lambda: object,
    "function": lambda: len,
    "lambda": lambda: lambda x: x,
    "module": lambda: types,
    "exception": lambda: ValueError("wrong"),
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "hostile object": Hostile,
    "list of hostile objects": lambda: [Hostile(), Hostile()],
    "array that fails": ArrayThatFails,
    "lock": threading.Lock,
    "file": io.BytesIO,
}
AXES = {
    "axes": axes,
    "polar axes": lambda: axes(projection="polar"),
    "3-D axes": lambda: axes(projection="3d"),
    "figure": lambda: axes().figure,
    "list of axes": lambda: [axes()],
}


def _link(folder, target):
    (folder / "link").symlink_to(target)
    return folder / "link"


# These take the folder that they are made in.
PATHS = {
    "folder": lambda folder: folder,
    "folder's name": str,
    "folder's bytes": os.fsencode,
    "path of folder": lambda folder: PathOf(str(folder)),
    "path of a path": PathOf,
    "path of bytes": lambda folder: PathOf(os.fsencode(folder)),
    "path of nothing": lambda folder: PathOf(None),
    "new folder": lambda folder: folder / "new" / "newer",
    "file in folder": lambda folder: folder / "there.txt",
    "below a file": lambda folder: folder / "there.txt" / "new",
    "link to nothing": lambda folder: _link(folder, "nowhere"),
    "link to itself": lambda folder: _link(folder, "link"),
    "below a link to itself": lambda folder: _link(folder, "link") / "new",
    "long name": lambda folder: folder / ("x" * 300),
    "long path": lambda folder: folder.joinpath(*["x" * 200] * 30),
    "path with 0": lambda folder: f"{folder}/a\0b",
    "path not UTF-8": lambda folder: os.fsdecode(os.fsencode(folder) + b"/\xff"),
    "path with a pattern": lambda folder: folder / "a[1]*",
    "/proc": lambda folder: "/proc/1/new",
    "/dev/null": lambda folder: Path("/dev/null"),
    "/dev/full": lambda folder: "/dev/full",
    "below /dev/full": lambda folder: Path("/dev/full/new"),
    "nobody's home": lambda folder: "~nobody-of-that-name/new",
}

# What takes time to make, and nothing changes.
KEPT = {name: functools.cache(make) for name, make in (TENSORS | MODELS | AXES).items()}
EVERYWHERE = NUMBERS | TEXTS | COLLECTIONS | ARRAYS | KEPT | OBJECTS
NAMES = (*EVERYWHERE, *PATHS)


def make(name, folder):
    """The wrong thing of such a name; those that are paths are in `folder`."""
    return PATHS[name](folder) if name in PATHS else EVERYWHERE[name]()
