"""The shipped client and `make serve`, with the stand-in that speaks TensorFlow Serving's protocol.

Tests marked `real_tf_serving` do the same against TensorFlow Serving itself, where one is found:
at TF_SERVING_ADDR (which must serve tests/serving/toy as `toy`), on PATH, or by docker.
"""

import http.client
import http.server
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import types
from contextlib import closing, contextmanager
from pathlib import Path

import client
import grpc
import numpy as np
import pytest
import serve
import stand_in
import tensorflow as tf

from tf_leaky import LeakyReLU, export_saved_model

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "examples" / "serving"
TOY = Path(__file__).parents[1] / "serving" / "toy"
RECORDED = json.loads((TOY.parent / "tf_serving_rest_recorded.json").read_text())
ROWS = [[1, -2, 3, -4], [0.5, 0.25, -0.125, 2]]
SCORES = [[0.83513093, 0.03686793, 0.1280011], [0.2740756, 0.5648019, 0.16112253]]

CLIENTS = [client.RestClient, client.GrpcClient]
by_protocol = pytest.mark.parametrize("make", CLIENTS, ids=lambda make: make.protocol)


@contextmanager
def standing_in(name, base_path, **options):
    with stand_in.serving(stand_in.Model(name, base_path), **options) as addresses:
        yield serve.Serving(*addresses)


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
        with standing_in("toy", TOY) as server:
            yield server
    else:
        with serve.serving(real_server(), TOY, "toy", timeout=900) as addresses:
            yield addresses


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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The base path of an export of ours, the images, and what Keras predicts for them."""
    tf.keras.utils.set_random_seed(3)
    model, images = digits_model(), client.load_images()[0]
    folder = tmp_path_factory.mktemp("served") / "digits"
    base_path = export_saved_model(model, folder, warmup=images[:3]).parent
    return base_path, images, model.predict(images, verbose=0)


@pytest.fixture(scope="module", params=SERVERS)
def digits(request, exported):
    """A server of it, the images, and what Keras predicts for them."""
    base_path, images, expected = exported
    if request.param == "stand-in":
        with standing_in("digits", base_path) as server:
            yield server, images, expected
        return
    found = real_server()
    if found.kind == "address":
        pytest.skip("the server at TF_SERVING_ADDR can't see a folder of this test")
    with serve.serving(found, base_path, "digits", 1, timeout=900) as addresses:
        yield addresses, images, expected


def address_of(make, server):
    return server.rest if make is client.RestClient else server.grpc


@by_protocol
def test_client_gets_the_recorded_predictions(make, toy):
    with closing(make(address_of(make, toy), "toy")) as connected:
        np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)
        assert connected.version == 1


def test_server_gives_the_recorded_status_codes(toy):
    for case in RECORDED:
        if "/labels/" in case["path"]:
            continue  # which labels a server has is its configuration
        connection = http.client.HTTPConnection(toy.rest, timeout=30)
        with closing(connection):
            connection.request(case["method"], case["path"], case["body"])
            assert connection.getresponse().status == case["status"], case


@by_protocol
def test_export_is_served_as_keras_predicts(make, digits):
    server, images, expected = digits
    with closing(make(address_of(make, server), "digits")) as connected:
        np.testing.assert_allclose(connected.predict(images), expected, rtol=1e-4, atol=1e-6)


def ask_often(server, images, expected, requests, concurrency=8):
    """Many threads over each protocol; every answer is compared."""
    for make in CLIENTS:
        with closing(make(address_of(make, server), "digits")) as connected:
            measured = client.measure(connected, images, requests, 1, concurrency, quiet=True)
        assert measured.latencies.shape == (requests,)
        answers = measured.answers[:, 0]
        np.testing.assert_allclose(answers, expected[measured.images[:, 0]], rtol=1e-4, atol=1e-6)


def test_200_requests_from_8_threads(digits):
    ask_often(*digits, 200)


@pytest.mark.slow
def test_10000_requests_from_8_threads(digits):
    ask_often(*digits, 10_000)


@pytest.mark.parametrize("grpc_max_threads", [1, 8])
def test_more_calls_at_once_than_the_server_has_threads(grpc_max_threads, exported):
    """8 are the default on 2 CPU cores. A call that was refused goes alone, and so is answered."""
    base_path, images, expected = exported
    with standing_in("digits", base_path, grpc_max_threads=grpc_max_threads) as server:
        ask_often(server, images, expected, 60, concurrency=16)


@pytest.mark.parametrize("refused", [client.TRIES - 1, client.TRIES])
def test_refused_calls_are_sent_again_a_bounded_number_of_times(refused, monkeypatch):
    service, calls, pauses = stand_in._PredictionService, [], []
    predict = service.Predict

    def busy(self, request, context):
        calls.append(request)
        if len(calls) <= refused:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no thread is free")
        return predict(self, request, context)

    monkeypatch.setattr(service, "Predict", busy)
    monkeypatch.setattr(client, "time", types.SimpleNamespace(sleep=pauses.append))
    with (
        standing_in("toy", TOY) as server,
        closing(client.GrpcClient(server.grpc, "toy")) as connected,
    ):
        if refused < client.TRIES:
            np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)
        else:
            match = r"no thread is free, 10 times\. .*--grpc_max_threads=64, or ask with less"
            with pytest.raises(client.ServerError, match=match):
                connected.predict(ROWS)
    assert len(calls) == client.TRIES
    assert len(pauses) == client.TRIES - 1
    assert all(0.01 * 2**i / 2 < p <= 2 for i, p in enumerate(pauses[:6]))
    assert sum(pauses) < 5


@by_protocol
def test_measure_goes_through_the_images_in_turn(make, digits):
    server, images, _ = digits
    with closing(make(address_of(make, server), "digits")) as connected:
        measured = client.measure(connected, images[:5], 4, batch=3, concurrency=2, quiet=True)
    assert measured.images.tolist() == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]]
    assert measured.answers.shape == (4, 3, 10)
    assert (measured.latencies > 0).all()
    assert measured.seconds >= measured.latencies.max()


def run_client(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["client.py", *map(str, arguments)])
    client.main()


def test_client_prints_predictions_and_percentiles(digits, monkeypatch, capsys):
    server, _, expected = digits
    flags = ["--rest", server.rest, "--grpc", server.grpc, "--requests", 20, "--batch", 2]
    run_client(monkeypatch, *flags, "--concurrency", 3)
    printed, progress = capsys.readouterr()
    for protocol in ("REST", "gRPC"):
        assert f"{protocol} at " in printed
        assert f"{protocol}: 100%" in progress
    assert printed.count(f"image 0, a 0: {expected[0].argmax()}, score") == 2
    assert printed.count("20 requests in") == 2
    for percentile in ("p50", "p90", "p99"):
        assert printed.count(f"{percentile} ") == 2


def free_address():
    return f"127.0.0.1:{serve._free_ports()[0]}"


@pytest.mark.parametrize("flag", ["--rest", "--grpc"])
def test_client_says_that_no_server_is_there(flag, monkeypatch):
    address = free_address()
    protocol = {"--rest": "REST", "--grpc": "gRPC"}[flag]
    with pytest.raises(SystemExit) as stopped:
        run_client(monkeypatch, flag, address, "--timeout", 5)
    said = str(stopped.value)
    assert f"expected a server that answers {protocol} at {address}. Received: " in said
    assert "`make serve` starts one" in said


def test_client_says_that_an_address_is_none(monkeypatch):
    with pytest.raises(SystemExit, match=r"at localhost:port\. Received: nonnumeric port"):
        run_client(monkeypatch, "--rest", "localhost:port")


@by_protocol
def test_client_says_that_the_model_is_not_served(make, toy):
    with pytest.raises(client.ServerError, match=r"an answer of the model by .*Check --model"):
        make(address_of(make, toy), "nope")


@by_protocol
def test_client_says_that_the_server_refuses_the_input(make, toy):
    with closing(make(address_of(make, toy), "toy")) as connected:
        with pytest.raises(client.ServerError, match=r"Received: (status 400|INVALID_ARGUMENT), "):
            connected.predict([[1, 2, 3]])
        np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)


@by_protocol
def test_client_says_that_a_model_has_two_inputs(make, tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None]), tf.TensorSpec([None])])
        def serve(self, a, b):
            return {"sum": a + b}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.serve)
    with (
        standing_in("two", tmp_path) as server,
        pytest.raises(client.ServerError, match=r"a model with one input. Received: \['a', 'b'\]"),
    ):
        make(address_of(make, server), "two")


def test_client_wants_a_number_above_0(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_client(monkeypatch, "--requests", 0)
    assert "expected a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("timeout", ["0", "nan", "1e9"])
def test_client_wants_a_timeout_above_0_that_ends(timeout, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_client(monkeypatch, "--timeout", timeout)
    assert "expected seconds above 0, up to 86400" in capsys.readouterr().err


@contextmanager
def another_server(body):
    """A server that answers anything by that, with status 200; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


ODD = [b"<html>hello</html>", b"[]", b"{}", b"\xff\xfe", b'{"metadata": {"signature_def": 3}}']


@pytest.mark.parametrize("body", ODD)
def test_client_says_that_another_server_answers(body):
    with (
        another_server(body) as address,
        pytest.raises(client.ServerError, match=r"Received: status 200, no metadata but"),
    ):
        client.RestClient(address, "digits")


def test_another_server_never_has_the_model_up(path, monkeypatch):
    with another_server(b"[]") as address:
        monkeypatch.setenv("TF_SERVING_ADDR", address)
        serve.prepare(serve.find_server())
        with (
            pytest.raises(SystemExit, match=r"not within .*Status: no answer\."),
            serve.serving(serve.find_server(), TOY, "toy", timeout=0.2),
        ):
            pass


def test_model_names_are_any_text(toy):
    with pytest.raises(client.ServerError, match=r"status 404, Servable not found.*\(é /\?\)"):
        client.RestClient(toy.rest, "é /?")


def test_first_failure_ends_the_measurement():
    class Failing:
        protocol, calls = "REST", 0

        def predict(self, _):
            self.calls += 1
            time.sleep(0.01)
            raise client.ServerError("the server went away")

    failing = Failing()
    with pytest.raises(client.ServerError, match="the server went away"):
        client.measure(failing, np.zeros((1, 3)), 1000, concurrency=8, quiet=True)
    assert failing.calls < 100


def test_rest_connection_that_was_idle_too_long_is_made_anew(monkeypatch):
    monkeypatch.setattr(stand_in._RestHandler, "timeout", 0.1)  # seconds
    with standing_in("toy", TOY) as server:
        connected = client.RestClient(server.rest, "toy")
        (connection,) = connected._connections
        select.select([connection.sock], [], [])  # until the server has closed it
        np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)
        select.select([connected._connections[-1].sock], [], [])
    with closing(connected), pytest.raises(client.ServerError, match="a server that answers REST"):
        connected.predict(ROWS)


# ---- finding, starting and stopping a server ----


def program(path, code):
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


SERVER_CODE = f"""
import os, sys
os.execv(sys.executable, [sys.executable, {str(Path(stand_in.__file__))!r}, *sys.argv[1:]])
"""
DOCKER_CODE = """
import json, os, signal, subprocess, sys
folder = os.path.dirname(os.path.abspath(__file__))
with open(folder + "/called", "a") as called:
    called.write(json.dumps(sys.argv[1:]) + chr(10))
if sys.argv[1] == "run":
    given = dict(zip(sys.argv[2:], sys.argv[3:]))
    ports = dict(
        reversed(value.removeprefix("127.0.0.1:").split(":"))
        for flag, value in zip(sys.argv, sys.argv[1:]) if flag == "--publish"
    )
    mount = dict(part.partition("=")[::2] for part in given["--mount"].split(","))
    name = given["--env"].removeprefix("MODEL_NAME=")
    assert mount["target"] == "/models/" + name
    with open(folder + "/pid-" + given["--name"], "w") as pid:
        pid.write(str(os.getpid()))
    flags = ["--port=" + ports["8500"], "--rest_api_port=" + ports["8501"]]
    flags += ["--model_name=" + name, "--model_base_path=" + mount["source"]]
    os.execv(sys.executable, [sys.executable, STAND_IN, *flags, sys.argv[-1]])
if sys.argv[1] == "stop":
    os.kill(int(open(folder + "/pid-" + sys.argv[2]).read()), signal.SIGTERM)
""".replace("STAND_IN", repr(str(Path(stand_in.__file__))))


@pytest.fixture
def path(tmp_path, monkeypatch):
    """An empty folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("TF_SERVING_ADDR", raising=False)
    return folder


def test_server_is_found_in_order(path, monkeypatch):
    found = serve.find_server()
    assert found.kind == "stand-in"
    assert "and not TensorFlow Serving: TF_SERVING_ADDR is not set" in found.description
    docker = program(path / "docker", "raise SystemExit(1)")  # `docker info` without its daemon
    assert serve.find_server().kind == "stand-in"
    program(docker, "")
    found = serve.find_server("2.19.1")
    assert (found.kind, found.tag) == ("docker", "2.19.1")
    assert "docker image tensorflow/serving:2.19.1" in found.description
    binary = program(path / "tensorflow_model_server", "")
    found = serve.find_server()
    assert (found.kind, found.description) == ("binary", f"TensorFlow Serving, {binary}")
    for address, where in (
        ("example", "REST at example:8501, gRPC at example:8500"),
        ("example:1", "REST at example:1, gRPC at example:8500"),
        ("[::1]:1:2", "REST at [::1]:1, gRPC at [::1]:2"),
    ):
        monkeypatch.setenv("TF_SERVING_ADDR", address)
        assert serve.find_server() == serve.Found(
            "address", f"the server that TF_SERVING_ADDR names: {where}"
        )


@pytest.mark.parametrize("address", ["http://localhost:8501", "localhost:abc", "::1:1:2", "a b"])
def test_address_that_is_none_is_refused(address, path, monkeypatch):
    monkeypatch.setenv("TF_SERVING_ADDR", address)
    with pytest.raises(SystemExit, match=r"expected TF_SERVING_ADDR to be HOST\[:REST_PORT"):
        serve.find_server()


def test_server_that_can_not_serve_is_refused_before_anything_is_exported(path, monkeypatch):
    monkeypatch.setenv("TF_SERVING_ADDR", free_address())
    with pytest.raises(SystemExit, match=r"a server at TF_SERVING_ADDR\. Received: no answer"):
        serve.prepare(serve.find_server())
    monkeypatch.delenv("TF_SERVING_ADDR")
    docker = program(path / "docker", "import sys; sys.exit(sys.argv[1] != 'info' and 'no net')")
    with pytest.raises(SystemExit, match=r"(?s)docker pull tensorflow/serving:1: .*no net"):
        serve.prepare(serve.find_server("1"))
    program(docker, "")
    serve.prepare(serve.find_server("1"))
    binary = program(path / "tensorflow_model_server", "raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"_server --version: expected it to run\. .*status 3"):
        serve.prepare(serve.find_server())
    binary.write_text("no program")
    with pytest.raises(SystemExit, match=r"Received: .*Exec format error"):
        serve.prepare(serve.find_server())
    program(binary, "")
    serve.prepare(serve.find_server())


def test_make_serve_exports_nothing_for_a_server_that_is_not_there(trained, path):
    with Script("--folder", trained, PATH=str(path), TF_SERVING_ADDR=free_address()) as script:
        code, errors = script.end()
    assert code == 1
    assert "expected a server at TF_SERVING_ADDR" in errors
    assert not (trained / "digits").exists()


def test_later_version_is_told_at_once(trained, path):
    """As when two exports are made at once, and the server sees the later one first."""
    base_path = trained / "digits"
    for _ in range(2):
        export_saved_model(digits_model(), base_path)
    with (
        pytest.raises(SystemExit, match=r"version 1, .*Received: a later version, which another"),
        serve.serving(serve.find_server(), base_path, "digits", version=1),
    ):
        pass


def predict_by_both(addresses):
    for make in CLIENTS:
        with closing(make(address_of(make, addresses), "toy")) as connected:
            np.testing.assert_allclose(connected.predict(ROWS), SCORES, rtol=1e-5)


def is_there(pid):
    """Whether a process runs; one that ended and that nobody has waited for doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started_process(printed):
    (line,) = [line for line in printed.splitlines() if line.startswith("started process ")]
    return int(line.split()[-1])


def test_binary_on_path_is_given_flags_that_it_knows_and_is_stopped(path, capsys):
    """The binary here is a script that runs the stand-in, which takes the flags of the real one."""
    program(path / "tensorflow_model_server", SERVER_CODE)
    with serve.serving(serve.find_server(), TOY, "toy", version=1) as addresses:
        pid = started_process(capsys.readouterr().out)
        assert is_there(pid)
        predict_by_both(addresses)
    assert not is_there(pid)


@pytest.mark.slow
def test_docker_is_called_for_the_image_and_stopped(path, capsys):
    """The docker here is a script that runs the stand-in: it holds the calls, and no container."""
    program(path / "docker", DOCKER_CODE)
    found = serve.find_server("1.2")
    serve.prepare(found)
    with serve.serving(found, TOY, "toy", version=1) as addresses:
        pid = started_process(capsys.readouterr().out)
        predict_by_both(addresses)
    assert not is_there(pid)
    info, inspect, run, stop = map(json.loads, (path / "called").read_text().splitlines())
    assert (info, inspect) == (["info"], ["image", "inspect", "tensorflow/serving:1.2"])
    assert run[-2:] == ["tensorflow/serving:1.2", "--grpc_max_threads=64"]
    assert stop == ["stop", run[run.index("--name") + 1]]


def test_address_of_a_server_is_used_and_left_alone(path, monkeypatch):
    with standing_in("toy", TOY) as server:
        rest, grpc = (address.partition(":")[2] for address in (server.rest, server.grpc))
        monkeypatch.setenv("TF_SERVING_ADDR", f"127.0.0.1:{rest}:{grpc}")
        with serve.serving(serve.find_server(), TOY, "toy") as addresses:
            predict_by_both(addresses)
        predict_by_both(server)
        with (
            pytest.raises(
                SystemExit, match=r"version 2, to be AVAILABLE at .*not within .*'version': 1"
            ),
            serve.serving(serve.find_server(), TOY, "toy", version=2, timeout=0.2),
        ):
            pass


def test_server_that_ends_is_told_with_its_log(path):
    program(path / "tensorflow_model_server", "raise SystemExit('no such flag')")
    with (
        pytest.raises(
            SystemExit, match=r"(?s)Received: an end\. .*Its log ends with:.*no such flag"
        ),
        serve.serving(serve.find_server(), TOY, "toy"),
    ):
        pass


# What runs in the background of a shell ignores Ctrl-C, and hands that on to what it starts.
AS_IN_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Script:
    """`serve.py` in a process, whose lines are read as they come."""

    def __init__(self, *flags, **environment):
        command = [sys.executable, "-c", AS_IN_A_TERMINAL, "-u", SERVING / "serve.py", *flags]
        clean = {name: value for name, value in os.environ.items() if name != "TF_SERVING_ADDR"}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean | environment,
        )
        self.printed, self._errors = "", []
        self._limit = threading.Timer(1800, self.process.kill)  # a test that fails, and not a hang
        self._limit.start()
        self._reader = threading.Thread(
            target=lambda: self._errors.append(self.process.stderr.read())
        )
        self._reader.start()

    def wait_for(self, text):
        for line in self.process.stdout:
            self.printed += line
            if text in line:
                return
        raise AssertionError(f"{text!r} is not in {self.printed}\n{self.errors()}")

    def errors(self):
        self._reader.join()
        return "".join(self._errors)

    def end(self):
        self.printed += self.process.stdout.read()
        code = self.process.wait(1800)
        return code, self.errors()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._limit.cancel()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def trained(tmp_path):
    """A folder with a model, as `make demo` leaves it."""
    digits_model().save(tmp_path / "digits.keras")
    return tmp_path


def test_make_serve_exports_serves_asks_compares_and_stops(trained, path):
    """To the end of the answers, and then Ctrl-C, as a user's terminal sends it."""
    with Script("--folder", trained, "--requests", "20", "--stay", PATH=str(path)) as script:
        script.wait_for("until Ctrl-C")
        pid = started_process(script.printed)
        assert is_there(pid)
        script.process.send_signal(signal.SIGINT)
        code, errors = script.end()
    assert code == 1
    assert "stopped by Ctrl-C" in errors
    assert not is_there(pid)
    assert f"model: {trained / 'digits.keras'}" in script.printed
    assert f"export: {trained / 'digits' / '1'}" in script.printed
    assert "server: a stand-in that speaks TF Serving's protocol" in script.printed
    for protocol in ("REST", "gRPC"):
        assert f"{protocol} at 127.0.0.1:" in script.printed
    assert script.printed.count("from model.predict") == 2
    assert script.printed.count("20 requests in") == 2
    assert script.printed.rstrip().endswith("the server is stopped")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_make_serve_stops_what_it_started_at_any_signal(number, trained, path):
    with Script("--folder", trained, PATH=str(path)) as script:
        script.wait_for("started process")
        pid = started_process(script.printed)
        script.process.send_signal(number)
        code, _ = script.end()
    assert code == (1 if number == signal.SIGINT else 128 + number)
    assert not is_there(pid)


@pytest.mark.slow
def test_stand_in_ends_with_a_parent_that_was_killed(trained, path):
    with Script("--folder", trained, "--stay", PATH=str(path)) as script:
        script.wait_for("until Ctrl-C")
        pid = started_process(script.printed)
        script.process.kill()
        deadline = time.monotonic() + 600
        while is_there(pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_there(pid)


def test_stand_in_ends_at_once_if_its_parent_is_gone():
    """Even if that was killed while the stand-in still imported what it needs."""
    command = [sys.executable, stand_in.__file__, "--model_name=toy", f"--model_base_path={TOY}"]
    done = subprocess.run([*command, "--parent=1"], timeout=1800, capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.slow
def test_make_serve_trains_a_model_where_there_is_none(tmp_path, path):
    with Script("--folder", tmp_path / "new", "--epochs", "1", PATH=str(path)) as script:
        code, errors = script.end()
    assert code == 0, errors
    assert "trained now" in script.printed
    assert (tmp_path / "new" / "digits.keras").exists()


def test_wrong_answers_are_not_taken(trained):
    """A server that serves another model."""
    images, _ = client.load_images()
    version = export_saved_model(digits_model(), trained / "digits")
    arguments = type("Arguments", (), {"requests": 3, "concurrency": 1})
    with (
        standing_in("digits", version.parent) as server,
        pytest.raises(SystemExit, match=r"expected the predictions of model\.predict by REST"),
    ):
        serve.check(client.RestClient, server.rest, images, np.zeros((len(images), 10)), arguments)
