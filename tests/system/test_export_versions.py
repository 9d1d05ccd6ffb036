"""Versions appear whole or not at all: under SIGKILL, and in many threads and processes."""

import ctypes
import errno
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import exporter
import numpy as np
import pytest
from conftest import SLOW_UNDER_TF_KERAS, run_python

from tf_leaky import export_saved_model
from tf_leaky.serving import publishing, running

EXPORTER = Path(exporter.__file__)
QUICK = functools.partial(pytest.param, marks=SLOW_UNDER_TF_KERAS)


def number_of(version):
    """The number of the model that a version holds, as a server would see it."""
    with running.SavedModel(version) as model:
        return round(float(model.run({"x": np.ones((1, 1))})["y"].item()))


def drafts(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".exporting-")]


def poll(folder, done, seen):
    """Loads every version as soon as it can see it, as TensorFlow Serving does."""
    while not done.wait(0.002):
        for path in list(folder.iterdir()):
            if path.name not in seen and not path.name.startswith(".exporting-"):
                try:
                    seen[path.name] = number_of(path)
                except Exception as error:
                    seen[path.name] = error


@pytest.mark.parametrize("count", [QUICK(3), pytest.param(200, marks=pytest.mark.slow)])
def test_killed_exports_leave_no_torn_version(count, tmp_path):
    """Kills exports while a poller looks on; then exports once more."""
    done, seen = threading.Event(), {}
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(poll, tmp_path, done, seen)
        try:
            ended = run_python(EXPORTER, tmp_path, "kill", count, 5)
        finally:
            done.set()
        polled.result()
    assert ended.stdout.splitlines().count("killed") == count
    assert set(seen.values()) <= {7}
    assert len(seen) >= count // 10
    last = export_saved_model(exporter.numbered(7), tmp_path)
    assert drafts(tmp_path) == []
    names = sorted(int(path.name) for path in tmp_path.iterdir())
    assert names == list(range(1, int(last.name) + 1))
    assert {number_of(tmp_path / str(name)) for name in names} == {7}


@pytest.mark.parametrize(
    ("processes", "threads", "here"),
    [QUICK(2, 1, 3), pytest.param(3, 4, 8, marks=pytest.mark.slow)],
)
def test_exports_at_once_are_as_many_versions(processes, threads, here, tmp_path, in_this_process):
    """Numbered models, by `threads` of each of `processes`, and by those `here`."""
    first = processes * threads
    numbers = range(first, first + here)
    with ThreadPoolExecutor(1 + here) as pool:
        child = pool.submit(run_python, EXPORTER, tmp_path, "once", processes, threads)
        while not list(tmp_path.iterdir()) and not child.done():
            time.sleep(0.05)  # for the others to be ready
        mine = pool.map(lambda n: export_saved_model(exporter.numbered(n), tmp_path).name, numbers)
        found = dict(zip(mine, numbers, strict=True))
    found |= {name: int(n) for name, n in map(str.split, child.result().stdout.splitlines())}
    assert sorted(map(int, found)) == list(range(1, first + here + 1))
    assert sorted(found.values()) == list(range(first + here))
    assert {path.name for path in tmp_path.iterdir()} == found.keys()
    assert {name: number_of(tmp_path / name) for name in found} == found


def test_draft_of_a_live_process_is_kept_and_of_a_dead_one_removed(tmp_path):
    code = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import publishing\n"
        "with publishing.draft(pathlib.Path(sys.argv[2])) as draft:\n"
        "    (draft / 'half').write_text('written'); print(draft, flush=True); sys.stdin.read()"
    )
    package = Path(publishing.__file__).parent  # without TensorFlow, which `import tf_leaky` brings
    command = [sys.executable, "-c", code, package, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(command, **pipes, text=True) as child,
        publishing.draft(tmp_path) as mine,
    ):
        theirs = Path(child.stdout.readline().strip())
        os.utime(mine, (0, 0))  # held, and so live however old it is
        with publishing.draft(tmp_path) as other:
            assert set(drafts(tmp_path)) == {theirs, mine, other}
        assert set(drafts(tmp_path)) == {theirs, mine}
        child.kill()
        child.wait()
        assert (theirs / "half").exists()
        with publishing.draft(tmp_path) as other:
            assert set(drafts(tmp_path)) == {mine, other}
    assert drafts(tmp_path) == []


def test_draft_of_a_host_of_any_name_is_cleaned_and_leaves_no_file_open(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing.socket, "gethostname", lambda: "a-b.example/c")
    stale(tmp_path, publishing._host(), 1)
    with publishing.draft(tmp_path) as folder:
        assert folder.name.startswith(f".exporting-a_b.example_c-{os.getpid()}-")
        assert drafts(tmp_path) == [folder]
        with publishing.draft(tmp_path):  # which finds the other's lock held
            pass
        (folder / "made").mkdir()
        publishing.publish(folder / "made", tmp_path, None)
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert not [path for path in links if path.is_relative_to(tmp_path)]


def stale(folder, host, days):
    path = folder / f".exporting-{host}-1-abc"
    path.mkdir()
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("locks", ["held", "none", "Windows"])
def test_draft_of_another_host_is_kept_for_a_week(locks, tmp_path, monkeypatch):
    """And, on a file system or a system without locks, those of this one."""

    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if locks == "Windows":  # has no fcntl
        monkeypatch.setitem(sys.modules, "fcntl", None)
    elif locks == "none":
        monkeypatch.setattr("fcntl.flock", fail)
    young, old = stale(tmp_path, "elsewhere", 6.9), stale(tmp_path, "elsewhere-2", 7.1)
    mine = stale(tmp_path, publishing._host(), 1)
    foreign = tmp_path / ".exporting-notes"
    foreign.mkdir()
    with publishing.draft(tmp_path) as folder:
        assert set(drafts(tmp_path)) - {mine} == {young, foreign, folder}
        assert mine.exists() == (locks != "held")
    assert not old.exists()


@pytest.mark.parametrize("cleaned", ["before it is locked", "while it is locked", "and replaced"])
def test_draft_that_another_process_removes_is_made_again(cleaned, tmp_path, monkeypatch):
    flock, made = fcntl.flock, []

    def lose(file, operation):
        folder = Path(f"/proc/self/fd/{file}").readlink().parent
        made.append(folder)
        if len(made) == 1 and cleaned == "while it is locked":
            raise BlockingIOError(errno.EWOULDBLOCK, "held")
        if len(made) == 1:
            shutil.rmtree(folder)
        if len(made) == 1 and cleaned == "and replaced":
            folder.mkdir()
            (folder / "lock").write_text("another's")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lose)
    with publishing.draft(tmp_path) as folder:
        assert (len(made), folder) == (2, made[-1])


def without(*_, **__):
    """The C library of a system without RENAME_NOREPLACE."""
    return types.SimpleNamespace()


def refuses(*_, **__):
    """One that has it, on a file system that hasn't."""
    return types.SimpleNamespace(renameat2=lambda *_: ctypes.set_errno(errno.EINVAL) or -1)


@pytest.mark.parametrize("library", [ctypes.CDLL, without, refuses])
def test_rename_never_replaces(library, tmp_path, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", library)
    made = tmp_path / "made"
    made.mkdir()
    (made / "file").write_text("new")
    empty, file, dangling = (tmp_path / name for name in ("empty", "file", "dangling"))
    empty.mkdir()
    file.write_text("")
    dangling.symlink_to("nowhere")
    for target in (empty, file, dangling):
        with pytest.raises(FileExistsError):
            publishing._rename_to_new(made, target)
    monkeypatch.chdir(tmp_path)
    publishing._rename_to_new(Path("made"), Path("free"))  # as `base_path` may be relative
    assert (tmp_path / "free" / "file").read_text() == "new"
    assert list(empty.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        publishing._rename_to_new(tmp_path / "missing", tmp_path / "other")


def test_next_version_is_taken_when_another_export_was_faster(tmp_path, monkeypatch):
    rename = publishing._rename_to_new

    def lose(folder, target):
        if target.name in ("1", "2"):
            target.mkdir()
        rename(folder, target)

    monkeypatch.setattr(publishing, "_rename_to_new", lose)
    (tmp_path / "made").mkdir()
    assert publishing.publish(tmp_path / "made", tmp_path, None) == tmp_path / "3"


def test_sync_is_done_where_it_can_be(tmp_path, monkeypatch):
    """Some network folders can't."""

    def fsync(file):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    code = errno.EINVAL
    publishing._sync_tree(tmp_path)
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        publishing._sync_tree(tmp_path)
