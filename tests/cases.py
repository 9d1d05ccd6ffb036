"""The tables of cases. The files of laws run over them and never name one."""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, convert, freeze, leaky_relu
from tf_leaky.conversion.frozen import FORMS, FrozenLeakyReLU

DTYPES = ("float16", "bfloat16", "float32", "float64")
# How far a result of a few roundings may be from the exact one, relative to its size.
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 1e-6, "float64": 1e-15}


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """A use of `leaky_relu` on an x of shape (4, 5, 3)."""

    name: str
    alpha: object  # a number or a list, or an array for a tensor
    positive: bool = False
    shape: tuple = (4, 5, 3)

    @property
    def trained(self):
        return isinstance(self.alpha, np.ndarray)

    @property
    def in_use(self):
        """The slopes that it computes with."""
        return np.maximum(self.alpha, 1e-3) if self.positive else self.alpha

    def __call__(self, x, alpha=None):
        if self.trained:
            return leaky_relu(x, alpha, positive_alpha=self.positive)
        return leaky_relu(x, self.alpha)

    def __str__(self):
        return self.name


def _per_channel(*slopes):
    return np.array(slopes)


FIXED = (
    Function("fixed", 0.1),
    Function("fixed zero", 0.0),
    Function("fixed above one", 1.5),
    Function("fixed negative", -0.5),
    Function("fixed integer", 2),
    Function("fixed exact in float32", 0.25),
    Function("constant slopes", [0.0, 0.3, 1.5]),
    Function("constant slopes, one negative", (-0.5, 0.3, 1.5)),
)
TRAINED = (
    Function("one slope", np.array(0.3)),
    Function("one slope, negative", np.array(-0.7)),
    Function("one slope, zero", np.array(0.0)),
    Function("one slope, positive", np.array(0.3), positive=True),
    Function("one slope above one, positive", np.array(1.7), positive=True),
    Function("one slope below the bound, positive", np.array(-0.4), positive=True),
    Function("per channel", _per_channel(0.2, -0.4, 1.5)),
    Function("per channel, positive", _per_channel(0.2, 0.001, 1.5), positive=True),
    Function("per channel below the bound, positive", _per_channel(0.0, 9e-4, 1.5), positive=True),
    Function("per row, positive", np.linspace(0.1, 0.9, 5).reshape(5, 1), positive=True),
    Function("per element", np.linspace(-1, 1, 15).reshape(5, 3)),
    Function("per element, positive", np.linspace(0.1, 1.1, 15).reshape(5, 3), positive=True),
    Function("of x's shape, positive", np.linspace(0.1, 1.1, 60).reshape(4, 5, 3), positive=True),
    Function("of a scalar", np.array(0.3), shape=()),
    Function("of an empty tensor, positive", np.array(0.3), positive=True, shape=(0, 3)),
)
FUNCTIONS = FIXED + TRAINED


def sample(case, rng, dtype="float64"):
    """An x with zeros of both signs in it, as exact numbers of `dtype`, and an upstream."""
    x = rng.normal(size=case.shape)
    if x.size > 2:
        x.ravel()[:2] = (0.0, -0.0)
    upstream = rng.normal(size=case.shape)
    return tuple(tf.cast(tf.constant(v), dtype) for v in (x, upstream))


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A `LeakyReLU` with the shape of an input, without the batch, that it is used on.

    One with a form is a `FrozenLeakyReLU`, as `freeze` makes it.
    """

    name: str
    arguments: dict
    input_shape: tuple
    alpha_shape: tuple | None  # None where the slope is a number

    def make(self, **kwargs):
        kind = FrozenLeakyReLU if "form" in self.arguments else LeakyReLU
        return kind(**self.arguments, **kwargs)

    @property
    def trained(self):
        return self.arguments.get("trainable_alpha", False)

    @property
    def positive(self):
        return self.trained and self.arguments.get("alpha_constraint", "positive") == "positive"

    def __str__(self):
        return self.name


_TRAINED = {"alpha": 0.25, "trainable_alpha": True}
_FREE = {"trainable_alpha": True, "alpha_constraint": None}
LAYERS = (
    Layer("fixed", {"alpha": 0.1}, (6,), None),
    Layer("zero", {"alpha": 0.0}, (6,), None),
    Layer("above one", {"alpha": 1.5}, (6,), None),
    Layer("negative", {"alpha": -0.5}, (6,), None),
    Layer("fixed per channel", {"alpha": [0.1, -0.2, 1.5], "axis": -1}, (5, 3), (3,)),
    Layer("one slope", _TRAINED, (6,), ()),
    Layer("per channel, 2-D", {**_TRAINED, "axis": -1}, (6,), (6,)),
    Layer("per channel, image", {**_TRAINED, "axis": -1}, (5, 4, 3), (3,)),
    Layer("per channel, channels first", {**_TRAINED, "axis": 1}, (3, 5, 4), (3,)),
    Layer("per row and channel", {**_TRAINED, "axis": (-1, 1)}, (5, 4, 3), (5, 3)),
    Layer("per element", {**_TRAINED, "axis": (1, 2, 3)}, (5, 4, 3), (5, 4, 3)),
    Layer("unconstrained", {**_FREE, "alpha": -0.3}, (6,), ()),
    Layer(
        "unconstrained per channel", {**_FREE, "alpha": [0.5, 0.0, -0.5], "axis": -1}, (5, 3), (3,)
    ),
)
# As layers and as the activation of another one.
HOSTED = (
    *LAYERS,
    Layer("function as activation", {}, (6,), None),
    Layer("layer as activation", _TRAINED, (6,), ()),
)


@dataclasses.dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """A `BatchNormLeakyReLU`, beside which stands what it is to compute: two stock-like layers."""

    def make(self, **kwargs):
        return BatchNormLeakyReLU(**self.arguments, **kwargs)

    def make_and_build(self):
        layer = self.make()
        layer.build((None, *self.input_shape))
        return layer

    def stock(self, **kwargs):
        """BatchNormalization, and the `LeakyReLU` after it."""
        shared = ("alpha", "trainable_alpha", "alpha_constraint", "alpha_regularizer")
        own = {name: self.arguments[name] for name in shared if name in self.arguments}
        norm = {
            name: value
            for name, value in self.arguments.items()
            if name not in (*shared, "alpha_axis")
        }
        activation = LeakyReLU(**own, axis=self.arguments.get("alpha_axis"), **kwargs)
        return tf.keras.layers.BatchNormalization(**norm, **kwargs), activation

    @property
    def positive(self):
        return True  # its variance has to be


_PER_CHANNEL = {**_TRAINED, "alpha_axis": -1}
BATCH_NORMS = (
    BatchNorm("batch norm", {"momentum": 0.75}, (6,), None),
    BatchNorm("batch norm of an image", {"momentum": 0.75, "alpha": 0.25}, (5, 4, 3), None),
    BatchNorm("batch norm, one slope", {"momentum": 0.75, **_TRAINED}, (5, 3), ()),
    BatchNorm("batch norm, slopes per channel", {**_PER_CHANNEL, "epsilon": 0.25}, (5, 4, 3), (3,)),
    BatchNorm(
        "batch norm, channels first",
        {**_TRAINED, "axis": 1, "alpha_axis": 1, "momentum": 0.5},
        (3, 5, 4),
        (3,),
    ),
    BatchNorm(
        "batch norm, fixed slopes", {"alpha": [0.1, 1.5, 0.001], "alpha_axis": -1}, (3,), (3,)
    ),
    BatchNorm("batch norm of a volume", {"momentum": 0.75, "center": False}, (4, 3, 2, 3), None),
    BatchNorm("batch norm without gamma", {"scale": False, **_TRAINED, "axis": 2}, (4, 5, 3), ()),
    BatchNorm("bare batch norm", {"scale": False, "center": False}, (5, 3), None),
)


class Unregistered(tf.keras.layers.Layer):
    """A user's layer with activations of its own: in a list, in a dict, and a function."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.steps = [tf.keras.layers.Dense(units), tf.keras.layers.ReLU()]
        self.parts = {"act": tf.keras.layers.LeakyReLU(0.3)}
        self.function = tf.keras.activations.relu

    def call(self, x):
        x = self.parts["act"](self.steps[1](self.steps[0](x)) - 0.5)
        return self.function(x + 0.25)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@tf.keras.utils.register_keras_serializable("golden")
class Registered(Unregistered):
    """The same, whose files load without `custom_objects`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Converted(Layer):
    """What `convert` makes of a layer of a user's class; one with a form is frozen, too."""

    changes: dict = dataclasses.field(default_factory=dict)
    of: type = Registered

    def make(self):
        steps = [tf.keras.Input(self.input_shape), self.of(name="block")]
        model = convert(tf.keras.Sequential(steps), **self.changes)
        return (freeze(model) if "form" in self.arguments else model).layers[0]

    @property
    def positive(self):
        return True


_CONVERTED_TRAINED = {"alpha": 0.25, "trainable_alpha": True, "axis": -1}
CONVERTED = (
    Converted("converted", {}, (6,), None, {"alpha": 0.1}),
    Converted("converted, trained", {}, (6,), (4,), _CONVERTED_TRAINED),
    Converted("converted, frozen", {"form": "by maximum"}, (6,), (4,), _CONVERTED_TRAINED),
    Converted("converted, not registered", {}, (6,), (4,), _CONVERTED_TRAINED, Unregistered),
)
# What goes into files beside: other dtypes, what Keras serialises for us, and what `freeze` makes.
FILES = (
    *HOSTED,
    Layer("mixed float16", {**_TRAINED, "axis": -1, "dtype": "mixed_float16"}, (6,), (6,)),
    Layer("float64", {**_TRAINED, "dtype": "float64"}, (6,), ()),
    Layer(
        "Keras constraint and regularizer",
        {**_TRAINED, "alpha_constraint": "non_neg", "alpha_regularizer": "l2"},
        (6,),
        (),
    ),
    *(
        Layer(f"frozen {form}", {"alpha": 0.25, "axis": -1, "form": form}, (5, 4, 3), (3,))
        for form in FORMS
    ),
    *BATCH_NORMS[:5],
    BATCH_NORMS[-1],
    *CONVERTED,
)


def hosts(case):
    """The layers that a model of this case has for itself: one, or a Dense that hosts it."""
    if case.name == "function as activation":
        return [tf.keras.layers.Dense(4, activation=leaky_relu)]
    if case.name == "layer as activation":
        return [tf.keras.layers.Dense(4, activation=case.make())]
    return [case.make()]


def broadcast(case, alpha):
    """The slopes as NumPy broadcasts them to the input."""
    axis = case.arguments.get("axis")
    if axis is None:
        return np.float64(alpha)
    rank = len(case.input_shape) + 1
    axes = sorted(a % rank for a in np.atleast_1d(axis))
    shape = [n if i in axes else 1 for i, n in enumerate((1, *case.input_shape))]
    return np.broadcast_to(np.float64(alpha), case.alpha_shape).reshape(shape)


def names(case):
    return case.name.replace(" ", "-").replace(",", "")
