"""Which goldens a Keras doesn't read, and why. If one of these fails, FORMATS can have more."""

import zipfile

import pytest
import tensorflow as tf
import write_goldens
from conftest import KERAS_3

import tf_leaky


def load(keras, case, file, folder):
    golden = write_goldens.FOLDER / tf_leaky.__version__ / keras / case
    with zipfile.ZipFile(golden / "files.zip") as archive:
        archive.extract(file, folder)
    tf.keras.models.load_model(folder / file)


def test_no_keras_reads_layers_of_a_later_one():
    config = {**tf.keras.layers.Dense(2).get_config(), "of_a_later_keras": None}
    with pytest.raises((TypeError, ValueError)):
        tf.keras.layers.Dense.from_config(config)


@pytest.mark.skipif(KERAS_3, reason="a limit of tf_keras")
def test_tf_keras_loads_no_file_of_keras_3(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        load("keras3", "fixed", "model.keras", tmp_path)


@pytest.mark.skipif(not KERAS_3, reason="a limit of Keras 3")
def test_policies_of_tf_keras(tmp_path):
    with pytest.raises(AttributeError):
        load("tf_keras", "mixed-float16", "model.h5", tmp_path)
