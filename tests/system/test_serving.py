"""`make serve`: how it finds, starts and stops a server, what it asks, and its configuration."""

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import client
import numpy as np
import pytest
import serve
import stand_in
import yaml
from conftest import run_python
from google.protobuf import text_format
from served import HOUR, ROWS, TOY, digits_model, predict_by_both, standing_in
from tensorflow_serving.config import model_server_config_pb2

SERVE = Path(serve.__file__)


def program(path, code):
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


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
    monkeypatch.setenv("TF_SERVING_TAG", "2.19.1")
    said = "TensorFlow Serving, docker image tensorflow/serving:2.19.1"
    assert serve.find_server() == serve.Found("docker", said)
    binary = program(path / "tensorflow_model_server", "")
    assert serve.find_server() == serve.Found("binary", f"TensorFlow Serving, {binary}")
    monkeypatch.setenv("TF_SERVING_ADDR", "example")
    said = "the server that TF_SERVING_ADDR names: REST at example:8501, gRPC at example:8500"
    assert serve.find_server() == serve.Found("address", said)
    monkeypatch.setenv("TF_SERVING_ADDR", "http://localhost:8501")
    with pytest.raises(SystemExit, match=r"expected TF_SERVING_ADDR to be HOST\[:REST_PORT"):
        serve.find_server()


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
    code = f"import os, sys\nos.execv(sys.executable, [sys.executable, {stand_in.__file__!r}"
    program(path / "tensorflow_model_server", f"{code}, *sys.argv[1:]])")
    with serve.serving(serve.find_server(), TOY, "toy", version=1, timeout=HOUR) as addresses:
        pid = started_process(capsys.readouterr().out)
        assert is_there(pid)
        predict_by_both(addresses)
    assert not is_there(pid)


def test_docker_is_called_for_the_image_and_stopped_and_its_log_told(path, monkeypatch):
    monkeypatch.setenv("TF_SERVING_TAG", "1.2")
    code = "import json, sys; print(json.dumps(sys.argv[1:]), file=open({!r}, 'a'))\n"
    end = "sys.exit('no such image' if sys.argv[1] == 'run' else 0)"
    program(path / "docker", code.format(str(path / "called")) + end)
    with (
        pytest.raises(SystemExit, match=r"(?s)Received: an end\. .*Its log ends with:.*no such im"),
        serve.serving(serve.find_server(), TOY, "toy", timeout=HOUR),
    ):
        pass
    info, pull, run, stop = map(json.loads, (path / "called").read_text().splitlines())
    given = list(itertools.pairwise(run))
    ports = [value.split(":") for flag, value in given if flag == "--publish"]
    assert (info, pull) == (["info"], ["pull", "tensorflow/serving:1.2"])
    assert [(host, port) for host, _, port in ports] == [("127.0.0.1", p) for p in ("8500", "8501")]
    assert ("--mount", f"type=bind,source={TOY},target=/models/toy,readonly") in given
    assert ("--env", "MODEL_NAME=toy") in given
    assert run[-2:] == ["tensorflow/serving:1.2", "--grpc_max_threads=64"]
    assert stop == ["stop", dict(given)["--name"]]


def test_address_of_a_server_is_used_and_left_alone(path, monkeypatch):
    with standing_in("toy", TOY) as server:
        rest, grpc = (address.partition(":")[2] for address in (server.rest, server.grpc))
        monkeypatch.setenv("TF_SERVING_ADDR", f"127.0.0.1:{rest}:{grpc}")
        with serve.serving(serve.find_server(), TOY, "toy") as addresses:
            predict_by_both(addresses)
        predict_by_both(server)
        match = r"version 2, to be AVAILABLE at .*not within .*1, 'AVAILABLE'"
        with (
            pytest.raises(SystemExit, match=match),
            serve.serving(serve.find_server(), TOY, "toy", version=2, timeout=0.2),
        ):
            pass


def test_wrong_answers_are_not_taken():
    with (
        standing_in("digits", TOY) as server,
        pytest.raises(SystemExit, match=r"expected the predictions of .*predict over REST"),
    ):
        serve.check(client.RestClient, server.rest, np.array(ROWS), np.zeros((2, 3)), 3)


# What runs in the background of a shell ignores Ctrl-C, and hands that on to what it starts.
AS_IN_A_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@contextlib.contextmanager
def script(folder, *flags):
    """`serve.py` in a process, whose lines are read as they come."""
    command = [sys.executable, "-c", AS_IN_A_TERMINAL, "-u", SERVE, "--folder", folder, *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(text, process):
    """What was printed until then, and the process of the server."""
    printed = ""
    for line in process.stdout:
        printed += line
        if text in line:
            return printed, started_process(printed)
    raise AssertionError(printed)


@pytest.fixture
def trained(tmp_path):
    """A folder with a model, as `make demo` leaves it."""
    digits_model().save(tmp_path / "digits.keras")
    return tmp_path


def test_make_serve_exports_serves_asks_compares_and_stops(trained, path):
    """To the end of the answers, and then Ctrl-C, as a user's terminal sends it."""
    with script(trained, "--requests", "20", "--stay") as process:
        printed, pid = read_until("until Ctrl-C", process)
        assert is_there(pid)
        process.send_signal(signal.SIGINT)
        at_the_end = process.stdout.read()
        assert process.wait() == 1
    assert "the server is stopped" in at_the_end
    assert "stopped by Ctrl-C" in at_the_end
    assert not is_there(pid)
    assert f"model: {trained / 'digits.keras'}" in printed
    assert f"export: {trained / 'digits' / '1'}" in printed
    assert "server: a stand-in that speaks TF Serving's protocol" in printed
    for protocol in ("REST", "gRPC"):
        assert f"{protocol} at 127.0.0.1:" in printed
    assert printed.count("from model.predict") == 2
    assert printed.count("20 requests in") == 2


@pytest.mark.slow
def test_stand_in_ends_if_its_parent_ended_while_it_started():
    toy = ("--model_name=toy", f"--model_base_path={TOY}")
    run_python(stand_in.__file__, *toy, "--parent=1")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_server_is_left_when_make_serve_is_killed(number, status, trained, path):
    with script(trained, "--stay") as process:
        _, pid = read_until("until Ctrl-C", process)
        process.send_signal(number)
        assert process.wait() == status
        while is_there(pid):
            time.sleep(0.1)


@pytest.mark.slow
def test_make_serve_trains_a_model_where_there_is_none(tmp_path, path):
    assert "trained now" in run_python(SERVE, "--folder", tmp_path / "new").stdout
    assert (tmp_path / "new" / "digits.keras").exists()


# Flags of its main.cc.
FLAGS = {
    *["model_config_file", "batching_parameters_file", "monitoring_config_file"],
    *["enable_batching", "grpc_max_threads"],
}


def test_configuration_is_what_tensorflow_serving_reads():
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(SERVE.with_name("models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("digits", "/models/digits")
    assert not model.version_labels, "a server doesn't start with them, unless a flag allows it"

    compose = yaml.safe_load(SERVE.with_name("docker-compose.yml").read_text())
    (service,) = compose["services"].values()
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    assert flags.keys() == FLAGS
    mounts = (volume.split(":")[:2] for volume in service["volumes"])
    inside = {target: SERVE.parent / source for source, target in mounts}
    assert all(inside[value].is_file() for flag, value in flags.items() if flag.endswith("_file"))
    assert inside[model.base_path].resolve() == SERVE.parents[2] / "saved_models" / "digits"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
