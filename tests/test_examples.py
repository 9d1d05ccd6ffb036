"""The examples run from end to end, in processes of their own, on real data."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


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
    assert "answered without Python TensorFlow; imported of it: nothing" in printed
    assert "exported, without Python TensorFlow: 450 predictions, at most " in printed


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


def run_why(name, folder, *arguments):
    command = [
        sys.executable,
        EXAMPLES / "why_leaky" / f"{name}.py",
        "--folder",
        folder,
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return done.stdout


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


def test_gradients_flow_as_theory_has_it(tmp_path):
    printed = run_why("gradient_flow", tmp_path, "--nets", "2")
    rows = [line.split() for line in printed.splitlines() if "gain" in line and "He, " not in line]
    assert len(rows) == 8
    for *_, expected, found in rows:
        assert float(found) == pytest.approx(float(expected), abs=0.05)


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
