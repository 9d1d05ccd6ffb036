"""Writes version directories that appear whole or not at all to a server that polls their folder.

A version is written into a draft: a folder beside the versions, so on the same file system, whose
name no server reads as a version. The name contains the host and the process. A lock on a file in
the draft, which the system releases when the process ends in any way, tells a live draft from a
stale one. A process identifier alone would not, as it is reused, and means nothing in another
container. Without locks, as on Windows, drafts are stale after a week.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MAX_VERSION = 2**63 - 1  # TensorFlow Serving reads versions as int64
_VERSION = re.compile(r"\s*\+?[0-9]+\s*")  # what it reads as a version: `0012` is version 12
_DRAFT = re.compile(r"\.exporting-(?P<host>.+)-[0-9]+-[^-]+")
_WEEK = 7 * 24 * 3600  # seconds
_RENAME_NOREPLACE, _AT_FDCWD = 1, -100  # linux/fs.h and linux/fcntl.h


@contextlib.contextmanager
def draft(base: Path) -> Iterator[Path]:
    """Yields a new folder in `base`, and removes it at the end; first removes stale drafts.

    Drafts of live processes are never removed; nor, for a week, are those of other hosts, whose
    locks some network file systems don't show.
    """
    base.mkdir(parents=True, exist_ok=True)
    _remove_stale(base)
    folder, lock = _new_draft(base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _new_draft(base: Path) -> tuple[Path, int | None]:
    while True:
        prefix = f".exporting-{_host()}-{os.getpid()}-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        try:
            return folder, _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # removed as stale before it was locked
            continue


def _host() -> str:
    return re.sub("[^A-Za-z0-9.]", "_", socket.gethostname())


def _lock(folder: Path) -> int | None:
    """Returns an open file that locks a draft, or None if there are no locks.

    Raises:
        BlockingIOError: If any process or thread has the lock.
        FileNotFoundError: If the draft is removed meanwhile.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        return None
    path = folder / "lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file), path.stat()):
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", str(path))
    except OSError as error:
        os.close(file)
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise
    return file


def _remove_stale(base: Path) -> None:
    for folder in base.glob(".exporting-*"):
        parts = _DRAFT.fullmatch(folder.name)
        with contextlib.suppress(OSError):  # locked, gone, or another user's
            old = parts is not None and time.time() - folder.stat().st_mtime > _WEEK
            if parts is not None and (old or parts["host"] == _host()):
                lock = _lock(folder)
                if old or lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                if lock is not None:
                    os.close(lock)


def publish(folder: Path, base: Path, version: int | None) -> Path:
    """Renames `folder`, once it is on the disk, to a version that doesn't exist yet.

    Args:
        folder: The complete version, on the file system of `base`.
        base: The folder of the versions.
        version: Its number, or None for one above the highest.

    Returns:
        The path of the version.

    Raises:
        FileExistsError: If `version` exists, also as an empty folder, or under a name like `0012`.
        OverflowError: If there is no higher version.
    """
    _sync_tree(folder)
    while True:
        there = versions(base)
        number = 1 + max(there, default=0) if version is None else version
        if number > MAX_VERSION:
            raise OverflowError(number)
        target = base / str(number)
        try:
            if number in there:
                raise FileExistsError(errno.EEXIST, "exists", there[number])
            _rename_to_new(folder, target)
        except FileExistsError:
            if version is not None:
                raise
        else:
            _sync(base)
            return target


def versions(base: Path) -> dict[int, str]:
    """Returns the names in `base` that a server reads as versions, by their numbers."""
    names = [path.name for path in base.iterdir()] if base.is_dir() else []
    numbers = {int(name): name for name in names if _VERSION.fullmatch(name)}
    return {number: name for number, name in numbers.items() if number <= MAX_VERSION}


def _rename_to_new(folder: Path, target: Path) -> None:
    """Renames a folder, or raises FileExistsError; a plain rename would replace an empty folder."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError):  # on macOS and Windows
        code = errno.ENOSYS
    else:
        paths = os.fsencode(folder), os.fsencode(target)
        if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):  # from a system or file system without it
        raise OSError(code, os.strerror(code), str(target))
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise


def _sync_tree(folder: Path) -> None:
    """Writes a folder, and every file and folder in it, to the disk."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(root, name))
        _sync(Path(root))


def _sync(path: Path) -> None:
    folder = path.is_dir()
    if folder and os.name == "nt":  # Windows opens no folder, and syncs only files open for writing
        return
    file = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some network folders can't
            raise
    finally:
        os.close(file)
