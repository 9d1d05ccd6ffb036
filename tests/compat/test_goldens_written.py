"""Which goldens no Keras reads, and why."""

import zipfile

import pytest
import tensorflow as tf
import write_goldens
from conftest import KERAS_3

import tf_leaky


def unpacked(keras, case, folder):
    """The folder with the files of a golden of this version."""
    golden = write_goldens.FOLDER / tf_leaky.__version__ / keras / case
    with zipfile.ZipFile(golden / "files.zip") as archive:
        archive.extractall(folder)
    return folder


def test_no_keras_reads_layers_of_a_later_one():
    """Why fewer goldens are read by a Keras that is older than them. If it fails, more can be."""
    config = {**tf.keras.layers.Dense(2).get_config(), "of_a_later_keras": None}
    with pytest.raises((TypeError, ValueError)):
        tf.keras.layers.Dense.from_config(config)


@pytest.mark.skipif(KERAS_3, reason="a limit of tf_keras")
def test_tf_keras_loads_no_file_of_keras_3(tmp_path):
    """Why FORMATS has only SavedModels there. If it fails, it can have more."""
    with pytest.raises((TypeError, ValueError)):
        tf.keras.models.load_model(unpacked("keras3", "fixed", tmp_path) / "model.keras")


@pytest.mark.skipif(not KERAS_3, reason="a limit of Keras 3")
def test_policies_of_tf_keras(tmp_path):
    """Why FORMATS has fewer files of tf_keras. If it fails, it can have more."""
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    config = {**tf.keras.layers.Dense(2).get_config(), "dtype": policy}
    with pytest.raises(AttributeError):
        tf.keras.layers.Dense.from_config(config)
    with pytest.raises(AttributeError):
        tf.keras.models.load_model(unpacked("tf_keras", "mixed-float16", tmp_path) / "model.h5")
