"""Checks the folder and number of a version, and explains errors of the file system."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_leaky.checks import said, shown
from tf_leaky.serving import publishing

_SUBJECT = "export_saved_model"
_PATTERNS = "[]*?" if os.name == "nt" else "[]*?\\"  # TensorFlow reads these as patterns in paths


def checked_base(base_path: Any) -> Path:
    """Returns `base_path` as a Path, or raises an error if it can't be used."""
    received = f"Received: base_path={shown(base_path)}."
    text = _text_of(base_path, received)
    try:
        base = Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{_SUBJECT}: expected base_path to be in a home folder that exists. {received} "
            f"{error} Give the whole path."
        ) from error
    if patterns := sorted(set(_PATTERNS) & set(str(base.absolute()))):
        raise ValueError(
            f"{_SUBJECT}: expected base_path without characters that TensorFlow reads as "
            f"patterns. {received} The whole path is {shown(str(base.absolute()))}, with "
            f"{' '.join(patterns)} in it. Give another folder."
        )
    if os.path.lexists(base) and not base.is_dir():
        what = "a broken link" if base.is_symlink() and not base.exists() else "a file"
        raise FileExistsError(
            f"{_SUBJECT}: expected base_path to be a folder. "
            f"Received: base_path={shown(text)}, which is {what}. Give the folder for the versions."
        )
    return base


def _text_of(base_path: Any, received: str) -> str:
    """Returns `base_path` as text that names a local folder, or raises an error."""
    try:
        text = os.fspath(base_path)
        if not isinstance(text, str):
            raise TypeError
    except Exception as error:  # of any kind: a path may be any object
        raise TypeError(
            f"{_SUBJECT}: expected base_path to be a str or a path. {received} "
            "Give the folder for the versions of this model."
        ) from error
    if not text.strip() or "\0" in text:
        raise ValueError(
            f"{_SUBJECT}: expected base_path to name a folder. {received} "
            "Give the folder for the versions of this model."
        )
    if re.match("[A-Za-z][A-Za-z0-9+.-]+:/", text):  # one slash: pathlib turns two into one
        raise ValueError(
            f"{_SUBJECT}: expected base_path to be a local or mounted folder. {received} "
            "A folder behind a URL can't be renamed atomically, so a server could load half a "
            "version. Export to a local folder, and copy the version from there."
        )
    try:
        os.fsencode(text).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{_SUBJECT}: expected base_path to be UTF-8, as TensorFlow requires. {received} "
            "Give another folder."
        ) from error
    return text


def checked_version(version: Any) -> int | None:
    """Returns `version` as an int or None, or raises an error if it is neither."""
    if version is None:
        return None
    if not isinstance(version, Integral) or isinstance(version, bool):
        raise TypeError(
            f"{_SUBJECT}: expected version to be an integer or None. "
            f"Received: version={shown(version)}. Give None for the next version."
        )
    number = int(version)
    if not 1 <= number <= publishing.MAX_VERSION:
        bound = "above 0" if number < 1 else "below 2**63, as TensorFlow Serving reads it"
        raise ValueError(
            f"{_SUBJECT}: expected version to be {bound}. "
            f"Received: version={shown(version)}. Give None for the next version."
        )
    return number


def check_free(base: Path, version: int | None) -> None:
    """Raises FileExistsError if the version exists."""
    there = {} if version is None else publishing.versions(base)
    if version in there:
        raise FileExistsError(
            f"{_SUBJECT}: expected a version that doesn't exist yet. "
            f"Received: version={shown(version)}, and {str(base / there[version])!r} exists. "
            "Give None for the next version."
        )


@contextlib.contextmanager
def explained(base: Path, version: int | None) -> Iterator[None]:
    """Raises errors of the file system again, with what was expected of `base`."""
    try:
        yield
    except FileExistsError as error:
        check_free(base, version)
        raise _unwritable(FileExistsError, base, error) from error
    except OverflowError as error:
        raise ValueError(
            f"{_SUBJECT}: expected room above the highest version. "
            f"Received: version=None, and {str(base)!r} has version "
            f"{publishing.MAX_VERSION}, the largest that TensorFlow Serving reads. "
            "Give a free version."
        ) from error
    except (OSError, tf.errors.OpError) as error:
        kind = PermissionError if isinstance(error, PermissionError) else OSError
        raise _unwritable(kind, base, error) from error


def _unwritable(kind: type[OSError], base: Path, error: Exception) -> OSError:
    return kind(
        f"{_SUBJECT}: expected base_path to be a folder that can be written, with room for the "
        f"model. Received: base_path={shown(str(base))}, and {said(error)}. Nothing was "
        "published: free some space, or give another folder."
    )
