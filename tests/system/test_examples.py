"""The examples run from end to end, in processes of their own, on real data."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import KERAS_3, slow_under_tf_keras
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder that the digits example wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, EXAMPLES / "digits.py", "--folder", folder, "--epochs", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_digits_learns_on_real_data(demo):
    _, printed = demo
    (line,) = [line for line in printed.splitlines() if line.startswith("accuracy on 450 digits")]
    assert float(line.split(":")[1]) > 0.9
    assert "slopes of per_channel" in printed


def test_digits_reloads_and_serves_the_same_predictions(demo):
    _, printed = demo
    assert "reloaded in a fresh process: 450 predictions, at most " in printed
    assert "in a process without Keras and tf_leaky: 450 predictions, at most " in printed


def test_digits_ends_with_a_table_of_what_is_there(demo):
    folder, printed = demo
    made = printed.split("\nmade in ")[1].splitlines()[1:]
    paths = [Path(line.split()[-1]) for line in made]
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        "digits.keras",
        "digits/1",
        "leaky_relu.png",
        "activations.png",
    ]
    assert all(path.exists() for path in paths)


def test_plot_activations_draws_again(demo):
    folder, _ = demo
    before = (folder / "activations.png").stat().st_mtime_ns
    command = [sys.executable, EXAMPLES / "plot_activations.py", "--folder", folder]
    subprocess.run(command, check=True, capture_output=True)
    assert (folder / "activations.png").stat().st_mtime_ns > before
    assert (folder / "activations.png").read_bytes().startswith(b"\x89PNG")


def check_picture(path):
    """Holds that a picture is readable on pages of any colour, and 400 pixels wide.

    It has a white ground of its own, and its text of 10 points is at least 9 pixels high there.
    """
    with Image.open(path) as image:
        inches = image.width / image.info["dpi"][0]
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels[..., 3].min() == 255
    for border in (pixels[0], pixels[-1]):
        assert (border == 255).all()
    assert 10 / 72 * 400 / inches > 9


def test_pictures_of_the_readme_are_readable_on_any_page():
    shown = re.findall(r"\]\((examples/.+?\.png)\)", (EXAMPLES.parent / "README.md").read_text())
    assert len(shown) == 5
    for path in shown:
        check_picture(EXAMPLES.parent / path)


def run_why(name, folder, *arguments):
    # A user's own style, for dark pages, leaves the pictures as they are.
    style = folder / "matplotlibrc"
    style.write_text("savefig.transparent: True\nfigure.facecolor: black\nfont.size: 5\n")
    command = [
        sys.executable,
        EXAMPLES / "why_leaky" / f"{name}.py",
        "--folder",
        folder,
        *arguments,
    ]
    environment = os.environ | {"MATPLOTLIBRC": str(style)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    check_picture(folder / f"{name}.png")
    return done.stdout


@slow_under_tf_keras
def test_relu_nets_die_and_leaky_ones_do_not(tmp_path):
    """A small run of `dying.py`: 2000 nets are within 0.05 of the published shares."""
    small = ("--nets", "2000", "--trained", "50", "--steps", "300")
    printed = run_why("dying", tmp_path, *small)
    rows = [line.split() for line in printed.splitlines() if line.startswith("  depth")]
    assert len(rows) == 15
    for *_, expected, found, leaky in rows:
        assert float(found) == pytest.approx(float(expected), abs=0.05)
        assert float(leaky) == 0
    shares = {
        line[:14].strip(): float(line[14:].split("%")[0])
        for line in printed.splitlines()
        if "expected: " in line
    }
    assert shares["ReLU"] > 80
    assert max(shares["slope 0.1"], shares["slope 0.25"], shares["trained"]) < 20


@slow_under_tf_keras
def test_gradients_flow_as_theory_has_it(tmp_path):
    printed = run_why("gradient_flow", tmp_path, "--nets", "2")
    rows = [line.split() for line in printed.splitlines() if "gain" in line and "He, " not in line]
    assert len(rows) == 8
    for *_, expected, found in rows:
        assert float(found) == pytest.approx(float(expected), abs=0.05)


@slow_under_tf_keras
def test_slope_is_more_forgiving_than_a_threshold(tmp_path):
    printed = run_why("sensitivity", tmp_path, "--seeds", "2", "--epochs", "15")
    assert "holds: the sweep of the slope varies less than that of the threshold" in printed
    rows = [line.split() for line in printed.splitlines() if " accuracy " in line]
    assert len(rows) == 18
    assert all(float(row[3]) > 0.85 for row in rows if row[0] == "alpha")


@pytest.mark.slow
def test_slopes_that_are_left_out_of_decay_stay_higher(tmp_path):
    printed = run_why("slopes", tmp_path, "--seeds", "1", "--epochs", "4")
    for kind in ("one slope", "per channel"):
        assert f"{kind:12} left out of decay, it is higher than with it: yes" in printed


def run_convert(folder, *arguments):
    command = [sys.executable, EXAMPLES / "convert.py", "--folder", folder, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("written and read back") == 5
    made = done.stdout.split("\nmade in ")[1].splitlines()[1:]
    assert len(made) == 7
    assert all(Path(line.split()[-1]).exists() for line in made)
    return done.stdout


@slow_under_tf_keras
def test_convert_writes_all_formats_and_reads_them_back(tmp_path):
    printed = run_convert(tmp_path, "--model", "unet", "--size", "32")
    assert "unet: 7 ReLUs are LeakyReLUs now" in printed


@pytest.mark.slow
def test_convert_takes_a_model_of_keras_applications(tmp_path):
    assert "MobileNetV3Small: 14 ReLUs" in run_convert(tmp_path)


def test_convert_knows_its_models(tmp_path):
    command = [sys.executable, EXAMPLES / "convert.py", "--model", "Nope", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected --model to be unet or one of" in done.stderr


def test_plot_activations_says_what_it_needs(tmp_path):
    command = [sys.executable, EXAMPLES / "plot_activations.py", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "run `make demo` first" in done.stderr


def holds_for_all(printed, workers):
    """Holds what `distributed.py` prints: the same accuracy and slopes by each worker, reloaded."""
    found = re.findall(r"^worker (\d): accuracy ([\d.]+), slopes (.*)$", printed, re.MULTILINE)
    assert sorted(int(index) for index, _, _ in found) == list(range(workers))
    ((accuracy, _),) = {(accuracy, slopes) for _, accuracy, slopes in found}
    assert float(accuracy) > 0.9
    assert f"worker 0: the slopes of all {workers} workers are equal, bit for bit" in printed
    assert f"distributed.keras, reloaded: accuracy {accuracy} on 450 other digits" in printed


# `make test` runs under both Kerases, these workers under tf_keras in any case.
once = pytest.mark.skipif(not KERAS_3, reason="run with Keras 3, and the same here")
DISTRIBUTED = [sys.executable, EXAMPLES / "distributed.py", "--epochs", "4"]


def wait_until_gone(pids):
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)


@contextlib.contextmanager
def distributed(folder, until, *arguments):
    """`distributed.py` when it has printed `until`, with the processes of its workers."""
    command = [*DISTRIBUTED, "--folder", folder, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        try:
            first = process.stdout.readline()
            pids = [int(pid) for pid in first.partition("processes ")[2].split(",")]
            assert any(until in line for line in process.stdout)
            yield process, pids
        finally:
            process.kill()


@once
def test_distributed_trains_equal_slopes(tmp_path):
    done = subprocess.run(
        [*DISTRIBUTED, "--folder", tmp_path, "--workers", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    holds_for_all(done.stdout, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["distributed.keras"]


@once
@pytest.mark.slow
def test_distributed_is_one_worker_where_tf_config_is_set(tmp_path):
    """As on a cluster: each process is started by itself, here with a chief and a worker."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, other)]
    cluster = {"chief": [f"127.0.0.1:{ports[0]}"], "worker": [f"127.0.0.1:{ports[1]}"]}
    processes = [
        subprocess.Popen(
            [*DISTRIBUTED, "--folder", tmp_path],
            env=os.environ
            | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind in cluster
    ]
    try:
        printed = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], printed
    (chief, _), (worker, _) = printed
    accuracy, slopes = re.search(r"^chief 0: accuracy ([\d.]+), slopes (.*)$", chief, re.M).groups()
    assert f"worker 0: accuracy {accuracy}, slopes {slopes}\n" in worker
    assert "chief 0: the slopes of all 2 workers are equal, bit for bit" in chief
    assert "reloaded" not in worker
    assert [path.name for path in tmp_path.iterdir()] == ["distributed.keras"]


@once
@pytest.mark.slow
def test_distributed_tells_of_a_dead_worker_and_stops_the_others(tmp_path):
    with distributed(tmp_path, "epoch 2", "--epochs", "1000") as (process, pids):
        os.kill(pids[1], signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == 1
        assert "Received: worker 1, ended by SIGKILL; all were stopped." in errors
        wait_until_gone(pids)


@once
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_distributed_leaves_no_worker_when_it_is_stopped(number, tmp_path):
    with distributed(tmp_path, "epoch 2", "--epochs", "1000") as (process, pids):
        process.send_signal(number)
        process.communicate()
        assert process.returncode == {signal.SIGKILL: -9}.get(number, 128 + number)
        wait_until_gone(pids)
