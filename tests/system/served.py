"""Models that are served, what they answer, and servers of them."""

import json
from contextlib import closing, contextmanager
from pathlib import Path

import client
import numpy as np
import pytest
import serve
import stand_in
import tensorflow as tf
import urllib3

from tf_leaky import LeakyReLU

TOY = Path(__file__).parents[1] / "serving" / "toy"
RECORDED = json.loads((TOY.parent / "tf_serving_rest_recorded.json").read_text())
ROWS = [[1, -2, 3, -4], [0.5, 0.25, -0.125, 2]]
SCORES = [[0.83513093, 0.03686793, 0.1280011], [0.2740756, 0.5648019, 0.16112253]]
HOUR = 3600.0  # seconds: what takes so long hangs, on a machine however busy
CLIENTS = [client.RestClient, client.GrpcClient]
by_protocol = pytest.mark.parametrize("make", CLIENTS, ids=lambda make: make.protocol)


@contextmanager
def standing_in(name, base_path, **options):
    """The addresses of a stand-in in this process."""
    with stand_in.serving(stand_in.Model(name, base_path), **options) as addresses:
        yield serve.Serving(*addresses)


def connect(make, server, name):
    """A client of a server, which the block closes."""
    address = server.rest if make is client.RestClient else server.grpc
    return closing(make(address, name, timeout=HOUR))


def asked(case, server):
    """What a server answers to a recorded request."""
    url = f"http://{server.rest}{case['path']}"
    return urllib3.PoolManager(timeout=HOUR).request(case["method"], url, body=case["body"])


def predict_by_both(server):
    """Holds that a server of the toy model answers right, over both protocols."""
    for make in CLIENTS:
        with connect(make, server, "toy") as connected:
            np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)
            assert connected.version == 1


def digits_model():
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3),
            LeakyReLU(0.25, trainable_alpha=True, axis=-1),
            layers.Flatten(),
            layers.Dense(16, activation=LeakyReLU(0.3)),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model(np.zeros((1, 8, 8, 1), "float32"))
    return model
