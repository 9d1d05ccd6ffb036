r"""Some 200 things to give as an argument, each an expression that is also its name.

Few are wrong everywhere: `test_fuzz.py` says where one is right. Those of PATHS use `folder`, the
folder that they are made in.
"""

# ruff: noqa: F401  the expressions use these imports
import array
import collections
import datetime
import decimal
import fractions
import functools
import importlib
import io
import math
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


class Subclassed(tf.keras.Model):
    """A model that is a class of its own."""

    def __init__(self):
        super().__init__()
        self.dense, self.act = layers.Dense(4), layers.ReLU()

    def call(self, x):
        return self.act(self.dense(x))


@functools.cache
def other_keras():
    return importlib.import_module("tf_keras" if KERAS_3 else "keras")


def nested(depth):
    return functools.reduce(lambda value, _: [value], range(depth), 0.1)


def in_itself():
    rows = [0.1]
    rows.append(rows)
    return rows


def array_of(thing):
    made = np.empty(1, object)
    made[0] = thing
    return made


def graph_tensor():
    """A tensor of a graph that is gone."""
    kept = []
    tf.function(lambda x: kept.append(x + 1) or x)(tf.ones([2, 3]))
    return kept[0]


def model(*parts, shape=(3,), **kwargs):
    return tf.keras.Sequential([tf.keras.Input(shape, **kwargs), *parts])


def our_model():
    relu = layers.Dense(4, activation="relu", name="dense")
    return model(relu, LeakyReLU(0.3, trainable_alpha=True, axis=-1, name="leaky"))


def identity_model():
    x = tf.keras.Input((3,))
    try:
        return tf.keras.Model(x, x)
    except ValueError:  # older Kerases want a layer between
        return tf.keras.Model(x, layers.Identity()(x))


def model_of_two_inputs():
    x, y = tf.keras.Input((3,), name="one"), tf.keras.Input((3,), name="two")
    return tf.keras.Model([x, y], layers.ReLU()(layers.Add()([x, y])))


def called(made):
    made(np.zeros((1, 3), "float32"))
    return made


def model_of_other_keras():
    keras = other_keras()
    return keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])


def dataset_that_fails():
    numbers = tf.data.Dataset.range(3, output_type=tf.float32)
    return numbers.map(lambda number: tf.debugging.check_numerics(0 / (number - 1), "hostile"))


def axes(**kwargs):
    from matplotlib.figure import Figure

    return Figure().add_subplot(**kwargs)


def link(path, target):
    if not path.is_symlink():
        path.symlink_to(target)
    return path


def things(text):
    """The expressions of a text, which stand on lines, or with two spaces between them."""
    return tuple(each.strip() for line in text.splitlines() for each in line.split("  ") if each)


SIMPLE = things(r"""
None  True  False  0  -0.0  1  -1  3  0.5  -2.5  1e-320  1e39  math.nan  math.inf  -math.inf
2**63  10**400  -10**400  10**5000  1j  fractions.Fraction(1, 4)  fractions.Fraction(10**5000, 3)
decimal.Decimal('0.1')  np.float16('nan')  np.longdouble('1e4000')  np.int64(2)  np.bool_(True)
np.datetime64('2026-01-01')  datetime.date(2026, 1, 1)
''  ' '  'text'  '0.1'  'positive'  'relu'  'leaky'  'litert'  'non_neg'  'x' * 10**6  'a\0b'
'a\udcffb'  '\n\n'  np.str_('text')  b'bytes'  bytearray(b'bytes')  memoryview(b'bytes')
[]  ()  {}  set()  (1,)  [-1, 1]  [1, 'a']  [None]  [math.nan]  [[0.1], [0.2, 0.3]]
in_itself()  nested(100)  nested(5000)  [0.1] * 100_000  ['x' * 10_000] * 1000
{'a': 1}  {1: 2}  {None: None}  {'leaky': True}  {'value': 0.5}
{'type': 'ndarray', 'value': {'value': 0.5}}  {'class_name': 'NoSuch', 'config': {}}
frozenset([0.1])  range(3)  slice(3)  collections.deque([0.1])  types.MappingProxyType({'a': 1})
collections.namedtuple('Pair', 'a b')(0.1, 0.2)  iter([0.1])  iter(())
(each for each in (0.1, 0.2))  (1 / 0 for _ in range(2))  array.array('d', [0.1, 0.2, 0.3])
np.array([])  np.zeros((0, 3), 'f')  np.array(0.25)  np.array([0.1, 0.2, 0.3])
np.array([0.1, np.nan, 0.3])  np.float32([[1, -2, 3], [-4, 5, -6]])  np.full((2, 3), np.nan, 'f')
np.full((2, 3), 1e300)  np.ones((2, 7), 'f')  np.ones((1,) * 8, 'f')  np.ones(10**6, 'f')
np.ones((2, 3), int)  np.ones((2, 3), bool)  np.ones((2, 3), complex)  np.full((2, 3), 'text')
np.full((2, 3), None, object)  array_of(Hostile())  np.zeros(2, [('a', float), ('b', int)])
np.zeros(2, 'datetime64[s]')  np.ma.masked_array([0.1, 0.2, 0.3], [0, 1, 0])
np.broadcast_to(np.float32(0.5), (2, 3))
object()  object  len  lambda x: x  types  ValueError('wrong')  ...  NotImplemented  Hostile()
[Hostile(), Hostile()]  ArrayThatFails()  threading.Lock()  io.BytesIO()
""")
# What takes time to make, and nothing changes.
KEPT = things(r"""
tf.constant(0.25)  tf.constant([[1.0, -2, 3], [-4, 5, -6]])  tf.constant([0.1, 0.2, 0.3], 'float64')
tf.constant(1)  tf.constant('a')  tf.Variable(0.1).handle  tf.Variable([0.1, 0.2, 0.3])
[tf.constant(0.1)] * 3  tf.ragged.constant([[1.0], []])  tf.sparse.from_dense([[1.0, 0, 2]])
tf.TensorArray('float32', 1)  graph_tensor()  tf.keras.Input((3,))  other_keras().Input((3,))
[tf.keras.Input((3,))] * 2  tf.TensorSpec([None, 3])  tf.TensorShape([None, 3])
tf.TensorShape(None)  (None, -3)  (None, '3')  tf.float32  tf.keras.optimizers.SGD()
tf.data.Dataset.from_tensor_slices(tf.ones([4, 3])).batch(2)
tf.data.Dataset.from_tensors((tf.ones([2, 3]), tf.ones([2, 1])))
tf.data.Dataset.from_tensor_slices(tf.ones([4, 3]))
tf.data.Dataset.from_tensor_slices(tf.ones([0, 3]))
tf.data.Dataset.from_tensors(tf.ones([2, 3])).repeat()
dataset_that_fails()
our_model()  model(layers.ReLU(name='relu'))  model(layers.Dense(2))  tf.keras.Sequential()
tf.keras.Sequential([layers.Dense(2), layers.ReLU()])  identity_model()  called(Subclassed())
Subclassed()  tf.keras.Model()  model_of_two_inputs()  model(our_model(), layers.ReLU())
model(layers.Embedding(3, 2), layers.ReLU(), dtype='int32')
model(layers.StringLookup(vocabulary=['a']), dtype='string')
model(layers.Lambda(lambda x: 2 * x), layers.ReLU())
model(layers.SimpleRNN(2, activation='relu'), layers.ReLU(), shape=(5, 3))
model_of_other_keras()
LeakyReLU(0.3)  our_model().layers[-1]  layers.ReLU()  tf.keras.Model  LeakyReLU  tf.Module()
tf.keras.constraints.NonNeg()  tf.keras.constraints.NonNeg
tf.keras.regularizers.L2(0.1)  tf.keras.regularizers.L2
axes()  axes(projection='polar')  axes(projection='3d')  axes().figure  [axes()]
""")
PATHS = things(r"""
folder  str(folder)  os.fsencode(folder)  PathOf(str(folder))  PathOf(folder)
PathOf(os.fsencode(folder))  PathOf(None)  folder / 'new' / 'newer'  folder / 'there.txt'
folder / 'there.txt' / 'new'  link(folder / 'link', 'nowhere')  link(folder / 'link', 'link')
link(folder / 'link', 'link') / 'new'  folder / ('x' * 300)  folder.joinpath(*['x' * 200] * 30)
f'{folder}/a\0b'  os.fsdecode(os.fsencode(folder) + b'/\xff')  folder / 'a[1]*'  '/proc/1/new'
Path('/dev/null')  '/dev/full'  Path('/dev/full/new')  '~nobody-of-that-name/new'
""")
NAMES = SIMPLE + KEPT + PATHS


@functools.cache
def kept(name):
    return eval(name, globals())


def make(name, folder=None):
    """The thing of such a name."""
    return kept(name) if name in KEPT else eval(name, globals() | {"folder": folder})
