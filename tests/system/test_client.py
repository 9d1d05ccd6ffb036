"""The shipped client, with the stand-in that speaks TensorFlow Serving's protocol.

Tests marked `real_tf_serving` do the same against TensorFlow Serving itself, where one is found:
at TF_SERVING_ADDR (which must serve tests/serving/toy as `toy`), on PATH, or by docker.
"""

import sys
import types

import client
import grpc
import numpy as np
import pytest
import serve
import served
import stand_in
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS, free_ports
from served import HOUR, ROWS, SCORES, TOY, by_protocol, connect, standing_in

from tf_leaky import export_saved_model

pytestmark = list(SLOW_UNDER_TF_KERAS)


def real_server():
    """TensorFlow Serving itself; skips where there is none."""
    found = serve.find_server()
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
        assert served.asked(case, toy).status == case["status"], case


@by_protocol
def test_requests_from_8_threads_are_answered_as_keras_predicts(make, digits):
    """And all images at once."""
    server, images, expected = digits
    with connect(make, server, "digits") as connected:
        found = client.measure(connected, images, 200, concurrency=8, quiet=True)
        together = connected.predict(images)
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
    run_client(monkeypatch, *flags, "--timeout", HOUR)
    printed, progress = capsys.readouterr()
    for protocol in ("REST", "gRPC"):
        assert f"{protocol} at " in printed
        assert f"{protocol}: 100%" in progress
    for each in (f"image 0, a 0: {expected[0].argmax()}, score", "20 requests in", "p50 ", "p99 "):
        assert printed.count(each) == 2


@pytest.mark.parametrize("protocol", ["REST", "gRPC"])
def test_client_says_that_no_server_is_there(protocol, monkeypatch):
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    said = rf"expected a server that answers {protocol} at {nobody}\. .*`make serve` starts one"
    with pytest.raises(SystemExit, match=said):
        run_client(monkeypatch, f"--{protocol.lower()}", nobody)


def test_what_another_server_answers_is_not_taken(monkeypatch):
    def answer(handler):
        handler._send(200, "<html>hello</html>", "text/html")

    monkeypatch.setattr(stand_in._RestHandler, "do_GET", answer)
    with (
        standing_in("toy", TOY) as server,
        pytest.raises(client.ServerError, match="Received: no JSON but"),
    ):
        client.RestClient(server.rest, "toy", timeout=HOUR)
