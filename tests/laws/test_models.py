"""`convert`, `freeze` and `to_keras` over a table of activations. More models are in the zoo."""

import functools
import inspect

import numpy as np
import pytest
import tensorflow as tf
from zoo.functional_classes import Handmade
from zoo.table import LEGACY, leaky, prelu

import tf_leaky
from tf_leaky import LeakyReLU, convert, freeze, to_keras
from tf_leaky.conversion.carrying import Converted
from tf_leaky.conversion.frozen import FrozenLeakyReLU
from tf_leaky.ops import SMALLEST_POSITIVE_ALPHA
from tf_leaky.structure import layers_within

layers = tf.keras.layers


def sequential(*parts, shape=(4,)):
    return tf.keras.Sequential([tf.keras.Input(shape), *parts])


def normal(*shape):
    return np.random.default_rng(3).normal(size=shape).astype("float32")


# Each makes the layer of an activation for images.
ACTIVATIONS = {
    "ReLU": layers.ReLU,
    "ReLU with a slope": lambda: layers.ReLU(negative_slope=0.25),
    "LeakyReLU": lambda: leaky(0.25),
    "PReLU, one slope": lambda: prelu(shared_axes=[1, 2, 3]),
    "PReLU per channel": lambda: prelu(shared_axes=[1, 2]),
    "PReLU per element": prelu,
    "Activation relu": lambda: layers.Activation("relu"),
    "Dense relu": lambda: layers.Dense(3, activation="relu"),
    "Dense LeakyReLU": lambda: layers.Dense(3, activation=leaky(0.3)),
}


def functional(make):
    x = tf.keras.Input((4, 4, 2), name="image")
    y = make()(layers.Conv2D(3, 3, name="conv")(x))
    return tf.keras.Model(x, layers.Dense(2, name="head")(layers.Flatten()(y)))


def nested(make):
    x = tf.keras.Input((4, 4, 2))
    return tf.keras.Model(x, layers.Dense(1)(functional(make)(x)))


def data(model):
    return normal(5, *model.inputs[0].shape[1:])


def same(one, other, x, rtol=1e-5):
    np.testing.assert_allclose(other(x), one(x), rtol=rtol, atol=1e-6)


every_change = pytest.mark.parametrize("change", [convert, freeze, to_keras])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_there_and_back_computes_the_same(activation, tmp_path):
    stock = functional(ACTIVATIONS[activation])
    x, weights = data(stock), stock.get_weights()
    ours = convert(stock)
    same(stock, ours, x)
    assert not {type(part) for part in layers_within(ours)} & {layers.LeakyReLU, layers.PReLU}
    assert [each.name for each in ours.layers] == [each.name for each in stock.layers]
    assert sum(w.size for w in ours.get_weights()) == sum(w.size for w in weights)
    for target in ("serving", "litert"):
        frozen = freeze(ours, target=target)
        same(stock, frozen, x)
        assert len(frozen.trainable_weights) <= len(ours.trainable_weights)
    back = to_keras(ours)
    same(stock, back, x)
    assert not any(type(part).__module__.startswith("tf_leaky") for part in layers_within(back))
    frozen.save(tmp_path / "frozen.keras")
    same(stock, tf.keras.models.load_model(tmp_path / "frozen.keras"), x)
    for before, after in zip(weights, stock.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)  # the given model is not touched


def test_alpha_takes_the_place_of_relus_zero_only(caplog):
    model = sequential(
        layers.Dense(5, activation="relu"),
        *(layers.ReLU(name="plain"), leaky(0.25), layers.ReLU(max_value=6.0, name="six")),
    )
    new = convert(model, alpha=0.1)
    assert new.layers[0].activation is tf_leaky.leaky_relu
    assert [layer.alpha for layer in new.layers[1:3]] == [0.1, 0.25]
    assert type(new.layers[3]) is layers.ReLU
    with caplog.at_level("INFO", logger="tf_leaky"):
        convert(model)
    assert "convert: plain: ReLU left alone, as no alpha is given" in caplog.text
    assert "convert: six: left alone, as it has a maximum or a threshold" in caplog.text


def test_prelus_are_fixed_on_demand():
    model = functional(ACTIVATIONS["PReLU per channel"])
    new = convert(model, trainable_alpha=False)
    same(model, new, data(model))
    assert len(new.trainable_weights) == len(model.trainable_weights) - 1


@every_change
def test_trainable_is_that_of_each_layer_and_model(change):
    inner = layers.Dense(4, activation="relu")
    model = sequential(layers.TimeDistributed(inner), layers.Dense(2), shape=(5, 3))
    inner.trainable = False
    (found, _) = change(model).layers
    assert (found.trainable, found.layer.trainable) == (True, False)
    assert not found.trainable_weights
    model = nested(layers.ReLU)
    inner = next(each for each in model.layers if isinstance(each, tf.keras.Model))
    inner.trainable = False
    found = change(model).get_layer(inner.name)
    assert (found.trainable, found.trainable_weights) == (False, [])
    model.trainable = False
    assert not change(model).trainable


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("kind", [layers.LeakyReLU, layers.PReLU])
def test_activity_regularizer_of_an_activation_is_kept(kind, fuse):
    slopes = {} if kind is layers.LeakyReLU else {"alpha_initializer": "ones"}
    activation = kind(activity_regularizer="l2", **slopes)
    model = sequential(layers.Dense(3), layers.BatchNormalization(), activation)
    x = normal(5, 4)
    model(x)
    expected = sum(model.losses)
    new = convert(model, fuse_batch_norm=fuse)
    for each in (new, freeze(new), to_keras(new), convert(new)):
        each(x)
        np.testing.assert_allclose(sum(each.losses), expected, rtol=1e-5)


@pytest.mark.skipif(LEGACY, reason="tf_keras can't freeze one weight of a layer")
def test_single_frozen_weight_stays_frozen():
    model = sequential(layers.Dense(3, activation="relu"))
    model.layers[0].kernel.trainable = False
    new = convert(model, alpha=0.1, trainable_alpha=True)
    assert [x.name for x in new.trainable_variables] == ["bias", "alpha"]


def test_layers_of_the_same_names_in_two_models_keep_their_weights():
    x = tf.keras.Input((4, 4, 2))
    model = tf.keras.Model(x, layers.subtract([functional(layers.ReLU)(x) for _ in range(2)]))
    expected = model(data(model))
    assert np.abs(expected).max() > 1e-3
    same(model, convert(model), data(model))


def test_smallest_slopes_of_prelus_stay_positive():
    slopes = tf.keras.initializers.Constant(SMALLEST_POSITIVE_ALPHA)
    model = sequential(layers.PReLU(alpha_initializer=slopes))
    assert convert(model).layers[0].alpha_constraint == "positive"
    model.layers[0].alpha.assign([0.0, 0.5, 0.5, 0.5])
    assert convert(model).layers[0].alpha_constraint is None


@pytest.mark.parametrize("constraint", ["positive", "unit_norm", None])
def test_trained_slopes_become_trained_prelus(constraint):
    slopes = {"trainable_alpha": True, "alpha_constraint": constraint, "alpha_regularizer": "l2"}
    model = sequential(LeakyReLU(0.25, axis=-1, **slopes))
    (prelu,) = to_keras(model).layers
    assert len(prelu.trainable_weights) == 1
    assert type(prelu.alpha_regularizer) is tf.keras.regularizers.L2
    kinds = {"positive": tf.keras.constraints.NonNeg, "unit_norm": tf.keras.constraints.UnitNorm}
    assert type(prelu.alpha_constraint) is kinds.get(constraint, type(None))


@pytest.mark.parametrize("form", ["by maximum", "by where"])
def test_slope_at_zero_of_frozen_forms_is_alpha(form):
    layer = FrozenLeakyReLU(0.25, axis=-1, form=form)
    x = tf.constant([[0.0, -0.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [[0.25, 0.25]])


class Holder(tf.keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.dense = inner, layers.Dense(2, activation="relu")
        self.again = self.dense

    def call(self, x):
        return self.again(self.inner(x))


def test_edits_name_each_part_once():
    model = Holder(functional(layers.ReLU))
    model(tf.zeros((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="expected a Sequential or functional model") as error:
        convert(model)
    assert ".inner is a Functional: pass it separately" in str(error.value)
    assert str(error.value).count("relu to LeakyReLU(alpha)") == 1


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        (convert, {"alpha": [0.1]}, ValueError, "convert: expected alpha to be one number or None"),
        (convert, {"alpha": np.nan}, ValueError, "convert: expected"),
        (convert, {"trainable_alpha": 1}, TypeError, "trainable_alpha to be True, False or None"),
        (convert, {"axis": -1}, ValueError, "expected axis only if slopes are to be trained"),
        (convert, {"trainable_alpha": True}, ValueError, "expected alpha, the initial slope of Re"),
        (freeze, {"target": "phone"}, ValueError, r'"serving" or "litert"\. Received: target='),
        (freeze, {"target": np.ones(3)}, ValueError, r'"serving" or "litert"\. Received: target='),
    ],
)
def test_wrong_arguments_are_refused(change, arguments, error, message):
    with pytest.raises(error, match=message):
        change(functional(layers.ReLU), **arguments)


@every_change
def test_what_is_no_built_model_is_refused(change):
    with pytest.raises(TypeError, match=r"expected a model of .*Load it with tf.keras.models"):
        change("model.keras")
    with pytest.raises(ValueError, match="expected model to be built"):
        change(tf.keras.Sequential([layers.Dense(2)]))


def test_negative_slope_within_a_wrapper_goes_back_to_keras():
    """A negative slope takes a PReLU, which has to know the rank of its input."""
    inner = layers.Dense(3, activation=LeakyReLU(-0.5, name="down"), name="host")
    model = sequential(layers.TimeDistributed(inner), shape=(5, 4))
    same(model, to_keras(model), data(model), rtol=0)


@pytest.mark.skipif(not LEGACY, reason="a limit of tf_keras")
def test_tf_keras_loads_ours_within_wrappers_by_custom_objects(tmp_path):
    """It takes ours for its own class of that name."""
    ours = LeakyReLU(0.3, trainable_alpha=True)
    model = sequential(layers.TimeDistributed(ours), shape=(5, 3))
    model.save(tmp_path / "model.keras")
    named = {"LeakyReLU": LeakyReLU}
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", custom_objects=named)
    same(model, loaded, data(model))


class Unshaped(layers.Layer):
    """Keras doesn't know the shape that a wrapper of it returns, until it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, activation="relu", name="dense")

    def call(self, x):
        return tf.concat([self.dense(x), x], -1)


@pytest.mark.filterwarnings("ignore:.*does not have a `build")  # Keras says it of such layers
@pytest.mark.skipif(LEGACY, reason="tf_keras makes the weights at once")
def test_sequential_that_was_never_called_is_refused_for_that():
    wrapper = layers.TimeDistributed(Unshaped(), name="wrapper")
    model = sequential(wrapper, layers.Dense(2), shape=(5, 4))
    assert model.built
    assert not model.weights
    for change in (convert, freeze, to_keras):
        with pytest.raises(ValueError, match=r"to be built.*'seq.*'.*Call the model once on data"):
            change(model)
    x = normal(2, 5, 4)
    model(x)
    assert convert(model, alpha=0.5).layers[0].layer.dense.activation.alpha == 0.5
    same(model, convert(model), x, rtol=0)


class Doubled(Handmade):
    """Its `call` is more than the graph."""

    def call(self, x, training=None, mask=None):
        return 2 * super().call(x, training=training, mask=mask)


@every_change
@pytest.mark.parametrize("within", [False, True])
def test_a_call_of_its_own_is_never_lost(change, within):
    """Where a class can't be made again, a plain model would give other outputs."""
    model = Doubled(name="doubled")
    if within:
        x = tf.keras.Input((6,))
        model = tf.keras.Model(x, layers.Dense(2)(model(x)))
    with pytest.raises(ValueError, match=r"Doubled, which has a call of its own, .*'doubled'"):
        change(model)


def test_layers_that_a_sequential_has_twice_are_called_twice():
    """In tf_keras, `clone_model` and files call them once."""
    act, dense, x = leaky(0.3), layers.Dense(4), normal(5, 6)
    first = layers.Dense(4, activation="relu")
    steps = [first, act, dense, act, dense, layers.Dense(2)]
    model = sequential(*steps, shape=(6,))
    new = convert(model)
    for change in (new, freeze(new), to_keras(new)):
        same(model, change, x)
        assert len(change.weights) == len(model.weights)
        assert change.inputs[0].name == model.inputs[0].name
    sloped = convert(model, alpha=0.5)
    first.activation = lambda x: tf.nn.leaky_relu(x, 0.5)
    y = functools.reduce(lambda y, step: step(y), steps, x)
    np.testing.assert_allclose(sloped(x), y, rtol=1e-6)


class AddsItsLoss(tf.keras.Model):
    def __init__(self, inputs, outputs, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.add_loss(tf.reduce_mean(outputs))


class OfGraph(tf.keras.Model):
    """Users write such for a `train_step` of their own."""


def autoencoder(kind, act):
    """With a loss, a layer and activations that no output depends on."""
    x = tf.keras.Input((6,))
    mean, variance = layers.Dense(2)(x), act(layers.Dense(3)(x))
    model = kind(x, layers.Dense(6)(act(mean)))
    model.add_loss(tf.reduce_mean(layers.Dense(2)(variance) ** 2))
    model.add_metric(act(mean), name="late", aggregation="mean")
    model.add_metric(act(variance - 0.2), name="early", aggregation="mean")
    model.compile("sgd", "mse")
    return model


@pytest.mark.skipif(not LEGACY, reason="Keras 3 has no losses and metrics in a graph")
@pytest.mark.parametrize("kind", [tf.keras.Model, OfGraph, AddsItsLoss])
@pytest.mark.filterwarnings("ignore:.* adds other losses than the model has:UserWarning")
def test_losses_and_metrics_of_a_graph_are_kept(kind):
    model = autoencoder(kind, tf.nn.relu)
    oracle = autoencoder(kind, lambda x: tf.nn.leaky_relu(x, 0.3))
    oracle.set_weights(model.get_weights())
    x = normal(5, 6)
    new, sloped = convert(model), convert(model, alpha=0.3)
    pairs = (new, model), (freeze(new), model), (sloped, oracle), (to_keras(sloped), oracle)
    for one, other in pairs:
        expected = other.evaluate(x, x, verbose=0, return_dict=True)
        assert one.evaluate(x, x, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
        assert isinstance(one, OfGraph) is (kind is OfGraph)


@pytest.mark.skipif(not LEGACY, reason="Keras 3 has no losses in a graph")
def test_loss_of_the_graph_of_a_sequential_is_refused():
    model = sequential(layers.ReLU())
    model.add_loss(tf.reduce_mean(model.outputs[0]))
    for change in (convert, freeze, to_keras):
        with pytest.raises(ValueError, match=r"of a Sequential to be those of its layers.* Add it"):
            change(model)


class Joined(tf.keras.Model):
    """Takes models, which are in its config: Keras 3 empties a config that it reads."""

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder

    def call(self, x):
        return self.decoder(self.encoder(x))

    def get_config(self):
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: tf.keras.layers.serialize(each) for name, each in parts.items()}

    @classmethod
    def from_config(cls, config):
        return cls(*(tf.keras.layers.deserialize(config[each]) for each in ("encoder", "decoder")))


def test_models_in_the_config_of_a_model_are_converted():
    def part(units, act):
        x = tf.keras.Input((4,))
        return tf.keras.Model(x, layers.Dense(units)(act(layers.Dense(3)(x))))

    x = normal(5, 4)
    model, oracle = (
        Joined(part(4, act()), part(2, act())) for act in (layers.ReLU, lambda: leaky(0.2))
    )
    model(x), oracle(x)
    oracle.set_weights(model.get_weights())
    new = convert(model, alpha=0.2)
    assert type(new).__name__ == "Joined"
    np.testing.assert_allclose(new(x), oracle(x), rtol=1e-5, atol=1e-6)


def test_optimizer_of_other_variables_starts_anew():
    """With slopes that weren't trained before, its state fits no longer."""
    model = functional(layers.ReLU)
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    x, y = data(model), np.ones((5, 2), "float32")
    model.fit(x, y, epochs=3, verbose=0)
    new = convert(model, alpha=0.2, trainable_alpha=True)
    assert int(new.optimizer.iterations) == 0
    new.fit(x, y, verbose=0)
    assert int(new.optimizer.iterations) == 1


def test_activation_of_several_widths_has_slopes_for_each():
    x, shared = tf.keras.Input((4,)), layers.ReLU(name="shared")
    y = shared(layers.Dense(5)(shared(layers.Dense(3)(x))))
    model = tf.keras.Model(x, shared(layers.Dense(5)(y)))
    if LEGACY:  # which looks for all calls on one layer
        with pytest.raises(ValueError, match=r"inputs of one size for 'shared'.*1: 3.* and .*1: 5"):
            convert(model, alpha=0.2, trainable_alpha=True, axis=-1)
        return
    new = convert(model, alpha=0.2, trainable_alpha=True, axis=-1)
    sizes = [layer.alpha.shape for layer in new.layers if isinstance(layer, LeakyReLU)]
    assert sorted(map(tuple, sizes)) == [(3,), (5,)]
    same(convert(model, alpha=0.2), new, data(model))
    deep = tf.keras.Model(x, [y, shared(layers.Reshape((5, 1))(y))])
    with pytest.raises(ValueError, match=r"inputs of one rank for 'shared'.* 2 and 3 axes"):
        convert(deep, alpha=0.2, trainable_alpha=True, axis=-1)


class TwoWidths(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.wide, self.small, self.act = layers.Dense(5), layers.Dense(3), layers.ReLU(name="act")

    def call(self, x):
        return self.act(self.small(self.act(self.wide(x))))


@pytest.mark.filterwarnings("ignore:.*looks like it has unbuilt state:UserWarning")  # Keras 3 first
def test_activation_of_a_layer_has_no_slopes_along_an_axis_of_two_sizes():
    model = sequential(TwoWidths())
    assert convert(model, alpha=0.2, trainable_alpha=True).trainable_weights
    with pytest.raises(
        ValueError, match=r"inputs of one shape for 'act'.* Use one layer per shape"
    ):
        convert(model, alpha=0.2, trainable_alpha=True, axis=-1)


class CompilesAsItLikes(tf.keras.Model):
    def compile(self, **settings):
        super().compile(**settings)


class CompilesFromItsConfig(CompilesAsItLikes):
    def get_compile_config(self):
        return {"optimizer": "sgd", "loss": "mae"}

    def compile_from_config(self, config):
        self.compile(**config)


class WithoutConfig(tf.keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01


class CountsUpTo(tf.keras.metrics.Metric):
    """Its constructor has an argument that isn't in its config."""

    def __init__(self, most, **kwargs):
        super().__init__(**kwargs)
        self.most = most

    def update_state(self, y, p, sample_weight=None):
        pass

    def result(self):
        return tf.constant(self.most)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (CompilesAsItLikes, {}, "its class overrides `compile`"),
        (tf.keras.Model, {"optimizer": tf.keras.optimizers.Adam(WithoutConfig())}, "get_config"),
        (tf.keras.Model, {"metrics": [CountsUpTo(3)]}, "required positional argument: 'most'"),
        (CompilesFromItsConfig, {}, None),
    ],
)
def test_settings_that_can_not_be_made_again(kind, settings, reason, caplog):
    x = tf.keras.Input((4,))
    model = kind(x, layers.PReLU()(x))
    model.compile(**({"optimizer": "adam", "loss": "mse"} | settings))
    new = convert(model)
    assert type(new) is type(model)
    if reason is None:
        assert new.loss == "mae"
    else:
        assert "is returned without being compiled, as its" in caplog.text
        assert reason in caplog.text
    same(model, new, data(model))


class MakesMetricsInCompile(tf.keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2, activation="relu")

    def compile(self, **settings):
        super().compile(**settings)
        self.tracker = tf.keras.metrics.Mean(name="tracker")

    def call(self, x):
        return self.dense(x)


def test_metrics_that_compile_makes_are_left_to_it(caplog):
    model, x = MakesMetricsInCompile(), normal(5, 4)
    model.compile(optimizer="adam", loss="mse")
    model(x)
    new = convert(model, alpha=0.1)
    assert "is returned without being compiled" in caplog.text
    same(convert(new), new, x)


class OfItsOwn(layers.Layer):
    """Accepts one activation, by its name."""

    def __init__(self, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.activation = {"relu": tf.nn.relu}[activation]

    def call(self, x):
        return self.activation(x)

    def get_config(self):
        return super().get_config() | {"activation": "relu"}


class OfOneClass(OfItsOwn):
    @classmethod
    def from_config(cls, config):
        return OfOneClass(**config)


class SetLater(layers.Layer):
    """Whoever makes it sets its activation, without which it can't be called."""

    act = None

    def call(self, x):
        return self.act(x)


class MadeInBuild(layers.Layer):
    def build(self, shape):
        self.act = layers.Activation("relu")
        super().build(shape)

    def call(self, x):
        return self.act(x)


def set_later():
    layer = SetLater()
    layer.act = layers.ReLU()
    return layer


@pytest.mark.parametrize("make", [OfItsOwn, set_later, MadeInBuild])
def test_activations_that_layers_get_in_their_own_ways_are_changed(make):
    new = convert(sequential(make()), alpha=0.5)
    for each in (new, convert(new), freeze(new)):
        np.testing.assert_array_equal(each(-np.ones((1, 4))), [[-0.5] * 4])


class OldStyle(layers.Layer):
    def __init__(self, units=4, **kwargs):
        super(self.__class__, self).__init__(**kwargs)
        self.units, self.act = units, layers.ReLU()

    def call(self, x):
        return self.act(x)

    def get_config(self):
        return super().get_config() | {"units": self.units}


class Calls(layers.Layer):
    def call(self, x):
        return tf_leaky.leaky_relu(x)


@pytest.mark.parametrize(
    ("change", "make", "match"),
    [
        (convert, OfOneClass, r"a layer of the class that it is called on.*Return cls"),
        (convert, OldStyle, r"have a subclass.* OldStyle, for which it fails.* Write super\(\)"),
        (to_keras, Calls, r"activations that stock layers can replace.* tf_leaky is used by"),
    ],
)
def test_layers_that_can_not_be_changed(change, make, match):
    model = sequential(make())
    with pytest.raises(ValueError, match=f"(?s){match}"):
        change(model, **({"alpha": 0.2} if change is convert else {}))


def test_class_that_is_not_known_is_named():
    gone = {"module": "gone", "class_name": "Gone", "registered_name": "Gone"}
    gone["config"] = {"name": "gone"}
    with pytest.raises(ValueError, match=r"the class Gone of gone to be known\. Received: "):
        Converted.from_config({"name": "gone", "layer": gone, "replaced": []})


@pytest.mark.parametrize("place", [["last"], [["act"]], 7, None])
def test_place_that_is_not_above_in_a_config_is_named(place):
    config = convert(sequential(OfItsOwn()), alpha=0.2).layers[-1].get_config()
    config["replaced"] += [{"at": ["last"], "as_at": place}]
    with pytest.raises(
        ValueError, match=r"as_at to be one of the places above it\. Received: as_at="
    ):
        Converted.from_config(config)


class Nameless(layers.Layer):
    """Its constructor takes no name."""

    def __init__(self):
        super().__init__()
        self.act = layers.ReLU()

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=shape[-1:], initializer="ones")

    def call(self, x):
        return self.act(self.scale * x)

    def get_config(self):
        return {}


def test_layers_whose_constructor_takes_no_name_keep_it(tmp_path):
    """Names are what tf_keras loads weights by."""
    model = sequential(Nameless(), Nameless())
    path = tmp_path / "model.weights.h5"
    for change in (convert, functools.partial(convert, alpha=0.5), freeze, to_keras):
        new = change(model)
        assert [each.name for each in new.layers] == [each.name for each in model.layers]
        new.set_weights([normal(4) for _ in new.weights])
        new.save_weights(path)
        model.load_weights(path, **({"by_name": True} if LEGACY else {}))
        for one, other in zip(model.get_weights(), new.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.any()


class Child(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, activation="relu")

    def call(self, x):
        return self.dense(x)


class Owner(layers.Layer):
    """The layers within it refer to it, which it has Keras track or not."""

    def __init__(self, tracked=False, **kwargs):
        super().__init__(**kwargs)
        self.tracked = tracked
        self.child, other = Child(), Child()
        self.net = tf.keras.Sequential([layers.Dense(3), layers.ReLU(), other])
        for child in (self.child, other):
            if tracked:
                child.owner = self
            else:
                vars(child)["owner"] = self

    def call(self, x):
        return self.net(self.child(x))

    def get_config(self):
        return super().get_config() | {"tracked": self.tracked}


@pytest.mark.filterwarnings("ignore:.*looks like it has unbuilt state:UserWarning")  # Keras 3 first
def test_layers_that_refer_to_the_layer_around_them_are_converted():
    new = convert(sequential(Owner()), alpha=0.5, strict=True)
    owner = new.layers[-1]
    assert vars(owner.child)["owner"] is owner
    assert owner.child.dense.activation.alpha == owner.net.layers[1].alpha == 0.5
    assert owner.net.layers[2].dense.activation.alpha == 0.5
    same(new, freeze(new), normal(5, 4))


@pytest.mark.skipif(not LEGACY, reason="Keras 3 can't make this model")
def test_layers_whose_weights_keras_can_not_list_are_named():
    x = tf.keras.Input((4,))
    model = tf.keras.Model(x, Owner(tracked=True, name="owner")(x))
    for change in (convert, freeze, to_keras):
        with pytest.raises(ValueError, match=r"Keras can list\. Received: 'child.*has 'owner'"):
            change(model)


class Eager(layers.Layer):
    """Has to be run eagerly, which Keras 3 learns in its first call only."""

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return x + float(x.numpy().max())


@pytest.mark.skipif(LEGACY, reason="tf_keras traces every layer")
def test_models_that_can_not_be_traced(caplog):
    model = sequential(layers.Dense(4), layers.BatchNormalization(), LeakyReLU(0.1), Eager())
    with pytest.warns(UserWarning, match="could not be traced, so it is not known whether any"):
        convert(model, alpha=0.2)
    with pytest.raises(ValueError, match="to_keras: expected a model that can be traced"):
        to_keras(model)
    with caplog.at_level("INFO", logger="tf_leaky"):
        freeze(model, fold_batch_norm=True)
    assert "not folded, as the model can't be traced: " in caplog.text


@pytest.mark.parametrize("kind", ["sparse", "ragged"])
def test_inputs_that_are_not_dense_are_traced_as_they_are(kind):
    dense = {
        "sparse": lambda x: tf.sparse.to_dense(x),
        "ragged": lambda x: x.to_tensor(shape=(None, 4)),
    }[kind]
    x = tf.keras.Input((4 if kind == "sparse" else None,), **{kind: True})
    y = layers.Lambda(dense, output_shape=(4,))(x)
    new = convert(tf.keras.Model(x, layers.ReLU()(y)), alpha=0.2, strict=True)
    assert type(new.layers[-1]) is LeakyReLU


class Own(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.act = LeakyReLU(0.3)

    def call(self, x):
        return tf.nn.relu(self.act(x))


def around():
    x = tf.keras.Input((6,))
    return tf.keras.Model(x, Handmade(name="inner")(x))  # Keras's own code calls us


slope = functools.partial(convert, alpha=0.2)
fuse = functools.partial(slope, fuse_batch_norm=True)


def changed(change, model):
    return change(model)


@pytest.mark.parametrize(
    ("change", "make", "text"),
    [
        (fuse, around, "Nothing was fused"),
        (slope, lambda: sequential(Own()), "expected to change every ReLU"),
        (to_keras, lambda: sequential(Own()), "a .keras file of it is read by"),
        (slope, lambda: Handmade(name="lambda_net"), "'lambda_net' is returned as a plain Functi"),
        (slope, around, "'inner' is returned as a plain Functional"),
    ],
)
def test_warnings_point_at_the_line_that_called_us(change, make, text):
    model = make()
    with pytest.warns(UserWarning, match=r"^(convert|to_keras): ") as warned:
        changed(change, model)
    (one,) = [each for each in warned if text in str(each.message)]
    assert (one.filename, one.lineno) == (__file__, inspect.getsourcelines(changed)[1] + 1)
