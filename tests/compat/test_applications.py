"""Models of keras.applications, at small sizes and random weights: to ours and back to stock."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, convert, freeze, to_keras

applications = tf.keras.applications

# One of each family, the smallest, and the size of its images: two are run by `make test`.
QUICK = {"MobileNetV3Small": 32, "VGG16": 32}
SLOW = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Large": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "Xception": 71,
}
if hasattr(applications, "RegNetX002"):  # of tf_keras
    SLOW |= {"RegNetX002": 32, "RegNetY002": 32, "ResNetRS50": 32}
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def plain_relus(model):
    """How many activations of a model are plain ReLUs."""
    relu = tf.keras.activations.relu
    count = 0
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if type(layer) is tf.keras.layers.ReLU:
            plain = layer.max_value is None and not layer.threshold and not layer.negative_slope
            count += plain
        else:
            count += getattr(layer, "activation", None) is relu
    return count


def leaky_relus(model):
    within = list(model._flatten_layers(include_self=False, recursive=True))
    return sum(isinstance(layer, LeakyReLU) for layer in within)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name):
    size = {**QUICK, **SLOW}[name]
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(1)
    shape = {"include_top": False, "pooling": "avg", "input_shape": (size, size, 3)}
    model = getattr(applications, name)(weights=None, **shape)
    x = np.random.default_rng(2).normal(size=(2, size, size, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(expected).max()}

    np.testing.assert_array_equal(convert(model).predict(x, verbose=0), expected)

    leaky = convert(model, alpha=0.3)
    found = leaky_relus(leaky)
    assert found == plain_relus(model)
    assert leaky.count_params() == model.count_params()
    different = leaky.predict(x, verbose=0)
    if found:
        assert np.abs(different - expected).max() > 1e-3 * np.abs(expected).max()

    trained = convert(model, alpha=0.3, trainable_alpha=True, axis=-1)
    assert leaky_relus(trained) == found
    np.testing.assert_allclose(trained.predict(x, verbose=0), different, **close)
    for changed in (to_keras(leaky), to_keras(trained), freeze(trained)):
        np.testing.assert_allclose(changed.predict(x, verbose=0), different, **close)
    stock = to_keras(trained)
    assert not leaky_relus(stock)
    assert stock.count_params() == trained.count_params()
