"""Several replicas: gradients, slopes, constraint, files and monitor are those of one device.

`worker.py` trains under MirroredStrategy on two logical CPUs, and, under tf_keras, under
MultiWorkerMirroredStrategy in two processes that speak gRPC over loopback. This process
computes the same by itself.
"""

import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import oracle
import pytest
import tensorflow as tf
import worker
from conftest import KERAS_3, free_ports

WORKER = Path(worker.__file__)
# Where a worker finds the cases, and what this process finds there.
PATH = os.pathsep.join([str(WORKER.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])


def run(folder, workers):
    """What so many processes of `worker.py` found, once all have ended; one is in no cluster."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(workers)]}
    logs = [folder / f"{i}.log" for i in range(workers)]
    with contextlib.ExitStack() as stack:
        processes = []
        for i, log in enumerate(logs):
            config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})
            environment = {"PYTHONPATH": PATH} | ({"TF_CONFIG": config} if workers > 1 else {})
            output = stack.enter_context(log.open("w"))
            options = {"stdout": output, "stderr": output, "env": os.environ | environment}
            processes.append(subprocess.Popen([sys.executable, WORKER, folder], **options))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].kill)
        statuses = [process.wait() for process in processes]
    assert statuses == [0] * workers, "\n".join(log.read_text()[-3000:] for log in logs)
    return [pickle.loads((folder / f"{i}.pickle").read_bytes()) for i in range(workers)]


class Several:
    """A run of `worker.py` with two replicas: its folder, and what each worker found."""

    def __init__(self, folder, workers):
        self.folder, self.found = folder, run(folder, workers)
        assert [each["replicas"] for each in self.found] == [2] * workers

    def slopes(self, what):
        """The slopes by case, whose bits are the same on both replicas."""
        slopes = {}
        for case in worker.TRAINED:
            one, other = np.concatenate([each[what][case.name] for each in self.found])
            assert one.dtype == np.float32
            assert one.tobytes() == other.tobytes()
            slopes[case.name] = one
        return slopes


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory):
    return Several(tmp_path_factory.mktemp("replicas"), 1)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    return Several(tmp_path_factory.mktemp("workers"), 2)


# `fit` of Keras 3 fails on several workers, with Keras's own layers too.
@pytest.fixture(params=["two_replicas"] if KERAS_3 else ["two_replicas", "two_workers"])
def several(request):
    return request.getfixturevalue(request.param)


def alone(model):
    """The slopes by case, on the one device of this process."""
    one_device = tf.distribute.get_strategy()
    return {name: rows[0] for name, rows in worker.slopes(one_device, model).items()}


def assert_close(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name, **tolerance)


def test_gradient_is_that_of_the_whole_batch(several):
    """The replicas have parts of unequal size, and their gradients are summed."""
    x, upstream = (worker.draw(worker.ROWS, seed) for seed in (1, 2))
    for case in worker.TRAINED:
        alpha = cases.broadcast(case, case.arguments["alpha"])
        exact = oracle.dalpha(x[case.name], alpha, upstream[case.name]).reshape(case.alpha_shape)
        for found in [each["gradient"][case.name] for each in several.found]:
            np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)


def test_slopes_and_files_are_those_of_one_device(several):
    """Trained, pushed far down, reloaded under the strategy and without; and training goes on."""
    model = worker.make_model()
    start, monitor = alone(model), worker.train(model)
    expected, found = alone(model), several.slopes("trained")
    assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(np.abs(expected[name] - start[name]).max() > 1e-3 for name in start)
    for each in several.found:
        assert_close(each["monitor"], monitor, rtol=1e-4, atol=1e-6)

    reloaded = tf.keras.models.load_model(several.folder / "model.keras")
    filled = worker.make_model()
    filled.load_weights(several.folder / "model.weights.h5")
    under_the_strategy = [several.slopes(what) for what in ("reloaded", "filled")]
    for each in (*under_the_strategy, alone(reloaded), alone(filled)):
        assert_close(each, found, rtol=0)
    reloaded.fit(worker.data()[2], shuffle=False, verbose=0)
    assert_close(several.slopes("trained again"), alone(reloaded), rtol=1e-5, atol=1e-6)

    worker.push(model)
    pushed = several.slopes("pushed")
    assert_close(pushed, alone(model), rtol=1e-4)
    for case in worker.TRAINED:  # the constraint holds on every replica
        slopes = pushed[case.name]
        assert (slopes == np.float32(1e-3)).all() if case.positive else (slopes < -1).all()


def test_frozen_exported_and_converted_models_of_replicas_are_those_of_one_device(two_replicas):
    (found,) = two_replicas.found
    x, _, _ = worker.data()
    model = tf.keras.models.load_model(two_replicas.folder / "model.keras")
    expected = model.predict(list(x), verbose=0)
    np.testing.assert_allclose(found["frozen"], expected, rtol=1e-5, atol=1e-6)
    (version,) = (two_replicas.folder / "exported").iterdir()
    serve = tf.saved_model.load(version).signatures["serving_default"]
    names = sorted(serve.structured_input_signature[1], key=lambda name: int(name.split("_")[1]))
    (answer,) = serve(**dict(zip(names, x, strict=True))).values()
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)

    (before, after), (stock_before, stock_after) = found["converted"], found["stock"]
    np.testing.assert_allclose(before, stock_before, rtol=1e-6)
    np.testing.assert_array_equal(*after)
    np.testing.assert_allclose(after[0], stock_after[0], rtol=1e-4, atol=1e-6)


def test_replicas_train_batch_norm_as_with_the_stock_layer(two_replicas):
    found = two_replicas.found[0]["batch norm"]
    for synchronized in (True, False):
        for mine, stock in zip(found[synchronized, True], found[synchronized, False], strict=True):
            np.testing.assert_allclose(mine, stock, rtol=1e-7, atol=1e-9)
        losses = found[synchronized, True][0]
        assert losses[-1] < losses[0]
    assert found[True, True][0] != found[False, True][0]  # statistics of all replicas are others


@pytest.mark.skipif(KERAS_3, reason="`fit` of Keras 3 fails there")
def test_export_of_a_model_of_several_workers_is_refused(two_workers):
    """Its `predict` would wait for the other workers."""
    match = "export_saved_model: expected a model .* made under Multi.* with 2 workers. Save it, "
    for found in two_workers.found:
        assert re.match(match, found["refused"])
    assert not (two_workers.folder / "exported").exists()
