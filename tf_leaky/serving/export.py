"""`export_saved_model`: writes any Keras model as a checked version for TensorFlow Serving."""

from __future__ import annotations

import contextlib
import functools
import threading
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_leaky import keras_compat
from tf_leaky.checks import check_built_model, check_one_argument, note, shown
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
    """Exports a model for TensorFlow Serving; returns the version directory `base_path/<version>`.

    The version appears whole or not at all, even if the process is killed, and any number of
    threads, processes and hosts may export to one folder. (On Windows, what a killed export left
    behind is removed after a week instead of at the next export. Where renaming onto an existing
    folder can't be refused, as on macOS, an empty folder that appears under that number at the same
    moment is replaced; a version with files never is.)

    It appears only after a check. A fresh process without Keras and tf_leaky loads the export with
    TensorFlow's session loader, as `saved_model_cli run` does, and its answers must equal those of
    `model.predict`, within rtol=1e-4 and atol=1e-5. (If predict uses XLA or a GPU, and the graph
    computes in float16 or a GPU's TF32: within 1e-2 of the value and of the output's largest value;
    in bfloat16, 5e-2.) The inputs are the warm-up requests, else two seeded examples: normal
    numbers for floats (0 and 1, if the model fails on those), zeros for integers, "" for strings,
    and 8 for unknown sizes. If two predictions for one input differ, as when a model samples, only
    dtypes, shapes and finiteness are compared. Layers that count their calls or keep a state count
    these predictions too. Models whose forward pass is compiled with XLA are refused with or
    without the check, since TensorFlow Serving answers each of their requests with an error.

    The signature `serving_default` takes a batch of any size, or the one that a functional model
    requires. Inputs are named after the `Input` layers or dict keys, outputs after their layers
    or the keys of a dict. Characters other than letters, digits, `_`, `-` and `.` become `_`. Names
    of inputs get the prefix `x_` if they are `self` or a Python keyword, or don't begin with a
    letter, a digit or `.`. An Input without a name is `input_0` under Keras 3, and a subclassed
    model's output that isn't in a dict is `output_0`.

    The logger `tf_leaky` warns if a model samples, if its predictions aren't finite, and if inputs
    or outputs are float16 or bfloat16, which TensorFlow Serving's REST API doesn't support.

    Args:
        model: A built Keras model, with or without layers of this package. Of a subclassed model,
            under Keras 3, the inputs are floats, or have the dtypes of `warmup`.
        base_path: The folder for the versions of this model; created if it doesn't exist. `~` is
            the home folder. It must be local or mounted: URLs such as `gs://...` are refused, since
            folders there can't be renamed atomically.
        version: An integer from 1 to 2**63 - 1; None for one above the highest version there.
        warmup: Examples that TensorFlow Serving runs before the version becomes available: an
            array; or for several inputs a dict of arrays by name, or a list in their order. It is
            written as two requests, the first example and the batch of all; as one request, if the
            model takes only one batch size.
        check: Whether to run the model and the export before publishing. Give False for models that
            are too large to run here. Then nothing shows that the export answers, and answers like
            `model.predict`, nor that `warmup` runs, without which a server refuses the version; and
            a batch size that an Input names is kept.

    Returns:
        The path of the new version directory.

    Raises:
        TypeError: If `model` is not a Keras model, `base_path` is not a path, `version` is not an
            integer, or `check` is not True or False.
        ValueError: If the model is not built, or belongs to several workers (load its file outside
            of their strategy); if its inputs are unknown, have no known rank, are sparse or ragged,
            or are several arguments of its `call`; if its forward pass is compiled with XLA; if
            `base_path` is empty, a URL, not UTF-8, or contains one of `[]*?` or (except on Windows)
            a backslash, which TensorFlow reads as patterns; if `version` is out of range; or if
            `warmup` does not fit the inputs.
        ImportError: If `warmup` is given without tensorflow-serving-api.
        FileExistsError: If the version already exists, as it is never overwritten, or if
            `base_path` is not a folder.
        OSError: If the files can't be written, with the reason.
        RuntimeError: If the export fails in the fresh process or answers differently. Nothing is
            published then. An error of `model.predict` is raised unchanged, with a note (before
            Python 3.11, a line in the log) that names the examples.

    Example:
        >>> import tempfile
        >>> import tensorflow as tf
        >>> model = tf.keras.Sequential([tf.keras.Input((4,)), LeakyReLU(0.1)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_saved_model(model, folder).name
        '1'
    """
    check_built_model(model, subject=_SUBJECT)
    check_one_argument(model, subject=_SUBJECT)
    _check_alone(model)
    if not isinstance(check, bool):
        raise TypeError(
            f"{_SUBJECT}: expected check to be True or False. Received: check={shown(check)}. "
            "False skips running the model and the export."
        )
    base = destination.checked_base(base_path)
    number = destination.checked_version(version)
    inputs = _inputs(model, warmup, check)
    specs = {spec.name: spec for spec in tf.nest.flatten(inputs)}
    requests = [] if warmup is None else warmup_requests.requests(warmup, specs)
    explained = functools.partial(destination.explained, base, number)
    with explained():
        destination.check_free(base, number)
    archive = _traced(model, inputs)
    with contextlib.ExitStack() as at_end:
        # Only errors of the steps that write are explained: the model may raise its own.
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
            tried = [[checking.examples(inputs, whole=each)] for each in (False, True)]
            if requests:
                tried = [warmup_requests.read(written)]
            tolerance = comparing.tolerance(model, nodes)
            _check(model, inputs, tried, written, tolerance, explained)
        with explained():
            return publishing.publish(written, base, number)


def _traced(model: Any, inputs: Any) -> Any:
    """Returns the archive to be written. Errors of the model get a note on what it was called."""
    try:
        with _KERAS:
            return signatures.traced(model, inputs)
    except Exception as error:
        if not keras_compat.records_dtypes(model):
            note(
                error,
                f"{_SUBJECT}: the error above is of {model.name!r}, called in a graph on "
                f"{shown(inputs)}. Keras recorded no dtypes. If these are wrong, give examples as "
                "warmup.",
            )
        raise


def _check(
    model: Any, inputs: Any, tried: Any, written: Path, tolerance: float, explained: Any
) -> None:
    """Raises RuntimeError unless the export answers as `model.predict` does.

    They are compared on the first of the lists of requests in `tried` that the model accepts.
    """

    def predict(requests: Any) -> Any:
        with _KERAS:
            return checking.predictions(model, inputs, requests)

    errors = []
    for requests in tried:
        try:
            expected = predict(requests)
            break
        except Exception as error:  # of any kind: it is the model that is called
            errors.append(error)
    else:
        raise errors[0]
    with explained():
        answers = checking.answers(model, written, requests, written.parent)
    comparing.compare(model, tolerance, expected, answers, lambda: predict(requests))


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
    """Returns the tf.TensorSpecs of the model's inputs, in their structure."""
    inputs = signatures.inputs_of(model, subject=_SUBJECT)
    specs = tf.nest.flatten(inputs)
    dtypes = {}
    if warmup is not None and not keras_compat.records_dtypes(model):
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
