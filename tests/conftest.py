"""Shared set-up: seeds, and which Keras the run is for."""

import contextlib
import os
import socket
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf

KERAS_3 = os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true", "True")

# For what knows next to nothing of Keras: under tf_keras, `make test-slow` runs it.
SLOW_UNDER_TF_KERAS = () if KERAS_3 else (pytest.mark.slow,)


def slow_under_tf_keras(test):
    """The same for a single test."""
    return test if KERAS_3 else pytest.mark.slow(test)


@pytest.fixture(autouse=True, scope="session")
def coverage_of_processes():
    """What makes processes of the tests measure coverage, which takes them twice as long.

    Only those that `covered_processes` gives it back to do so.
    """
    names = [name for name in os.environ if name.startswith("COVERAGE_PROCESS_")]
    return {name: os.environ.pop(name) for name in names}


@pytest.fixture
def covered_processes(coverage_of_processes, monkeypatch):
    for name, value in coverage_of_processes.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def seeded():
    tf.keras.utils.set_random_seed(20260101)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def in_this_process(monkeypatch):
    """Checks exports with the same loader in this process, to save the start of another."""
    from tf_leaky.serving import checking, running

    def answers(model, folder, requests, scratch):
        with running.SavedModel(folder) as served:
            return [served.run(request) for request in requests]

    monkeypatch.setattr(checking, "answers", answers)


def run_python(*arguments, status=0, python=sys.executable, **options):
    """How a Python process of its own ended: with this status, and with what it printed."""
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == status, done.stdout[-1000:] + done.stderr[-3000:]
    return done


def free_ports(count):
    """So many ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def pytest_report_header():
    keras = "Keras 3" if KERAS_3 else "tf_keras"
    return f"tensorflow {tf.__version__}, under {keras}"
