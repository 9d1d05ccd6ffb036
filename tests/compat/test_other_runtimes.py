"""LiteRT and ONNX: which operations a frozen model becomes there, and what they compute."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3

from tf_leaky import BatchNormLeakyReLU, LeakyReLU, freeze

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of their imports
    import onnx
    import onnxruntime
    import tf2onnx
    from ai_edge_litert.interpreter import Interpreter

layers = tf.keras.layers

# What these three warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

CASES = {
    "one slope": ((8, 8, 2), lambda: layers.Conv2D(4, 3), None),
    "one slope, dense": ((5,), lambda: layers.Dense(4), None),
    "per channel": ((8, 8, 2), lambda: layers.Conv2D(4, 3), -1),
    "per channel, dense": ((5,), lambda: layers.Dense(4), -1),
    "per channel, sequence": ((7, 3), lambda: layers.Conv1D(4, 3), -1),
    "per row": ((8, 8, 2), lambda: layers.Conv2D(4, 3), 1),
    "per element": ((8, 8, 2), lambda: layers.Conv2D(4, 3), (1, 2, 3)),
}


def trained(shape, make, axis):
    """A model as after training: slopes that no initial value is, some above 1."""
    tf.keras.utils.set_random_seed(4)
    activation = LeakyReLU(0.25, trainable_alpha=True, axis=axis, alpha_constraint=None)
    model = tf.keras.Sequential(
        [tf.keras.Input(shape, name="x"), make(), activation, layers.Flatten(), layers.Dense(3)]
    )
    rng = np.random.default_rng(5)
    activation.alpha.assign(rng.uniform(0.05, 1.5, activation.alpha.shape))
    return model, rng.normal(size=(6, *shape)).astype("float32")


def litert(model, examples=None):
    """The bytes of the model for LiteRT, in int8 where examples are given."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if examples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[np.newaxis]] for row in examples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def run_litert(content, x):
    """The names of the operations, and the answer; integers are scaled on the way in and out."""
    interpreter = Interpreter(model_content=content)
    names = {each["op_name"] for each in interpreter._get_ops_details()}
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()
    if given["dtype"] == np.int8:
        scale, zero = given["quantization"]
        x = np.clip(np.round(x / scale + zero), -128, 127).astype("int8")
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    y = interpreter.get_tensor(made["index"])
    if made["dtype"] == np.int8:
        scale, zero = made["quantization"]
        y = (y.astype("float32") - zero) * scale
    return names, y


def run_onnx(model, x):
    """The names of the operations of an onnx model, and what onnxruntime answers."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (given,) = session.get_inputs()
    (y,) = session.run(None, {given.name: x})
    return {node.op_type for node in model.graph.node}, y


def run_in_onnx(content, x, folder):
    """The same of a model for LiteRT."""
    (folder / "model.tflite").write_bytes(content)
    made, _ = tf2onnx.convert.from_tflite(str(folder / "model.tflite"), opset=17)
    return run_onnx(made, x)


LOOSE = {"MUL", "NEG", "RELU", "MAXIMUM", "SELECT", "SELECT_V2", "ADD", "GREATER", "DEQUANTIZE"}
LOOSE_IN_ONNX = {"Mul", "Neg", "Relu", "Max", "Where", "Add", "Greater"}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("name", CASES)
def test_litert_and_onnx_have_one_fused_operation(name, tmp_path):
    model, x = trained(*CASES[name])
    expected = model.predict(x, verbose=0)
    frozen, one_slope = freeze(model, target="litert"), CASES[name][2] is None
    content = litert(frozen)
    for each, within in ((content, 1e-5), (litert(frozen, x), 0.06)):
        names, y = run_litert(each, x)
        assert ("LEAKY_RELU" if one_slope else "PRELU") in names
        assert not names & LOOSE
        assert np.abs(y - expected).max() <= within * np.abs(expected).max()
    names, y = run_in_onnx(content, x, tmp_path)
    assert ("LeakyRelu" if one_slope else "PRelu") in names
    assert not names & LOOSE_IN_ONNX
    np.testing.assert_allclose(y, expected, **CLOSE)


@pytest.mark.parametrize("fused", [False, True], ids=["two layers", "BatchNormLeakyReLU"])
def test_folded_block_is_a_convolution_and_an_activation(fused, rng, tmp_path):
    pair = [layers.BatchNormalization(momentum=0.0), layers.LeakyReLU(0.1)]
    if fused:
        pair = [BatchNormLeakyReLU(alpha=0.1, momentum=0.0)]
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 2)), layers.Conv2D(4, 3), *pair])
    x = rng.normal(size=(6, 8, 8, 2)).astype("float32")
    model(x, training=True)  # so that there are statistics to fold
    content = litert(freeze(model, target="litert", fold_batch_norm=True))
    names, y = run_litert(content, x)
    names_in_onnx, z = run_in_onnx(content, x, tmp_path)
    assert names - {"DELEGATE"} == {"CONV_2D", "LEAKY_RELU"}
    assert names_in_onnx - {"Transpose"} == {"Conv", "LeakyRelu"}
    for answer in (y, z):
        np.testing.assert_allclose(answer, model.predict(x, verbose=0), **CLOSE)


def test_slopes_of_a_volume_run_in_litert_which_has_no_prelu_for_it():
    model, x = trained((5, 5, 5, 2), lambda: layers.Conv3D(4, 3), -1)
    names, y = run_litert(litert(freeze(model, target="litert")), x)
    assert "PRELU" not in names
    np.testing.assert_allclose(y, model.predict(x, verbose=0), **CLOSE)


@pytest.mark.skipif(not KERAS_3, reason="tf_keras has no model.export of ONNX")
@pytest.mark.parametrize("name", ["one slope", "one slope, dense"])
def test_onnx_of_keras_has_leaky_relu(name, tmp_path):
    model, x = trained(*CASES[name])
    frozen = freeze(model)
    frozen(x[:1])
    frozen.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    names, y = run_onnx(onnx.load(tmp_path / "model.onnx"), x)
    assert "LeakyRelu" in names
    assert not names & LOOSE_IN_ONNX
    np.testing.assert_allclose(y, model.predict(x, verbose=0), **CLOSE)
