"""Scores a large array of digits from the exported SavedModel, with Ray Data.

    python examples/batch_inference.py [--folder saved_models] [--rows 200000] [--batch-size 4096]
        [--workers 1] [--address ADDRESS] [--export DIRECTORY] [--output FOLDER]

It needs what `make demo` makes: the model and its export. On one machine Ray is started and stopped
here; meanwhile it listens on every interface, and asks for the token that it keeps in ~/.ray. On a
cluster the same code runs with `--address auto` on one of its machines, more `--workers`, and
`--export` and `--output` on storage that every machine sees. It was run so on a cluster of two
nodes, both on one machine.

Why Ray Data: it installs beside TensorFlow 2.21 and changes no package of it, on Python 3.11 too.
Apache Beam (2.77) has RunInference, but wants protobuf below 7, and so would take the one that is
installed beside TensorFlow back.

The rows are the 1797 digits over and over, laid out by the workers themselves. For data of your own
put `ray.data.read_parquet` or another of Ray's readers into `read`.
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
import ray
from sklearn.datasets import load_digits
from tqdm import tqdm

SAVED_MODELS = Path(__file__).parents[1] / "saved_models"
CHECKED = 500  # rows, about, that are compared with model.predict


def load_images():
    """The 1797 digits, `(n, 8, 8, 1)` in [0, 1]."""
    return (load_digits().images[..., np.newaxis] / 16).astype("float32")


def read(rows, batch_size):
    """A dataset of `rows` images, each with its row number."""
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
        self._model = tf.saved_model.load(export)  # holds the variables of its signature
        self._signature = self._model.signatures["serving_default"]
        (self._input,) = self._signature.structured_input_signature[1]
        (self._output,) = self._signature.structured_outputs

    def __call__(self, batch):
        """The batch with its images scored."""
        images = self._to_tensor(batch["image"])
        scores = self._signature(**{self._input: images})[self._output]
        return {"row": batch["row"], "score": scores.numpy()}


@contextlib.contextmanager
def engine(address, workers):
    """Ray, for the block: the cluster at `address`, or one on this machine that ends with it."""
    logging.disable(logging.WARNING)  # Ray's account of itself; its errors come as exceptions
    if address:
        ray.init(address=address, log_to_driver=False)
        try:
            yield
        finally:
            ray.shutdown()  # leaves the cluster, which goes on
        return
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as logs:  # a short path: sockets
        ray.init(
            num_cpus=max(os.cpu_count() or 1, workers + 1),  # one more lays the images out
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
            _temp_dir=logs,
        )
        try:
            yield
        finally:
            ray.shutdown()


def newest_version(folder):
    """The highest version directory of the digits model, or None."""
    versions = [path for path in (folder / "digits").glob("*") if path.name.isdecimal()]
    return max(versions, key=lambda path: int(path.name), default=None)


def score(arguments, export):
    """The scores of about `CHECKED` rows, by row; every row is scored, counted and timed."""
    ray.data.DataContext.get_current().enable_progress_bars = bool(arguments.output)
    scored = read(arguments.rows, arguments.batch_size).map_batches(
        Scorer,
        fn_constructor_args=(str(export),),
        batch_size=arguments.batch_size,
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
    )
    began, what = time.monotonic(), "scored"
    if arguments.output:
        scored.write_parquet(str(arguments.output.resolve()))  # every worker its part; Ray's bar
        report(arguments.rows, time.monotonic() - began)
        scored, what = ray.data.read_parquet(str(arguments.output.resolve())), "read back"
    every = max(arguments.rows // CHECKED, 1)
    times, chosen, first = np.zeros(arguments.rows, np.int8), {}, None
    with tqdm(total=arguments.rows, desc=what, unit=" rows", unit_scale=True) as bar:
        for batch in scored.iter_batches(batch_size=arguments.batch_size):
            times[batch["row"]] += 1
            keep = batch["row"] % every == 0
            chosen |= zip(batch["row"][keep].tolist(), batch["score"][keep], strict=True)
            bar.update(len(batch["row"]))
            first = first or (len(batch["row"]), time.monotonic())
    if not arguments.output:
        report(arguments.rows, time.monotonic() - began)
        if arguments.rows > first[0]:
            rate = (arguments.rows - first[0]) / (time.monotonic() - first[1])
            print(f"{rate:.0f} rows per second after the first batch, which waited for the workers")
    if not (times == 1).all():
        raise SystemExit(f"batch_inference: expected each row once. Received: {np.unique(times)}")
    return chosen


def report(rows, seconds):
    """Prints the rate, in which the start of the workers counts too."""
    print(f"{rows} rows in {seconds:.1f} s: {rows / seconds:.0f} rows per second", flush=True)


def check(saved, chosen):
    """Stops unless the scores are what the trained model predicts."""
    import tensorflow as tf

    import tf_leaky  # noqa: F401  registers the layer, so that the model loads

    rows, images = np.array(list(chosen)), load_images()
    model = tf.keras.models.load_model(saved)
    expected = model.predict(images[rows % len(images)], verbose=0)
    worst = float(np.abs(np.stack(list(chosen.values())) - expected).max())
    print(f"{len(rows)} of them, compared with model.predict: at most {worst:.1e} apart")
    if not worst <= 1e-5:
        raise SystemExit(f"batch_inference: expected the predictions of {saved}")


def main():
    """Scores, counts and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=SAVED_MODELS, help="of `make demo`")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=1, help="each loads the model once")
    parser.add_argument("--address", help="of a Ray cluster; without it, Ray is started here")
    parser.add_argument("--export", type=Path, help="a version directory, instead of the newest")
    parser.add_argument("--output", type=Path, help="a folder for the scores, as Parquet files")
    arguments = parser.parse_args()
    saved = arguments.folder / "digits.keras"
    export = arguments.export or newest_version(arguments.folder)
    if export is None or not saved.exists():
        parser.error(f"{arguments.folder} has no digits model and export: run `make demo` first")
    print(f"export: {export}; {arguments.rows} rows, {arguments.workers} worker(s)", flush=True)
    with engine(arguments.address, arguments.workers):
        chosen = score(arguments, export.resolve())
    check(saved, chosen)


if __name__ == "__main__":
    main()
