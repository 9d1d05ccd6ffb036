"""The laws where there is a GPU: `pytest -m gpu`. Each runs on the CPU too, to know that it runs.

There the whole suite runs on it, but for what is told to run elsewhere. This file makes sure, and
looks at what only a GPU has: memory of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import cases
import modes
import pytest
import tensorflow as tf
from test_activation_memory import check_tensors_kept
from test_function_gradients import check_closed_form

from tf_leaky import LeakyReLU

ROOT = Path(__file__).parents[2]
GPUS = tf.config.list_physical_devices("GPU")


def on_gpu(*values):
    skip = pytest.mark.skipif(not GPUS, reason="there is no GPU here")
    return pytest.param("GPU:0", *values, marks=[pytest.mark.gpu, skip])


each_device = pytest.mark.parametrize("device", ["CPU:0", on_gpu()])


@pytest.mark.parametrize(
    ("device", "mode"),
    [("CPU:0", modes.eager), *(on_gpu(mode) for mode in modes.ALL)],
    ids=lambda way: getattr(way, "__name__", way),
)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_gradients_are_the_closed_form(device, mode, dtype, rng):
    with tf.device(device):
        for case in cases.FUNCTIONS:
            found = check_closed_form(case, mode, dtype, rng)
            if mode is modes.eager:
                assert {tensor.device.rpartition("device:")[2] for tensor in found} == {device}


@each_device
def test_slopes_gradient_in_half_precision_is_summed_in_float32(device):
    """Keras PReLU stops at -8192 here."""
    layer = LeakyReLU(0.25, trainable_alpha=True, dtype="mixed_float16")
    with tf.device(device), tf.GradientTape() as tape:
        y = layer(-tf.ones([1024, 1024], tf.float16))
    assert y.dtype == tf.float16
    assert float(tape.gradient(y, layer.trainable_variables)[0]) == -(2**20)


@each_device
@pytest.mark.parametrize("name", ["ReLU", "fixed", "one slope", "per channel"])
def test_tensors_kept_by_a_graph(device, name):
    with tf.device(device):
        check_tensors_kept(name)


@pytest.mark.parametrize("device", [pytest.param("CPU:0", marks=pytest.mark.slow), on_gpu()])
def test_training_takes_the_memory_of_relu(device):
    """Resident memory, or the GPU's own: `python -m benchmarks memory` measures where it runs."""
    seen = os.environ if device.startswith("GPU") else os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    peaks = {}
    for activation in ("Keras ReLU", "ours, fixed", "ours, one slope", "ours, per channel"):
        command = [sys.executable, "-m", "benchmarks.memory", activation, '{"normalised": false}']
        done = subprocess.run(command, capture_output=True, text=True, env=seen, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        peaks[activation] = json.loads(done.stdout.splitlines()[-1])
    relu = peaks.pop("Keras ReLU")
    assert relu > 320  # MiB: 20 activations of 16 MiB are kept
    assert max(peaks.values()) < 1.10 * relu, (relu, peaks)
