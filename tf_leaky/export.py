"""Any Keras model as a directory that TensorFlow Serving serves."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from tf_leaky import keras_compat


def export_saved_model(model: Any, base_path: Any, *, version: int | None = None) -> Path:
    """Returns the version directory `base_path/<version>` that it writes for TensorFlow Serving.

    The model is written under a name that TensorFlow Serving ignores, and renamed when it is
    complete, so that a server which polls `base_path` never sees half a version. Export from one
    thread of a process at a time: the name carries the process, not the thread.

    Args:
        model: A built Keras model, with layers of this package or without.
        base_path: The folder that holds the versions of this model; made if it isn't there.
        version: A positive integer; None for one above the highest version there, or 1.

    Returns:
        The path of the new version directory.

    Raises:
        TypeError: If `model` is not a Keras model, or `version` not an integer.
        ValueError: If the model is not built, or `version` is not above 0.
        FileExistsError: If the version is already there, which is never overwritten, or `base_path`
            is a file.

    Example:
        >>> import tempfile
        >>> import tensorflow as tf
        >>> model = tf.keras.Sequential([tf.keras.Input((4,)), LeakyReLU(0.1)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_saved_model(model, folder).name
        '1'
    """
    keras_compat.check_built_model(model, subject="export_saved_model")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise TypeError(
            "export_saved_model: expected version to be an integer or None. "
            f"Received: version={version!r}. None takes the next one."
        )
    if version is not None and version < 1:
        raise ValueError(
            "export_saved_model: expected version to be above 0. "
            f"Received: version={version!r}. None takes the next one."
        )
    base = Path(base_path)
    if base.exists() and not base.is_dir():
        raise FileExistsError(
            "export_saved_model: expected base_path to be a folder. "
            f"Received: base_path={str(base)!r}, which is a file. Give the folder of the versions."
        )
    target = base / str(_next_version(base) if version is None else version)
    if target.exists():
        raise FileExistsError(
            "export_saved_model: expected a version that is not there yet. "
            f"Received: version={version!r}, and {str(target)!r} exists. None takes the next one."
        )
    base.mkdir(parents=True, exist_ok=True)
    draft = base / f".exporting-{target.name}-{os.getpid()}"
    try:
        keras_compat.export(model, draft)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _next_version(base: Path) -> int:
    names = [path.name for path in base.iterdir()] if base.is_dir() else []
    return 1 + max((int(name) for name in names if re.fullmatch("[0-9]+", name)), default=0)
