"""Saved and loaded, in every format: the same outputs and slopes, and training goes on.

`test_zoo_files.py` and `tests/system/test_examples.py` load files in fresh processes.
"""

import copy
import os
import pickle

import cases
import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3, run_python

from tf_leaky import LeakyReLU, convert, leaky_relu, to_keras
from tf_leaky.conversion.carrying import Converted

layers = tf.keras.layers
# Of numbers, the last is enough.
CASES = (*cases.HOSTED[3:], *cases.BATCH_NORMS[2:4], cases.CONVERTED[-1])
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning"),
    # of any class without a `build` of its own
    pytest.mark.filterwarnings("ignore:.build... was called on layer 'block':UserWarning"),
]


def compiled(model):
    model.compile(tf.keras.optimizers.Adam(0.01), tf.keras.losses.MeanSquaredError())
    model.run_eagerly = True  # tracing takes long, and shows nothing more
    return model


def trained(case):
    """A model of an input, a Dense layer and that of the case, after three steps; x and y.

    Batch normalisation has no Dense before it, whose bias had nothing but rounding for a gradient.
    """
    alone = any(words in case.name for words in ("activation", "batch norm"))
    before = [] if alone else [layers.Dense(case.input_shape[-1])]
    parts = [*before, *cases.hosts(case), layers.Flatten(), layers.Dense(2)]
    model = compiled(tf.keras.Sequential([tf.keras.Input(case.input_shape), *parts]))
    rng = np.random.default_rng(5)
    x, y = (rng.normal(size=(8, *s)).astype("float32") for s in (case.input_shape, (2,)))
    for _ in range(3):
        model.train_on_batch(x, y)
    return model, x, y


def empty(model, x):
    """A model of the same config, that has trained nothing."""
    new = compiled(tf.keras.models.model_from_json(model.to_json()))
    assert new.built
    new(x)  # makes the slope of a layer that is an activation of another
    new.optimizer.build(new.trainable_variables)
    return new


def by_file(name, **options):
    def reloaded(model, x, folder):
        model.save(folder / name, **options.get("save", {}))
        return tf.keras.models.load_model(folder / name, **options.get("load", {}))

    return reloaded


def by_weights(model, x, folder):
    model.save_weights(folder / "model.weights.h5")
    new = empty(model, x)
    new.load_weights(folder / "model.weights.h5")
    return new


def by_checkpoint(model, x, folder):
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(folder / "it"))
    new = empty(model, x)
    checkpoint = tf.train.Checkpoint(model=new, optimizer=new.optimizer)
    checkpoint.read(path).assert_existing_objects_matched()
    return new


def configs(model):
    """Those of all but converted layers, in which tf_keras writes whether their parts are built."""
    return [layer.get_config() for layer in model.layers if not isinstance(layer, Converted)]


def by_clone(model, x, folder):
    clone = tf.keras.models.clone_model(model)
    clone(x)
    assert configs(clone) == configs(model)
    clone.set_weights(model.get_weights())
    return clone


WAYS = {
    ".keras": by_file("model.keras"),
    "pickle": lambda model, x, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, x, folder: copy.deepcopy(model),
    ".weights.h5": by_weights,
    "checkpoint": by_checkpoint,
    "clone_model": by_clone,
    ".h5": by_file("model.h5", load={"compile": not KERAS_3}),
}
if not KERAS_3:
    WAYS["directory"] = by_file("model", save={"save_format": "tf"})
# Where Keras itself loses the optimizer's state.
NO_OPTIMIZER = ("clone_model", ".h5" if KERAS_3 else "directory")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=cases.names)
def test_reloaded_model_goes_on_where_the_saved_one_stopped(case, way, tmp_path):
    if way in (".h5", "clone_model") and not KERAS_3 and "activation" in case.name:
        pytest.skip("tf_keras loads no such .h5, as is held below, and clones another config")
    model, x, y = trained(case)
    again = WAYS[way](model, x, tmp_path)
    again.run_eagerly = True
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    if way not in NO_OPTIMIZER:
        for each in (model, again):
            each.train_on_batch(x, y)
        for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)


LOAD = """
import sys, numpy
sys.modules["tf_leaky"] = None  # as where it is not installed
import tensorflow as tf
assert tf.keras.Model.__module__.startswith("keras.")
named = {"Functional": tf.keras.Model}  # as tf_keras writes it into `.keras`
model = tf.keras.models.load_model(sys.argv[1], compile=False, custom_objects=named)
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


@pytest.mark.skipif(KERAS_3, reason="tf_keras loads no file of Keras 3")
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_stock_files_load_under_keras_3_where_tf_leaky_is_not_installed(ending, tmp_path):
    x = tf.keras.Input((4, 4, 2))
    y = layers.Conv2D(3, 3, activation=LeakyReLU(0.3))(x)
    y = LeakyReLU(0.25, trainable_alpha=True, axis=-1)(y)
    y = LeakyReLU(-0.5)(layers.Flatten()(y))
    model = tf.keras.Model(x, layers.Dense(2, activation=leaky_relu)(y))
    file, images, answer = (tmp_path / name for name in (f"stock.{ending}", "x.npy", "y.npy"))
    to_keras(model).save(file)
    np.save(images, np.random.default_rng(3).normal(size=(5, 4, 4, 2)).astype("float32"))
    run_python("-c", LOAD, file, images, answer, env=os.environ | {"TF_USE_LEGACY_KERAS": "0"})
    expected = model.predict(np.load(images), verbose=0)
    np.testing.assert_allclose(np.load(answer), expected, rtol=1e-5, atol=1e-6)


# Limits of Keras that docs/saving.md names: if one of these fails, that is out of date.


@pytest.mark.skipif(not KERAS_3, reason="a limit of Keras 3")
@pytest.mark.filterwarnings("ignore")
def test_h5_spoils_a_later_keras_file(tmp_path):
    model, _, _ = trained(cases.LAYERS[5])
    for name in ("model.h5", "model.keras"):
        model.save(tmp_path / name)
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is not type(model.optimizer)


@pytest.mark.skipif(KERAS_3, reason="a limit of tf_keras")
def test_tf_keras_loads_no_h5_with_ours_as_an_activation(tmp_path):
    dense = layers.Dense(2, activation=leaky_relu)
    tf.keras.Sequential([tf.keras.Input((3,)), dense]).save(tmp_path / "model.h5")
    with pytest.raises((TypeError, ValueError)):
        tf.keras.models.load_model(tmp_path / "model.h5")


@pytest.mark.parametrize("made", ["given", "converted"])
def test_each_direction_reloads_its_slope_where_both_layers_are_given(made, tmp_path):
    def cell(**arguments):
        slope = LeakyReLU(0.25, trainable_alpha=True) if made == "given" else "relu"
        return layers.SimpleRNN(2, activation=slope, **arguments)

    given = {"backward_layer": cell(go_backwards=True)} if made == "given" else {}
    model = tf.keras.Sequential([tf.keras.Input((3, 2)), layers.Bidirectional(cell(), **given)])
    if made == "converted":  # then both are
        model = convert(model, alpha=0.25, trainable_alpha=True)
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    model.predict(x, verbose=0)  # makes the slopes
    slopes = [weight for weight in model.weights if weight.shape == ()]
    for slope, value in zip(slopes, (0.75, 0.1), strict=True):
        slope.assign(value)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
