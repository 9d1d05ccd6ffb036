"""What `import tf_leaky` needs, and what it says where that is missing; in processes."""

import os

import pytest
from conftest import KERAS_3, run_python

pytestmark = pytest.mark.usefixtures("covered_processes")


def import_after(code, status=1, **environment):
    """What is printed as an error where `code` ran before."""
    code = f"import sys; {code}; import tf_leaky"
    return run_python("-c", code, status=status, env=os.environ | environment).stderr


def test_import_needs_no_matplotlib():
    import_after("sys.modules['matplotlib'] = None", status=0)


@pytest.mark.parametrize("module", ["tensorflow", "numpy"])
def test_missing_tensorflow_is_named(module):
    said = import_after(f"sys.modules['{module}'] = None")
    named = "ImportError: tf_leaky: expected TensorFlow to be installed. Received: " in said
    assert named == (module == "tensorflow")


@pytest.mark.skipif(not KERAS_3, reason="tf_keras has one backend")
@pytest.mark.parametrize(
    ("backend", "code", "message"),
    [
        ("torch", "sys.modules['torch'] = None", "expected tf.keras to be importable"),
        (
            "tensorflow",
            "import tensorflow as tf; tf.keras.backend.backend = lambda: 'jax'",
            "expected Keras to run on the TensorFlow backend. Received: backend='jax'",
        ),
    ],
    ids=["not installed", "installed"],
)
def test_other_backends_are_refused(backend, code, message):
    """JAX and Torch may be installed or not: the first hides Torch, the second needs no JAX."""
    assert f"ImportError: tf_leaky: {message}" in import_after(code, KERAS_BACKEND=backend)
