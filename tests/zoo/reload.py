"""Reloads the files of the zoo in a process of its own: `python -m zoo.reload FOLDER WITHOUT`.

It imports the users' classes, and tf_leaky unless WITHOUT says so. For each file it writes what the
model computes, or why it can't be loaded.
"""

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

import zoo
from zoo import looks
from zoo.table import LEGACY


def load(path):
    try:
        return loaded(path, zoo.custom_objects())
    except TypeError as error:
        if not LEGACY or "'trainable_alpha'" not in str(error):
            raise
        import tf_leaky  # as docs/converting.md says to do then

        return loaded(path, zoo.custom_objects() | {"LeakyReLU": tf_leaky.LeakyReLU})


def loaded(path, classes):
    options = {"safe_mode": False} if path.suffix == ".keras" else {"compile": LEGACY}
    return tf.keras.models.load_model(path, classes, **options)


def answer(path, x):
    tf.keras.backend.clear_session()
    try:
        return dict(enumerate(looks.outputs(load(path), x)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(folder, without):
    warnings.simplefilter("ignore")
    if without == "without":
        sys.modules["tf_leaky"] = None
    else:
        import tf_leaky  # noqa: F401  registers what is ours
    for case in sorted(Path(folder).iterdir()):
        x = pickle.loads((case / "x.pickle").read_bytes())
        x = tf.nest.map_structure(tf.constant, x)
        files = ["back.keras"] if without == "without" else (case / "names").read_text().split()
        for name in files:
            if (case / name).exists():
                (case / f"{name}.answer").write_bytes(pickle.dumps(answer(case / name, x)))


def saved(folder, models, x):
    """Saves models by name, as far as Keras can; `.keras` first, which `.h5` can spoil."""
    folder.mkdir()
    arrays = tf.nest.map_structure(np.asarray, x)
    (folder / "x.pickle").write_bytes(pickle.dumps(arrays))
    (folder / "names").write_text("\n".join(sorted(models, reverse=True)))
    for name in sorted(models, reverse=True):
        try:
            looks.quietly(models[name].save, folder / name)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            (folder / f"{name}.answer").write_bytes(pickle.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
