"""Several replicas: gradients, slopes, constraint, files and monitor are those of one device.

`worker.py` trains under MirroredStrategy on two logical CPUs, and, under tf_keras, under
MultiWorkerMirroredStrategy in two processes that speak gRPC over loopback. This process
computes the same by itself.
"""

import contextlib
import functools
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import oracle
import pytest
import tensorflow as tf
import worker

KERAS_3 = tf.keras.Model.__module__.startswith("keras.")
WORKER = Path(worker.__file__)
# Where a worker finds the cases, and what this process finds there.
PATH = os.pathsep.join([str(WORKER.parents[1]), os.environ.get("PYTHONPATH", "")])

RUNS = ["two replicas"]
if not KERAS_3:  # whose `fit` fails on several workers: see the last test
    RUNS.append("two workers")
WORKERS = {"two replicas": 1, "two workers": 2}  # both are two replicas

each_case = pytest.mark.parametrize("case", worker.TRAINED, ids=cases.names)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def environments(workers):
    """The environment of each worker; one alone is in no cluster."""
    if workers == 1:
        return [{}]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    tasks = [{"type": "worker", "index": i} for i in range(workers)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}
        for task in tasks
    ]


def run(folder, workers, *arguments):
    """Runs `worker.py` so many times at once; their exit statuses and logs, when all have ended."""
    logs = [folder / f"{i}.log" for i in range(workers)]
    command = [sys.executable, WORKER, folder, *arguments]
    processes = []
    try:
        for log, environment in zip(logs, environments(workers), strict=True):
            with log.open("w") as file:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdout=file,
                        stderr=file,
                        env=os.environ | environment | {"PYTHONPATH": PATH},
                    )
                )
        return [process.wait() for process in processes], [log.read_text() for log in logs]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def read(path):
    """What a worker found, as `{what: {which: array}}`; what has no `which` as an array."""
    found = {}
    with np.load(path) as arrays:
        for key, array in arrays.items():
            what, _, which = key.partition("/")
            if which:
                found.setdefault(what, {})[which] = array
            else:
                found[what] = array
    return found


class Several:
    """A run of `worker.py`: its folder, and what each worker found."""

    def __init__(self, folder, name):
        self.folder, self._name = folder, name
        self._statuses, self._logs = run(folder, WORKERS[name])

    @functools.cached_property
    def found(self):
        workers = WORKERS[self._name]
        assert self._statuses == [0] * workers, "\n".join(log[-3000:] for log in self._logs)
        found = [read(self.folder / f"{i}.npz") for i in range(workers)]
        assert [each["replicas"] for each in found] == [2] * workers
        return found

    def slopes(self, what, case):
        """The slopes of all replicas, whose bits are the same."""
        rows = np.concatenate([each[what][case.name] for each in self.found])
        assert len(rows) == 2
        assert rows.dtype == np.float32
        for row in rows:
            np.testing.assert_array_equal(row.view(np.int32), rows[0].view(np.int32))
        return rows[0]


class Runs(dict):
    """Each run of `worker.py`, made when it is first asked for."""

    def __init__(self, make_folder):
        super().__init__()
        self._make_folder = make_folder

    def __missing__(self, name):
        self[name] = Several(self._make_folder("workers"), name)
        return self[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp)


@pytest.fixture(params=RUNS)
def several(request, runs):
    return runs[request.param]


class Alone:
    """The same as in `worker.py`, on the one device of this process."""

    def __init__(self):
        strategy = worker.single()
        self.gradient = worker.gradients(strategy)
        model = worker.make_model()
        self.start = worker.slopes(strategy, model)
        self.monitor = worker.train(model)
        self.trained = worker.slopes(strategy, model)
        worker.push(model)
        self.pushed = worker.slopes(strategy, model)


@pytest.fixture(scope="module")
def alone():
    return Alone()


@each_case
def test_gradient_is_that_of_the_whole_batch(case, several, alone):
    """The replicas have parts of unequal size, and their gradients are summed."""
    x, upstream = (worker.draw(worker.ROWS, seed)[case.name] for seed in (1, 2))
    alpha = cases.broadcast(case, case.arguments["alpha"])
    exact = oracle.dalpha(x, alpha, upstream).reshape(case.alpha_shape)
    for found in several.found:
        np.testing.assert_allclose(found["gradient"][case.name], exact, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(alone.gradient[case.name], exact, rtol=1e-12, atol=1e-12)


@each_case
def test_slopes_are_equal_bits_on_all_replicas_and_those_of_one_device(case, several, alone):
    found, (expected,) = several.slopes("trained", case), alone.trained[case.name]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - alone.start[case.name][0]).max() > 1e-3


@each_case
def test_constraint_holds_on_every_replica(case, several, alone):
    """After a step that is far too long, and that takes every slope down."""
    found, (expected,) = several.slopes("pushed", case), alone.pushed[case.name]
    if case.positive:
        np.testing.assert_array_equal(found, np.full(found.shape, 1e-3, np.float32))
    else:
        assert (found < -1).all()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@each_case
def test_files_reload_under_the_strategy(case, several):
    trained = several.slopes("trained", case)
    for what in ("reloaded", "filled"):
        np.testing.assert_array_equal(several.slopes(what, case), trained)


def test_files_reload_on_one_device_and_training_goes_on(several):
    model = tf.keras.models.load_model(several.folder / "model.keras")
    filled = worker.make_model()
    filled.load_weights(several.folder / "model.weights.h5")
    for each in (model, filled):
        for case in worker.TRAINED:
            (slopes,) = worker.slopes(worker.single(), each)[case.name]
            np.testing.assert_array_equal(slopes, several.slopes("trained", case))
    worker.train_again(model)
    for case in worker.TRAINED:
        (slopes,) = worker.slopes(worker.single(), model)[case.name]
        again = several.slopes("trained again", case)
        np.testing.assert_allclose(again, slopes, rtol=1e-5, atol=1e-6)
        assert np.abs(again - several.slopes("trained", case)).max() > 1e-4


def test_monitor_sees_the_same_on_every_worker(several, alone):
    assert len(alone.monitor) == 5 * len(worker.TRAINED)
    for found in several.found:
        assert found["monitor"].keys() == alone.monitor.keys()
        for key, values in alone.monitor.items():
            np.testing.assert_allclose(found["monitor"][key], values, rtol=1e-4, atol=1e-6)


def test_frozen_and_exported_models_of_replicas_answer_as_one_device(runs):
    two = runs["two replicas"]
    (found,) = two.found
    x, _, _ = worker.data()
    expected = tf.keras.models.load_model(two.folder / "model.keras").predict(list(x), verbose=0)
    np.testing.assert_allclose(found["frozen"], expected, rtol=1e-5, atol=1e-6)
    (version,) = (two.folder / "exported").iterdir()
    serve = tf.saved_model.load(version).signatures["serving_default"]
    names = sorted(serve.structured_input_signature[1], key=lambda name: int(name.split("_")[1]))
    (answer,) = serve(**dict(zip(names, x, strict=True))).values()
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_convert_within_the_scope_makes_replicas_that_train_on(runs):
    (found,) = runs["two replicas"].found
    stock, converted = found["stock"], found["converted"]
    np.testing.assert_allclose(converted["before"], stock["before"], rtol=1e-6)
    assert len(converted["after"]) == 2
    np.testing.assert_array_equal(*converted["after"])
    np.testing.assert_allclose(converted["after"][0], stock["after"][0], rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(KERAS_3, reason="`fit` of Keras 3 fails there")
def test_export_of_a_model_of_several_workers_is_refused(runs):
    """Its `predict` would wait for the other workers."""
    two = runs["two workers"]
    for found in two.found:
        assert re.fullmatch(
            "export_saved_model: expected a model that this process can run by itself. Received: "
            "model='model.*', made under MultiWorkerMirroredStrategy with 2 workers. Save it, load "
            "the file outside of the strategy, and export that.",
            str(found.get("refused")),
        )
    assert not (two.folder / "exported").exists()


@pytest.mark.skipif(not KERAS_3, reason="a limit of Keras 3")
def test_keras_3_does_not_fit_on_several_workers(tmp_path):
    """A sentence of the README. If this fails, it is out of date."""
    statuses, logs = run(tmp_path, 2, "fit")
    assert statuses == [0, 0], "\n".join(log[-3000:] for log in logs)
    for i in range(2):
        assert "PerReplica" in str(read(tmp_path / f"{i}.npz").get("error"))
