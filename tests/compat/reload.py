"""Reloads what `test_saving.py` saved, in a process of its own: `python reload.py FOLDER`.

It imports tf_leaky and gives no custom_objects. For each file it writes the prediction, the
weights, and the weights after one more step of training, which show that the optimizer came back.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tf_leaky  # noqa: F401  registers the layer and the function

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")


def load_model(path):
    return tf.keras.models.load_model(path)


def load_h5(path):
    return tf.keras.models.load_model(path, compile=not KERAS_3)


def load_pickle(path):
    return pickle.loads(path.read_bytes())


def same_compiled_model(folder):
    model = tf.keras.models.model_from_json((folder / "model.json").read_text())
    if not model.built:
        raise RuntimeError("a model with an Input comes back built")
    model.compile(tf.keras.optimizers.Adam(0.01), tf.keras.losses.MeanSquaredError())
    model(np.load(folder / "x.npy"))  # builds a layer that is an activation of another
    model.optimizer.build(model.trainable_variables)
    return model


def load_weights(path):
    model = same_compiled_model(path.parent)
    model.load_weights(path)
    return model


def load_checkpoint(path):
    model = same_compiled_model(path.parent)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    checkpoint.read(str(path)).assert_existing_objects_matched()
    return model


LOADERS = {
    "model.keras": load_model,
    "model.pickle": load_pickle,
    "model.weights.h5": load_weights,
    "checkpoint": load_checkpoint,
    "model.h5": load_h5,
    "model_tf": load_model,
}


def main(folder):
    for case in sorted(Path(folder).iterdir()):
        x, y = np.load(case / "x.npy"), np.load(case / "y.npy")
        for name, load in LOADERS.items():
            path = case / name
            if not (path.exists() or Path(f"{path}.index").exists()):
                continue
            model = load(path)
            model.run_eagerly = name != "model.keras"  # tracing takes long, and shows nothing more
            results = {"prediction": model.predict_on_batch(x)}
            results |= {f"before_{i}": w for i, w in enumerate(model.get_weights())}
            if getattr(model, "optimizer", None) is not None:
                model.train_on_batch(x, y)
                results |= {f"after_{i}": w for i, w in enumerate(model.get_weights())}
            np.savez(case / f"{name}.npz", **results)


if __name__ == "__main__":
    main(sys.argv[1])
