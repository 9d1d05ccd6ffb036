"""What `import tf_leaky` needs, and what it says where that is missing; in processes."""

import os
import subprocess
import sys

import pytest
from conftest import KERAS_3

pytestmark = pytest.mark.usefixtures("covered_processes")


def run(code, **environment):
    command = [sys.executable, "-c", f"import sys; {code}; import tf_leaky; print('imported')"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def test_import_needs_no_matplotlib():
    done = run("sys.modules['matplotlib'] = None")
    assert done.stdout.strip() == "imported", done.stderr


@pytest.mark.parametrize("module", ["tensorflow", "numpy"])
def test_missing_tensorflow_is_named(module):
    done = run(f"sys.modules['{module}'] = None")
    named = "ImportError: tf_leaky: expected TensorFlow to be installed. Received: " in done.stderr
    assert named == (module == "tensorflow")
    assert done.returncode == 1


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
    done = run(code, KERAS_BACKEND=backend)
    assert done.returncode == 1
    assert f"ImportError: tf_leaky: {message}" in done.stderr
