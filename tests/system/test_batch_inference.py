"""The example that scores a large array from the export, small, in a process of its own."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import LeakyReLU, export_saved_model

SCRIPT = Path(__file__).parents[2] / "examples" / "batch_inference.py"
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs Ray Data: pip install '.[batch]'"
)


@pytest.fixture
def run(tmp_path):
    """Runs the script; Ray keeps a token in the home folder, which is not this user's here."""

    def start(*flags):
        command = [sys.executable, SCRIPT, *map(str, flags)]
        home = os.environ | {"HOME": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=home)

    return start


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and its export, as `make demo` leaves them."""
    made = tmp_path_factory.mktemp("demo")
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1), name="image"),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(16, activation=LeakyReLU(0.25, trainable_alpha=True)),
            tf.keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model(np.zeros((1, 8, 8, 1), "float32"))
    model.save(made / "digits.keras")
    export_saved_model(model, made / "digits", version=2)
    export_saved_model(model, made / "digits", version=10)
    return made


@needs_ray
@pytest.mark.skipif(not KERAS_3, reason="`make test-slow` does the same under tf_keras")
def test_every_row_is_scored_as_keras_predicts(run, folder):
    done = run("--folder", folder, "--rows", 20_000, "--batch-size", 1000)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"export: {folder / 'digits' / '10'}; 20000 rows" in done.stdout
    assert re.search(r"^20000 rows in [\d.]+ s: \d+ rows per second$", done.stdout, re.M)
    assert re.search(r"^500 of them, compared with model\.predict: at most", done.stdout, re.M)
    assert "scored: 100%" in done.stderr


@needs_ray
@pytest.mark.slow
def test_two_workers_write_the_scores(run, folder, tmp_path):
    flags = ["--rows", 20_000, "--batch-size", 1000, "--workers", 2, "--output", tmp_path / "out"]
    done = run("--folder", folder, *flags, "--export", folder / "digits" / "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "read back: 100%" in done.stderr
    assert list((tmp_path / "out").glob("*.parquet"))
    done = run("--folder", folder, *flags)
    assert done.returncode == 1
    assert "expected each row once. Received: [2]" in done.stderr


@needs_ray
@pytest.mark.slow
def test_wrong_scores_are_not_taken(run, folder, tmp_path):
    model = tf.keras.models.load_model(folder / "digits.keras")
    model.layers[-1].kernel.assign(-model.layers[-1].kernel)
    other = export_saved_model(model, tmp_path / "digits")
    done = run("--folder", folder, "--rows", 2000, "--export", other)
    assert done.returncode == 1
    assert "batch_inference: expected the predictions of " in done.stderr


@needs_ray
def test_it_says_what_it_needs(run, tmp_path):
    done = run("--folder", tmp_path)
    assert done.returncode == 2
    assert "run `make demo` first" in done.stderr
