"""Makes an environment for each library, tries its models, prints a table: `make zoo`.

`python -m zoo_of_libraries [LIBRARY ...]` takes those that are named, else all. An environment is a
venv in `.zoo/` that sees the packages of the Python that runs this, so that TensorFlow is there
once. Only PyPI is asked, and no weights are fetched.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".zoo"
TRIALS = ["stock_clone", "converted", "alpha", "frozen", "back"]
FILES = ["reload stock", "reload sloped", "reload frozen", "reload back"]
COLUMNS = ["build", *TRIALS, *FILES]
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


@dataclasses.dataclass(frozen=True)
class Library:
    """What pip installs, without dependencies; and whether it needs tf_keras."""

    packages: str
    legacy: bool = False


LIBRARIES = {
    "keras_hub": Library("keras-hub==0.32.0 kagglehub==1.0.3 kagglesdk regex tokenizers"),
    "tcn": Library("keras-tcn==3.5.7"),
    "mtcnn": Library("mtcnn==1.0.0 lz4"),
    "keras_rs": Library("keras-rs==0.4.0 dm-tree"),
    "spektral": Library("spektral==1.3.1 networkx lxml", legacy=True),
    "larq": Library("larq==0.14.0 terminaltables", legacy=True),
    "qkeras": Library(
        "QKeras==0.9.0 pyparser==1.0 tensorflow-model-optimization==0.8.1 dm-tree networkx",
        legacy=True,
    ),
    "kecam": Library("kecam==1.4.3", legacy=True),
    "tfp": Library(
        "tensorflow-probability==0.25.0 dm-tree cloudpickle decorator attrs", legacy=True
    ),
    "tfmot": Library("tensorflow-model-optimization==0.8.1 dm-tree attrs", legacy=True),
    "unets": Library("keras-unet-collection==0.1.13", legacy=True),
    "tfrs": Library("tensorflow-recommenders==0.7.7", legacy=True),
}


def environment(name):
    """The Python of a library's environment, made when it is missing or its packages changed."""
    folder, wanted = ENVIRONMENTS / name, LIBRARIES[name].packages
    stamp, python = folder / "packages.txt", folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        own = Path(subprocess.check_output([python, "-c", PURELIB], text=True).strip())
        (own / "shared.pth").write_text(sysconfig.get_path("purelib"))
        pip = [python, "-m", "pip", "install", "-qq", "--no-deps"]
        subprocess.run([*pip, *wanted.split()], check=True)
        stamp.write_text(wanted)
    return python


def tried(name):
    """The outcomes by model and trial, each with what was said."""
    python, folder = environment(name), ENVIRONMENTS / name / "trials"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [str(ROOT), str(ROOT / "tests")]
    settings = {
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_USE_LEGACY_KERAS": str(int(LIBRARIES[name].legacy)),
        "PYTHONUTF8": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for reload in ("", "reload"):
        command = [python, "-m", "zoo_of_libraries.trials", name, folder, reload]
        done = subprocess.run([each for each in command if each], env=os.environ | settings)
        if done.returncode:
            print(f"{name}: its process ended with {done.returncode}")
    results, path = {}, folder / "results.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        record = json.loads(line)
        results.setdefault(record["model"], {})[record["trial"]] = record["said"]
    return results


def fault(outcomes, trial):
    """Whose fault a failure is: the library's, where Keras can't do the same with its model.

    So is a layer that its class can't make again of its config, which the error has to name. The
    files of `to_keras` hold no slopes of layers that make their own ReLU, and it warns of that.
    """
    if any("expected layers that from_config" in said for said in outcomes.values()):
        return "the library's"
    if trial == "reload back" and outcomes.get("back") == "ok, but files":
        return "said"
    stocks = ("reload stock", "reload plain") if trial.startswith("reload") else ("stock_clone",)
    failed = any(outcomes.get(stock, "").startswith("FAIL") for stock in stocks)
    if trial in ("build", "stock_clone", "reload stock") or failed:
        return "the library's"
    return "ours"


def main(names):
    reasons, rows = [], []
    for name in names or LIBRARIES:
        for model, outcomes in tried(name).items():
            row = [f"{name}: {model}"]
            for trial in COLUMNS:
                said = outcomes.get(trial) or outcomes.get(trial.replace("reload", "save")) or "-"
                if said.startswith("FAIL"):
                    blame = fault(outcomes, trial)
                    reasons.append((blame, f"{name}: {model}: {trial}: {said[5:]}"))
                    said = {"ours": "FAIL", "said": "(said)"}.get(blame, "(fails)")
                row.append(said)
            rows.append(row)
    table = [["model", *COLUMNS], *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print("\nFAIL is ours; (fails) is what Keras can't do with the library's model either.")
    print("ok, without N: N weights that no output depends on are left out, as a warning says.")
    print("(said): to_keras warned that a file loads with the ReLUs that a layer makes itself.")
    for blame, reason in sorted(reasons):
        print(f"{blame}: {' '.join(reason.split())[:600]}")
    return any(blame == "ours" for blame, _ in reasons)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
