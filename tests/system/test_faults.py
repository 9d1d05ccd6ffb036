"""A training that is killed goes on to the same bits."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np


def train(folder, *moment):
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("training.py")
    command = [sys.executable, script, folder, *map(str, moment)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if moment else 0), done.stderr[-3000:]


def test_training_that_is_killed_ends_with_the_bits_of_one_that_is_not(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "killed", 2, 3)
    assert not (tmp_path / "killed" / "final.npz").exists()
    train(tmp_path / "killed")
    paths = [tmp_path / "whole" / "final.npz", tmp_path / "killed" / "final.npz"]
    paths += [tmp_path / "whole" / "restored.npz", tmp_path / "killed" / "restored.npz"]
    whole, killed, initial, restored = map(np.load, paths)
    for (name, expected), found in zip(whole.items(), killed.values(), strict=True):
        assert found.tobytes() == expected.tobytes(), name
    for name in initial:  # learned before the kill, and not made anew after it
        if "alpha" in name:
            assert (initial[name] != restored[name]).any(), name
    assert sum("alpha" in name for name in initial) >= 3
