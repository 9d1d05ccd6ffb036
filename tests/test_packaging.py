"""The wheel holds the package and nothing else, and imports from another folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    package = ROOT / "tf_leaky"
    assert names == {
        path.relative_to(ROOT).as_posix() for path in (*package.glob("*.py"), package / "py.typed")
    }
    assert len(licences) == 1


def test_wheel_imports_from_another_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import tf_leaky\n"
        "assert tf_leaky.__file__.startswith(sys.argv[1]), tf_leaky.__file__\n"
        "print(float(tf_leaky.leaky_relu(-1.0)), tf_leaky.__version__)"
    )
    command = [sys.executable, "-c", code, tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split()[0].startswith("-0.1")
