"""Layers that users write, with activations inside; none of them names its parts but one."""

import collections

import tensorflow as tf

from zoo.table import LEGACY, add, leaky, normal, prelu, relu

layers = tf.keras.layers
register = tf.keras.utils.register_keras_serializable(package="zoo")
Acts = collections.namedtuple("Acts", ["inner", "outer"])


def around(layer, size=6):
    """A net with the layer in its midst, and inputs for it."""
    x = tf.keras.Input((size,))
    y = layer(layers.Dense(size)(x))
    return tf.keras.Model(x, layers.Dense(2)(y)), normal(5, size)


class Private(layers.Layer):
    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self._d = layers.Dense(units)
        self._act = relu.layer()

    def call(self, x):
        return self._act(self._d(x))


@register
class Named(layers.Layer):
    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, name="first")
        self.act = relu.layer(name="act")
        self.second = layers.Dense(units, name="second", activation=relu.string)

    def call(self, x):
        return self.second(self.act(self.first(x)))

    def get_config(self):
        return super().get_config() | {"units": self.units}


class BuiltLate(layers.Layer):
    def build(self, shape):
        self.d = layers.Dense(shape[-1])
        self.d.build(shape)
        self.activation_layer = relu.layer()
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        super().build(shape)

    def call(self, x):
        return self.scale * self.activation_layer(self.d(x))


class LazyInCall(layers.Layer):
    """Its activation, None until then, is made together with another layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.act = layers.Dense(5), None

    def call(self, x):
        if self.act is None:
            self.act = relu.layer()
            self.dense = layers.Dense(4)
        return self.act(self.dense(self.first(x)))


class LazyInBuild(LazyInCall):
    def build(self, shape):
        self.first.build(shape)
        self.dense, self.act = layers.Dense(4), relu.layer()
        self.dense.build((None, 5))
        super().build(shape)


class Kept(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = {
            "d": layers.Dense(5),
            "act": relu.layer(),
            "more": [layers.Dense(4), relu.layer()],
        }
        self.pair = (relu.layer(), relu.layer())
        self.acts = Acts(relu.layer(), relu.nn)

    def call(self, x):
        x = self.pair[0](self.parts["act"](self.parts["d"](x)) - 0.1)
        x = self.parts["more"][1](self.parts["more"][0](x))
        x = self.pair[1](x - 0.1)
        return self.acts.outer(self.acts.inner(x - 0.1) - 0.1)


class Grid(layers.Layer):
    """Keeps its nodes by row and column, as UNet++ does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.nodes = {(i, j): layers.Dense(5) for i in range(2) for j in range(2 - i)}
        self.acts = {("to", i): [relu.layer()] for i in range(2)}

    def call(self, x):
        x = tf.concat([self.nodes[0, 0](x), self.acts["to", 0][0](self.nodes[1, 0](x))], -1)
        return self.acts["to", 1][0](self.nodes[0, 1](x))


class NoKeywords(layers.Layer):
    """Its constructor takes none of the arguments of every layer, and it keeps a list of pairs."""

    def __init__(self, units=5):
        super().__init__()
        self.units = units
        self.pairs = [(layers.Dense(units), relu.layer()), (layers.Dense(units), prelu())]

    def call(self, x):
        for dense, act in self.pairs:
            x = act(dense(x))
        return x

    def get_config(self):
        return super().get_config() | {"units": self.units}


class Outer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = [Private(), Named(4)]
        self.last = relu.layer()

    def call(self, x):
        for each in self.inner:
            x = each(x)
        return self.last(x - 0.2)


@register
class Takes(layers.Layer):
    """Takes `activation` as Keras's own layers do, under a name of its own."""

    def __init__(self, units, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.d = layers.Dense(units)
        self.activation = tf.keras.activations.get(activation)

    def build(self, shape):
        self.d.build(shape)
        super().build(shape)

    def call(self, x):
        return self.activation(self.d(x))

    def get_config(self):
        activation = tf.keras.activations.serialize(self.activation)
        return super().get_config() | {"units": self.units, "activation": activation}


class Functions(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.d = layers.Dense(5)
        self.by_name = {"inner": relu.nn}
        self.in_a_list = [relu.function]
        self.last = relu.nn if LEGACY else relu.spelled(tf.keras.ops.relu)
        self.again = self.last  # one function, two places: one slope

    def call(self, x):
        x = self.again(self.by_name["inner"](self.d(x)) - 0.1)
        return self.last(self.in_a_list[0](x - 0.1) - 0.1)


class Leaky(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.d = layers.Dense(6)
        self.act = leaky(0.3)
        self.learned = prelu()

    def call(self, x):
        return self.learned(self.act(self.d(x)) - 0.1)


class CallsRelu(layers.Layer):
    """Nothing outside can reach the function that `call` names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.d = layers.Dense(5)
        self.act = relu.layer()

    def call(self, x):
        return self.act(tf.nn.relu(self.d(x)) - 0.1)


class Given(layers.Layer):
    """Takes layers, and writes them into its config."""

    def __init__(self, inner, act, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner
        self.act = act

    def call(self, x):
        return self.act(self.inner(x))

    def get_config(self):
        serialize = tf.keras.utils.serialize_keras_object
        inner, act = serialize(self.inner), serialize(self.act)
        return super().get_config() | {"inner": inner, "act": act}

    @classmethod
    def from_config(cls, config):
        read = tf.keras.utils.deserialize_keras_object
        return cls(**config | {"inner": read(config["inner"]), "act": read(config["act"])})


class Wrapped(layers.Wrapper):
    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        self.after = relu.layer()

    def build(self, shape=None):
        if not self.layer.built:
            self.layer.build(shape)
        super().build()

    def call(self, x):
        return self.after(self.layer(x))


class NoConfig(layers.Layer):
    """Nothing can make a second one of it."""

    def __init__(self, fn, units, **kwargs):
        super().__init__(**kwargs)
        self.fn = fn
        self.d = layers.Dense(units)
        self.act = relu.layer()

    def call(self, x):
        return self.act(self.fn(self.d(x)))

    def get_config(self):
        raise NotImplementedError("NoConfig has no config")


class Part(layers.Layer):
    """A function among its arguments, and no `get_config`: only its owner can make it again."""

    def __init__(self, width, act, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.act = layers.Dense(width), act

    def build(self, shape):
        self.dense.build(shape)
        super().build(shape)

    def call(self, x):
        return self.act(self.dense(x) - 0.2)


class Parts(layers.Layer):
    def __init__(self, width=4, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.parts = [Part(self.width, relu.nn, name=f"part_{i}") for i in range(2)]
        for part in self.parts:
            part.build(shape)
            shape = (*shape[:-1], self.width)
        super().build(shape)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        return super().get_config() | {"width": self.width}


add("private attributes", lambda: around(Private()), relus=1)
add("given names, registered", lambda: around(Named()), relus=2)
add("built in build", lambda: around(BuiltLate()), relus=1)
add("made lazily in the first call", lambda: around(LazyInCall()), relus=1)
add("made lazily in build", lambda: around(LazyInBuild()), relus=1)
add("dicts and tuples of layers", lambda: around(Kept()), relus=6)
add("tuples as keys of dicts", lambda: around(Grid()), relus=2)
add("no keyword arguments", lambda: around(NoKeywords()), relus=1, slopes=1)
add("layers in layers", lambda: around(Outer()), relus=4, exported=True)
add("takes activation, registered", lambda: around(Takes(5, relu.string)), relus=1)
add("takes activation, a layer", lambda: around(Takes(5, relu.layer())), relus=1)
add("functions in a dict and a list", lambda: around(Functions()), relus=4)
add("LeakyReLU and PReLU inside", lambda: around(Leaky()), slopes=1)
add(
    "relu named in call", lambda: around(CallsRelu(name="calls")), relus=1, stays=1, left=("calls",)
)
add("layers as arguments", lambda: around(Given(layers.Dense(4), relu.layer())), relus=1)
add("parts without a config", lambda: around(Parts()), relus=2)
add("a wrapper", lambda: around(Wrapped(layers.Dense(4, activation=relu.string))), relus=2)
add("no config", lambda: around(NoConfig(tf.abs, 4, name="odd")), refused=("odd", "get_config"))


def used_twice():
    layer = Private(6)
    x = tf.keras.Input((6,))
    return tf.keras.Model(x, layers.Dense(2)(layer(layer(x)))), normal(5, 6)


def in_a_sequential():
    steps = [layers.Dense(6), Private(), layers.Dropout(0.5, seed=3), OwnLast(), layers.Dense(2)]
    return tf.keras.Sequential(steps), normal(5, 6)


class OwnLast(Private):
    """A class of a class, with one activation more."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last = relu.layer()
        self.flag, self.nothing, self.text = True, None, "relu"

    def call(self, x):
        return self.last(super().call(x) - 0.1)


add("one layer used twice", used_twice, relus=2)
add("custom layers in a Sequential", in_a_sequential, relus=3)
