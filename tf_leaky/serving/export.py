"""Any Keras model as a version directory that TensorFlow Serving can be trusted with."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_leaky import keras_compat
from tf_leaky.checks import check_built_model, said, shown
from tf_leaky.serving import checking, publishing, signatures
from tf_leaky.serving import warmup as warmup_requests

_KERAS = threading.Lock()  # a model may be called and traced by one thread at a time
_SUBJECT = "export_saved_model"


def export_saved_model(
    model: Any, base_path: Any, *, version: int | None = None, warmup: Any = None
) -> Path:
    """Returns the version directory `base_path/<version>` that it writes for TensorFlow Serving.

    The version appears whole or not at all, even if the process is killed, and any number of
    threads, processes and hosts may export to one folder. It appears only when a process without
    Python TensorFlow has loaded it by TensorFlow's C API, the loader of TensorFlow Serving, and its
    answers equal those of `model.predict` within rtol=1e-4 and atol=1e-5. (Where predict is by XLA
    or on a GPU, and the graph computes in float16 or a GPU's TF32: within 1e-2 of the value and of
    the output's largest one; in bfloat16, 5e-2.) The questions are the warm-up
    requests, else two seeded normal examples, with zeros for integers, "" for strings and 8 for
    unknown sizes. If predictions for one input differ, as those of a model that samples, then only
    what all of them share is compared: dtypes, finiteness, and shapes. That, and predictions that
    aren't finite, is logged to `tf_leaky`. Layers that count their calls or keep a state count
    these predictions too.

    The signature `serving_default` takes a batch of any size, or the one of a functional model that
    takes no other. Its inputs are named as the `Input`s or the keys of a dict, its outputs as the
    layers they are of or the keys of a dict; characters other than letters, digits, `_`, `-` and
    `.` become `_`, and inputs whose names begin with another than a letter, a digit or `.` begin
    with `x_`, as does `self`. An Input without a name is `input_0` under Keras 3, and a subclassed
    model's output that isn't in a dict is `output_0`.

    Args:
        model: A built Keras model, with layers of this package or without. A subclassed one has to
            be called once; under Keras 3 its inputs are floats, or of the dtypes of `warmup`.
        base_path: The folder that holds the versions of this model; made if it isn't there, with
            `~` as the home folder. It must be local or mounted: URLs such as `gs://...` are
            refused, since no rename there is atomic.
        version: An integer from 1 to 2**63 - 1; None for one above the highest version there.
        warmup: Examples that TensorFlow Serving runs before it calls the version available: an
            array; or for several inputs a dict of arrays by name, or a list in their order. It is
            written as two requests, the first example and the batch of them all; as one, where the
            model takes but one batch size.

    Returns:
        The path of the new version directory.

    Raises:
        TypeError: If `model` is not a Keras model, `base_path` no path or `version` no integer.
        ValueError: If the model is not built, or belongs to several workers (load its file outside
            of their strategy); its inputs are not known, have no known rank, or are sparse or
            ragged; its forward pass is compiled by XLA; `base_path` is empty, a URL, not UTF-8 or
            has a backslash or one of `[]*?` in it, which TensorFlow takes for patterns; `version`
            is out of range; or `warmup` does not fit the inputs.
        ImportError: If `warmup` is given without tensorflow-serving-api.
        FileExistsError: If the version is already there, which is never overwritten, or `base_path`
            is no folder.
        OSError: If the files can't be written, with the reason.
        RuntimeError: If `model.predict` fails on the examples, or the export fails in the other
            process or answers otherwise. Nothing is published.

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
    base, number = _checked_base(base_path), _checked_version(version)
    inputs = _inputs(model, warmup)
    specs = {spec.name: spec for spec in tf.nest.flatten(inputs)}
    requests = [] if warmup is None else warmup_requests.requests(warmup, specs)
    with _explained(base, number):
        _check_free(base, number)
    with _KERAS:
        archive = signatures.traced(model, inputs)  # where the model's own errors come from
    with _explained(base, number):
        return _publish(model, archive, base, number, inputs, requests)


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


def _inputs(model: Any, warmup: Any) -> Any:
    """The tf.TensorSpecs of what the model takes, in its structure."""
    inputs = signatures.inputs_of(model, subject=_SUBJECT)
    specs = tf.nest.flatten(inputs)
    dtypes = {}
    if warmup is not None and not signatures.records_dtypes(model):
        dtypes = warmup_requests.dtypes(warmup, {spec.name: spec for spec in specs})
    batch = signatures.fixed_batch(model)
    if batch is not None:
        try:
            with _KERAS:
                checking.predictions(model, inputs, [checking.examples(inputs, batch=batch + 1)])
        except RuntimeError:
            pass
        else:
            batch = None  # it takes any
    specs = [
        tf.TensorSpec([batch, *spec.shape[1:]], dtypes.get(spec.name, spec.dtype), spec.name)
        for spec in specs
    ]
    return tf.nest.pack_sequence_as(inputs, specs)


def _publish(
    model: Any, archive: Any, base: Path, number: int | None, inputs: Any, requests: Any
) -> Path:
    """Writes, checks and publishes the version."""
    with publishing.draft(base) as draft:
        written = draft / "model"
        with _KERAS:
            keras_compat.write(archive, written)
        if requests:
            specs = {spec.name: spec for spec in tf.nest.flatten(inputs)}
            warmup_requests.write(requests, specs, written, model_name=base.name)
            requests = warmup_requests.read(written)
        requests = requests or [checking.examples(inputs)]

        def predict(requests: Any) -> Any:
            with _KERAS:
                return checking.predictions(model, inputs, requests)

        checking.check(model, written, requests, predict, scratch=draft)
        return publishing.publish(written, base, number)


def _checked_base(base_path: Any) -> Path:
    """`base_path` as a Path, or what is wrong with it."""
    received = f"Received: base_path={shown(base_path)}."
    try:
        text = os.fspath(base_path)
        if not isinstance(text, str):
            raise TypeError
    except Exception as error:  # of any kind: a path may be any object that says it is one
        raise TypeError(
            f"{_SUBJECT}: expected base_path to be a str or a path. {received} "
            "Give the folder that holds the versions of this model."
        ) from error
    if not text.strip() or "\0" in text:
        raise ValueError(
            f"{_SUBJECT}: expected base_path to name a folder. {received} "
            "Give the folder that holds the versions of this model."
        )
    if re.match("[A-Za-z][A-Za-z0-9+.-]+:/", text):  # pathlib makes one slash of two
        raise ValueError(
            f"{_SUBJECT}: expected base_path to be a local or mounted folder. {received} "
            "Nothing is renamed atomically behind a URL, so that a server could load half a "
            "version: export to a folder, and copy the version to a name that isn't a number first."
        )
    try:
        os.fsencode(text).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{_SUBJECT}: expected base_path to be UTF-8, as TensorFlow takes paths. {received} "
            "Give another folder."
        ) from error
    try:
        base = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{_SUBJECT}: expected base_path to be in a home folder that is there. {received} "
            f"{error} Give the whole path."
        ) from error
    if patterns := sorted(set("[]*?\\") & set(str(base.absolute()))):
        raise ValueError(
            f"{_SUBJECT}: expected base_path without characters that TensorFlow takes for a "
            f"pattern. {received} It is {shown(str(base.absolute()))}, with "
            f"{' '.join(patterns)} in it. Give another folder."
        )
    if os.path.lexists(base) and not base.is_dir():
        what = "a link to nothing" if base.is_symlink() and not base.exists() else "a file"
        raise FileExistsError(
            f"{_SUBJECT}: expected base_path to be a folder. "
            f"Received: base_path={shown(text)}, which is {what}. Give the folder of the versions."
        )
    return base


def _checked_version(version: Any) -> int | None:
    if version is None:
        return None
    if not isinstance(version, Integral) or isinstance(version, bool):
        raise TypeError(
            f"{_SUBJECT}: expected version to be an integer or None. "
            f"Received: version={shown(version)}. None takes the next one."
        )
    number = int(version)
    if not 1 <= number <= publishing.MAX_VERSION:
        bound = "above 0" if number < 1 else "below 2**63, as TensorFlow Serving holds it"
        raise ValueError(
            f"{_SUBJECT}: expected version to be {bound}. "
            f"Received: version={shown(version)}. None takes the next one."
        )
    return number


def _check_free(base: Path, version: int | None) -> None:
    name = None if version is None else publishing.taken(base, version)
    if name is not None:
        raise FileExistsError(
            f"{_SUBJECT}: expected a version that is not there yet. "
            f"Received: version={shown(version)}, and {str(base / name)!r} exists. "
            "None takes the next one."
        )


@contextlib.contextmanager
def _explained(base: Path, version: int | None) -> Iterator[None]:
    """Has errors of the file system say what was expected of `base`."""
    try:
        yield
    except FileExistsError as error:
        _check_free(base, version)
        raise _unwritable(FileExistsError, base, error) from error
    except OverflowError as error:
        raise ValueError(
            f"{_SUBJECT}: expected room above the highest version. "
            f"Received: version=None, and {str(base)!r} holds version "
            f"{publishing.MAX_VERSION}, the last one of TensorFlow Serving. "
            "Give a version that is free."
        ) from error
    except (OSError, tf.errors.OpError) as error:
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise _unwritable(kind, base, error) from error


def _unwritable(kind: type[OSError], base: Path, error: Exception) -> OSError:
    return kind(
        f"{_SUBJECT}: expected base_path to be a folder that can be written, with room for the "
        f"model. Received: base_path={shown(str(base))}, and {said(error)}. Nothing was "
        "published: make room, or give another folder."
    )
