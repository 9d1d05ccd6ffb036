"""A stand-in that speaks TensorFlow Serving's protocol, for machines without TensorFlow Serving.

    python examples/serving/stand_in.py --model_name=NAME --model_base_path=FOLDER
        [--port=0] [--rest_api_port=0] [--grpc_max_threads=N]

It answers predict, status and metadata requests over REST and gRPC, on loopback only, with the
flags and status codes of TensorFlow Serving, and runs the highest version in FOLDER with
TensorFlow's session loader. It doesn't look for later versions, and doesn't support warm-up,
labels, batching, classify and regress, nor strings over REST. Port 0 is any free port; the first
line that it prints says which. Like the server, it refuses more than N gRPC calls at once (by
default 4 for each CPU core) with RESOURCE_EXHAUSTED. It ends with the process that started it.
"""

import argparse
import json
import os
import re
import signal
import threading
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_leaky.serving.running import SavedModel

WHAT = "a stand-in that speaks TensorFlow Serving's protocol"
VERSION = r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?"
PREDICT = re.compile(VERSION + ":(classify|regress|predict)", re.I)
STATUS = re.compile(VERSION + "(?:/(metadata))?", re.I)
HTTP = {StatusCode.INVALID_ARGUMENT: 400, StatusCode.NOT_FOUND: 404}
GRPC_THREADS = 4 * (os.cpu_count() or 1)


class RequestError(Exception):
    """An error that is sent to the client, with its gRPC status code."""

    def __init__(self, message, code=StatusCode.INVALID_ARGUMENT):
        super().__init__(message)
        self.code = code


class Model:
    """The highest version of a model, under its name."""

    def __init__(self, name, base_path):
        self.name = name
        versions = [path for path in Path(base_path).iterdir() if path.name.isdecimal()]
        path = max(versions, key=lambda path: int(path.name))
        self.number, self.loaded = int(path.name), SavedModel(path)

    def check(self, name, number, label):
        """Raises RequestError if another model or version is requested."""
        if label:
            raise RequestError(f"Unrecognized servable version label: {label}")
        if name != self.name or number not in (None, self.number):
            which = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise RequestError(f"Servable not found for request: {which}", StatusCode.NOT_FOUND)

    def signature(self, name):
        """Returns the SignatureDef of a name."""
        if name not in self.loaded.signatures:
            raise RequestError(f'Serving signature name: "{name}" not found in signature def')
        return self.loaded.signatures[name]

    def run(self, inputs, signature):
        """Returns the outputs for arrays, both by name."""
        try:
            return self.loaded.run(inputs, signature)
        except RuntimeError as error:
            raise RequestError(str(error)) from None

    def status(self, name, number):
        """Returns a GetModelStatusResponse."""
        if name != self.name or number not in (None, self.number):
            which = "any versions" if number is None else f"version {number}"
            raise RequestError(f"Could not find {which} of model {name}", StatusCode.NOT_FOUND)
        response = get_model_status_pb2.GetModelStatusResponse()
        state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        response.model_version_status.add(version=self.number, state=state).status.SetInParent()
        return response

    def metadata(self, name, number, label):
        """Returns a GetModelMetadataResponse, and the SignatureDefMap that is packed in it."""
        self.check(name, number, label)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=self.loaded.signatures)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = name, self.number
        response.metadata["signature_def"].Pack(signatures)
        return response, signatures


class _HttpServer(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait: the default of 5 makes a burst wait a second


class _RestHandler(BaseHTTPRequestHandler):
    """One REST connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet
    disable_nagle_algorithm = True
    model = None

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if not path.lower().startswith("/v1/"):
            title = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n"
            self._send(404, f"{title}<H1>Not Found</H1>\n</BODY></HTML>\n", "text/html")
            return
        try:
            self._send(200, self._process(path, body), "application/json")
        except RequestError as error:
            self._send(HTTP[error.code], json.dumps({"error": str(error)}), "application/json")

    do_GET = do_POST = do_PUT = answer  # noqa: N815  http.server names them

    def _send(self, status, text, content_type):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _process(self, path, body):
        pattern = {"POST": PREDICT, "GET": STATUS}.get(self.command)
        found = pattern and pattern.fullmatch(path)
        if not found:
            raise RequestError(f"Malformed request: {self.command} {self.path}")
        name, number, label, what = found.groups()
        if not name:
            raise RequestError("Missing model name in request.")
        name, number = unquote(name), int(number) if number else None
        if self.command == "GET" and what is None:  # TensorFlow Serving ignores a label here
            return _text(self.model.status(name, number))
        if self.command == "GET":
            response, signatures = self.model.metadata(name, number, label)
            spec = _text(response.model_spec)
            return f'{{"model_spec": {spec}, "metadata": {{"signature_def": {_text(signatures)}}}}}'
        self.model.check(name, number, label)
        if what.lower() != "predict":
            raise RequestError("No classification or regression inputs found in SignatureDef")
        try:
            return json.dumps(_predict_json(self.model, json.loads(body)))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise RequestError(f"JSON that is not as expected: {error!r}") from None


def _predict_json(model, request):
    """Returns the answer to a predict request over REST, as an object."""
    (form,) = request.keys() & {"instances", "inputs"}
    values, name = request[form], request.get("signature_name", "serving_default")
    signature = model.signature(name)
    if form == "instances" and isinstance(values[0], dict):
        values = {key: [row[key] for row in values] for key in signature.inputs}
    elif not isinstance(values, dict):
        (only,) = signature.inputs
        values = {only: values}
    inputs = {key: _array(values[key], info.dtype) for key, info in signature.inputs.items()}
    answer = {key: array.tolist() for key, array in model.run(inputs, name).items()}
    if len(answer) == 1:
        (answer,) = answer.values()
    elif form == "instances":
        answer = [dict(zip(answer, row, strict=True)) for row in zip(*answer.values(), strict=True)]
    return {"predictions" if form == "instances" else "outputs": answer}


def _array(value, dtype):
    array = np.array(value)
    if array.dtype.kind not in "iufb":
        raise TypeError("expected numbers")
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32, as in the server
        return array.astype(tf.as_dtype(dtype).as_numpy_dtype)


def _text(message):
    return json_format.MessageToJson(
        message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):  # noqa: N802
        spec = request.model_spec
        name = spec.signature_name or "serving_default"
        response = predict_pb2.PredictResponse()
        with _sent(context):
            self.model.check(*_asked(spec))
            signature = self.model.signature(name)
            for key, tensor in request.inputs.items():
                if key in signature.inputs and tensor.dtype != signature.inputs[key].dtype:
                    raise RequestError(f"input {key!r} is of another dtype than in the signature")
            arrays = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
            for key, array in self.model.run(arrays, name).items():
                dtype = tf.as_dtype(signature.outputs[key].dtype)
                response.outputs[key].CopyFrom(tf.make_tensor_proto(array, dtype))
        response.model_spec.name, response.model_spec.signature_name = spec.name, name
        response.model_spec.version.value = self.model.number
        return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        with _sent(context):
            return self.model.metadata(*_asked(request.model_spec))[0]


def _asked(spec):
    number = spec.version.value if spec.HasField("version") else None
    return spec.name, number, spec.version_label


@contextmanager
def _sent(context):
    """Sends a `RequestError` to the client."""
    try:
        yield
    except RequestError as error:
        context.abort(error.code, str(error))


@contextmanager
def serving(model, rest_port=0, grpc_port=0, grpc_max_threads=GRPC_THREADS):
    """Serves a `Model` for the block; yields the addresses of REST and gRPC as `host:port`."""
    handler = type("Handler", (_RestHandler,), {"model": model})
    rest = _HttpServer(("127.0.0.1", rest_port), handler)
    over_grpc = grpc.server(
        futures.ThreadPoolExecutor(grpc_max_threads),
        maximum_concurrent_rpcs=grpc_max_threads,
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    service = _PredictionService(model)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, over_grpc)
    grpc_port = over_grpc.add_insecure_port(f"127.0.0.1:{grpc_port}")
    thread = threading.Thread(target=rest.serve_forever, args=(0.05,))
    over_grpc.start()
    thread.start()
    try:
        yield f"127.0.0.1:{rest.server_address[1]}", f"127.0.0.1:{grpc_port}"
    finally:
        rest.shutdown()
        thread.join()
        rest.server_close()
        over_grpc.stop(grace=1).wait()


def main():
    """Serves one model until it gets SIGTERM or SIGINT, or its parent is gone."""
    parser = argparse.ArgumentParser(description=WHAT)
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--model_base_path", required=True)
    parser.add_argument("--port", type=int, default=0, help="of gRPC")
    parser.add_argument("--rest_api_port", type=int, default=0)
    parser.add_argument("--grpc_max_threads", type=int, default=GRPC_THREADS)
    parser.add_argument("--parent", type=int, default=os.getppid(), help="ends with this process")
    given = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    model = Model(given.model_name, given.model_base_path)
    ports = given.rest_api_port, given.port
    with serving(model, *ports, given.grpc_max_threads) as (rest, over_grpc):
        print(f"{WHAT}: REST on {rest}, gRPC on {over_grpc}", flush=True)
        while not stopped.wait(0.5) and os.getppid() == given.parent:
            pass


if __name__ == "__main__":
    main()
