"""What every `LeakyReLU` does, over the table of layers, and the configs of the file format."""

import json

import cases
import numpy as np
import oracle
import pytest
import tensorflow as tf

import tf_leaky
from tf_leaky import LeakyReLU
from tf_leaky.slopes import slopes_in_use

layers = tf.keras.layers
each_layer = pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)


def fitted(layer, x, y, rate=0.0, *, before=(), epochs=1, **options):
    """A model that was trained by SGD, whose last layer it is."""
    model = tf.keras.Sequential([tf.keras.Input(x.shape[1:]), *before, layer])
    model.compile(tf.keras.optimizers.SGD(rate), options.pop("loss", "mse"), **options)
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


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


@each_layer
def test_shape_of_a_symbolic_call(case):
    layer = case.make(name="leaky")  # tf_keras cuts long lines
    inputs = tf.keras.Input(case.input_shape)
    outputs = layer(inputs)
    assert tuple(outputs.shape) == (None, *case.input_shape)
    assert tuple(layer.compute_output_shape((None, *case.input_shape))) == tuple(outputs.shape)


def test_mask_reaches_the_layer_after_it():
    parts = [layers.Masking(0.0), LeakyReLU(0.5), layers.LSTM(2)]
    model = tf.keras.Sequential([tf.keras.Input((3, 2)), *parts])
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


@pytest.mark.parametrize("case", [case for case in cases.LAYERS if case.positive], ids=cases.names)
def test_slopes_stay_positive_at_a_huge_learning_rate(case, rng):
    layer = case.make()
    x = -np.abs(data(case, rng, 8))  # a larger slope is a larger loss: it is pushed down
    options = {"loss": lambda y, p: tf.reduce_mean(-p, axis=-1), "jit_compile": True}
    fitted(layer, x, x, 1e30, epochs=2, **options)
    (slopes,) = layer.get_weights()
    np.testing.assert_array_equal(slopes, np.full_like(slopes, 1e-3))


def test_averages_of_slopes_are_bounded_where_they_are_used():
    """Keras averages variables before their constraints."""
    layer = LeakyReLU(0.25, trainable_alpha=True)
    model = tf.keras.Sequential([tf.keras.Input((1,)), layer])
    model.compile(tf.keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5), "mse")
    x = -np.ones((2, 1), "float32")
    for _ in range(2):  # the first takes the slope far below 0, and its average with it
        losses = model.fit(x, 2 + 0 * x, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert -np.inf < model.get_weights()[0] < 1e-3
    assert float(layer(tf.constant([[-1.0]]))[0, 0]) == np.float32(-1e-3)
    assert slopes_in_use(layer) == np.float32(1e-3)


@pytest.mark.filterwarnings("ignore:The `keras.constraints.serialize:UserWarning")  # tf_keras's
def test_functions_serve_as_constraint_and_regularizer():
    """As instances of Keras's own classes: Keras 3.10, which is supported, takes nothing else."""
    layer = LeakyReLU(0.5, trainable_alpha=True, alpha_constraint=halved)
    again = LeakyReLU.from_config(json.loads(json.dumps(layer.get_config())))
    for each in (layer, again):
        assert each.alpha_constraint is halved
        fitted(each, np.ones((2, 2)), np.ones((2, 2)))
        assert each.get_weights() == [0.25]
        assert isinstance(each.alpha.constraint, tf.keras.constraints.Constraint)
    layer = LeakyReLU(0.5, trainable_alpha=True, alpha_regularizer=lambda weight: 3 * weight)
    layer.build((None, 3))
    assert [float(loss) for loss in layer.losses] == [1.5]


def test_constraint_and_regularizer_leave_fixed_slopes_alone():
    layer = LeakyReLU([-0.5, 0.5], axis=-1, alpha_regularizer="l2")
    model = fitted(layer, np.ones((4, 2)), np.ones((4, 2)), 0.1, before=[layers.Dense(2)])
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


@pytest.mark.parametrize(
    ("dtype", "jit_compile"),
    [("float32", True), ("mixed_float16", False), ("mixed_bfloat16", False)],
)
def test_set_slopes_below_the_bound_come_back_by_training(dtype, jit_compile):
    layer = LeakyReLU(0.5, trainable_alpha=True, axis=-1, dtype=dtype)
    layer.build((None, 2))
    layer.set_weights([np.float32([-0.5, -10.0])])
    x = -np.ones((4, 2), "float32")
    fitted(layer, x, x, 0.3, epochs=30, jit_compile=jit_compile)
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


def sequential(*parts):
    return tf.keras.Sequential([*parts])


HOSTS = {
    "Sequential": ((6,), lambda make: sequential(layers.Dense(6), make())),
    "Dense activation": ((6,), lambda make: sequential(layers.Dense(6, activation=make()))),
    "Activation": ((6,), lambda make: sequential(layers.Dense(6), layers.Activation(make()))),
    "TimeDistributed": (
        (5, 6),
        lambda make: sequential(layers.Dense(6), layers.TimeDistributed(make())),
    ),
    "GRU activation": ((5, 6), lambda make: sequential(layers.GRU(6, activation=make()))),
}


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host, rng):
    """The layer trains, and its slope with it, wherever Keras takes a layer."""
    input_shape, build = HOSTS[host]
    layer = LeakyReLU(0.25, trainable_alpha=True, axis=-1)
    model = build(lambda: layer)
    x = rng.normal(size=(8, *input_shape)).astype("float32")
    y = rng.normal(size=model(x).shape).astype("float32")
    model.compile(tf.keras.optimizers.SGD(0.05), "mse")
    history = model.fit(x, y, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    slopes = tf.convert_to_tensor(layer.alpha).numpy()
    assert (slopes != 0.25).all()
    assert any(w is layer.alpha for w in model.trainable_weights)


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
    run = tf.function(lambda: gradients(again, x, layer.trainable_variables), autograph=False)
    for mine, theirs in zip(plain, run(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.skipif(not hasattr(tf.keras, "RematScope"), reason="tf_keras has no RematScope")
def test_rematerialization_scope(rng):
    x = rng.normal(size=(8, 3)).astype("float32")
    weights = []
    for scope in (None, "full"):
        tf.keras.utils.set_random_seed(1)
        with tf.keras.RematScope(mode=scope):
            layer = LeakyReLU(0.25, trainable_alpha=True, axis=-1)
        first, last = layers.Dense(3), layers.Dense(3)
        weights.append(fitted(last, x, x, 0.1, before=[first, layer]).get_weights())
    for plain, recomputed in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, recomputed, rtol=1e-6)


@pytest.mark.smoke
@each_layer
def test_config_survives_json(case):
    layer = case.make(name="here")
    config = layer.get_config()
    again = LeakyReLU.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert {"trainable_alpha", "alpha_regularizer"} <= set(config)
    axis = case.arguments.get("axis")
    assert config["axis"] == (list(axis) if isinstance(axis, tuple) else axis)
    assert config["alpha"] == case.arguments["alpha"]
    assert config["alpha_constraint"] == case.arguments.get("alpha_constraint", "positive")


@pytest.mark.parametrize("axis", [None, -1, (1,), (1, 2), (-1, 1, 2)], ids=str)
def test_config_has_a_second_name_for_several_axes_only(axis):
    config = LeakyReLU(axis=axis).get_config()
    assert config["axis"] == (list(axis) if isinstance(axis, tuple) else axis)
    several = isinstance(axis, tuple) and len(axis) > 1
    assert config.get("axes") == (list(axis) if several else None)
    if several:
        del config["axis"]  # as Keras 3 does in `.h5` files
    assert LeakyReLU.from_config(config).axis == axis


@pytest.mark.parametrize(
    "names",
    [
        {"class_name": "AtMost", "registered_name": "test_layer>AtMost"},
        {"class_name": "test_layer>AtMost"},
    ],
)
def test_config_keeps_constraints_and_regularizers(names):
    """Old files have the registered name in place of that of the class."""
    layer = LeakyReLU(
        trainable_alpha=True,
        alpha_constraint=AtMost(0.5),
        alpha_regularizer=tf.keras.regularizers.L1(0.5),
    )
    config = json.loads(json.dumps(layer.get_config()))
    again = LeakyReLU.from_config(config)
    assert again.get_config() == layer.get_config()
    assert float(again.alpha_regularizer(tf.constant([2.0]))) == 1.0
    config["alpha_constraint"] = {**names, "config": {"most": 0.5}}
    for each in (again, LeakyReLU.from_config(config)):
        assert type(each.alpha_constraint) is AtMost
        assert each.alpha_constraint.most == 0.5


def test_numpy_arguments_become_json_types():
    for alpha, axis in (([0.5, 0.25], np.int64(-1)), ([[0.5], [1.0]], (np.int64(1), np.int8(-1)))):
        config = LeakyReLU(np.array(alpha, "float32"), axis=axis).get_config()
        given = {"alpha": alpha, "axis": np.asarray(axis).tolist()}
        assert json.loads(json.dumps(config)).items() >= given.items()
    assert LeakyReLU(np.float32(0.25)).get_config()["alpha"] == 0.25


def test_registered_names_are_those_of_the_file_format():
    for name in ("LeakyReLU", "leaky_relu", "BatchNormLeakyReLU"):
        each = getattr(tf_leaky, name)
        assert tf.keras.utils.get_registered_name(each) == f"tf_leaky>{name}"
        assert tf.keras.utils.get_registered_object(f"tf_leaky>{name}") is each
