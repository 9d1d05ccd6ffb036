"""Scores a large array of digits from the exported SavedModel, with Ray Data.

    python examples/batch_inference.py [--folder saved_models] [--rows 200000] [--batch-size 4096]
        [--workers 1] [--address ADDRESS] [--export DIRECTORY] [--input FOLDER] [--output FOLDER]

It needs the model and the export that `make demo` makes. On one machine, this script starts and
stops Ray, which meanwhile listens on every interface, and requires the token that it keeps in
~/.ray. On a cluster, run the same script on one machine with `--address auto`, more `--workers`,
and `--export` and `--output` on storage that every machine sees. That was tried on a cluster of two
nodes, both on one machine.

Why Ray Data: it installs beside TensorFlow 2.21 without changing its packages, on Python 3.11 too.
Apache Beam (2.77) has RunInference, but requires protobuf below 7, and so would downgrade the
protobuf that TensorFlow installs.

The rows are the 1797 digits over and over, laid out by the workers themselves. With --input, they
come from a folder of Parquet files, the shards, with the columns `row` and `image` (a list of 64
numbers). Then --output gets one file for each shard, whole or not at all. A worker that dies is
restarted, and its shard is scored again. Shards that can't be read are listed at the end, after all
others are scored, and the exit status is 1. Run again, the script scores only the shards that have
no file in --output yet.
"""

import argparse
import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow
import pyarrow.parquet
import ray
from sklearn.datasets import load_digits
from tqdm import tqdm

SAVED_MODELS = Path(__file__).parents[1] / "saved_models"
CHECKED = 500  # about so many rows are compared with model.predict


def load_images():
    """Returns the 1797 digits, `(n, 8, 8, 1)` in [0, 1]."""
    return (load_digits().images[..., np.newaxis] / 16).astype("float32")


def read(rows, batch_size):
    """Returns a dataset of `rows` images, each with its row number."""
    images = load_images()

    def lay_out(batch):
        return {"row": batch["id"], "image": images[batch["id"] % len(images)]}

    blocks = max(rows // (4 * batch_size), 1)
    numbers = ray.data.range(rows, override_num_blocks=blocks)
    return numbers.map_batches(lay_out, batch_size=batch_size)


class Scorer:
    """A worker: loads the SavedModel once, and scores batch after batch."""

    def __init__(self, export):
        import tensorflow as tf

        self._to_tensor = tf.constant
        self._model = tf.saved_model.load(export)  # keeps the variables of its signature alive
        self._signature = self._model.signatures["serving_default"]
        (self._input,) = self._signature.structured_input_signature[1]
        (self._output,) = self._signature.structured_outputs

    def __call__(self, batch):
        """Returns the scores of a batch, with the row numbers."""
        images = self._to_tensor(batch["image"])
        scores = self._signature(**{self._input: images})[self._output]
        return {"row": batch["row"], "score": scores.numpy()}


class ShardScorer(Scorer):
    """A worker that reads one shard after the other, scores it and writes the scores."""

    def __init__(self, export, output, batch_size):
        super().__init__(export)
        self._shape = self._signature.structured_input_signature[1][self._input].shape[1:]
        self._folder, self._batch_size = Path(output), batch_size

    def __call__(self, shard):
        """Returns how many rows of a shard were scored, or the error."""
        try:
            rows, images = read_shard(shard["path"], self._shape)
        except (OSError, ValueError, LookupError, pyarrow.ArrowException) as error:
            return {"path": shard["path"], "rows": 0, "error": f"{error}"[:300] or repr(error)}
        scores = [
            super(ShardScorer, self).__call__({"row": None, "image": part})["score"]
            for part in np.split(images, range(self._batch_size, len(rows), self._batch_size))
        ]
        table = pyarrow.table({"row": rows, "score": list(np.concatenate(scores))})
        path = self._folder / Path(shard["path"]).name
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        pyarrow.parquet.write_table(table, unfinished)
        unfinished.replace(path)
        return {"path": shard["path"], "rows": len(rows), "error": ""}


def read_shard(path, shape):
    """Returns the rows of a shard, and their images with the given shape."""
    table = pyarrow.parquet.read_table(path, columns=["row", "image"])
    numbers = table["image"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if not len(table):
        raise ValueError("it has no rows")
    return table["row"].to_numpy(), numbers.astype("float32").reshape(len(table), *shape)


@contextlib.contextmanager
def engine(address, workers):
    """Runs the block with Ray: the cluster at `address`, or one on this machine for the block."""
    logging.disable(logging.WARNING)  # Ray's own log; its errors come as exceptions
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as logs:  # a short path: sockets
        own = {
            "num_cpus": max(os.cpu_count() or 1, workers + 1),  # one more to lay out the images
            "include_dashboard": False,
            "logging_level": logging.WARNING,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": logs,
        }
        ray.init(log_to_driver=False, **({"address": address} if address else own))
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield
        finally:
            ray.shutdown()  # leaves a cluster, which goes on


def newest_version(folder):
    """Returns the highest version directory of the digits model, or None."""
    versions = [path for path in (folder / "digits").glob("*") if path.name.isdecimal()]
    return max(versions, key=lambda path: int(path.name), default=None)


def score(arguments, export):
    """Scores, counts and times every row; returns the scores of about `CHECKED` rows, by row."""
    scored = read(arguments.rows, arguments.batch_size).map_batches(
        Scorer,
        fn_constructor_args=(str(export),),
        batch_size=arguments.batch_size,
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
    )
    began = time.monotonic()
    if arguments.output:
        scored.write_parquet(str(arguments.output.resolve()))  # each worker writes
        scored = ray.data.read_parquet(str(arguments.output.resolve()))
    every = max(arguments.rows // CHECKED, 1)
    times, chosen, first = np.zeros(arguments.rows, np.int8), {}, None
    with tqdm(total=arguments.rows, desc="scored", unit=" rows", unit_scale=True) as bar:
        for batch in scored.iter_batches(batch_size=arguments.batch_size):
            times[batch["row"]] += 1
            keep = batch["row"] % every == 0
            chosen |= zip(batch["row"][keep].tolist(), batch["score"][keep], strict=True)
            bar.update(len(batch["row"]))
            first = first or (len(batch["row"]), time.monotonic())
    report(arguments.rows, time.monotonic() - began)
    if arguments.rows > first[0]:
        rate = (arguments.rows - first[0]) / (time.monotonic() - first[1])
        print(f"{rate:.0f} rows per second after the first batch, which waits for the workers")
    if not (times == 1).all():
        raise SystemExit(f"batch_inference: expected each row once. Received: {np.unique(times)}")
    return chosen


def score_folder(arguments, export, scorer=ShardScorer):
    """Scores the shards of `--input` that have no scores in `--output` yet; returns all shards."""
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    shards = sorted(path.resolve() for path in arguments.input.glob("*.parquet"))
    missing = [{"path": str(path)} for path in shards if not (output / path.name).exists()]
    print(f"{len(shards) - len(missing)} of {len(shards)} shards were scored before", flush=True)
    if not missing:
        return shards
    done = ray.data.from_items(missing, override_num_blocks=len(missing)).map(
        scorer,
        fn_constructor_args=(str(export), str(output), arguments.batch_size),
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
        max_restarts=3,  # Ray's default is unlimited
        max_task_retries=3,
    )
    began, rows, errors = time.monotonic(), 0, []
    with tqdm(total=len(missing), desc="scored", unit=" shards") as bar:
        for each in done.iter_rows():
            rows += each["rows"]
            errors += [f"{each['path']}: {each['error']}"] if each["error"] else []
            bar.update()
    report(rows, time.monotonic() - began)
    if errors:
        raise SystemExit(
            "batch_inference: expected shards that can be read and scored. Received: "
            f"{'; '.join(errors)}. The scores of all others are in {output}. Repair or remove "
            "these shards, and run this again: it scores only what is missing."
        )
    return shards


def report(rows, seconds):
    """Prints the rate, including the start of the workers."""
    print(f"{rows} rows in {seconds:.1f} s: {rows / seconds:.0f} rows per second", flush=True)


def check_shard(saved, shard, output):
    """Stops unless the first scores of a shard equal the trained model's predictions."""
    scored = pyarrow.parquet.read_table(output / shard.name)
    scores = np.stack(scored["score"].to_numpy())
    rows, images = read_shard(shard, (8, 8, 1))
    if scored["row"].to_pylist() != rows.tolist():
        raise SystemExit(f"batch_inference: expected the rows of {shard} in {output}")
    check(saved, images[:CHECKED], scores[:CHECKED])


def check(saved, images, scores):
    """Stops unless the scores equal the trained model's predictions."""
    import tensorflow as tf

    import tf_leaky  # noqa: F401  registers the layer, so that the model loads

    model = tf.keras.models.load_model(saved)
    expected = model.predict(images, verbose=0)
    worst = float(np.abs(scores - expected).max())
    print(f"{len(images)} rows compared with model.predict: they differ by at most {worst:.1e}")
    if not worst <= 1e-5:
        raise SystemExit(f"batch_inference: expected the predictions of {saved}")


def main():
    """Scores, counts and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=SAVED_MODELS, help="from `make demo`")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=1, help="each loads the model once")
    parser.add_argument("--address", help="of a Ray cluster; by default, Ray is started here")
    parser.add_argument("--export", type=Path, help="a version directory; by default the newest")
    parser.add_argument("--input", type=Path, help="a folder of shards, scored into --output")
    parser.add_argument("--output", type=Path, help="a folder for the scores, as Parquet files")
    arguments = parser.parse_args()
    saved = arguments.folder / "digits.keras"
    export = arguments.export or newest_version(arguments.folder)
    if export is None or not saved.exists():
        parser.error(f"{arguments.folder} has no digits model and export: run `make demo` first")
    if arguments.input and not (arguments.output and any(arguments.input.glob("*.parquet"))):
        parser.error(f"--input needs *.parquet files in {arguments.input}, and --output")
    what = arguments.input or f"{arguments.rows} rows"
    print(f"export: {export}; {what}, {arguments.workers} worker(s)", flush=True)
    with engine(arguments.address, arguments.workers):
        if arguments.input:
            first, *_ = score_folder(arguments, export.resolve())
            check_shard(saved, first, arguments.output)
        else:
            chosen, images = score(arguments, export.resolve()), load_images()
            check(saved, images[np.array(list(chosen)) % len(images)], np.stack([*chosen.values()]))


if __name__ == "__main__":
    main()
