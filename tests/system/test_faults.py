"""A training that is killed goes on to the same bits.

As a script, `python test_faults.py FOLDER [EPOCH BATCH]`, it trains with a backup in FOLDER, and
kills itself after that batch. What it restored and ended with goes to `restored.npz`, `final.npz`.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_leaky import LeakyReLU


def model_with_slopes():
    """A net with slopes of every kind: per channel, unconstrained and one for all."""
    slopes = ({"axis": -1}, {"alpha_constraint": None}, {})
    parts = [tf.keras.Input((8,))]
    for each in slopes:
        parts += [tf.keras.layers.Dense(16), LeakyReLU(0.25, trainable_alpha=True, **each)]
    model = tf.keras.Sequential(parts)
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


class Watch(tf.keras.callbacks.Callback):
    """Writes down what was restored, and kills the process at a moment."""

    def __init__(self, folder, moment):
        super().__init__()
        self.folder, self.moment, self.epoch = folder, moment, 0

    def save(self, name):
        """The slopes, the other weights and the optimizer's variables."""
        values = [*self.model.weights, *self.model.optimizer.variables]
        named = {f"{i} {value.name}": value.numpy() for i, value in enumerate(values)}
        np.savez(self.folder / name, **named)

    def on_train_begin(self, logs=None):
        self.save("restored.npz")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if [self.epoch, batch] == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, logs=None):
        self.save("final.npz")


def main(folder, *moment):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(7)
    x, y = (np.random.default_rng(0).normal(size=(256, n)).astype("float32") for n in (8, 16))
    backup = tf.keras.callbacks.BackupAndRestore(str(Path(folder, "backup")))
    watch = Watch(Path(folder), [int(number) for number in moment])
    model_with_slopes().fit(x, y, epochs=3, shuffle=False, verbose=0, callbacks=[backup, watch])


def test_training_that_is_killed_ends_with_the_bits_of_one_that_is_not(tmp_path):
    from conftest import run_python

    paths = [tmp_path / name for name in ("whole", "killed")]
    for path in paths:
        path.mkdir()
    run_python(__file__, paths[0])
    run_python(__file__, paths[1], 2, 3, status=-signal.SIGKILL)
    assert not (paths[1] / "final.npz").exists()
    run_python(__file__, paths[1])
    whole, killed = (np.load(path / "final.npz") for path in paths)
    for (name, expected), found in zip(whole.items(), killed.values(), strict=True):
        assert found.tobytes() == expected.tobytes(), name
    initial, restored = (np.load(path / "restored.npz") for path in paths)
    slopes = [name for name in initial if "alpha" in name]
    assert len(slopes) >= 3
    for name in slopes:  # learned before the kill, and not made anew after it
        assert (initial[name] != restored[name]).any(), name


if __name__ == "__main__":
    main(*sys.argv[1:])
