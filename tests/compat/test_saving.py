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
each_layer = pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)
# Formats in which Keras itself loses the optimizer's state. `.h5` is loaded with compile=False.
NO_OPTIMIZER = ["model.h5"] if KERAS_3 else ["model_tf"]
FORMATS = ["model.keras", "model.pickle", "model.weights.h5", "checkpoint", "model.h5", "model_tf"]


def make_case(case):
    """A model of an input, a Dense layer and that of the case, trained for three steps."""
    layers = tf.keras.layers
    before = [] if "activation" in case.name else [layers.Dense(case.input_shape[-1])]
    model = tf.keras.Sequential(
        [
            tf.keras.Input(case.input_shape),
            *before,
            *cases.hosts(case),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model.compile(tf.keras.optimizers.Adam(0.01), tf.keras.losses.MeanSquaredError())
    rng = np.random.default_rng(5)
    x = rng.normal(size=(8, *case.input_shape)).astype("float32")
    y = rng.normal(size=(8, 2)).astype("float32")
    for _ in range(3):
        model.fit(x, y, verbose=0, shuffle=False, batch_size=8)
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
    model.fit(x, y, verbose=0, shuffle=False, batch_size=8)
    EXPECTED[case.name] = expected | {"after": model.get_weights()}


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory):
    """The folder in which each saved model has been reloaded by another process."""
    folder = tmp_path_factory.mktemp("saved")
    for case in cases.HOSTED:
        save(case, folder / cases.names(case))
    script = Path(__file__).with_name("reload.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _formats():
    for case in cases.HOSTED:
        for name in FORMATS:
            if name == "model_tf" and KERAS_3:
                continue
            if name == "model.h5" and not KERAS_3 and "activation" in case.name:
                continue
            yield pytest.param(case, name, id=f"{cases.names(case)}-{name}")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.parametrize(("case", "name"), list(_formats()))
def test_fresh_process_goes_on_where_this_one_stopped(case, name, reloaded):
    expected = EXPECTED[case.name]
    with np.load(reloaded / cases.names(case) / f"{name}.npz") as found:
        np.testing.assert_array_equal(found["prediction"], expected["prediction"])
        for i, weight in enumerate(expected["before"]):
            np.testing.assert_array_equal(found[f"before_{i}"], weight)
        if name in NO_OPTIMIZER:
            return
        for i, weight in enumerate(expected["after"]):
            np.testing.assert_allclose(found[f"after_{i}"], weight, rtol=1e-6, atol=1e-7)


@each_layer
def test_copies_in_this_process(case):
    model, x, y = make_case(case)
    clone = tf.keras.models.clone_model(model)
    assert [la.get_config() for la in clone.layers] == [la.get_config() for la in model.layers]
    clone.set_weights(model.get_weights())
    again = copy.deepcopy(model)
    for other in (clone, again):
        np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    for each in (model, again):
        each.fit(x, y, verbose=0, shuffle=False, batch_size=8)
    for mine, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("case", cases.LAYERS[4:8], ids=cases.names)
def test_exported_model_has_the_outputs_and_the_gradients(case, tmp_path):
    model, x, _ = make_case(case)
    model.export(str(tmp_path / "model"))
    loaded = tf.saved_model.load(tmp_path / "model")
    serve = loaded.signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    np.testing.assert_allclose(
        serve(**{name: tf.constant(x)})["output_0"], model(x), rtol=1e-5, atol=1e-6
    )

    def gradients(function, variables):
        point = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(point)
            y = tf.reduce_sum(function(point) ** 2)
        return tape.gradient(y, [point, *variables])

    served = gradients(lambda point: serve(**{name: point})["output_0"], serve.trainable_variables)
    trained = gradients(model, model.trainable_variables)
    for mine, theirs in zip(served, trained, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_weights_move_between_architectures_by_name_of_the_file_format(tmp_path):
    """The weight is found under `vars/0` of the layer in `.weights.h5`, of the documented shape."""
    import h5py

    model = tf.keras.Sequential(
        [tf.keras.Input((3,)), LeakyReLU(0.5, trainable_alpha=True, axis=-1)]
    )
    model.save_weights(tmp_path / "model.weights.h5")
    found = {}
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(lambda path, item: found.update({path: getattr(item, "shape", None)}))
    assert [s for p, s in found.items() if p.endswith("leaky_re_lu/vars/0")] == [(3,)]


def subprocess_python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_without_the_import_keras_says_what_is_missing(tmp_path):
    """A registered layer is found once its package is imported; Keras does not import it itself."""
    model = tf.keras.Sequential([tf.keras.Input((3,)), LeakyReLU()])
    model.save(tmp_path / "model.keras")
    code = "import sys, tensorflow as tf; tf.keras.models.load_model(sys.argv[1])"
    done = subprocess_python(code, tmp_path / "model.keras")
    assert done.returncode != 0
    assert "LeakyReLU" in done.stderr


@pytest.mark.skipif(not KERAS_3, reason="a limit of Keras 3")
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
class TestLimitsOfKeras3:
    """Each is a sentence of the README. If one fails, the sentence is out of date."""

    def test_h5_does_not_load_compiled_with_a_loss_by_name(self, tmp_path):
        model = tf.keras.Sequential([tf.keras.Input((3,)), LeakyReLU()])
        model.compile("sgd", "mse")
        model.save(tmp_path / "model.h5")
        with pytest.raises((TypeError, ValueError), match="mse"):
            tf.keras.models.load_model(tmp_path / "model.h5")
        tf.keras.models.load_model(tmp_path / "model.h5", compile=False)

    def test_h5_loses_a_list_of_axes(self, tmp_path):
        """Why the config says it twice. If this fails, "axes" need not be written any more."""

        @tf.keras.utils.register_keras_serializable("test")
        class Axes(tf.keras.layers.Layer):
            def __init__(self, axis=None, **kwargs):
                super().__init__(**kwargs)
                self.axis = axis

            def get_config(self):
                return {**super().get_config(), "axis": self.axis}

        model = tf.keras.Sequential([tf.keras.Input((3,)), Axes([1, 2])])
        model.save(tmp_path / "model.h5")
        again = tf.keras.models.load_model(tmp_path / "model.h5", compile=False)
        assert again.layers[0].axis is None

    def test_h5_spoils_a_later_keras_file(self, tmp_path):
        model, _, _ = make_case(next(c for c in cases.LAYERS if c.name == "one slope"))
        model.save(tmp_path / "model.h5")
        model.save(tmp_path / "model.keras")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = tf.keras.models.load_model(tmp_path / "model.keras")
        assert type(again.optimizer) is not type(model.optimizer)


@pytest.mark.skipif(KERAS_3, reason="a limit of tf_keras")
def test_tf_keras_loses_the_optimizer_in_its_own_directory_format(tmp_path):
    """A sentence of the README. If this fails, it is out of date."""
    model, _, _ = make_case(cases.LAYERS[0])
    model.save(tmp_path / "model", save_format="tf")
    again = tf.keras.models.load_model(tmp_path / "model")
    assert len(again.optimizer.variables) < len(model.optimizer.variables)


def reloaded_bidirectional(tmp_path, *, explicit):
    """How far the predictions of a reloaded model are, where each direction has its slope."""

    def cell(**arguments):
        slope = LeakyReLU(0.25, trainable_alpha=True)
        return tf.keras.layers.SimpleRNN(2, activation=slope, **arguments)

    both = {"backward_layer": cell(go_backwards=True)} if explicit else {}
    layers = [tf.keras.Input((3, 2)), tf.keras.layers.Bidirectional(cell(), **both)]
    model = tf.keras.Sequential(layers)
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    model.predict(x, verbose=0)  # makes the slopes
    slopes = [weight for weight in model.weights if weight.shape == ()]
    for slope, value in zip(slopes, (0.75, 0.1), strict=True):
        slope.assign(value)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    return np.abs(loaded.predict(x, verbose=0) - expected).max()


@pytest.mark.skipif(KERAS_3, reason="a limit of tf_keras")
def test_tf_keras_reloads_one_slope_for_both_directions(tmp_path):
    """tf_keras copies the layer by its config, and reloads one activation for both copies."""
    assert reloaded_bidirectional(tmp_path, explicit=False) > 1e-3


def test_both_directions_reload_where_both_are_given(tmp_path):
    assert reloaded_bidirectional(tmp_path, explicit=True) == 0


@pytest.mark.skipif(KERAS_3, reason="a limit of tf_keras")
def test_tf_keras_loads_no_h5_with_ours_as_an_activation(tmp_path):
    """A sentence of the README. If this fails, it is out of date."""
    model = tf.keras.Sequential(
        [tf.keras.Input((3,)), tf.keras.layers.Dense(2, activation=leaky_relu)]
    )
    with pytest.warns(UserWarning, match="HDF5"):
        model.save(tmp_path / "model.h5")
    with pytest.raises((TypeError, ValueError)):
        tf.keras.models.load_model(tmp_path / "model.h5")
