r"""Things to give as an argument, each an expression that is also its name.

Few are wrong everywhere: `test_fuzz.py` says where one is right. Those of PATHS use `folder`, the
folder that they are made in.
"""

# ruff: noqa: F401  the expressions use these imports
import decimal
import fractions
import functools
import importlib
import math
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import LeakyReLU

layers = tf.keras.layers


class Fails:
    """All that may be asked of it fails."""

    def _fail(self, *_, **__):
        raise ZeroDivisionError("no")

    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = __contains__ = _fail
    __bool__ = __int__ = __float__ = __index__ = __eq__ = __fspath__ = __array__ = _fail
    __hash__ = object.__hash__


class ArrayThatFails:
    """Where NumPy and TensorFlow ask what it is as an array."""

    def __array__(self, *_, **__):
        raise RuntimeError("no array today")


@functools.cache
def other_keras():
    return importlib.import_module("tf_keras" if KERAS_3 else "keras")


def in_itself():
    rows = [0.1]
    rows.append(rows)
    return rows


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


def model_of_two_inputs():
    x, y = tf.keras.Input((3,), name="one"), tf.keras.Input((3,), name="two")
    return tf.keras.Model([x, y], layers.ReLU()(layers.Add()([x, y])))


def model_of_other_keras():
    keras = other_keras()
    return keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])


def axes(**kwargs):
    from matplotlib.figure import Figure

    return Figure().add_subplot(**kwargs)


def things(text):
    """The expressions of a text, which stand on lines, or with two spaces between them."""
    return tuple(each.strip() for line in text.splitlines() for each in line.split("  ") if each)


SIMPLE = things(r"""
None  True  False  0  -0.0  1  -1  3  0.5  -2.5  1e39  math.nan  -math.inf  -10**400  10**5000  1j
fractions.Fraction(1, 4)  decimal.Decimal('0.1')  np.float16('nan')  np.int64(2)  np.bool_(True)
''  ' '  'text'  '0.1'  'positive'  'relu'  'litert'  'non_neg'  'x' * 10**6  b'bytes'
[]  ()  {}  set()  (1,)  [-1, 1]  [1, 'a']  [None]  [math.nan]  [[0.1], [0.2, 0.3]]  in_itself()
[0.1] * 100_000  ['x' * 10_000] * 1000  {'a': 1}  {1: 2}  {'value': 0.5}
{'class_name': 'NoSuch', 'config': {}}  range(3)  iter([0.1])  iter(())
(each for each in (0.1, 0.2))  (1 / 0 for _ in range(2))
np.array([])  np.zeros((0, 3), 'f')  np.array(0.25)  np.array([0.1, 0.2, 0.3])
np.array([0.1, np.nan, 0.3])  np.float32([[1, -2, 3], [-4, 5, -6]])  np.full((2, 3), np.nan, 'f')
np.full((2, 3), 1e300)  np.ones((2, 7), 'f')  np.ones((1,) * 8, 'f')  np.ones(10**6, 'f')
np.ones((2, 3), int)  np.ones((2, 3), bool)  np.full((2, 3), 'text')  np.full((2, 3), None, object)
object()  object  len  lambda x: x  math  ValueError('wrong')  Fails()  [Fails()]  ArrayThatFails()
""")
# What takes time to make, and nothing changes.
KEPT = things(r"""
tf.constant(0.25)  tf.constant([[1.0, -2, 3], [-4, 5, -6]])  tf.constant([0.1, 0.2, 0.3], 'float64')
tf.constant(1)  tf.constant('a')  tf.Variable([0.1, 0.2, 0.3])  [tf.constant(0.1)] * 3
tf.ragged.constant([[1.0], []])  tf.sparse.from_dense([[1.0, 0, 2]])  graph_tensor()
tf.keras.Input((3,))  other_keras().Input((3,))  [tf.keras.Input((3,))] * 2
tf.TensorSpec([None, 3])  tf.TensorShape([None, 3])  tf.TensorShape(None)  (None, -3)  (None, '3')
tf.float32  tf.keras.optimizers.SGD()
tf.data.Dataset.from_tensor_slices(tf.ones([4, 3])).batch(2)
tf.data.Dataset.from_tensors((tf.ones([2, 3]), tf.ones([2, 1])))
tf.data.Dataset.from_tensor_slices(tf.ones([4, 3]))
tf.data.Dataset.from_tensor_slices(tf.ones([0, 3]))
tf.data.Dataset.from_tensors(tf.ones([2, 3])).repeat()
our_model()  model(layers.ReLU(name='relu'))  model(layers.Dense(2))  tf.keras.Sequential()
tf.keras.Sequential([layers.Dense(2), layers.ReLU()])
model_of_two_inputs()  model(our_model(), layers.ReLU())  model_of_other_keras()
model(layers.Embedding(3, 2), layers.ReLU(), dtype='int32')
model(layers.Lambda(lambda x: 2 * x), layers.ReLU())
LeakyReLU(0.3)  our_model().layers[-1]  layers.ReLU()  tf.keras.Model  LeakyReLU
tf.keras.constraints.NonNeg()  tf.keras.constraints.NonNeg  tf.keras.regularizers.L2(0.1)
axes()  axes(projection='polar')  axes().figure  [axes()]
""")
PATHS = things(r"""
folder  str(folder)  os.fsencode(folder)  folder / 'new' / 'newer'  folder / 'there.txt'
folder / 'there.txt' / 'new'  folder / ('x' * 300)  f'{folder}/a\0b'
os.fsdecode(os.fsencode(folder) + b'/\xff')  Path('/dev/null')  '~nobody-of-that-name/new'
""")
NAMES = SIMPLE + KEPT + PATHS


@functools.cache
def kept(name):
    return eval(name, globals())


def make(name, folder=None):
    """The thing of such a name."""
    return kept(name) if name in KEPT else eval(name, globals() | {"folder": folder})
