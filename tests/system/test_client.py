"""The shipped client, with the stand-in that speaks TensorFlow Serving's protocol.

Tests marked `real_tf_serving` do the same against TensorFlow Serving itself, where one is found:
at TF_SERVING_ADDR (which must serve tests/serving/toy as `toy`), on PATH, or by docker.
"""

import http.client
import http.server
import os
import select
import socket
import sys
import types
from contextlib import closing

import client
import grpc
import numpy as np
import pytest
import serve
import served
import stand_in
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS
from served import HOUR, ROWS, SCORES, TOY, by_protocol, connect, standing_in

from tf_leaky import export_saved_model

pytestmark = list(SLOW_UNDER_TF_KERAS)


def real_server():
    """TensorFlow Serving itself; skips where there is none."""
    found = serve.find_server(os.environ.get("TF_SERVING_TAG", "latest"))
    if found.kind == "stand-in":
        pytest.skip(f"no TensorFlow Serving here: {found.description.partition(': ')[2]}")
    return found


SERVERS = ["stand-in", pytest.param("TensorFlow Serving", marks=pytest.mark.real_tf_serving)]


@pytest.fixture(scope="module", params=SERVERS)
def toy(request):
    """The addresses of a server that serves the toy model as `toy`."""
    if request.param == "stand-in":
        serving = standing_in("toy", TOY)
    else:
        serving = serve.serving(real_server(), TOY, "toy", timeout=HOUR)
    with serving as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS)
def digits(request, tmp_path_factory):
    """A server of an export of ours, the images, and what Keras predicts for them."""
    found = None if request.param == "stand-in" else real_server()
    if found is not None and found.kind == "address":
        pytest.skip("the server at TF_SERVING_ADDR can't see a folder of this test")
    tf.keras.utils.set_random_seed(3)
    model, images = served.digits_model(), client.load_images()[0]
    folder = tmp_path_factory.mktemp("served") / "digits"
    base_path = export_saved_model(model, folder, warmup=images[:3]).parent
    if found is None:
        serving = standing_in("digits", base_path)
    else:
        serving = serve.serving(found, base_path, "digits", 1, timeout=HOUR)
    with serving as server:
        yield server, images, model.predict(images, verbose=0)


@by_protocol
def test_client_predicts_and_says_what_the_server_refuses(make, toy):
    with connect(make, toy, "toy") as connected:
        with pytest.raises(client.ServerError, match=r"Received: (status 400|INVALID_ARGUMENT), "):
            connected.predict([[1, 2, 3]])
        np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)
    match = r"an answer of the model over .*Servable not found.*\(é /\?\).*Check --model"
    with pytest.raises(client.ServerError, match=match):
        connect(make, toy, "é /?")


@pytest.mark.parametrize("toy", SERVERS[1:], indirect=True)
def test_server_gives_the_recorded_status_codes(toy):
    """The stand-in gives more than those: see test_stand_in.py."""
    for case in served.RECORDED:
        if "/labels/" in case["path"]:
            continue  # which labels a server has is its configuration
        with closing(http.client.HTTPConnection(toy.rest, timeout=HOUR)) as connection:
            connection.request(case["method"], case["path"], case["body"])
            assert connection.getresponse().status == case["status"], case


@by_protocol
@pytest.mark.parametrize("requests", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_requests_from_8_threads_are_answered_as_keras_predicts(requests, make, digits):
    """And all images at once."""
    server, images, expected = digits
    with connect(make, server, "digits") as connected:
        found = client.measure(connected, images, requests, 1, concurrency=8, quiet=True)
        together = connected.predict(images)
    assert found.latencies.shape == (requests,)
    for answers, predicted in ((found.answers, expected[found.images]), (together, expected)):
        np.testing.assert_allclose(answers, predicted, rtol=1e-4, atol=1e-6)


def test_refused_calls_are_sent_again_a_bounded_number_of_times(monkeypatch):
    service, refusals, pauses = stand_in._PredictionService, [None] * client.TRIES, []
    predict = service.Predict

    def busy(self, request, context):
        if refusals:
            refusals.pop()
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no thread is free")
        return predict(self, request, context)

    monkeypatch.setattr(service, "Predict", busy)
    monkeypatch.setattr(client, "time", types.SimpleNamespace(sleep=pauses.append))
    with standing_in("toy", TOY) as server, connect(client.GrpcClient, server, "toy") as connected:
        match = r"no thread is free, 10 times\. .*--grpc_max_threads=64, or give a small"
        with pytest.raises(client.ServerError, match=match):
            connected.predict(ROWS)
        assert not refusals
        refusals += [None] * (client.TRIES - 1)
        np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)
    assert len(pauses) == 2 * (client.TRIES - 1)
    assert sum(pauses) < 10


def run_client(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["client.py", *map(str, arguments)])
    client.main()


def test_client_prints_predictions_and_percentiles(digits, monkeypatch, capsys):
    server, _, expected = digits
    flags = ["--rest", server.rest, "--grpc", server.grpc, "--requests", 20, "--batch", 2]
    run_client(monkeypatch, *flags, "--concurrency", 3, "--timeout", HOUR)
    printed, progress = capsys.readouterr()
    for protocol in ("REST", "gRPC"):
        assert f"{protocol} at " in printed
        assert f"{protocol}: 100%" in progress
    assert printed.count(f"image 0, a 0: {expected[0].argmax()}, score") == 2
    for each in ("20 requests in", "p50 ", "p90 ", "p99 "):
        assert printed.count(each) == 2


@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
def test_client_says_that_no_server_is_there(protocol, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and doesn't listen
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(SystemExit) as stopped:
            run_client(monkeypatch, f"--{protocol.lower()}", address, "--timeout", HOUR)
    said = str(stopped.value)
    assert f"expected a server that answers {protocol} at {address}. Received: " in said
    assert "`make serve` starts one" in said


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--rest", "localhost:port", "at localhost:port. Received: nonnumeric port"),
        ("--requests", 0, "expected a number above 0"),
        ("--timeout", "nan", "expected seconds above 0, up to 86400"),
    ],
)
def test_client_says_which_flag_is_wrong(flag, value, said, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_client(monkeypatch, flag, value)
    assert said in f"{stopped.value} {capsys.readouterr().err}"


def test_what_another_server_answers_is_not_taken(monkeypatch):
    def answer(handler):
        handler._send(200, "<html>hello</html>", "text/html")

    monkeypatch.setattr(stand_in._RestHandler, "do_GET", answer)
    with (
        standing_in("toy", TOY) as server,
        pytest.raises(client.ServerError, match=r"Received: status 200, no metadata but"),
    ):
        client.RestClient(server.rest, "toy", timeout=HOUR)


def test_rest_connection_that_the_server_closed_is_made_anew(monkeypatch):
    """As TensorFlow Serving closes one that was idle for long."""
    send = stand_in._RestHandler._send

    def send_and_close(self, *answer):
        send(self, *answer)
        self.close_connection = True

    monkeypatch.setattr(stand_in._RestHandler, "_send", send_and_close)
    with standing_in("toy", TOY) as server, connect(client.RestClient, server, "toy") as connected:
        (connection,) = connected._connections
        select.select([connection.sock], [], [])  # until the server has closed it
        np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)
