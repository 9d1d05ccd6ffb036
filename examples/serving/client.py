"""Sends handwritten digits to a server that speaks TF Serving's protocol, and measures latency.

    python examples/serving/client.py [--rest localhost:8501] [--grpc localhost:8500]
        [--model digits] [--requests 200] [--batch 1] [--concurrency 4] [--timeout 10]

Without --rest and --grpc, it uses both, at these addresses. It needs numpy, tqdm and urllib3, and
for gRPC tensorflow-serving-api. The images come with scikit-learn.
"""

import argparse
import contextlib
import json
import random
import threading
import time
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import urllib3
from tqdm.contrib.concurrent import thread_map

REST, GRPC = "localhost:8501", "localhost:8500"  # where TensorFlow Serving listens by default
TRIES = 10  # of a call when the server has no free thread; with pauses, about 3 seconds


class ServerError(Exception):
    """The server can't be reached or refuses; the message says what to do."""


class RestClient:
    """Gets predictions over REST. Threads may share it.

    Args:
        address: `host:port`.
        model: The name that the model is served under; it has one input and one output.
        timeout: The timeout of a request, in seconds.

    Raises:
        ServerError: If the server can't be reached, or doesn't serve the model.
    """

    protocol = "REST"

    def __init__(self, address, model, timeout=10.0):
        self.address = address
        self._path = f"/v1/models/{quote(model, safe='')}"
        self._connections = urllib3.PoolManager(maxsize=64, timeout=timeout, retries=False)
        metadata = self._ask("GET", "/metadata")
        signatures = metadata["metadata"]["signature_def"]["signature_def"]
        self._input = _only("input", signatures["serving_default"]["inputs"])
        self.version = int(metadata["model_spec"]["version"])

    def predict(self, images):
        """What the model answers to a batch, as an array."""
        body = {"inputs": {self._input: np.asarray(images).tolist()}}
        return np.array(self._ask("POST", ":predict", json.dumps(body))["outputs"])

    def close(self):
        """Closes the connections."""
        self._connections.clear()

    def _ask(self, method, what, body=None):
        url = f"http://{self.address}{self._path}{what}"
        try:
            response = self._connections.request(method, url, body=body)
            answer = json.loads(response.data)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(self, error) from None
        except ValueError:  # a web page of another server
            raise _refused(self, f"no JSON but {response.data[:200]!r}") from None
        if response.status != 200:
            raise _refused(self, f"status {response.status}, {answer.get('error')}")
        return answer


class GrpcClient:
    """The same over gRPC, on one channel; see `RestClient`.

    A server that gets more calls at once than it has threads (by default 4 for each CPU core, see
    --grpc_max_threads) refuses some with RESOURCE_EXHAUSTED. Such a call is sent again after a
    pause, which doubles each time, and while no other call of this client is running.
    """

    protocol = "gRPC"

    def __init__(self, address, model, timeout=10.0):
        import grpc  # here, as these imports load TensorFlow, which REST doesn't need
        import tensorflow as tf
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            predict_pb2,
            prediction_service_pb2_grpc,
        )

        self.address, self._model, self._timeout = address, model, timeout
        self._grpc, self._tf, self._requests = grpc, tf, predict_pb2
        options = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(address, options)
        self._turns = _Turns()
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec={"name": model}, metadata_field=["signature_def"]
        )
        response = self._ask(self._service.GetModelMetadata, request)
        self.version = response.model_spec.version.value
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        signature = signatures.signature_def["serving_default"]
        self._input = _only("input", signature.inputs)
        self._dtype = signature.inputs[self._input].dtype
        self._output = _only("output", signature.outputs)

    def predict(self, images):
        """What the model answers to a batch, as an array."""
        request = self._requests.PredictRequest(model_spec={"name": self._model})
        tensor = self._tf.make_tensor_proto(images, self._dtype)
        request.inputs[self._input].CopyFrom(tensor)
        return self._tf.make_ndarray(
            self._ask(self._service.Predict, request).outputs[self._output]
        )

    def close(self):
        """Closes the channel."""
        self._channel.close()

    def _ask(self, method, request):
        codes = self._grpc.StatusCode
        for number in range(TRIES):
            if number:
                time.sleep(random.uniform(0.5, 1) * min(0.01 * 2**number, 1))
            try:
                with self._turns.take(alone=number > 0):
                    return method(request, timeout=self._timeout)
            except self._grpc.RpcError as error:
                code, said = error.code(), f"{error.code().name}, {error.details()}"
            if code in (codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED):
                raise _unreachable(self, said)
            if code != codes.RESOURCE_EXHAUSTED:
                raise _refused(self, said)
        raise ServerError(
            f"client: expected a free thread of the server at {self.address}. Received: {said}, "
            f"{TRIES} times. It gets more calls at once than it has threads: start it with "
            "--grpc_max_threads=64, or give a smaller --concurrency."
        )


class _Turns:
    """Lets calls overlap, except one that runs alone: it waits for the others, and they for it."""

    def __init__(self):
        self._changed = threading.Condition()
        self._running, self._alone = 0, False

    @contextlib.contextmanager
    def take(self, alone):
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            if alone:
                self._alone = True
                self._changed.wait_for(lambda: self._running == 0)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = self._alone and not alone
                self._changed.notify_all()


class Measured(NamedTuple):
    """What `measure` returns."""

    images: np.ndarray
    """The indices of the images that were sent, `(requests, batch)`."""
    answers: np.ndarray
    """The answers, `(requests, batch, ...)`."""
    latencies: np.ndarray
    """The latency of each request, in seconds."""
    seconds: float
    """From the first request to the last answer."""


def measure(client, images, requests, batch=1, concurrency=1, quiet=False):
    """Sends `requests` batches from `concurrency` threads, cycling through the images."""
    chosen = (np.arange(requests * batch) % len(images)).reshape(requests, batch)

    def ask(which):
        began = time.perf_counter()
        answer = client.predict(images[which])
        return answer, time.perf_counter() - began

    bar = {"desc": client.protocol, "unit": "request", "disable": quiet}
    began = time.perf_counter()
    done = thread_map(ask, chosen, max_workers=concurrency, **bar)
    answers, latencies = zip(*done, strict=True)
    seconds = time.perf_counter() - began
    return Measured(chosen, np.stack(answers), np.array(latencies), seconds)


def describe(measured):
    """Returns the rate and the percentiles of the latency, as a line of text."""
    p50, p90, p99 = np.percentile(measured.latencies, [50, 90, 99]) * 1e3
    rate = len(measured.latencies) / measured.seconds
    return (
        f"{len(measured.latencies)} requests in {measured.seconds:.1f} s, {rate:.0f} per second; "
        f"latency p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms"
    )


def load_images():
    """Returns the 1797 digits, `(n, 8, 8, 1)` in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images[..., np.newaxis] / 16).astype("float32"), digits.target


def _only(what, names):
    if len(names) != 1:
        raise ServerError(
            f"client: expected a model with one {what}. Received: {sorted(names)}. "
            "For a model with several, write your own requests."
        )
    return next(iter(names))


def _unreachable(client, error):
    return ServerError(
        f"client: expected a server that answers {client.protocol} at {client.address}. "
        f"Received: {error}. `make serve` starts one and calls it; "
        f"--{client.protocol.lower()} HOST:PORT calls another."
    )


def _refused(client, said):
    return ServerError(
        f"client: expected an answer of the model over {client.protocol} at {client.address}. "
        f"Received: {said}. Check --model, and that the server has loaded a version of it."
    )


def ask_and_print(client, images, labels, arguments):
    """Prints the first predictions and the measured latencies of one client."""
    print(f"\n{client.protocol} at {client.address}: {arguments.model}, version {client.version}")
    client.predict(images[: arguments.batch])  # the first request opens the connection
    measured = measure(client, images, arguments.requests, arguments.batch, arguments.concurrency)
    scores = measured.answers.reshape(-1, measured.answers.shape[-1])
    which = measured.images.ravel()
    for image, score in zip(which[:5], scores, strict=False):
        print(f"  image {image}, a {labels[image]}: {score.argmax()}, score {score.max():.3f}")
    right = (scores.argmax(-1) == labels[which]).sum()
    print(f"  correct: {right} of {len(scores)} images")
    print(f"  {describe(measured)}")


def main():
    """Sends requests over REST, gRPC or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rest", metavar="HOST:PORT", help=f"use REST, such as {REST}")
    parser.add_argument("--grpc", metavar="HOST:PORT", help=f"use gRPC, such as {GRPC}")
    parser.add_argument("--model", default="digits", help="the name that it is served under")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1, help="images in a request")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at a time")
    parser.add_argument("--timeout", type=float, default=10.0, help="of a request, in seconds")
    arguments = parser.parse_args()
    addresses = {RestClient: arguments.rest, GrpcClient: arguments.grpc}
    if not any(addresses.values()):
        addresses = {RestClient: REST, GrpcClient: GRPC}
    images, labels = load_images()
    try:
        for make, address in addresses.items():
            if address:
                client = make(address, arguments.model, arguments.timeout)
                with contextlib.closing(client):
                    ask_and_print(client, images, labels, arguments)
    except ServerError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
