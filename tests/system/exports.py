"""Models to export, and what holds when one is refused."""

import pytest
import tensorflow as tf

from tf_leaky import export_saved_model


def through(x, *parts):
    """A functional model of an Input and the layers after it."""
    y = x
    for part in parts:
        y = part(y)
    return tf.keras.Model(x, y)


def model_of(*parts):
    """A Sequential on `x`, of 4 features."""
    return tf.keras.Sequential([tf.keras.Input((4,), name="x"), *parts])


def of_batches_of_4():
    add = tf.keras.layers.Lambda(lambda x: x + tf.ones((4, 3)), name="y")
    return through(tf.keras.Input((3,), batch_size=4, name="x"), add)


def two_inputs(inputs=lambda a, b: [a, b], outputs=lambda scores, value: [scores, value]):
    """A model that takes and returns two tensors, in any structure."""
    layers = tf.keras.layers
    a, b = tf.keras.Input((4,), name="features"), tf.keras.Input((2,), name="counts", dtype="int64")
    numbers = layers.Lambda(lambda x: tf.cast(x, "float32"), output_shape=(2,))(b)
    scores = layers.Dense(3, name="scores")(layers.Concatenate()([a, numbers]))
    return tf.keras.Model(inputs(a, b), outputs(scores, layers.Dense(1, name="value")(scores)))


def refused(kind, match, model, folder, **arguments):
    """Holds that the export fails in these words, and that nothing new is in `folder`."""
    before = sorted(folder.iterdir())
    with pytest.raises(kind, match=r"^export_saved_model: expected .*" + match) as caught:
        export_saved_model(model, **{"base_path": folder, **arguments})
    assert sorted(folder.iterdir()) == before
    return str(caught.value)
