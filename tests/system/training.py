"""Trains the digits with a backup: `python training.py FOLDER [EPOCH BATCH]`.

After the given batch the process kills itself. Started again, it goes on from the backup in FOLDER;
what it restored goes to `restored.npz`, and what it ended with to `final.npz`.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from tf_leaky import LeakyReLU

EPOCHS, BATCH, COUNT = 3, 32, 512


def model_with_slopes():
    """A net with slopes of every kind: per channel, unconstrained and one for all."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((64,)),
            layers.Dense(16),
            LeakyReLU(0.25, trainable_alpha=True, axis=-1),
            layers.Dense(16),
            LeakyReLU(-0.1, trainable_alpha=True, alpha_constraint=None),
            layers.Dense(16),
            LeakyReLU(0.25, trainable_alpha=True),
            layers.Dense(10),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.01), loss)
    model.optimizer.build(model.trainable_variables)
    return model


def state(model):
    """The slopes, the other weights and the optimizer's variables."""
    values = [*model.weights, *model.optimizer.variables]
    return {f"{i} {value.name}": value.numpy() for i, value in enumerate(values)}


class Watch(tf.keras.callbacks.Callback):
    """Writes down what was restored, and kills the process after a batch."""

    def __init__(self, folder, moment):
        super().__init__()
        self.folder, self.moment, self.epoch = folder, moment, 0

    def on_train_begin(self, logs=None):
        np.savez(self.folder / "restored.npz", **state(self.model))

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if [self.epoch, batch] == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder, *moment):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(7)
    folder = Path(folder)
    x, y = (each[:COUNT].astype("float32") for each in load_digits(return_X_y=True))
    backup = tf.keras.callbacks.BackupAndRestore(str(folder / "backup"))
    watch = Watch(folder, [int(number) for number in moment])
    model = model_with_slopes()
    fit = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[backup, watch], **fit)
    np.savez(folder / "final.npz", **state(model))


if __name__ == "__main__":
    main(*sys.argv[1:])
