"""Models that Keras records little about: what they are called on, what a file brings."""

import numpy as np
import pytest
import tensorflow as tf
from zoo.table import LEGACY

import tf_leaky
from tf_leaky import convert, freeze, to_keras

layers = tf.keras.layers


def normal(*shape):
    return np.random.default_rng(3).normal(size=shape).astype("float32")


def same(one, other, x, rtol=1e-5):
    np.testing.assert_allclose(other(x), one(x), rtol=rtol, atol=1e-6)


class JoinsDict(layers.Layer):
    def call(self, x):
        return tf.concat([x[key] for key in sorted(x)], -1)


@pytest.mark.parametrize("change", [convert, freeze, to_keras])
def test_sequential_that_takes_a_dict_is_changed(change):
    model = tf.keras.Sequential([JoinsDict(), layers.Dense(3), layers.PReLU()])
    x = {"a": normal(5, 2), "b": normal(5, 1)}
    model(x)
    same(model, change(model), x, rtol=0)


@tf.keras.utils.register_keras_serializable("models")
class Net(tf.keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.act = layers.Dense(4), layers.ReLU()

    def call(self, x):
        return self.act(self.dense(x))

    def get_config(self):
        return {"name": self.name}


@pytest.mark.parametrize("change", [convert, freeze, to_keras])
def test_subclassed_model_of_a_file_is_changed_before_its_first_call(change, tmp_path):
    model, x = Net(), normal(5, 3)
    model(x)
    model.save(tmp_path / "model.keras")
    same(model, change(tf.keras.models.load_model(tmp_path / "model.keras")), x, rtol=0)


class SaysBuilt(Net):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True


@pytest.mark.parametrize("change", [convert, freeze, to_keras])
def test_model_of_unknown_inputs_is_refused_with_ways_to_say_them(change):
    model, x = SaysBuilt(), normal(5, 3)
    with pytest.raises(ValueError, match=r"recorded no shapes\. Call the model once .* Wrap it"):
        change(model)
    model(x)
    inputs = tf.keras.Input((3,))
    whole = tf.keras.Model(inputs, model(inputs))
    same(model, change(whole).get_layer(model.name), x, rtol=0)


class TakesTwo(Net):
    def call(self, x, weights):
        return self.act(self.dense(x) * weights)


class BuildsOfTwo(TakesTwo):
    def build(self, x_shape, weights_shape):
        self.dense.build(x_shape)


def called_on_two(kind):
    model, x = kind(), [normal(5, 3), normal(5, 1)]
    model(*x)
    return model, x


@pytest.mark.parametrize("change", [convert, freeze, to_keras])
@pytest.mark.parametrize("kind", [TakesTwo] if LEGACY else [BuildsOfTwo])
def test_model_of_several_arguments_is_called_on_all_that_keras_recorded(change, kind):
    model, x = called_on_two(kind)
    np.testing.assert_array_equal(change(model)(*x), model(*x))


@pytest.mark.parametrize("change", [convert, freeze, to_keras])
def test_model_of_several_arguments_is_changed_within_a_graph(change):
    model, x = called_on_two(TakesTwo)
    if not LEGACY:  # which records the shape of the first only
        with pytest.raises(ValueError, match=r"'weights'\. Keras 3 records .* get_layer\('takes_"):
            change(model)
    inputs = [tf.keras.Input((3,)), tf.keras.Input((1,))]
    whole = tf.keras.Model(inputs, model(*inputs))
    np.testing.assert_array_equal(change(whole).get_layer(model.name)(*x), model(*x))


def test_what_calls_a_model_on_one_argument_refuses_those_of_several(tmp_path):
    model, x = called_on_two(TakesTwo)
    for use, given in (
        (tf_leaky.activation_memory, x),
        (tf_leaky.plot_activations, x),
        (tf_leaky.export_saved_model, tmp_path),
    ):
        match = rf"{use.__name__}: .* as one argument\. .* takes x, weights\. Wrap it: whole"
        with pytest.raises(ValueError, match=match):
            use(model, given)


@tf.keras.utils.register_keras_serializable("models")
class Normalizes(Net):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.adapted = layers.Normalization()

    def call(self, x):
        return super().call(self.adapted(x))


class NormalizesAsTold(Normalizes):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.told = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])

    def call(self, x):
        return super().call(self.told(x))


@pytest.mark.parametrize("change", [convert, freeze, to_keras])
def test_normalization_within_a_subclassed_model_is_kept(change):
    model, x = NormalizesAsTold(), normal(5, 3)
    model.told.build(x.shape)  # Keras 3 can't call the model if its first call builds this
    model.adapted.adapt(x)
    model(x)
    new = change(model)
    same(model, new, x, rtol=0)
    np.testing.assert_allclose(new.predict(x, verbose=0), model(x), rtol=1e-5)
    new.adapted.adapt(2 * x)
    assert np.abs(new(x) - model(x)).max() > 0.1


def test_file_of_a_converted_model_keeps_its_normalization(tmp_path):
    model, x = Normalizes(), normal(5, 3)
    model.adapted.adapt(x)
    model(x)
    new = convert(model, alpha=0.1)
    new.save(tmp_path / "model.keras")
    same(new, tf.keras.models.load_model(tmp_path / "model.keras"), x, rtol=0)


@pytest.mark.parametrize("cell", [layers.SimpleRNNCell, layers.LSTMCell])
def test_slope_of_a_loaded_cell_goes_back_to_keras(cell, tmp_path):
    model, x = tf.keras.Sequential([layers.RNN(cell(4, activation="relu"))]), normal(5, 2, 3)
    model(x)
    new = convert(model, alpha=0.1, trainable_alpha=True)
    new.save(tmp_path / "model.keras")
    ours = {"LeakyReLU": tf_leaky.LeakyReLU}
    loaded = tf.keras.models.load_model(tmp_path / "model.keras", custom_objects=ours)
    same(new, to_keras(loaded), x)


def test_lambda_keeps_functions_that_no_config_has():
    def distance(x, power):
        return tf.abs(x) ** power

    def shape(given):
        return given

    inputs, x = tf.keras.Input((3,)), normal(5, 3)
    root = layers.Lambda(distance, shape, arguments={"power": 0.5}, name="root")
    model = tf.keras.Model(inputs, root(layers.Dense(4, activation="relu")(inputs)))
    same(model, convert(model, alpha=0.0), x)


@pytest.mark.filterwarnings("ignore:.*looks like it has unbuilt state:UserWarning")  # Keras 3
def test_slope_that_is_never_called_is_refused_by_name():
    """A negative one takes a PReLU, which has to know the rank of its input."""
    model = Net()
    model.never = tf_leaky.LeakyReLU(-0.5, name="never")
    model(normal(5, 3))
    with pytest.raises(ValueError, match=r"Received: 'never' in 'never', .*unknown rank"):
        to_keras(model)


@pytest.mark.skipif(not LEGACY, reason="Keras 3 has add_loss within a call only")
@pytest.mark.parametrize("change", [convert, freeze, to_keras])
def test_losses_that_a_copy_lacks_are_named(change):
    made = layers.Dense(3, kernel_regularizer="l2")
    model = tf.keras.Sequential([tf.keras.Input((3,)), made, tf_leaky.LeakyReLU(0.3)])
    change(model)  # without a warning
    made.add_loss(lambda: tf.reduce_sum(made.kernel**2))
    with pytest.warns(UserWarning, match=rf"{model.name}/{made.name} got functions by add_loss"):
        change(model)


def test_wrapped_layer_keeps_its_functions_and_is_shared():
    inner = tf.keras.Sequential(
        [layers.Dense(4, activation="relu"), layers.Lambda(lambda y: y + 1)]
    )
    wrapped, x = layers.TimeDistributed(inner), normal(5, 2, 3)
    inputs = tf.keras.Input((2, 3))
    model = tf.keras.Model(inputs, [wrapped(inputs), inner(inputs[:, 0])])
    new = convert(model, alpha=0.0)
    for one, other in zip(model(x), new(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert len(new.weights) == len(model.weights)


@pytest.mark.parametrize("by_name", [True, False])
def test_what_is_excluded_from_weight_decay_stays_so(by_name):
    model = tf.keras.Sequential([tf.keras.Input((3,)), layers.Dense(4, "relu"), layers.PReLU()])
    optimizer = tf.keras.optimizers.SGD(0.1, weight_decay=0.5)
    excluded = {"var_names": ["bias"]} if by_name else {"var_list": [model.weights[1]]}
    optimizer.exclude_from_weight_decay(**excluded)
    model.compile(optimizer, "mse")
    new = convert(model, alpha=0.0)
    for each in (model, new):
        each.layers[0].bias.assign([1.0] * 4)
        each.train_on_batch(np.zeros((5, 3)), np.ones((5, 4)))
    np.testing.assert_allclose(new.weights[1], [1.0] * 4)
    np.testing.assert_allclose(new.weights[0], model.weights[0])


@pytest.mark.filterwarnings("ignore:.*looks like it has unbuilt state:UserWarning")  # Keras 3
def test_layers_that_have_several_places_are_found_at_each():
    class Blocks(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.parts = [layers.Dense(4), layers.ReLU()]
            self.dense = self.parts[0]

        def call(self, x):
            return self.parts[1](self.dense(x))

    model = tf.keras.Sequential([tf.keras.Input((3,)), Blocks()])
    same(model, convert(model, alpha=0.0), normal(5, 3))
