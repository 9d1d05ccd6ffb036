"""Saved, then loaded in a fresh process: the same outputs and slopes, and training goes on."""

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import cases
import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, leaky_relu

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
layers = tf.keras.layers
# Formats in which Keras itself loses the optimizer's state. `.h5` is loaded with compile=False.
NO_OPTIMIZER = ["model.h5"] if KERAS_3 else ["model_tf"]
FORMATS = ["model.keras", "model.pickle", "model.weights.h5", "checkpoint", "model.h5"]
FORMATS += [] if KERAS_3 else ["model_tf"]
CASES = (*cases.HOSTED, *cases.BATCH_NORMS[2:4])
only_keras_3 = pytest.mark.skipif(not KERAS_3, reason="a limit of Keras 3")
only_tf_keras = pytest.mark.skipif(KERAS_3, reason="a limit of tf_keras")
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")


def make_case(case):
    """A model of an input, a Dense layer and that of the case, trained for three steps.

    Batch normalisation has no Dense before it, whose bias had nothing but rounding for a gradient.
    """
    alone = any(words in case.name for words in ("activation", "batch norm"))
    before = [] if alone else [layers.Dense(case.input_shape[-1])]
    parts = [*before, *cases.hosts(case), layers.Flatten(), layers.Dense(2)]
    model = tf.keras.Sequential([tf.keras.Input(case.input_shape), *parts])
    model.compile(tf.keras.optimizers.Adam(0.01), tf.keras.losses.MeanSquaredError())
    rng = np.random.default_rng(5)
    x = rng.normal(size=(8, *case.input_shape)).astype("float32")
    y = rng.normal(size=(8, 2)).astype("float32")
    for _ in range(3):
        model.train_on_batch(x, y)
    return model, x, y


EXPECTED = {}


def save(case, folder):
    """Saves a model in every format; `.keras` before `.h5`, which spoils it (Keras 3)."""
    model, x, y = make_case(case)
    folder.mkdir()
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    (folder / "model.json").write_text(model.to_json())
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    (folder / "model.pickle").write_bytes(pickle.dumps(model))
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(folder / "checkpoint"))
    if not KERAS_3:
        model.save(folder / "model_tf", save_format="tf")
    if KERAS_3 or "activation" not in case.name:  # tf_keras loads no such .h5: held below
        model.save(folder / "model.h5")
    before = model.get_weights()
    expected = {"prediction": model.predict(x, verbose=0), "before": before}
    model.train_on_batch(x, y)
    EXPECTED[case.name] = expected | {"after": model.get_weights()}


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory):
    """The folder in which each saved model has been reloaded by another process."""
    folder = tmp_path_factory.mktemp("saved")
    for case in CASES:
        save(case, folder / cases.names(case))
    script = Path(__file__).with_name("reload.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=cases.names)
def test_fresh_process_goes_on_where_this_one_stopped(case, name, reloaded):
    if name == "model.h5" and not KERAS_3 and "activation" in case.name:
        pytest.skip("tf_keras loads no such .h5")
    expected = EXPECTED[case.name]
    with np.load(reloaded / cases.names(case) / f"{name}.npz") as found:
        np.testing.assert_array_equal(found["prediction"], expected["prediction"])
        for i, weight in enumerate(expected["before"]):
            np.testing.assert_array_equal(found[f"before_{i}"], weight)
        if name in NO_OPTIMIZER:
            return
        for i, weight in enumerate(expected["after"]):
            np.testing.assert_allclose(found[f"after_{i}"], weight, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", [*cases.LAYERS, *cases.BATCH_NORMS[2:4]], ids=cases.names)
def test_copies_in_this_process(case):
    model, x, y = make_case(case)
    clone = tf.keras.models.clone_model(model)
    assert [la.get_config() for la in clone.layers] == [la.get_config() for la in model.layers]
    clone.set_weights(model.get_weights())
    again = copy.deepcopy(model)
    for other in (clone, again):
        np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    for each in (model, again):
        each.train_on_batch(x, y)
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def small(*parts):
    return tf.keras.Sequential([tf.keras.Input((3,)), *parts])


def test_without_the_import_keras_says_what_is_missing(tmp_path):
    """A registered layer is found once its package is imported; Keras does not import it itself."""
    small(LeakyReLU()).save(tmp_path / "model.keras")
    code = "import sys, tensorflow as tf; tf.keras.models.load_model(sys.argv[1])"
    command = [sys.executable, "-c", code, tmp_path / "model.keras"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "LeakyReLU" in done.stderr


# ---- limits of Keras, each a sentence of the README: if one fails, that is out of date ----


@only_keras_3
def test_h5_does_not_load_compiled_with_a_loss_by_name(tmp_path):
    model = small(LeakyReLU())
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.h5")
    with pytest.raises((TypeError, ValueError), match="mse"):
        tf.keras.models.load_model(tmp_path / "model.h5")
    tf.keras.models.load_model(tmp_path / "model.h5", compile=False)


@only_keras_3
def test_h5_loses_a_list_of_axes(tmp_path):
    """Why the config says it twice. If this fails, "axes" need not be written any more."""

    @tf.keras.utils.register_keras_serializable("test")
    class Axes(layers.Layer):
        def __init__(self, axis=None, **kwargs):
            super().__init__(**kwargs)
            self.axis = axis

        def get_config(self):
            return {**super().get_config(), "axis": self.axis}

    small(Axes([1, 2])).save(tmp_path / "model.h5")
    again = tf.keras.models.load_model(tmp_path / "model.h5", compile=False)
    assert again.layers[0].axis is None


@only_keras_3
def test_h5_spoils_a_later_keras_file(tmp_path):
    model, _, _ = make_case(cases.LAYERS[5])
    model.save(tmp_path / "model.h5")
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is not type(model.optimizer)


@only_tf_keras
def test_tf_keras_loses_the_optimizer_in_its_own_directory_format(tmp_path):
    model, _, _ = make_case(cases.LAYERS[0])
    model.save(tmp_path / "model", save_format="tf")
    again = tf.keras.models.load_model(tmp_path / "model")
    assert len(again.optimizer.variables) < len(model.optimizer.variables)


@only_tf_keras
def test_tf_keras_loads_no_h5_with_ours_as_an_activation(tmp_path):
    small(layers.Dense(2, activation=leaky_relu)).save(tmp_path / "model.h5")
    with pytest.raises((TypeError, ValueError)):
        tf.keras.models.load_model(tmp_path / "model.h5")


@pytest.mark.parametrize("explicit", [True, pytest.param(False, marks=only_tf_keras)])
def test_each_direction_reloads_its_slope_where_both_layers_are_given(explicit, tmp_path):
    """Else tf_keras copies the layer by its config, and reloads one activation for both copies."""

    def cell(**arguments):
        slope = LeakyReLU(0.25, trainable_alpha=True)
        return layers.SimpleRNN(2, activation=slope, **arguments)

    both = {"backward_layer": cell(go_backwards=True)} if explicit else {}
    model = tf.keras.Sequential([tf.keras.Input((3, 2)), layers.Bidirectional(cell(), **both)])
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    model.predict(x, verbose=0)  # makes the slopes
    slopes = [weight for weight in model.weights if weight.shape == ()]
    for slope, value in zip(slopes, (0.75, 0.1), strict=True):
        slope.assign(value)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    apart = np.abs(loaded.predict(x, verbose=0) - expected).max()
    assert apart == 0 if explicit else apart > 1e-3
