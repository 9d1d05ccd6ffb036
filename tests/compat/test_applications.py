"""Models of keras.applications, at small sizes and random weights: to ours and back to stock."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, convert, freeze, to_keras

applications = tf.keras.applications

# One of each family, the smallest; and the size of its images, where it takes none of 32.
QUICK = ["MobileNetV3Small", "VGG16"]
SLOW = ["ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2"]
SLOW += ["InceptionV3", "MobileNet", "MobileNetV2", "NASNetMobile", "ResNet50", "ResNet50V2"]
SLOW += ["Xception"]
if hasattr(applications, "RegNetX002"):  # of tf_keras
    SLOW += ["RegNetX002", "RegNetY002", "ResNetRS50"]
SIZES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def count(kind, model):
    return sum(kind(each) for each in model._flatten_layers(include_self=False, recursive=True))


def plain_relu(layer):
    if type(layer) is tf.keras.layers.ReLU:
        return layer.max_value is None and not layer.threshold and not layer.negative_slope
    return getattr(layer, "activation", None) is tf.keras.activations.relu


def ours(layer):
    return isinstance(layer, LeakyReLU)


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name):
    size = SIZES.get(name, 32)
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(1)
    shape = {"include_top": False, "pooling": "avg", "input_shape": (size, size, 3)}
    model = getattr(applications, name)(weights=None, **shape)
    x = np.random.default_rng(2).normal(size=(2, size, size, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(convert(model).predict(x, verbose=0), expected)

    leaky = convert(model, alpha=0.3)
    trained = convert(model, alpha=0.3, trainable_alpha=True, axis=-1)
    stock = to_keras(trained)
    relus = count(plain_relu, model)
    assert [count(ours, each) for each in (leaky, trained, stock)] == [relus, relus, 0]
    assert leaky.count_params() == model.count_params()
    assert stock.count_params() == trained.count_params()
    different = leaky.predict(x, verbose=0)
    assert (np.abs(different - expected).max() > 1e-3 * np.abs(expected).max()) == bool(relus)
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(expected).max()}
    for changed in (trained, stock, to_keras(leaky), freeze(trained)):
        np.testing.assert_allclose(changed.predict(x, verbose=0), different, **close)
