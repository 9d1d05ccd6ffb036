"""Activations as functions in the graph, and every spelling of `activation=`."""

import functools

import tensorflow as tf

from zoo.table import LEGACY, add, leaky, normal, prelu, relu

layers = tf.keras.layers
activations = tf.keras.activations
ops = None if LEGACY else tf.keras.ops
BACKEND_RELU = getattr(tf.keras.backend, "relu", tf.nn.relu)


def graph(*functions, units=6):
    """A net whose layers' outputs pass through functions of tensors."""
    x = tf.keras.Input((units,))
    y = x
    for function in functions:
        y = function(layers.Dense(units)(y))
    return tf.keras.Model(x, layers.Dense(2)(y)), normal(5, units)


def dense(*given, **kwargs):
    """A net with an `activation=` in each of its layers."""
    steps = [layers.Dense(6, activation=each, **kwargs) for each in given]
    return tf.keras.Sequential([tf.keras.Input((6,)), *steps, layers.Dense(2)]), normal(5, 6)


def steps(*made):
    """A net of layers, a Dense before each."""
    within = [step for each in made for step in (layers.Dense(6), each)]
    return tf.keras.Sequential([tf.keras.Input((6,)), *within]), normal(5, 6)


def operators():
    x = tf.keras.Input((6,))
    y = layers.Dense(6)(x)
    y = relu(y) * 2.0 + x
    return tf.keras.Model(x, relu(-y)[:, :3]), normal(5, 6)


def functions_within_models():
    """In a model that is called twice, and around it."""
    inner_x = tf.keras.Input((5,))
    y = relu(layers.Dense(4)(inner_x))
    inner = tf.keras.Model(inner_x, relu(layers.Dense(3)(y)) + 1.0, name="inner")
    x = tf.keras.Input((5,))
    return tf.keras.Model(x, [inner(x), relu(inner(x * 2.0) - 1.2)]), normal(3, 5)


GIVEN = [tf.nn.relu, lambda y: tf.nn.relu(features=y, name="named")] if LEGACY else [ops.relu]


def by(function):
    return lambda y: relu(y, function)


add("relu in the graph", lambda: graph(relu, relu, *map(by, GIVEN)), relus=2 + len(GIVEN))
add("operators in the graph", operators, relus=2)
add("functions within models", functions_within_models, relus=5)
add(
    "leaky functions in the graph",
    lambda: graph(
        lambda y: activations.relu(y, **{"alpha" if LEGACY else "negative_slope": 0.3}),
        lambda y: tf.nn.leaky_relu(y, 0.1) if LEGACY else ops.leaky_relu(y, 0.1),
        lambda y: tf.nn.leaky_relu(y) if LEGACY else activations.leaky_relu(y),
        lambda y: tf.nn.leaky_relu(y, alpha=0.3) if LEGACY else ops.leaky_relu(y),
    ),
)
add(
    "clipped ReLUs in the graph",
    lambda: graph(
        relu,
        lambda y: activations.relu(y, max_value=1.0),
        lambda y: activations.relu(y, threshold=0.1),
        tf.nn.relu6 if LEGACY else ops.relu6,
    ),
    relus=1,
    stays=1,  # that with a maximum: the others are other operations
)


def with_slope(**bounds):
    slope = {"alpha" if LEGACY else "negative_slope": 0.3}
    return lambda y: activations.relu(y, **slope, **bounds)


add(
    "clipped ReLUs with a slope in the graph",
    lambda: graph(
        relu,
        lambda y: relu(-y) * 0.5,
        with_slope(max_value=6.0),
        with_slope(max_value=1.0),
        with_slope(threshold=0.1),
        with_slope(max_value=1.0, threshold=-0.1),
    ),
    relus=2,
    stays=5,
)
add(
    "a Lambda of relu", lambda: steps(layers.Lambda(relu.nn), layers.Lambda(relu.function)), relus=2
)


class OfBackend(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.act = relu.spelled(BACKEND_RELU)

    def call(self, x):
        return self.act(x)


def by_backend():
    function = relu.spelled(BACKEND_RELU)
    return steps(
        layers.Dense(6, activation=function),
        layers.Activation(function),
        layers.Lambda(function),
        OfBackend(),
    )


add("relu of the backend", by_backend, relus=4)


def user_function(x):
    return tf.sin(x) * x


def sized(x, size):
    return x * tf.sigmoid(size * x)


class Scaler:
    """Whose method is an activation."""

    def scaled(self, x):
        return 0.5 * tf.tanh(x)


add(
    "relu in words and functions",
    lambda: dense(
        relu.string, relu.function, relu.nn, relu.spelled(tf.nn.relu if LEGACY else ops.relu)
    ),
    relus=4,
)
add("tf.nn.leaky_relu as activation", lambda: dense(tf.nn.leaky_relu, "linear", None))
add(
    "other activations",
    lambda: dense(
        "gelu", "swish", "elu", "relu6", "softmax", activations.serialize(activations.selu)
    ),
)
add("words of Keras 3", lambda: dense("leaky_relu", "hard_swish", "hard_silu"), only="Keras 3")
add(
    "a serialised ReLU",
    lambda: dense(
        relu.spelled(tf.keras.utils.serialize_keras_object(layers.ReLU())),
        tf.keras.utils.serialize_keras_object(leaky(0.3)),
    ),
    relus=1,
)
add(
    "functions and methods that are not registered",
    lambda: dense(user_function, relu.string, Scaler().scaled),
    relus=1,
)
add("a lambda", lambda: dense(lambda x: tf.tanh(x) * 2, relu.string, lambda x: x + 1), relus=1)
add("a partial", lambda: dense(functools.partial(sized, size=0.3), relu.string), relus=1)
add(
    "functions with relu within",
    lambda: steps(
        layers.Lambda(lambda y: tf.nn.relu(y) * 2, name="twice"),
        layers.Dense(6, activation=lambda x: tf.nn.relu(x) + 1, name="hidden"),
        layers.Dense(6, activation=functools.partial(tf.nn.leaky_relu, alpha=0.3), name="part"),
        relu.layer(),
    ),
    relus=1,
    stays=2,
    left=("twice", "hidden", "part"),
)
add("layers as activation", lambda: dense(relu.layer(), leaky(0.3), prelu()), relus=1, slopes=1)
add(
    "Activation layers",
    lambda: steps(
        layers.Activation(relu.string),
        layers.Activation(relu.function),
        layers.Activation(relu.nn),
        layers.Activation(relu.layer()),
        layers.Activation(user_function),
        layers.Activation(tf.nn.leaky_relu),
    ),
    relus=4,
)
add(
    "ReLU layers with arguments",
    lambda: steps(
        relu.layer(),
        layers.ReLU(max_value=6.0),
        layers.ReLU(threshold=0.1),
        layers.ReLU(max_value=1.0, negative_slope=0.1),
        layers.ReLU(negative_slope=0.3),
        layers.ReLU(6.0),
    ),
    relus=1,
    stays=2,
)
add("PReLUs", lambda: steps(prelu(), prelu(), leaky(0.2), relu.layer()), relus=1, slopes=2)
