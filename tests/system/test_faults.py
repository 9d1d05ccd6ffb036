"""Trainings that are killed go on to the same bits; NaN and infinities in batches are seen."""

import collections
import json
import random
import shutil
import subprocess
import sys

import cases
import h5py
import numpy as np
import pytest
import tensorflow as tf
import training
from conftest import SLOW_UNDER_TF_KERAS

from tf_leaky import LeakyReLU
from tf_leaky.conversion.frozen import FORMS, FrozenLeakyReLU

KERAS_3 = training.KERAS_3
each_layer = pytest.mark.parametrize("case", cases.LAYERS, ids=cases.names)


def trained(folder, runs):
    """Carries out the runs; returns what was reported of each of their processes."""
    command = [sys.executable, training.__file__, folder, json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def arrays(path):
    with np.load(path) as found:
        return dict(found)


def backed_up(folder):
    """Every array of a backup, read without Keras."""
    found = {}
    if KERAS_3:
        with h5py.File(folder / "latest.weights.h5") as file:
            file.visititems(
                lambda path, item: (
                    found.update({path: item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
        return found
    checkpoint = tf.train.load_checkpoint(folder / "chief")
    for name in checkpoint.get_variable_to_shape_map():
        found[name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")] = checkpoint.get_tensor(name)
    return found


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].tobytes() == value.tobytes(), name


def step_kills(chance, count):
    """Moments of one run, in epochs after the first: no backup is being written then."""
    epochs = sorted(chance.randrange(1, training.EPOCHS) for _ in range(count))
    return [
        {
            "epoch": epoch,
            "batch": chance.randrange(training.STEPS - 2),
            "after": chance.uniform(0, 0.01),
        }
        for epoch in epochs
    ]


def slopes(values):
    return [values[name] for name in values if "leaky_re_lu" in name or name.endswith("/alpha")]


def assert_same_end(folder, runs, told):
    """Each run, killed in mid-epoch and resumed, ends with the bits of one that was not killed."""
    expected = arrays(folder / "whole" / "final.npz")
    initial = arrays(folder / "whole" / "restored-0.npz")
    names = [run["name"] for run in runs]
    kills = [process for process in told if process["run"] in names and process["moment"]]
    for process in kills:
        epoch, batch = process["last"]
        assert epoch == process["moment"]["epoch"]
        assert batch >= process["moment"]["batch"]
    for run in runs:
        place = folder / run["name"]
        for number in range(1, len(run["kills"]) + 1):
            restored = arrays(place / f"restored-{number}.npz")
            backup = backed_up(place / f"backup-{number}")
            assert_same_bits(restored, {name: backup[name] for name in restored})
            for slope, first in zip(slopes(restored), slopes(initial), strict=True):
                assert (slope != first).any()  # learned before the kill, not made anew after it
        assert_same_bits(arrays(place / "final.npz"), expected)
    assert len(slopes(expected)) == 3
    print(f"{len(kills)} kills in {len(runs)} runs")


WHOLE = {"name": "whole", "kills": []}
KILLED = {"name": "killed", "kills": step_kills(random.Random(3), 2)}
TORN = {"name": "torn", "kills": [{"epoch": 1, "at": "weights"}], "double": True}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of the runs of the quick tests, by one script, and what it told."""
    folder = tmp_path_factory.mktemp("killed")
    return folder, trained(folder, [WHOLE, KILLED, *([TORN] if KERAS_3 else [])])


def test_training_that_is_killed_twice_ends_with_the_bits_of_one_that_is_not(killed):
    folder, told = killed
    assert_same_end(folder, [KILLED], told)


@pytest.mark.slow
def test_trainings_that_are_killed_thirty_six_times_end_with_the_same_bits(tmp_path):
    chance = random.Random(11)
    runs = [{"name": f"killed-{i}", "kills": step_kills(chance, 3)} for i in range(12)]
    assert_same_end(tmp_path, runs, trained(tmp_path, [WHOLE, *runs]))


def end_of(folder, run):
    """How a run ended: right, with one epoch too many, or with an error of which name."""
    place = folder / run["name"]
    if (place / "error").exists():
        return (place / "error").read_text().partition(":")[0]
    found = arrays(place / "final.npz")
    steps = int(found["optimizer/vars/0" if KERAS_3 else "model/optimizer/_iterations"])
    if steps == (training.EPOCHS + 1) * training.STEPS:
        return "an epoch twice"
    assert_same_bits(found, arrays(folder / "whole" / "final.npz"))
    return "right"


@pytest.mark.slow
def test_backups_that_are_killed_forty_times(tmp_path):
    """tf_keras resumes from each. Keras 3 may refuse, or train an epoch twice: never worse."""
    chance = random.Random(5)
    runs = []
    for i in range(40):
        moment = {"epoch": chance.randrange(1, 3), "at": "backup", "after": chance.uniform(0, 0.05)}
        double = KERAS_3 and i % 2 == 1
        runs.append({"name": f"killed-{i}", "kills": [moment], "double": double})
    trained(tmp_path, [WHOLE, *runs])
    for double in (False, True):
        ends = collections.Counter(end_of(tmp_path, run) for run in runs if run["double"] == double)
        print("double checkpoint" if double else "single", ends)
        limits = {"an epoch twice", "JSONDecodeError"} if KERAS_3 else set()
        assert set(ends) <= {"right"} | limits | ({"OSError"} if KERAS_3 and not double else set())


@pytest.mark.skipif(not KERAS_3, reason="a limit of Keras 3")
class TestBackupsOfKeras3:
    """They are written in place. Sentences of the README: if one fails, it is out of date."""

    def test_double_checkpoint_survives_a_kill_while_weights_are_written(self, killed):
        assert end_of(killed[0], TORN) == "right"

    def test_a_single_checkpoint_does_not(self, killed, tmp_path):
        for name in ("latest.weights.h5", "training_metadata.json"):
            shutil.copy(killed[0] / "torn" / "backup-1" / name, tmp_path)
        model = training.model_with_slopes()
        images, labels = training.digits()
        callbacks = [tf.keras.callbacks.BackupAndRestore(str(tmp_path))]
        with pytest.raises(OSError, match="Unable to"):
            model.fit(images, labels, verbose=0, callbacks=callbacks)

    @pytest.mark.slow
    def test_a_kill_between_the_weights_and_the_epoch_trains_it_twice(self, tmp_path):
        moment = {"epoch": 1, "at": "metadata"}
        runs = [
            {"name": "single", "kills": [moment]},
            {"name": "double", "kills": [moment], "double": True},
        ]
        trained(tmp_path, [WHOLE, *runs])
        assert {end_of(tmp_path, run) for run in runs} == {"an epoch twice"}


def oracle(x, alpha):
    with np.errstate(invalid="ignore"):
        return np.where(x > 0, x, alpha * x)


def built(case):
    """A layer and, spread to the shape of the input without the batch, its slopes."""
    layer = case.make()
    layer.build((None, *case.input_shape))
    if case.alpha_shape is None:
        return layer, np.full(case.input_shape, layer.alpha)
    axis = case.arguments.get("axis", ())
    axes = sorted(a % (len(case.input_shape) + 1) for a in np.ravel(axis).astype(int))
    sizes = [n if i + 1 in axes else 1 for i, n in enumerate(case.input_shape)]
    return layer, np.broadcast_to(layer.alpha.numpy().reshape(sizes), case.input_shape)


@pytest.mark.parametrize(
    "graph", [False, pytest.param(True, marks=SLOW_UNDER_TF_KERAS)], ids=["eager", "graph"]
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@each_layer
def test_one_bad_number_is_seen_in_the_value_and_in_its_slope_only(case, value, graph, rng):
    layer, alpha = built(case)
    x = rng.normal(size=(4, *case.input_shape)).astype("float32")
    at = (2, *(n - 1 for n in case.input_shape))
    x[at] = value

    def run(x):
        with tf.GradientTape() as tape:
            y = layer(x)
            loss = tf.reduce_sum(y * 0.5)
        return y, tape.gradient(loss, layer.trainable_weights)

    y, gradients = (tf.function(run) if graph else run)(tf.constant(x))
    np.testing.assert_allclose(y, oracle(x, alpha.astype("float32")), rtol=1e-6)
    assert not np.isfinite(y.numpy()[at])
    assert np.isfinite(np.delete(y.numpy().ravel(), np.ravel_multi_index(at, x.shape))).all()
    if not case.trained:
        assert gradients == []
        return
    found = gradients[0].numpy().ravel()
    if value > 0:
        assert np.isfinite(found).all()  # x > 0 says nothing about the slope
        return
    assert np.isfinite(found[:-1]).all()
    np.testing.assert_array_equal(found[-1], value)


class Batches(tf.keras.callbacks.Callback):
    """Counts the batches that were trained on."""

    count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1


def fit_until_nan(model, x):
    """The losses of one epoch of batches of four, and how many there were, under TerminateOnNaN."""
    batches = Batches()
    history = model.fit(
        x,
        np.zeros((len(x), 1), "float32"),
        batch_size=4,
        shuffle=False,
        verbose=0,
        callbacks=[tf.keras.callbacks.TerminateOnNaN(), batches],
    )
    return history.history["loss"], batches.count


@each_layer
def test_one_bad_number_in_a_batch_stops_the_training(case, rng, capsys):
    """In front of the layer there is nothing: what stops it came through the layer."""
    layer = case.make()
    layers = [tf.keras.Input(case.input_shape), layer, tf.keras.layers.Flatten()]
    model = tf.keras.Sequential([*layers, tf.keras.layers.Dense(1)])
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    weights = model.get_weights()
    x = rng.normal(size=(16, *case.input_shape)).astype("float32")
    losses, count = fit_until_nan(model, x)
    assert count == 4
    assert np.isfinite(losses).all()
    for value in (np.nan, np.inf, -np.inf):
        model.set_weights(weights)
        bad = x.copy()
        bad[6, ..., -1] = value  # in the second batch
        losses, count = fit_until_nan(model, bad)
        assert count == 2
        assert not np.isfinite(losses).any()
        if case.trained and not value > 0:
            assert np.isnan(np.ravel(layer.alpha)[-1])  # no constraint makes a number of it


@pytest.mark.parametrize("constraint", ["positive", None, "non_neg"], ids=str)
@pytest.mark.parametrize("axis", [None, -1], ids=["one slope", "per channel"])
def test_slope_that_is_nan_stays_so_and_stops_the_training(constraint, axis, rng, capsys):
    layer = LeakyReLU(0.25, trainable_alpha=True, axis=axis, alpha_constraint=constraint)
    model = tf.keras.Sequential([tf.keras.Input((3,)), layer, tf.keras.layers.Dense(1)])
    model.compile(tf.keras.optimizers.SGD(0.01), "mse")
    slopes = np.full(layer.alpha.shape, 0.25, "float32")
    slopes.ravel()[-1] = np.nan
    layer.alpha.assign(slopes)
    x = -1 - np.abs(rng.normal(size=(16, 3)).astype("float32"))
    y = layer(x).numpy()
    assert np.isnan(y).all(axis=0).tolist() == ([False, False, True] if axis else [True] * 3)
    losses, count = fit_until_nan(model, x)
    assert count == 1
    assert np.isnan(losses).all()
    assert np.isnan(np.ravel(layer.alpha)[-1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_frozen_slopes_hide_nothing(form, value):
    layer = FrozenLeakyReLU([0.5, 0.25, 0.0], axis=-1, form=form)
    x = np.array([[1.0, -1.0, -1.0], [value] * 3], "float32")
    y = layer(x).numpy()
    np.testing.assert_array_equal(y[0], [1, -0.25, 0])
    assert not np.isfinite(y[1]).any()
    if np.isnan(value):
        assert np.isnan(y[1]).all()
