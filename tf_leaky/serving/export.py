"""Any Keras model as a version directory that TensorFlow Serving can be trusted with."""

from __future__ import annotations

import contextlib
import functools
import threading
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_leaky import keras_compat
from tf_leaky.checks import check_built_model, shown
from tf_leaky.serving import checking, comparing, destination, publishing, signatures
from tf_leaky.serving import warmup as warmup_requests

_KERAS = threading.Lock()  # a model may be called and traced by one thread at a time
_SUBJECT = "export_saved_model"


def export_saved_model(
    model: Any,
    base_path: Any,
    *,
    version: int | None = None,
    warmup: Any = None,
    check: bool = True,
) -> Path:
    """Returns the version directory `base_path/<version>` that it writes for TensorFlow Serving.

    The version appears whole or not at all, even if the process is killed, and any number of
    threads, processes and hosts may export to one folder. (On Windows, what a killed export left
    is removed after a week instead of at the next export. Where the system can't refuse to rename
    onto an existing folder, as macOS, an empty folder that appears under that number at the very
    moment is replaced; a version with files never is.)

    It appears only after a check: a fresh process without Keras and tf_leaky loads the export with
    TensorFlow's session loader, as `saved_model_cli run` does, and its answers have to equal those
    of `model.predict`, within rtol=1e-4 and atol=1e-5. (Where predict uses XLA or a GPU, and the
    graph computes in float16 or a GPU's TF32: within 1e-2 of the value and of the output's largest
    one; in bfloat16, 5e-2.) The inputs are the warm-up requests, else two seeded examples: normal
    numbers for floats, zeros for integers, "" for strings, and 8 for unknown sizes. If two
    predictions for one input differ, as those of a model that samples, only dtypes, shapes and
    finiteness are compared. Layers that count their calls or keep a state count these predictions
    too. Models whose forward pass has to be compiled with XLA are refused with or without the
    check, since TensorFlow Serving answers each of their requests with an error.

    The signature `serving_default` takes a batch of any size, or the one that a functional model
    requires. Inputs are named after the `Input` layers or the keys of a dict, outputs after the
    layers they come from or the keys of a dict. Characters other than letters, digits, `_`, `-` and
    `.` become `_`. Inputs named `self` or as a keyword of Python, or whose names begin with another
    character than a letter, a digit or `.`, get the prefix `x_`. An Input without a name is
    `input_0` under Keras 3, and a subclassed model's output that isn't in a dict is `output_0`.

    The logger `tf_leaky` warns where a model samples, where its predictions aren't finite, and
    where inputs or outputs are float16 or bfloat16, which can't travel over TensorFlow Serving's
    REST API.

    Args:
        model: A built Keras model, with layers of this package or without. A subclassed one has to
            be called once; under Keras 3 its inputs are floats, or of the dtypes of `warmup`.
        base_path: The folder that holds the versions of this model; made if it isn't there, with
            `~` as the home folder. It must be local or mounted: URLs such as `gs://...` are
            refused, since folders there can't be renamed atomically.
        version: An integer from 1 to 2**63 - 1; None for one above the highest version there.
        warmup: Examples that TensorFlow Serving runs before it calls the version available: an
            array; or for several inputs a dict of arrays by name, or a list in their order. It is
            written as two requests, the first example and the batch of them all; as one, where the
            model takes only one batch size.
        check: Whether to run the model and the export before publishing. With False, for models
            that are too large to run here, neither runs: that the export answers at all, and that
            it answers as `model.predict` does, is then not known, nor that `warmup` runs, without
            which a server refuses the version; and a batch size that an Input names is kept.

    Returns:
        The path of the new version directory.

    Raises:
        TypeError: If `model` is not a Keras model, `base_path` no path, `version` no integer or
            `check` not True or False.
        ValueError: If the model is not built, or belongs to several workers (load its file outside
            of their strategy); its inputs are not known, have no known rank, or are sparse or
            ragged; its forward pass is compiled with XLA; `base_path` is empty, a URL, not UTF-8 or
            has one of `[]*?` or (except on Windows) a backslash in it, which TensorFlow takes for
            patterns; `version` is out of range; or `warmup` does not fit the inputs.
        ImportError: If `warmup` is given without tensorflow-serving-api.
        FileExistsError: If the version is already there, which is never overwritten, or `base_path`
            is no folder.
        OSError: If the files can't be written, with the reason.
        RuntimeError: If the export fails in the fresh process or answers differently. Nothing is
            published. An error of `model.predict` is raised as it is, with a note (before
            Python 3.11, a line in the log) that says on which examples.

    Example:
        >>> import tempfile
        >>> import tensorflow as tf
        >>> model = tf.keras.Sequential([tf.keras.Input((4,)), LeakyReLU(0.1)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_saved_model(model, folder).name
        '1'
    """
    check_built_model(model, subject=_SUBJECT)
    _check_alone(model)
    if not isinstance(check, bool):
        raise TypeError(
            f"{_SUBJECT}: expected check to be True or False. Received: check={shown(check)}. "
            "False skips the run of the model and of the export."
        )
    base = destination.checked_base(base_path)
    number = destination.checked_version(version)
    inputs = _inputs(model, warmup, check)
    specs = {spec.name: spec for spec in tf.nest.flatten(inputs)}
    requests = [] if warmup is None else warmup_requests.requests(warmup, specs)
    explained = functools.partial(destination.explained, base, number)
    with explained():
        destination.check_free(base, number)
    with _KERAS:
        archive = signatures.traced(model, inputs)
    with contextlib.ExitStack() as at_end:
        # Only the steps that write are explained as errors of the disk: the model has its own.
        with explained():
            draft = at_end.enter_context(publishing.draft(base))
            written = draft / "model"
            with _KERAS:
                keras_compat.write(archive, written)
            if requests:
                warmup_requests.write(requests, specs, written, model_name=base.name)
        found = checking.meta_graph(written)
        nodes = checking.forward_nodes(model, found.graph_def)
        checking.log_half_precision(model, found.signature_def["serving_default"])
        if check:
            requests = warmup_requests.read(written) if requests else [checking.examples(inputs)]
            tolerance = comparing.tolerance(model, nodes)
            _check(model, inputs, requests, written, tolerance, explained)
        with explained():
            return publishing.publish(written, base, number)


def _check(
    model: Any, inputs: Any, requests: Any, written: Path, tolerance: float, explained: Any
) -> None:
    """Raises RuntimeError unless the export answers the requests as `model.predict` does."""

    def predict() -> Any:
        with _KERAS:
            return checking.predictions(model, inputs, requests)

    expected = predict()
    with explained():
        answers = checking.answers(model, written, requests, written.parent)
    comparing.compare(model, tolerance, expected, answers, predict)


def _check_alone(model: Any) -> None:
    """Raises ValueError for a model that predicts only when several processes do so at once."""
    strategy = getattr(model, "distribute_strategy", None)
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return
    cluster = strategy.cluster_resolver.cluster_spec()
    workers = sum(cluster.num_tasks(job) for job in cluster.jobs)
    if workers > 1:
        raise ValueError(
            f"{_SUBJECT}: expected a model that this process can run by itself. Received: "
            f"model={model.name!r}, made under MultiWorkerMirroredStrategy with {workers} workers. "
            "Save it, load the file outside of the strategy, and export that."
        )


def _inputs(model: Any, warmup: Any, check: bool) -> Any:
    """The tf.TensorSpecs of what the model takes, in its structure."""
    inputs = signatures.inputs_of(model, subject=_SUBJECT)
    specs = tf.nest.flatten(inputs)
    dtypes = {}
    if warmup is not None and not signatures.records_dtypes(model):
        dtypes = warmup_requests.dtypes(warmup, {spec.name: spec for spec in specs})
    batch = signatures.fixed_batch(model)
    if batch is not None and check and _takes(model, inputs, batch + 1):
        batch = None  # it takes any
    specs = [
        tf.TensorSpec([batch, *spec.shape[1:]], dtypes.get(spec.name, spec.dtype), spec.name)
        for spec in specs
    ]
    return tf.nest.pack_sequence_as(inputs, specs)


def _takes(model: Any, inputs: Any, batch: int) -> bool:
    try:
        with _KERAS:
            signatures.predict(model, inputs, checking.examples(inputs, batch=batch))
    except Exception:  # of any kind: it is the model that refuses
        return False
    return True
