"""The example that scores a large array from the export, small, in a process of its own."""

import importlib.util
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import KERAS_3, run_python
from served import digits_model

from tf_leaky import export_saved_model

SCRIPT = Path(__file__).parents[2] / "examples" / "batch_inference.py"
without_ray = importlib.util.find_spec("ray") is None
pytestmark = pytest.mark.skipif(without_ray, reason="needs Ray Data: pip install '.[batch]'")


@pytest.fixture
def run(tmp_path):
    """Runs the script; Ray keeps a token in the home folder, which is not this user's here."""

    def start(*flags, script=SCRIPT, status=0):
        own = {"HOME": str(tmp_path), "PYTHONPATH": str(SCRIPT.parent)}
        own["RAY_worker_niceness"] = "0"  # else its workers wait for all other tests
        return run_python(script, *flags, status=status, env=os.environ | own)

    return start


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and its export, as `make demo` leaves them."""
    made = tmp_path_factory.mktemp("demo")
    model = digits_model()
    model.save(made / "digits.keras")
    export_saved_model(model, made / "digits", version=2)
    export_saved_model(model, made / "digits", version=10)
    return made


@pytest.mark.skipif(not KERAS_3, reason="`make test-slow` does the same under tf_keras")
def test_every_row_is_scored_as_keras_predicts(run, folder):
    done = run("--folder", folder, "--rows", 20_000, "--batch-size", 1000)
    assert f"export: {folder / 'digits' / '10'}; 20000 rows" in done.stdout
    assert re.search(r"^20000 rows in [\d.]+ s: \d+ rows per second$", done.stdout, re.M)
    assert re.search(r"^500 rows compared with model\.predict: they differ", done.stdout, re.M)
    assert "scored: 100%" in done.stderr


@pytest.mark.slow
def test_two_workers_write_the_scores_and_wrong_ones_are_not_taken(run, folder, tmp_path):
    flags = ["--folder", folder, "--rows", 20_000, "--batch-size", 1000, "--workers", 2]
    written = [*flags, "--output", tmp_path / "out", "--export", folder / "digits" / "2"]
    assert "500 rows compared with model.predict" in run(*written).stdout
    done = run(*written, status=1)  # adds to what is there
    assert "expected each row once. Received: [2]" in done.stderr
    model = tf.keras.models.load_model(folder / "digits.keras")
    model.layers[-1].kernel.assign(-model.layers[-1].kernel)
    other = export_saved_model(model, tmp_path / "digits")
    done = run(*flags, "--export", other, status=1)
    assert "batch_inference: expected the predictions of " in done.stderr


DYING = """
import os, pathlib
import batch_inference

class Dying(batch_inference.ShardScorer):
    def __call__(self, shard):
        marker = pathlib.Path({marker!r})
        if shard["path"].endswith("2.parquet") and not marker.exists():
            marker.touch()
            os._exit(1)
        return super().__call__(shard)

batch_inference.score_folder.__defaults__ = (Dying,)
batch_inference.main()
"""


@pytest.mark.skipif(not KERAS_3, reason="Ray and Parquet know nothing of Keras")
def test_nothing_is_lost_to_a_dying_worker_and_a_corrupt_shard(run, folder, tmp_path):
    import pyarrow
    import pyarrow.parquet

    shards, out = tmp_path / "in", tmp_path / "out"
    images = np.random.default_rng(3).random((400, 64))
    shards.mkdir()
    for i in range(4):
        rows = range(100 * i, 100 * (i + 1))
        columns = {"row": list(rows), "image": list(images[rows])}
        pyarrow.parquet.write_table(pyarrow.table(columns), shards / f"{i}.parquet")
    whole = (shards / "1.parquet").read_bytes()
    (shards / "1.parquet").write_bytes(whole[: len(whole) // 2])
    script = tmp_path / "dying.py"
    marker = tmp_path / "died"
    script.write_text(DYING.format(marker=str(marker)))
    flags = ["--folder", folder, "--input", shards, "--output", out, "--batch-size", 64]

    done = run(*flags, script=script, status=1)
    assert marker.exists()
    assert "expected shards that can be read and scored. Received: " in done.stderr
    assert f"{shards / '1.parquet'}: " in done.stderr
    assert "300 rows in" in done.stdout
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert set(written) == {"0.parquet", "2.parquet", "3.parquet"}

    (shards / "1.parquet").write_bytes(whole)
    done = run(*flags)
    assert "3 of 4 shards were scored before" in done.stdout
    assert "100 rows in" in done.stdout
    assert all((out / name).stat().st_mtime_ns == then for name, then in written.items())
    tables = [pyarrow.parquet.read_table(out / f"{i}.parquet") for i in range(4)]
    assert [row for each in tables for row in each["row"].to_pylist()] == list(range(400))
    scores = np.concatenate([np.stack(each["score"].to_numpy()) for each in tables])
    model = tf.keras.models.load_model(folder / "digits.keras")
    expected = model.predict(images.astype("float32").reshape(-1, 8, 8, 1), verbose=0)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_it_says_what_it_needs(run, tmp_path):
    assert "run `make demo` first" in run("--folder", tmp_path, status=2).stderr
