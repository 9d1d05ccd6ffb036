"""A stand-in that speaks TF Serving's protocol, for tests and for machines that have no server.

    python tests/stand_in.py --model_name=NAME --model_base_path=FOLDER
        [--port=0] [--rest_api_port=0] [--file_system_poll_wait_seconds=1]

It answers predict, status and metadata over REST and gRPC, on loopback only, with the flags, the
version rules and the errors of TF Serving, and runs models by TensorFlow's C API, the loader that
TF Serving uses. It polls the base path, loads the highest version, and unloads the one before when
that has come up. It knows no classify or regress, no chunked or compressed bodies, no batching, no
model configuration files and no metrics. Port 0 is any free one; the first line that it prints
says which.
"""

import argparse
import os
import re
import signal
import threading
from concurrent import futures
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import tensorflow as tf
from google.protobuf import json_format
from grpc import StatusCode
from stand_in_json import RequestError, read_object, read_request, write_error, write_response
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from tf_leaky.serving import running

WHAT = "a stand-in that speaks TF Serving's protocol"
PREDICT = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.I
)
STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", re.I
)
HTTP = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.NOT_FOUND: 404,
    StatusCode.INTERNAL: 500,
    StatusCode.UNIMPLEMENTED: 501,
}
State = get_model_status_pb2.ModelVersionStatus.State


class Version:
    """One version directory in C sessions, one for each signature that was asked for."""

    def __init__(self, path):
        saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        (meta_graph,) = (m for m in saved_model.meta_graphs if "serve" in m.meta_info_def.tags)
        self.path = path
        self.signatures = dict(meta_graph.signature_def)
        self.users = 0
        self._lock = threading.Lock()
        self._sessions = {}
        try:
            self.session("serving_default")
            self._warm_up()
        except BaseException:
            self.close()
            raise

    def session(self, signature):
        with self._lock:
            if signature not in self._sessions:
                self._sessions[signature] = running.SavedModel(self.path, signature)
            return self._sessions[signature]

    def run(self, signature, inputs):
        try:
            return self.session(signature).run(inputs)
        except RuntimeError as error:
            raise RequestError(str(error)) from None

    def _warm_up(self):
        """Runs the recorded requests; one that fails makes the version fail, as in TF Serving."""
        records = self.path / "assets.extra" / "tf_serving_warmup_requests"
        if records.exists():
            for record in tf.data.TFRecordDataset(str(records)).as_numpy_iterator():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                predict(self, log.predict_log.request)

    def close(self):
        for session in self._sessions.values():
            session.close()


class Model:
    """The versions of one model: polls its base path, and lends the versions that are up."""

    def __init__(self, name, base_path, labels=None, poll_seconds=1.0):
        self.name, self.base_path = name, Path(base_path)
        self.labels = labels or {}
        self.states = {}  # version number: state, error message
        self._up = {}  # version number: Version
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll_for_ever, args=(poll_seconds,))
        self.poll()
        self._thread.start()

    def _poll_for_ever(self, seconds):
        while not self._stopped.wait(seconds):
            self.poll()

    def poll(self):
        """Loads the highest version, and then unloads the others; names that are no integers are
        ignored. A version that failed to load is not tried again, and what was up stays up."""
        try:
            there = self._versions_there()
        except OSError:
            return
        wanted = max(there, default=None)
        for number in [n for n, (state, _) in self.states.items() if state == State.END]:
            if number not in there:
                self.states.pop(number)  # a new export under that number is loaded
        if wanted is not None and wanted not in self._up and not self._failed(wanted):
            self._load(wanted)
        if wanted is None or wanted in self._up:
            for number in [number for number in self._up if number != wanted]:
                self._unload(number)

    def _versions_there(self):
        names = [path.name for path in self.base_path.iterdir()]
        return {int(n): self.base_path / n for n in names if re.fullmatch("[0-9]+", n)}

    def _failed(self, number):
        state, message = self.states.get(number, (None, ""))
        return state == State.END and message != ""

    def _load(self, number):
        self.states[number] = (State.LOADING, "")
        try:
            version = Version(self._versions_there()[number])
        except Exception as error:  # whatever is wrong with a version, the server goes on
            self.states[number] = (State.END, f"{type(error).__name__}: {error}")
            return
        with self._changed:
            self._up[number] = version
            self.states[number] = (State.AVAILABLE, "")
            self._changed.notify_all()

    def _unload(self, number):
        with self._changed:
            version = self._up.pop(number)
            self.states[number] = (State.UNLOADING, "")
            self._changed.wait_for(lambda: version.users == 0)
        version.close()
        self.states[number] = (State.END, "")

    @contextmanager
    def lend(self, number, label):
        """A version that stays loaded for the block: that one, or the highest, with its number."""
        if label:
            if label not in self.labels:
                raise RequestError(f"Unrecognized servable version label: {label}")
            number = self.labels[label]
        with self._changed:
            found = max(self._up, default=None) if number is None else number
            if found not in self._up:
                raise _not_found(self.name, number)
            version = self._up[found]
            version.users += 1
        try:
            yield version, found
        finally:
            with self._changed:
                version.users -= 1
                self._changed.notify_all()

    def close(self):
        self._stopped.set()
        self._thread.join()
        for number in list(self._up):
            self._unload(number)


def _not_found(name, number):
    wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
    return RequestError(f"Servable not found for request: {wanted}", StatusCode.NOT_FOUND)


def predict(version, request):
    """The outputs of a PredictRequest, by name."""
    name = request.model_spec.signature_name or "serving_default"
    if name not in version.signatures:
        raise RequestError(
            f'Serving signature key "{name}" not found.', StatusCode.FAILED_PRECONDITION
        )
    expected = version.signatures[name].inputs
    if request.inputs.keys() != expected.keys():
        raise RequestError(
            f"input size does not match signature: {sorted(request.inputs)} != {sorted(expected)}"
        )
    for key, tensor in request.inputs.items():
        shape = tensor.tensor_shape
        if shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
            raise RequestError(f"input {key!r} has a shape that is not fully known")
        if tensor.dtype != expected[key].dtype:
            raise RequestError(
                f"input {key!r}: {tensor.dtype} is not of dtype {expected[key].dtype}"
            )
    unknown = set(request.output_filter) - version.signatures[name].outputs.keys()
    if unknown:
        raise RequestError(
            f"output tensor alias not found in signature: {', '.join(sorted(unknown))}"
        )
    try:
        inputs = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
    except (TypeError, ValueError) as error:
        raise RequestError(f"input is no tensor: {error}") from None
    outputs = version.run(name, inputs)
    return {key: outputs[key] for key in request.output_filter or outputs}


class Server:
    """Models, served over REST and gRPC on loopback; a context manager that stops itself.

    Args:
        models: The `Model`s to serve, which it closes at the end.
        rest_port: 0 for a free one, which `rest` then holds as `host:port`.
        grpc_port: The same, with `grpc`.
    """

    def __init__(self, models, rest_port=0, grpc_port=0):
        self.models = {model.name: model for model in models}
        handler = type("Handler", (_RestHandler,), {"stand_in": self})
        self._http = _HttpServer(("127.0.0.1", rest_port), handler)
        self.rest = f"127.0.0.1:{self._http.server_address[1]}"
        self._grpc = grpc.server(
            futures.ThreadPoolExecutor(16),
            options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(self), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(self), self._grpc)
        self.grpc = f"127.0.0.1:{self._grpc.add_insecure_port(f'127.0.0.1:{grpc_port}')}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    def __enter__(self):
        self._grpc.start()
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._http.shutdown()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()
        self._grpc.stop(grace=1).wait()
        for model in self.models.values():
            model.close()

    def lend(self, name, number=None, label=None):
        if name not in self.models:
            raise _not_found(name, number)
        return self.models[name].lend(number, label)

    def status(self, name, number):
        """A GetModelStatusResponse; a label is not looked at here, in TF Serving neither."""
        states = dict(self.models[name].states) if name in self.models else {}
        if number is not None and number not in states:
            raise RequestError(
                f"Could not find version {number} of model {name}", StatusCode.NOT_FOUND
            )
        if not states:
            raise RequestError(f"Could not find any versions of model {name}", StatusCode.NOT_FOUND)
        response = get_model_status_pb2.GetModelStatusResponse()
        for found, (state, message) in sorted(states.items(), reverse=True):
            if number in (None, found):
                entry = response.model_version_status.add(version=found, state=state)
                entry.status.error_code = 2 if message else 0  # UNKNOWN or OK
                entry.status.error_message = message
        return response

    def metadata(self, name, number, label):
        """A GetModelMetadataResponse with all the signatures."""
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.lend(name, number, label) as (version, found):
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response.model_spec.name, response.model_spec.version.value = name, found
        response.metadata["signature_def"].Pack(signatures)
        return response


class _HttpServer(ThreadingHTTPServer):
    """Waits at the end for its threads, whose idle connections it closes."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, *arguments):
        self._open = set()
        super().__init__(*arguments)

    def process_request(self, request, client_address):
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self):
        for request in list(self._open):
            try:
                request.shutdown(2)
            except OSError:
                continue  # the client has closed it meanwhile


class _RestHandler(BaseHTTPRequestHandler):
    """One connection of REST."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet
    disable_nagle_algorithm = True
    stand_in = None

    def log_message(self, *_):
        pass

    def answer(self):
        length = self.headers.get("Content-Length") or "0"
        if not (length.isascii() and length.isdigit()):
            self.close_connection = True  # nobody knows where the next request begins
            self._send(400, write_error(f"Bad Content-Length: {length}"), "application/json")
            return
        body = self.rfile.read(int(length))
        path = self.path.partition("?")[0]
        if not path.lower().startswith("/v1/"):
            title = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n"
            self._send(404, f"{title}<H1>Not Found</H1>\n</BODY></HTML>\n", "text/html")
            return
        try:
            self._send(200, self._process(path, body), "application/json")
        except RequestError as error:
            self._send(HTTP[error.code], write_error(str(error)), "application/json")
        except Exception as error:  # a request that ends the connection tells the client nothing
            self._send(500, write_error(repr(error)), "application/json")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer  # noqa: N815  http.server names them

    def _send(self, status, text, content_type):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _process(self, path, body):
        found = {"POST": PREDICT, "GET": STATUS}.get(self.command, re.compile("$^")).fullmatch(path)
        if found is None:
            raise RequestError(f"Malformed request: {self.command} {self.path}")
        name, number, label, what = found.groups()
        name, label = unquote(name or ""), unquote(label or "")
        number = int(number) if number else None
        if not name:
            raise RequestError("Missing model name in request.")
        if self.command == "POST":
            if what.lower() != "predict":
                return self._classify(name, number, label, body)
            return self._predict(name, number, label, body)
        if what is None:
            return json_format.MessageToJson(
                self.stand_in.status(name, number),
                indent=1,
                always_print_fields_with_no_presence=True,
                preserving_proto_field_name=True,
            )
        return _metadata_json(self.stand_in.metadata(name, number, label))

    def _predict(self, name, number, label, body):
        with self.stand_in.lend(name, number, label) as (version, _):

            def inputs(signature):
                signature = signature or "serving_default"
                if signature not in version.signatures:
                    raise RequestError(
                        f'Serving signature name: "{signature}" not found in signature def'
                    )
                has_inputs = version.signatures[signature].inputs
                return version.session(signature).inputs if has_inputs else {}

            arrays, form, signature = read_request(body, inputs)
            signature = signature or "serving_default"
            outputs = version.run(signature, arrays)
            return write_response(outputs, version.session(signature).outputs, form)

    def _classify(self, name, number, label, body):
        """A Keras export has no signature for it, and so TF Serving refuses."""
        read_object(body)
        with self.stand_in.lend(name, number, label):
            raise RequestError("No classification or regression inputs found in SignatureDef")


def _metadata_json(response):
    """TF Serving puts its two messages together by hand, since 'Any' has a form of its own."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    spec, signatures = (
        json_format.MessageToJson(
            message,
            indent=1,
            always_print_fields_with_no_presence=True,
            preserving_proto_field_name=True,
        )
        for message in (response.model_spec, signatures)
    )
    return f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {signatures}}}\n}}\n'


def _with_errors(method):
    """A gRPC method that sends a `RequestError` to the client."""

    def answer(self, request, context):
        try:
            return method(self, request)
        except RequestError as error:
            context.abort(error.code, str(error))

    return answer


def _asked(spec):
    return (
        spec.name,
        spec.version.value if spec.HasField("version") else None,
        spec.version_label,
    )


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self.server = server

    @_with_errors
    def Predict(self, request):  # noqa: N802
        with self.server.lend(*_asked(request.model_spec)) as (version, number):
            outputs = predict(version, request)
            response = predict_pb2.PredictResponse()
            signature = request.model_spec.signature_name or "serving_default"
            response.model_spec.name = request.model_spec.name
            response.model_spec.version.value = number
            response.model_spec.signature_name = signature
            for name, array in outputs.items():
                dtype = version.signatures[signature].outputs[name].dtype
                response.outputs[name].CopyFrom(tf.make_tensor_proto(array, tf.as_dtype(dtype)))
            return response

    @_with_errors
    def GetModelMetadata(self, request):  # noqa: N802
        if list(request.metadata_field) != ["signature_def"]:
            raise RequestError(
                "GetModelMetadataRequest: expected the metadata_field 'signature_def'"
            )
        return self.server.metadata(*_asked(request.model_spec))


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self.server = server

    @_with_errors
    def GetModelStatus(self, request):  # noqa: N802
        name, number, _ = _asked(request.model_spec)
        return self.server.status(name, number)


def main():
    """Serves one model until it gets SIGTERM or SIGINT, or its parent is gone."""
    parser = argparse.ArgumentParser(description=WHAT)
    parser.add_argument("--model_name", required=True)
    parser.add_argument("--model_base_path", required=True)
    parser.add_argument("--port", type=int, default=0, help="of gRPC")
    parser.add_argument("--rest_api_port", type=int, default=0)
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1.0)
    parser.add_argument("--parent", type=int, default=os.getppid(), help="ends with this process")
    arguments = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    model = Model(
        arguments.model_name,
        arguments.model_base_path,
        poll_seconds=arguments.file_system_poll_wait_seconds,
    )
    with closing(model), Server([model], arguments.rest_api_port, arguments.port) as server:
        print(f"{WHAT}: REST on {server.rest}, gRPC on {server.grpc}", flush=True)
        while not stopped.wait(0.5) and os.getppid() == arguments.parent:
            pass


if __name__ == "__main__":
    main()
