"""What every `LeakyReLU` does, over the table of layers."""

import json

import cases
import numpy as np
import oracle
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU
from tf_leaky.layer import slopes_in_use

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
each_layer = pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)


def data(case, rng, batch=4):
    return rng.normal(size=(batch, *case.input_shape)).astype("float32")


@pytest.mark.smoke
@each_layer
def test_value_and_gradients_are_the_formula(case, rng):
    layer = case.make()
    x, upstream = data(case, rng), data(case, rng)
    layer.build(x.shape)
    alpha = cases.broadcast(case, case.arguments["alpha"])
    with tf.GradientTape() as tape:
        point = tf.constant(x)
        tape.watch(point)
        y = layer(point)
    np.testing.assert_allclose(y, oracle.value(x, alpha), rtol=1e-6)
    dx, *dalpha = tape.gradient(y, [point, *layer.trainable_variables], upstream)
    np.testing.assert_allclose(dx, oracle.dx(x, alpha, upstream), rtol=1e-6)
    assert len(dalpha) == case.trained
    if case.trained:
        exact = oracle.dalpha(x, alpha, upstream).reshape(case.alpha_shape)
        np.testing.assert_allclose(dalpha[0], exact, rtol=1e-4, atol=1e-5)


@pytest.mark.smoke
@each_layer
def test_weight_has_the_shape_of_the_file_format(case):
    layer = case.make()
    layer.build((None, *case.input_shape))
    if case.alpha_shape is None:
        assert layer.weights == []
        assert layer.alpha == case.arguments["alpha"]
    else:
        (weight,) = layer.weights
        assert weight is layer.alpha
        assert tuple(weight.shape) == case.alpha_shape
        assert weight.name.split("/")[-1].split(":")[0] == "alpha"
        assert tf.as_dtype(weight.dtype) == tf.float32
        given = np.broadcast_to(np.float32(case.arguments["alpha"]), case.alpha_shape)
        np.testing.assert_array_equal(tf.convert_to_tensor(weight), given)


@each_layer
@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"]
)
def test_dtype_policies(case, dtype, rng):
    """The output has the compute dtype, the slope at least float32."""
    layer = case.make(dtype=dtype)
    y = layer(data(case, rng))
    assert y.dtype == layer.compute_dtype == dtype.removeprefix("mixed_")
    for weight in layer.weights:
        assert tf.as_dtype(weight.dtype) == (tf.float64 if dtype == "float64" else tf.float32)


@pytest.mark.parametrize("axis", [None, -1])
def test_initial_slopes_of_float64_are_exact(axis):
    layer = LeakyReLU(0.1, trainable_alpha=True, axis=axis, dtype="float64")
    layer.build((None, 2))
    assert (tf.convert_to_tensor(layer.alpha).numpy() == np.float64(0.1)).all()


@tf.keras.utils.register_keras_serializable("test_layer")
def halved(slopes):
    return slopes / 2


@tf.keras.utils.register_keras_serializable("test_layer")
class AtMost(tf.keras.constraints.Constraint):
    def __init__(self, most):
        self.most = most

    def __call__(self, slopes):
        return tf.minimum(slopes, self.most)

    def get_config(self):
        return {"most": self.most}


@pytest.mark.parametrize("name", ["test_layer>AtMost", "AtMost"])
def test_config_of_a_constraint_is_found_by_either_name(name):
    """Old files have the registered name in place of that of the class."""
    config = {"class_name": name, "config": {"most": 0.5}, "registered_name": "test_layer>AtMost"}
    if name != "AtMost":
        del config["registered_name"]
    constraint = LeakyReLU(trainable_alpha=True, alpha_constraint=config).alpha_constraint
    assert type(constraint) is AtMost
    assert constraint.most == 0.5


@pytest.mark.filterwarnings("ignore:The `keras.constraints.serialize:UserWarning")  # tf_keras's
@pytest.mark.parametrize("again", [False, True])
def test_registered_function_is_a_constraint(again):
    layer = LeakyReLU(0.5, trainable_alpha=True, alpha_constraint=halved)
    if again:
        layer = LeakyReLU.from_config(json.loads(json.dumps(layer.get_config())))
    assert layer.alpha_constraint is halved
    model = tf.keras.Sequential([tf.keras.Input((2,)), layer])
    model.compile(tf.keras.optimizers.SGD(0.0), "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 2)), verbose=0)
    assert float(tf.convert_to_tensor(layer.alpha)) == 0.25


@each_layer
def test_shape_of_a_symbolic_call(case):
    layer = case.make(name="leaky")  # tf_keras cuts long lines
    inputs = tf.keras.Input(case.input_shape)
    outputs = layer(inputs)
    assert tuple(outputs.shape) == (None, *case.input_shape)
    assert tuple(layer.compute_output_shape((None, *case.input_shape))) == tuple(outputs.shape)
    lines = []
    tf.keras.Model(inputs, outputs).summary(print_fn=lambda line, **_: lines.append(line))
    count = 0 if case.alpha_shape is None else int(np.prod(case.alpha_shape))
    text = "\n".join(lines)
    assert "LeakyReLU" in text
    assert f"Total params: {count} " in text
    assert f"Trainable params: {count if case.trained else 0} " in text


def test_mask_reaches_the_layer_after_it():
    model = tf.keras.Sequential(
        [
            tf.keras.Input((3, 2)),
            tf.keras.layers.Masking(0.0),
            LeakyReLU(0.5),
            tf.keras.layers.LSTM(2),
        ]
    )
    x = np.array([[[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]], "float32")
    np.testing.assert_allclose(model(x), model.layers[-1](LeakyReLU(0.5)(x[:, :1])), rtol=1e-6)


@each_layer
def test_switches_of_trainable(case):
    layer = case.make()
    model = tf.keras.Sequential([tf.keras.Input(case.input_shape), layer])
    assert len(model.trainable_weights) == case.trained
    model.trainable = False
    assert model.trainable_weights == []
    model.trainable = True  # recursive, and must not thaw a fixed slope
    assert len(model.trainable_weights) == case.trained
    layer.trainable = False
    assert model.trainable_weights == []


@pytest.mark.smoke
@each_layer
def test_training_moves_trained_slopes_only(case, rng):
    layer = case.make()
    dense = tf.keras.layers.Dense(case.input_shape[-1])
    model = tf.keras.Sequential([tf.keras.Input(case.input_shape), dense, layer])
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    before = layer.get_weights()
    model.fit(data(case, rng, 16), data(case, rng, 16), verbose=0)
    moved = [bool((a != b).all()) for a, b in zip(before, layer.get_weights(), strict=True)]
    assert moved == [case.trained] * len(before)


POSITIVE = [case for case in cases.LAYERS if case.positive]


@pytest.mark.parametrize("case", POSITIVE, ids=cases.names)
@pytest.mark.parametrize("rate", [1e-2, 1e30])
@pytest.mark.parametrize(
    ("optimizer", "jit_compile"),
    [
        ("SGD", True),
        pytest.param("Adam", False, marks=pytest.mark.slow),
    ],
)
def test_slopes_stay_positive_at_any_learning_rate(case, optimizer, rate, jit_compile, rng):
    layer = case.make()
    model = tf.keras.Sequential([tf.keras.Input(case.input_shape), layer])
    optimizer = getattr(tf.keras.optimizers, optimizer)(rate)
    model.compile(optimizer, lambda y, p: tf.reduce_mean(-p, axis=-1), jit_compile=jit_compile)
    x = -np.abs(data(case, rng, 8))  # a larger slope is a larger loss: it is pushed down
    model.fit(x, x, batch_size=2, verbose=0)
    slopes = tf.convert_to_tensor(layer.alpha).numpy()
    assert (slopes >= 1e-3).all()
    if rate == 1e30:
        np.testing.assert_array_equal(slopes, np.full_like(slopes, 1e-3))


def test_positive_slopes_under_loss_scaling(rng):
    layer = LeakyReLU(0.25, trainable_alpha=True, axis=-1, dtype="mixed_float16")
    model = tf.keras.Sequential([tf.keras.Input((3,)), layer])
    optimizer = tf.keras.mixed_precision.LossScaleOptimizer(tf.keras.optimizers.SGD(10.0))
    model.compile(optimizer, lambda y, p: tf.reduce_mean(tf.cast(-p, tf.float32), axis=-1))
    x = -np.abs(rng.normal(size=(8, 3))).astype("float32")
    model.fit(x, x, verbose=0, epochs=3)
    np.testing.assert_array_equal(tf.convert_to_tensor(layer.alpha), np.full(3, 1e-3, "float32"))


def average_slopes(layer):
    """Fits twice: the first takes the slope far below 0, and its average with it."""
    model = tf.keras.Sequential([tf.keras.Input((1,)), layer])
    model.compile(tf.keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5), "mse")
    x = -np.ones((2, 1), "float32")
    model.fit(x, 2 + 0 * x, verbose=0)
    return model, model.fit(x, 2 + 0 * x, verbose=0).history["loss"]


def test_averages_of_slopes_are_bounded_where_they_are_used():
    """Keras averages variables before their constraints."""
    layer = LeakyReLU(0.25, trainable_alpha=True)
    model, losses = average_slopes(layer)
    assert model.get_weights()[0] < 1e-3
    assert np.isfinite(losses).all()
    assert np.isfinite(model.get_weights()[0])
    assert float(layer(tf.constant([[-1.0]]))[0, 0]) == np.float32(-1e-3)
    assert slopes_in_use(layer) == np.float32(1e-3)


def test_slopes_without_the_bound_go_with_averages():
    model, losses = average_slopes(LeakyReLU(0.25, trainable_alpha=True, alpha_constraint=None))
    assert np.isfinite(losses).all()
    assert np.isfinite(model.get_weights()[0])


def test_nan_slopes_stay_visible():
    layer = LeakyReLU(0.25, trainable_alpha=True)
    model = tf.keras.Sequential([tf.keras.Input((1,)), layer])
    model.compile(tf.keras.optimizers.SGD(1.0), "mse")
    model.fit(np.full((1, 1), np.nan), np.zeros((1, 1)), verbose=0)
    assert np.isnan(model.get_weights()[0])


def test_functions_serve_as_constraint_and_regularizer():
    """As instances of Keras's own classes: Keras 3.10, which is supported, takes nothing else."""
    layer = LeakyReLU(
        0.5,
        trainable_alpha=True,
        alpha_constraint=lambda weight: weight / 2,
        alpha_regularizer=lambda weight: 3 * weight,
    )
    for each in (layer, LeakyReLU(trainable_alpha=True)):
        each.build((None, 3))
        assert isinstance(each.alpha.constraint, tf.keras.constraints.Constraint)
    assert float(layer.alpha.constraint(tf.constant(4.0))) == 2
    (loss,) = layer.losses
    assert float(loss) == 1.5


def test_keras_constraint_and_regularizer_act_on_trained_slopes():
    layer = LeakyReLU(
        -0.5, trainable_alpha=True, alpha_constraint="non_neg", alpha_regularizer="l2"
    )
    model = tf.keras.Sequential([tf.keras.Input((1,)), layer])
    assert float(sum(model.losses)) == pytest.approx(0.01 * 0.25)
    model.compile(tf.keras.optimizers.SGD(0.0), "mse")
    model.fit(np.zeros((1, 1)), np.zeros((1, 1)), verbose=0)
    assert model.get_weights()[0] == 0.0


def test_constraint_and_regularizer_leave_fixed_slopes_alone():
    layer = LeakyReLU([-0.5, 0.5], axis=-1, alpha_regularizer="l2")
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(2), layer])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 2)), verbose=0)
    np.testing.assert_array_equal(layer.get_weights()[0], [-0.5, 0.5])
    assert model.losses == []


def test_alpha_before_and_after_the_layer_is_built():
    number = LeakyReLU(-0.5).alpha
    assert (number, type(number)) == (-0.5, float)
    layer = LeakyReLU(0.5, trainable_alpha=True, axis=-1)
    assert layer.alpha == 0.5
    layer.build((None, 3))
    assert layer.alpha is layer.trainable_weights[0]
    layer.build((None, 3))  # as its outer layer does after a file was loaded
    assert len(layer.weights) == 1
    np.testing.assert_array_equal(LeakyReLU([0.5, 0.25], axis=-1).alpha, [0.5, 0.25])


def test_number_that_was_set_is_used_and_saved():
    layer = LeakyReLU(0.5)
    layer.alpha = 0.75
    assert float(layer(tf.constant([-1.0]))[0]) == -0.75
    assert LeakyReLU.from_config(layer.get_config()).alpha == 0.75
    layer.alpha = "steep"
    with pytest.raises(TypeError, match=r"LeakyReLU: expected alpha to be a real number"):
        layer.get_config()


def test_one_scalar_slope_takes_inputs_of_any_rank():
    layer = LeakyReLU(0.5, trainable_alpha=True)
    for shape in ((2,), (2, 3), (2, 3, 4, 5), (0, 3)):
        assert layer(-tf.ones(shape)).shape == shape


@pytest.mark.parametrize(
    ("dtype", "jit_compile"),
    [
        *(("float32", False), ("float32", True), ("mixed_float16", True)),
        *(("mixed_bfloat16", False), ("float64", False)),
    ],
)
def test_set_slopes_below_the_bound_come_back_by_training(dtype, jit_compile):
    layer = LeakyReLU(0.5, trainable_alpha=True, axis=-1, dtype=dtype)
    model = tf.keras.Sequential([tf.keras.Input((2,)), layer])
    layer.set_weights([np.float32([-0.5, -10.0])])
    model.compile(tf.keras.optimizers.SGD(0.3), "mse", jit_compile=jit_compile)
    x = -np.ones((4, 2), "float32")
    assert np.isfinite(model.fit(x, x, verbose=0, epochs=30).history["loss"]).all()
    np.testing.assert_allclose(slopes_in_use(layer), [1.0, 1.0], rtol=1e-2)


@each_layer
def test_slopes_in_use_are_those_of_the_output(case):
    layer = case.make()
    x = -np.ones((1, *case.input_shape), "float32")
    for _ in range(2):  # before and after the layer is built, and with slopes below any bound
        alpha = cases.broadcast(case, np.broadcast_to(slopes_in_use(layer), case.alpha_shape or ()))
        np.testing.assert_array_equal(
            -layer(x).numpy(), np.broadcast_to(np.float32(alpha), x.shape)
        )
        layer.set_weights([weight - 2 for weight in layer.get_weights()])
    assert (slopes_in_use(layer) == np.float32(1e-3)).all() == case.positive


class Subclassed(tf.keras.Model):
    def __init__(self, make):
        super().__init__()
        self.dense = tf.keras.layers.Dense(6)
        self.activation = make()

    def call(self, x):
        return self.activation(self.dense(x))


class Cell(tf.keras.layers.Layer):
    """An RNN cell that holds the layer."""

    def __init__(self, make):
        super().__init__()
        self.state_size = self.output_size = 6
        self.dense = tf.keras.layers.Dense(6)
        self.activation = make()

    def build(self, input_shape):
        self.dense.build((None, input_shape[-1] + 6))
        self.activation.build((None, 6))
        self.built = True

    def call(self, x, states):
        y = self.activation(self.dense(tf.concat([x, states[0]], -1)))
        return y, [y]


def functional(make):
    inputs = tf.keras.Input((6,))
    return tf.keras.Model(inputs, make()(tf.keras.layers.Dense(6)(inputs)))


def sequential(layer):
    return tf.keras.Sequential([tf.keras.layers.Dense(6), layer])


HOSTS = {
    "Sequential": ((6,), lambda make: sequential(make())),
    "Functional": ((6,), functional),
    "subclassed": ((6,), Subclassed),
    "Dense activation": (
        (6,),
        lambda make: tf.keras.Sequential([tf.keras.layers.Dense(6, activation=make())]),
    ),
    "Activation": (
        (6,),
        lambda make: sequential(tf.keras.layers.Activation(make())),
    ),
    "TimeDistributed": (
        (5, 6),
        lambda make: sequential(tf.keras.layers.TimeDistributed(make())),
    ),
    "RNN cell": ((5, 6), lambda make: tf.keras.Sequential([tf.keras.layers.RNN(Cell(make))])),
    "GRU activation": (
        (5, 6),
        lambda make: tf.keras.Sequential([tf.keras.layers.GRU(6, activation=make())]),
    ),
}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host, run_eagerly, rng):
    """The layer trains, and its slope with it, wherever Keras takes a layer."""
    input_shape, build = HOSTS[host]
    layers = []

    def make():
        layers.append(LeakyReLU(0.25, trainable_alpha=True, axis=-1))
        return layers[-1]

    model = build(make)
    x = rng.normal(size=(8, *input_shape)).astype("float32")
    y = rng.normal(size=model(x).shape).astype("float32")
    model.compile(tf.keras.optimizers.SGD(0.05), "mse", run_eagerly=run_eagerly)
    history = model.fit(x, y, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    (layer,) = layers
    slopes = tf.convert_to_tensor(layer.alpha).numpy()
    assert (slopes != 0.25).all()
    assert any(w is layer.alpha for w in model.trainable_weights)


def test_slope_of_an_activation_is_made_at_the_first_call():
    """A sentence of the README. If this fails, it is out of date."""
    host = tf.keras.layers.Dense(2, activation=LeakyReLU(0.25, trainable_alpha=True))
    model = tf.keras.Sequential([tf.keras.Input((3,)), host])
    assert len(model.trainable_weights) == (2 if KERAS_3 else 3)
    model(np.ones((1, 3)))
    assert len(model.trainable_weights) == 3


def gradients(function, x, variables):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(function(x) ** 2)
    return tape.gradient(y, [x, *variables])


def test_recompute_grad(rng):
    x = tf.constant(rng.normal(size=(4, 3)), tf.float32)
    layer = LeakyReLU(0.25, trainable_alpha=True, axis=-1)
    layer.build(x.shape)
    plain = gradients(layer, x, layer.trainable_variables)
    again = tf.recompute_grad(lambda x: layer(x))

    @tf.function(autograph=False)
    def run():
        return gradients(again, x, layer.trainable_variables)

    recomputed = run()
    for mine, theirs in zip(plain, recomputed, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.skipif(not hasattr(tf.keras, "RematScope"), reason="tf_keras has no RematScope")
def test_rematerialization_scope(rng):
    x = rng.normal(size=(8, 3)).astype("float32")
    weights = []
    for scope in (None, "full"):
        tf.keras.utils.set_random_seed(1)
        with tf.keras.RematScope(mode=scope):
            layer = LeakyReLU(0.25, trainable_alpha=True, axis=-1)
        dense = tf.keras.layers.Dense(4), tf.keras.layers.Dense(3)
        model = tf.keras.Sequential([tf.keras.Input((3,)), dense[0], layer, dense[1]])
        model.compile("sgd", "mse")
        model.fit(x, x, verbose=0)
        weights.append(model.get_weights())
    for plain, recomputed in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, recomputed, rtol=1e-6)


@pytest.mark.skipif(not hasattr(tf.keras, "RematScope"), reason="tf_keras has no RematScope")
def test_keras_fails_to_rematerialize_a_dense_layer_in_a_graph():
    """Keras's own limit, which the README names. If this fails, that sentence can go."""
    with tf.keras.RematScope(mode="full"):
        dense = tf.keras.layers.Dense(3)
    model = tf.keras.Sequential([tf.keras.Input((3,)), dense])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="currently supports keywords"):
        model.fit(np.ones((2, 3)), np.ones((2, 3)), verbose=0)
