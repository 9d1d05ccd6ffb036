"""Exports and serves the digits model, calls it over REST and gRPC, and stops what it started.

    python examples/serving/serve.py [--folder saved_models] [--requests 200] [--stay]

The model is the one that `make demo` trained, or is trained here. The server is the first of:

1. the one at TF_SERVING_ADDR (HOST[:REST_PORT[:GRPC_PORT]], ports 8501 and 8500), which must serve
   FOLDER/digits as the model `digits`; it is not stopped, as it was not started here
2. `tensorflow_model_server` on PATH
3. docker, with the image tensorflow/serving (TF_SERVING_TAG says which)
4. `stand_in.py` beside this file, which speaks TF Serving's protocol and is not TensorFlow Serving

Servers that are started here get --grpc_max_threads=64: by default TensorFlow Serving has 4 threads
for each CPU core, and refuses more gRPC calls at once with RESOURCE_EXHAUSTED.

--stay keeps the server running until Ctrl-C. A `kill -9` of this script ends the stand-in too, but
not TensorFlow Serving (2, 3), whose process is printed. The binary (2) listens on every interface
of the machine, docker (3) and the stand-in (4) only on loopback.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import client
import numpy as np
import tensorflow as tf
import urllib3

from tf_leaky import export_saved_model

EXAMPLES = Path(__file__).parents[1]
STAND_IN = Path(__file__).with_name("stand_in.py")
BINARY = "tensorflow_model_server"
MORE_CALLS = "--grpc_max_threads=64"
HTTP = urllib3.PoolManager(timeout=5, retries=False)


class Found(NamedTuple):
    """A server that is available here."""

    kind: str
    """`address`, `binary`, `docker` or `stand-in`."""
    description: str
    """What it is, in words."""


class Serving(NamedTuple):
    """The addresses of a running server."""

    rest: str
    grpc: str
    """Both as `host:port`."""


def find_server():
    """Returns the first server in the order above."""
    if os.environ.get("TF_SERVING_ADDR"):
        where = "REST at {}, gRPC at {}".format(*_given_addresses())
        return Found("address", f"the server that TF_SERVING_ADDR names: {where}")
    if binary := shutil.which(BINARY):
        return Found("binary", f"TensorFlow Serving, {binary}")
    if _docker_answers():
        return Found("docker", f"TensorFlow Serving, docker image {_image()}")
    return Found(
        "stand-in",
        "a stand-in that speaks TF Serving's protocol, stand_in.py, and not TensorFlow "
        f"Serving: TF_SERVING_ADDR is not set, {BINARY} is not on PATH and docker does not answer",
    )


def _given_addresses():
    text = os.environ["TF_SERVING_ADDR"]
    parts = re.fullmatch(r"([^:/\s]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?(?::(\d{1,5}))?", text)
    if parts is None:
        raise SystemExit(
            "serve: expected TF_SERVING_ADDR to be HOST[:REST_PORT[:GRPC_PORT]]. "
            f"Received: TF_SERVING_ADDR={text!r}. Examples: localhost:8501:8500, [::1]:8501."
        )
    host, rest, grpc = parts.groups()
    return Serving(f"{host}:{rest or 8501}", f"{host}:{grpc or 8500}")


def _docker_answers():
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _image():
    return f"tensorflow/serving:{os.environ.get('TF_SERVING_TAG', 'latest')}"


@contextlib.contextmanager
def serving(found, base_path, name, version=None, timeout=120):
    """Runs the block while a server serves the model; then stops what was started.

    Args:
        found: What `find_server` returned.
        base_path: The folder of the model's versions.
        name: The name to serve it under.
        version: The version to wait for; None for any.
        timeout: How long to wait for it, in seconds.

    Yields:
        A `Serving`.

    Raises:
        SystemExit: If the server ends, or doesn't serve the version in time. The message contains
            the server's log.
    """
    if found.kind == "address":
        addresses = _given_addresses()
        _wait_until_up(addresses, name, version, min(timeout, 30))
        yield addresses
        return
    addresses = Serving(*(f"127.0.0.1:{port}" for port in _free_ports()))
    container = f"tf_leaky-{name}-{os.getpid()}"
    command = _command(found, Path(base_path).resolve(), name, addresses, container)
    with tempfile.TemporaryFile("w+") as log:
        if found.kind == "docker":  # shows its progress; if it fails, `docker run` may still work
            subprocess.run(["docker", "pull", _image()], check=False)
        # in a session of its own, so that Ctrl-C reaches this process only, which stops it
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            print(f"started process {process.pid}", flush=True)
            _wait_until_up(addresses, name, version, timeout, process, log)
            yield addresses
        finally:
            if found.kind == "docker":
                subprocess.run(["docker", "stop", container], capture_output=True, check=False)
            _stop(process)


def _command(found, base_path, name, addresses, container):
    rest, grpc = (address.rpartition(":")[2] for address in addresses)
    if found.kind == "docker":
        return [
            *["docker", "run", "--rm", "--name", container],
            *["--publish", f"{addresses.grpc}:8500", "--publish", f"{addresses.rest}:8501"],
            *["--mount", f"type=bind,source={base_path},target=/models/{name},readonly"],
            *["--env", f"MODEL_NAME={name}", _image(), MORE_CALLS],
        ]
    program = [BINARY]
    if found.kind == "stand-in":  # which still starts if this process is killed meanwhile
        program = [sys.executable, STAND_IN, f"--parent={os.getpid()}"]
    flags = [f"--port={grpc}", f"--rest_api_port={rest}"]
    return [*program, *flags, f"--model_name={name}", f"--model_base_path={base_path}", MORE_CALLS]


def _free_ports():
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _wait_until_up(addresses, name, version, timeout, process=None, log=None):
    """Returns when the version, or any if it is None, has the status AVAILABLE."""
    began = time.monotonic()
    while True:
        status = _status(addresses.rest, name)
        if any(state == "AVAILABLE" and version in (None, number) for number, state in status):
            return
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() - began > timeout:
            raise SystemExit(
                f"serve: expected {name!r}, version {version or 'any'}, to be AVAILABLE at "
                f"{addresses.rest}. Received: {'an end' if ended else f'not within {timeout} s'}. "
                f"Status: {status or 'no answer'}.{_tail(log) if log else ''}"
            )
        time.sleep(0.1)


def _status(address, name):
    """Returns versions and states that the server reports; none if it doesn't answer."""
    url = f"http://{address}/v1/models/{name}"
    try:
        versions = json.loads(HTTP.request("GET", url).data)["model_version_status"]
    except (urllib3.exceptions.HTTPError, ValueError, KeyError):
        return []
    return [(int(each["version"]), each["state"]) for each in versions]


def _tail(log):
    log.seek(0)
    return f" Its log ends with:\n{log.read()[-2000:]}"


def _stop(process):
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def get_model(folder):
    """Returns the digits model of `make demo`, or trains one now and saves it there."""
    sys.path.append(str(EXAMPLES))
    import digits

    saved = folder / "digits.keras"
    if saved.exists():
        print(f"model: {saved}")
        return tf.keras.models.load_model(saved)
    print(f"model: trained now, as {saved} doesn't exist")
    tf.keras.utils.set_random_seed(0)
    (x, y), _ = digits.load_data()
    model = digits.build_model()
    model.fit(x, y, epochs=4, batch_size=32)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(saved)
    return model


def check(make, address, images, expected, requests):
    """Sends requests over one protocol, and compares every answer with Keras's predictions."""
    with contextlib.closing(make(address, "digits")) as connected:
        connected.predict(images[:1])  # the first request opens the connection
        measured = client.measure(connected, images, requests, concurrency=4)
    worst = float(np.abs(measured.answers - expected[measured.images]).max())
    print(f"{connected.protocol} at {address}, version {connected.version}")
    print(f"  {client.describe(measured)}")
    print(f"  differs from model.predict by at most {worst:.1e}", flush=True)
    if not worst <= 1e-5:
        raise SystemExit(
            f"serve: expected the predictions of model.predict over {connected.protocol}. "
            f"Received: answers of version {connected.version} that differ by {worst:.1e}. Check "
            "that it serves this model."
        )


def main():
    """Exports, serves, calls, compares and stops."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=EXAMPLES.parent / "saved_models")
    parser.add_argument("--requests", type=int, default=200, help="over each protocol")
    parser.add_argument("--stay", action="store_true", help="keep serving until Ctrl-C")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))

    found = find_server()
    print(f"server: {found.description}", flush=True)
    model = get_model(arguments.folder)
    images, _ = client.load_images()
    expected = model.predict(images, verbose=0)
    version = export_saved_model(model, arguments.folder / "digits", warmup=images[:8])
    print(f"export: {version}", flush=True)
    try:
        with serving(found, version.parent, "digits", int(version.name)) as addresses:
            check(client.RestClient, addresses.rest, images, expected, arguments.requests)
            check(client.GrpcClient, addresses.grpc, images, expected, arguments.requests)
            if arguments.stay:
                print(f"serving REST at {addresses.rest} and gRPC at {addresses.grpc} until Ctrl-C")
                sys.stdout.flush()
                while True:
                    time.sleep(0.5)  # not signal.pause: a TensorFlow thread may get the signal
    except KeyboardInterrupt:
        raise SystemExit("stopped by Ctrl-C") from None
    except client.ServerError as error:
        raise SystemExit(str(error)) from None
    finally:
        print("the server keeps running" if found.kind == "address" else "the server is stopped")


if __name__ == "__main__":
    main()
