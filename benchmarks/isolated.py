"""Processes of their own for what one process can't measure twice, and their memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(module: str, *arguments: Any, **environment: str) -> Any:
    """What `python -m benchmarks.MODULE ARGUMENTS` prints last, which is JSON."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        raise RuntimeError(f"{module}, {arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> float:
    """MiB of resident memory at most, of this program, or of the GPU's memory where there is one.

    Not `resource.ru_maxrss`: on Linux that of the process that started this one counts in it.
    """
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) / 2**20
    return _mebibytes("VmHWM")


def resident() -> float:
    """MiB of resident memory in use now."""
    return _mebibytes("VmRSS")


def _mebibytes(name: str) -> float:
    (line,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024
