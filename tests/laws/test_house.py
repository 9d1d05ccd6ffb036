"""The rooms of the package, what is public, and what the import needs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tf_leaky

pytestmark = pytest.mark.usefixtures("covered_processes")
PACKAGE = Path(tf_leaky.__file__).parent
# What each room may import, beside the standard library. Imports point up this table only.
BELOW = {"checks", "keras_compat"}
ROOMS = {
    "keras_compat": {"tensorflow"},
    "checks": {"tensorflow", "numpy"},
    "ops": {"tensorflow", "numpy", "checks"},
    "layer": {"tensorflow", "numpy", *BELOW, "ops"},
    "structure": {"tensorflow"},
    "batch_norm_ops": {"tensorflow", "ops"},
    "batch_norm": {"tensorflow", "numpy", *BELOW, "ops", "layer", "batch_norm_ops"},
    "conversion": {"tensorflow", "numpy", *BELOW, "ops", "layer", "batch_norm", "structure"},
    "inspection": {"tensorflow", "numpy", "matplotlib", *BELOW, "ops", "layer", "structure"},
    "serving": {"tensorflow", "numpy", "tensorflow_serving", *BELOW},
    "__init__": {"layer", "batch_norm", "ops", "conversion", "inspection", "serving"},
}


def files(room):
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imports(path):
    """The modules outside the standard library that a file imports, at its top or within."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = node.module == "tf_leaky"
            found |= {alias.name for alias in node.names} if inside else {node.module}
    found = {name.removeprefix("tf_leaky.").partition(".")[0] for name in found}
    return {name for name in found if name not in sys.stdlib_module_names}


def test_every_file_is_in_a_room():
    there = {path for room in ROOMS for path in files(room)}
    assert set(PACKAGE.rglob("*.py")) == there


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_what_stands_below_it(room):
    for path in files(room):
        assert imports(path) <= ROOMS[room] | {room}, path


def test_public_names():
    assert sorted(tf_leaky.__all__) == [
        "ActivationMonitor",
        "BatchNormLeakyReLU",
        "DEFAULT_ALPHA",
        "LeakyReLU",
        "convert",
        "export_saved_model",
        "freeze",
        "leaky_relu",
        "plot_activations",
        "plot_leaky_relu",
        "to_keras",
    ]
    assert tf_leaky.DEFAULT_ALPHA == 0.1
    assert tf_leaky.__version__.count(".") == 2


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_import_needs_no_matplotlib():
    done = run("import sys; sys.modules['matplotlib'] = None; import tf_leaky; print('imported')")
    assert done.stdout.strip() == "imported", done.stderr


@pytest.mark.skipif("TF_USE_LEGACY_KERAS" in os.environ, reason="tf_keras has one backend")
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import sys; sys.modules['torch'] = None; import tf_leaky",
            "tf_leaky: expected tf.keras to be importable",
        ),
        (
            "import tensorflow as tf; tf.keras.backend.backend = lambda: 'jax'; import tf_leaky",
            "expected Keras to run on the TensorFlow backend. Received: backend='jax'",
        ),
    ],
    ids=["not installed", "installed"],
)
def test_other_backends_are_refused(code, message):
    """JAX and Torch may be installed or not: the first hides Torch, the second needs no JAX."""
    backend = "torch" if "lambda" not in code else "tensorflow"
    done = run(code, KERAS_BACKEND=backend)
    assert done.returncode != 0
    assert "ImportError: tf_leaky" in done.stderr
    assert message in done.stderr
