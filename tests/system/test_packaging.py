"""The wheel holds the package and nothing else and runs elsewhere; the sdist holds the project."""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import KERAS_3, SLOW_UNDER_TF_KERAS, run_python

pytestmark = list(SLOW_UNDER_TF_KERAS)
ROOT = Path(__file__).parents[2]
FOLDERS = ("tf_leaky", "tests", "examples", "benchmarks", "docs", "saved_models/goldens")
PAGES = {
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"),
    *("pyproject.toml", "Makefile", ".gitignore"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What `make wheel` builds: the sdist from the project, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run_python("-m", "build", "--outdir", folder, ROOT)
    sdist, wheel = sorted(folder.iterdir(), key=lambda path: path.suffix)
    return wheel, sdist


# Without this project, and whatever else, on Python's path.
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run_first_example(python, site, folder, **environment):
    """Runs the README's, but for its picture, with the package of `site`; it leaves its files."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    lines = [line for line in block.splitlines() if not line.startswith("plot_leaky_relu")]
    code = "\n".join([*lines, "import tf_leaky", "print(tf_leaky.__file__)"])
    options = {"cwd": folder, "env": OUTSIDE | environment}
    printed = run_python("-c", code, python=python, **options).stdout
    assert Path(printed.splitlines()[-1]) == site / "tf_leaky/__init__.py"
    assert (folder / "model.keras").exists()
    assert (folder / "saved_models/mine/1/saved_model.pb").exists()


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    package = ROOT / "tf_leaky"
    assert names == {
        path.relative_to(ROOT).as_posix() for path in (*package.rglob("*.py"), package / "py.typed")
    }
    assert len(licences) == 1


def test_floor_is_what_pyproject_asks_for():
    """`make test-floor` runs the oldest versions that pip would take, and the README names them."""
    project = (ROOT / "pyproject.toml").read_text()
    asked = re.findall("^(?:dependencies|tensorflow) = .*", project, re.M)
    needs = dict(re.findall(r'"(\w+)>=([\d.]+)"', "".join(asked)))
    assert needs.keys() == {"keras", "numpy", "tensorflow"}
    floor = (ROOT / "tests/floor.txt").read_text()
    pins = dict(re.findall(r"^(\w+)==([\d.]+)\.0$", floor, re.M))
    assert {name: pins[name] for name in needs} == needs
    python = re.search(r'^requires-python = ">=(.*)"', project, re.M)[1]
    named = (
        f"Python {python}, TensorFlow {needs['tensorflow']} and Keras {needs['keras']}, or later"
    )
    assert named in (ROOT / "README.md").read_text().replace("\n", " ")
    assert f"python{python}" in (ROOT / "Makefile").read_text()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git tells what belongs to the project")
def test_sdist_holds_the_project(built):
    kept = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *FOLDERS)
    listed = subprocess.run(kept, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    project = {name for name in listed.split("\0") if (ROOT / name).is_file()}
    with tarfile.open(built[1]) as archive:
        files = {each.name.partition("/")[2] for each in archive if each.isfile()}
    assert files == {*project, *PAGES, "PKG-INFO"}


PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def test_wheel_runs_in_another_folder(built, tmp_path):
    site = tmp_path / "site"
    run_python(*PIP, "--no-deps", "--no-compile", "--target", site, built[0])
    run_first_example(sys.executable, site, tmp_path, PYTHONPATH=str(site))


@pytest.mark.slow
@pytest.mark.skipif(not KERAS_3, reason="an empty environment gets no tf_keras")
def test_wheel_runs_in_an_empty_environment(built, tmp_path):
    venv.create(tmp_path / "empty", with_pip=True)
    options = {"python": tmp_path / "empty/bin/python", "cwd": tmp_path, "env": OUTSIDE}
    run_python(*PIP, f"{built[0]}[tensorflow]", **options)
    run_python("-m", "pip", "check", **options)
    (site,) = (tmp_path / "empty/lib").glob("python*/site-packages")
    run_first_example(options["python"], site, tmp_path)
