"""`export_saved_model` in short: what it publishes and refuses. tests/system/ has the rest."""

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import LeakyReLU, export_saved_model
from tf_leaky.serving import running, signatures

layers = tf.keras.layers


def small_model(slope=0.25):
    x = tf.keras.Input((4,), name="features")
    hidden = LeakyReLU(slope, trainable_alpha=True, axis=-1, name="hidden")(x)
    return tf.keras.Model(x, [hidden, LeakyReLU(0.1, name="second")(hidden)])


def test_export_is_checked_in_a_fresh_process_and_answers_as_predict(tmp_path, rng):
    model = small_model()
    assert export_saved_model(model, tmp_path / "model") == tmp_path / "model" / "1"
    x = rng.normal(size=(3, 4)).astype("float32")
    with running.SavedModel(tmp_path / "model" / "1") as served:
        (info,) = served.inputs.values()
        answer = served.run({"features": x})
    assert tf.TensorShape(info.tensor_shape).as_list() == [None, 4]
    assert answer.keys() == {"hidden", "second"}
    for name, expected in zip(["hidden", "second"], model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(answer[name], expected, rtol=1e-6)


def refused(kind, match, model, folder, **arguments):
    """Nothing is published then."""
    with pytest.raises(kind, match="^export_saved_model: expected .*" + match):
        export_saved_model(model, folder, **arguments)
    assert [path.name for path in folder.iterdir() if not path.name.isdigit()] == []


def test_export_that_answers_differently_is_refused(tmp_path, monkeypatch, in_this_process):
    """Here another slope was traced than predicts."""
    traced, other = signatures.traced, small_model(0.3)
    monkeypatch.setattr(signatures, "traced", lambda _, inputs: traced(other, inputs))
    match = r"as model\.predict does\. Received: .*'hidden': up to 0\.0"
    refused(RuntimeError, match, small_model(), tmp_path)
    assert export_saved_model(small_model(), tmp_path, check=False).name == "1"


def test_forward_pass_that_is_compiled_is_refused(tmp_path):
    compiled = tf.function(lambda x: x + 1.0, jit_compile=True)
    x = tf.keras.Input((4,))
    model = tf.keras.Model(x, layers.Lambda(compiled, output_shape=(4,))(x))
    refused(ValueError, "without jit_compile=True", model, tmp_path)


def test_version_that_is_there_is_never_overwritten(tmp_path, in_this_process):
    export_saved_model(small_model(), tmp_path, version=7)
    refused(FileExistsError, "doesn't exist yet", small_model(), tmp_path, version=7)
    assert export_saved_model(small_model(), tmp_path).name == "8"
