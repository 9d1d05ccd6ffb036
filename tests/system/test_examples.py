"""The examples run from end to end, on real data."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import KERAS_3, free_ports, run_python, slow_under_tf_keras
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, folder, *arguments, **environment):
    """What an example prints, in a process of its own."""
    command = [EXAMPLES / f"{name}.py", "--folder", folder, *arguments]
    return run_python(*command, env=os.environ | environment).stdout


def made(printed):
    """The paths in the table that an example ends with, which are there."""
    paths = [Path(line.split()[-1]) for line in printed.split("\nmade in ")[1].splitlines()[1:]]
    assert all(path.exists() for path in paths)
    return paths


def test_digits_learns_saves_reloads_exports_and_plots(tmp_path):
    printed = run("digits", tmp_path, "--epochs", "4")
    accuracy = re.search(r"^accuracy on 450 digits.*: ([\d.]+)", printed, re.MULTILINE)[1]
    assert float(accuracy) > 0.9
    assert "slopes of per_channel" in printed
    assert "reloaded in a fresh process: 450 predictions, at most " in printed
    assert "exported, and run from there: 450 predictions, at most " in printed
    names = [path.relative_to(tmp_path).as_posix() for path in made(printed)]
    assert names == ["digits.keras", "digits/1", "leaky_relu.png", "activations.png"]

    picture = tmp_path / "activations.png"
    picture.unlink()
    run("plot_activations", tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")


def check_picture(path):
    """Holds that a picture is readable on pages of any colour, and 400 pixels wide.

    It has a white ground of its own, and its text of 10 points is at least 9 pixels high there.
    """
    with Image.open(path) as image:
        inches = image.width / image.info["dpi"][0]
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels[..., 3].min() == 255
    assert (pixels[[0, -1]] == 255).all()
    assert 10 / 72 * 400 / inches > 9


def test_pictures_of_the_pages_are_readable_on_any_page():
    shown = set()
    for page in (EXAMPLES.parent / "README.md", *(EXAMPLES.parent / "docs").glob("*.md")):
        pictures = re.findall(r"!\[(.*?)\]\((.+?\.png)\)", page.read_text())
        assert all(len(alt) > 20 for alt, _ in pictures), page  # for those who can't see them
        shown |= {(page.parent / path).resolve() for _, path in pictures}
    assert len(shown) == 9
    for path in shown:
        check_picture(path)


def run_why(name, folder, *arguments):
    # A user's own style, for dark pages, leaves the pictures as they are.
    style = folder / "matplotlibrc"
    style.write_text("savefig.transparent: True\nfigure.facecolor: black\nfont.size: 5\n")
    printed = run(f"why_leaky/{name}", folder, *arguments, MATPLOTLIBRC=str(style))
    check_picture(folder / f"{name}.png")
    return printed


LEAKY = ("slope 0.1", "slope 0.25", "trained")


def rows_with(text, printed):
    return [line.split() for line in printed.splitlines() if text in line]


@slow_under_tf_keras
def test_relu_nets_die_and_leaky_ones_do_not(tmp_path):
    """A small run: 2000 nets are within 0.05 of the published shares."""
    small = ("--nets", "2000", "--trained", "50", "--steps", "300")
    printed = run_why("dying", tmp_path, *small)
    rows = rows_with("  depth", printed)
    assert len(rows) == 15
    for *_, expected, found, leaky in rows:
        assert float(found) == pytest.approx(float(expected), abs=0.05)
        assert float(leaky) == 0
    shares = dict(re.findall(r"^  (.{12}) *([\d.]+)%.*expected: ", printed, re.MULTILINE))
    relu, *leaky = (float(shares[f"{name:12}"]) for name in ("ReLU", *LEAKY))
    assert relu > 80
    assert max(leaky) < 20


@slow_under_tf_keras
def test_gradients_flow_as_theory_has_it(tmp_path):
    rows = rows_with("gain", run_why("gradient_flow", tmp_path, "--nets", "2"))
    rows = [row for row in rows if "He, " not in " ".join(row)]
    assert len(rows) == 8
    for *_, expected, found in rows:
        assert float(found) == pytest.approx(float(expected), abs=0.05)


@slow_under_tf_keras
def test_slope_is_more_forgiving_than_a_threshold(tmp_path):
    printed = run_why("sensitivity", tmp_path, "--seeds", "2", "--epochs", "15")
    assert "holds: the sweep of the slope varies less than that of the threshold" in printed
    rows = rows_with(" accuracy ", printed)
    assert len(rows) == 18
    assert all(float(row[3]) > 0.85 for row in rows if row[0] == "alpha")


@pytest.mark.slow
def test_slopes_that_are_left_out_of_decay_stay_higher(tmp_path):
    printed = run_why("slopes", tmp_path, "--seeds", "1", "--epochs", "4")
    for kind in ("one slope", "per channel"):
        assert f"{kind:12} without decay of slopes, it is higher: yes" in printed


@slow_under_tf_keras
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "unet", "--size", "32"), "unet: 7 ReLUs are LeakyReLUs now"),
        pytest.param((), "MobileNetV3Small: 14 ReLUs", marks=pytest.mark.slow),
    ],
    ids=["unet", "keras.applications"],
)
def test_convert_writes_all_formats_and_reads_them_back(arguments, said, tmp_path):
    printed = run("convert", tmp_path, *arguments)
    assert said in printed
    assert printed.count("written and read back") == 7
    assert len(made(printed)) == 7


# The workers run under tf_keras in any case: once is enough.
once = pytest.mark.skipif(not KERAS_3, reason="run with Keras 3, and the same here")


@once
def test_distributed_trains_equal_slopes(tmp_path):
    printed = run("distributed", tmp_path, "--epochs", "4", "--workers", "2")
    found = re.findall(r"^worker (\d): accuracy ([\d.]+), slopes (.*)$", printed, re.MULTILINE)
    assert sorted(index for index, _, _ in found) == ["0", "1"]
    ((accuracy, _),) = {each[1:] for each in found}
    assert float(accuracy) > 0.9
    assert "worker 0: the slopes of all 2 workers are equal, bit for bit" in printed
    assert f"distributed.keras, reloaded: accuracy {accuracy} on 450 other digits" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["distributed.keras"]


@once
@pytest.mark.slow
def test_distributed_is_one_worker_where_tf_config_is_set(tmp_path):
    """As on a cluster: each process is started by itself, here with a chief and a worker."""
    chief, worker = ([f"127.0.0.1:{port}"] for port in free_ports(2))
    cluster = {"chief": chief, "worker": worker}
    with ThreadPoolExecutor() as pool:

        def one(kind):
            config = json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}})
            return run("distributed", tmp_path, "--epochs", "4", TF_CONFIG=config)

        chief, worker = pool.map(one, cluster)
    found = re.search(r"^chief 0: (accuracy [\d.]+, slopes .*)$", chief, re.MULTILINE)[1]
    assert f"worker 0: {found}\n" in worker
    assert "chief 0: the slopes of all 2 workers are equal, bit for bit" in chief
    assert "reloaded" not in worker
    assert [path.name for path in tmp_path.iterdir()] == ["distributed.keras"]


@once
@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "number", "status"), [("worker", signal.SIGKILL, 1), ("parent", signal.SIGTERM, 143)]
)
def test_distributed_leaves_no_worker_when_it_or_one_is_stopped(whom, number, status, tmp_path):
    command = [sys.executable, EXAMPLES / "distributed.py", "--folder", tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--epochs", "1000"], **pipes) as process:
        first = process.stdout.readline()
        pids = [int(pid) for pid in first.partition("processes ")[2].split(",")]
        assert any("Epoch 2" in line for line in process.stdout)
        os.kill(pids[1] if whom == "worker" else process.pid, number)
        _, errors = process.communicate()
    assert process.returncode == status
    if whom == "worker":
        assert "Received: worker 1, status -9; all were stopped." in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
