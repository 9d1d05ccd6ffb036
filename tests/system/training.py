"""Trainings in processes of their own, killed as a plan says: `python training.py FOLDER PLAN`.

The plan is JSON, a list of runs. Each run is trained in a folder of its own by one process after
another, all with the same backup: each is killed at the next moment in `kills`, and the one after
the last goes to the end, or to its error. A moment is one of

    {"epoch": 1, "batch": 3, "after": 0.002}   some seconds after the end of that batch
    {"epoch": 1, "at": "backup", "after": 0.002}   some seconds after the end of that epoch
    {"epoch": 1, "at": "weights"}    Keras 3: while it writes the weights after that epoch
    {"epoch": 1, "at": "metadata"}   Keras 3: between the weights and the number of the epoch

TensorFlow is imported once and runs nothing before the forks, after which it would hang.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from tf_leaky import LeakyReLU

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
EPOCHS, STEPS, BATCH = 4, 16, 32


def digits():
    images, labels = load_digits(return_X_y=True)
    images = images[: STEPS * BATCH].reshape(-1, 8, 8, 1).astype("float32") / 16
    return images, labels[: STEPS * BATCH]


def model_with_slopes():
    """A net with slopes of every kind: per channel, unconstrained and one for all."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3),
            LeakyReLU(0.25, trainable_alpha=True, axis=-1),
            layers.Conv2D(4, 3),
            LeakyReLU(-0.1, trainable_alpha=True, alpha_constraint=None),
            layers.Flatten(),
            layers.Dense(16),
            LeakyReLU(0.25, trainable_alpha=True),
            layers.Dense(10),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.01), loss)
    return model


def state(model):
    """The weights and the optimizer's variables, named as in the files of BackupAndRestore."""
    values = {}
    for i, layer in enumerate(layer for layer in model.layers if layer.weights):
        for j, weight in enumerate(layer.weights):
            name = weight.name.split("/")[-1].split(":")[0]
            ours, theirs = f"layers/{layer.name}/vars/{j}", f"model/layer_with_weights-{i}/{name}"
            values[ours if KERAS_3 else theirs] = weight.numpy()
    for i, variable in enumerate(model.optimizer.variables):
        theirs = f"model/optimizer/{f'_variables/{i}' if i else '_iterations'}"
        values[f"optimizer/vars/{i}" if KERAS_3 else theirs] = variable.numpy()
    return values


class Reporter(tf.keras.callbacks.Callback):
    """Writes down what was restored, tells each batch, and waits to be killed."""

    def __init__(self, folder, number, pipe, moment):
        super().__init__()
        self.restored = folder / f"restored-{number}.npz"
        self.pipe, self.moment = pipe, moment

    def on_train_begin(self, logs=None):
        np.savez(self.restored, **state(self.model))

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        os.write(self.pipe, f"{self.epoch} {batch}\n".encode())
        if self.moment is not None and batch == STEPS - 1 and self.epoch >= self.moment["epoch"]:
            at_end = self.moment.get("at") is None or self.epoch > self.moment["epoch"]
            while at_end:  # the kill comes in this epoch, however long it takes
                signal.pause()


class BeforeBackup(tf.keras.callbacks.Callback):
    """Tells the end of the epoch after which a backup is to be killed, or kills it itself."""

    def __init__(self, pipe, moment):
        super().__init__()
        self.pipe, self.moment = pipe, moment

    def on_epoch_end(self, epoch, logs=None):
        if self.moment is None or epoch != self.moment["epoch"]:
            return
        if self.moment.get("at") == "backup":
            os.write(self.pipe, b"backup\n")
        elif self.moment.get("at") == "weights":
            h5py.File.close = kill_this_process
        elif self.moment.get("at") == "metadata":
            sys.addaudithook(kill_at_metadata)


def kill_this_process(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_metadata(event, arguments):
    written = event == "open" and arguments[1] == "w"  # it may be copied before
    if written and str(arguments[0]).endswith("training_metadata.json"):
        kill_this_process()


def train(folder, run, number, pipe, moment):
    """Trains to the end, from the backup if there is one."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(7)
    model = model_with_slopes()
    model.optimizer.build(model.trainable_variables)
    double = {"double_checkpoint": True} if run.get("double") else {}
    callbacks = [
        BeforeBackup(pipe, moment),
        tf.keras.callbacks.BackupAndRestore(str(folder / "backup"), **double),
        Reporter(folder, number, pipe, moment),
    ]
    images, labels = digits()
    model.fit(
        images,
        labels,
        batch_size=BATCH,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    np.savez(folder / "final.npz", **state(model))


def forked(folder, run, number, moment):
    """A process that trains, and the end of a pipe from which its reports are read."""
    reports, pipe = os.pipe()
    child = os.fork()
    if child:
        os.close(pipe)
        return child, os.fdopen(reports)
    status = 1
    try:
        os.close(reports)
        train(folder, run, number, pipe, moment)
        status = 0
    except Exception as error:
        (folder / "error").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(status)


def awaited(moment):
    """The report after which this process kills; None where the child does it itself."""
    if moment is None or moment.get("at") in ("weights", "metadata"):
        return None
    return "backup" if moment.get("at") == "backup" else f"{moment['epoch']} {moment['batch']}"


def step(folder, run, number, moment):
    """One process, to its kill or to its end; tells the last batch that it reported."""
    child, reports = forked(folder, run, number, moment)
    last = None
    with reports:
        for line in map(str.strip, reports):
            if line == awaited(moment):
                time.sleep(moment["after"])
                os.kill(child, signal.SIGKILL)
            last = line if line[0].isdigit() else last
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) != (moment is not None):
        sys.exit(f"{folder.name}: {moment} ended with {status}")
    return [int(number) for number in last.split()] if last else None


def main(folder, plan):
    for run in json.loads(plan):
        place = Path(folder) / run["name"]
        place.mkdir()
        for number, moment in enumerate([*run["kills"], None]):
            last = step(place, run, number, moment)
            print(json.dumps({"run": run["name"], "moment": moment, "last": last}), flush=True)
            if moment is not None and (place / "backup").exists():
                shutil.copytree(place / "backup", place / f"backup-{number + 1}")


if __name__ == "__main__":
    main(*sys.argv[1:])
