"""The largest batch that trains where memory is limited: each trial in a process of its own.

20 times (Conv2D of 32 channels, 3 x 3, then the activation) on images of 64 x 64 x 32. The process
takes one step on one image, then limits its address space to what it has by now and 1 GiB more, and
takes a step on the batch: it succeeds, or there is no memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.nets import compiled_net, images
from benchmarks.tables import table

OURS = ("ours, fixed", "ours, one slope", "ours, per channel")
PEERS = ("Keras LeakyReLU", "Keras PReLU, per channel")
SIDE = 64
BUDGET = 1 << 30  # bytes
LIMIT = 256  # images


def measure(*, progress: Any) -> dict[str, Any]:
    """The largest batch of each net, in images, and the ratios of ours to the peers'."""
    images = {}
    for name in ("Keras ReLU", *OURS, *PEERS):
        progress.start(f"Largest batch in 1 GiB, {name}", LIMIT.bit_length() - 1)
        images[name] = largest(lambda size, name=name: _trains(name, size), progress.step)
    ratios = {mine: {f"/ {peer}": images[mine] / images[peer] for peer in PEERS} for mine in OURS}
    return {"images": images, "ratios": ratios}


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    images = {name: {"images": count} for name, count in results["images"].items()}
    return "\n".join(
        [
            table("Largest batch that trains in 1 GiB", images),
            table("Larger than a peer's, times", results["ratios"]),
        ]
    )


def largest(trains: Callable[[int], bool], progress: Callable[[], None]) -> int:
    """The largest size below `LIMIT` that trains, where all below one that trains do too."""
    works, fails = 0, LIMIT
    while fails - works > 1:
        size = (works + fails) // 2
        works, fails = (size, fails) if trains(size) else (works, size)
        progress()
    if works in (0, LIMIT - 1):
        raise RuntimeError(f"expected the largest batch between 1 and {LIMIT - 2}: {works}")
    return works


def _trains(activation: str, size: int) -> bool:
    command = [sys.executable, "-m", "benchmarks.batch", activation, str(size)]
    # More arenas would reserve addresses that nobody uses.
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if "limited" not in done.stdout:
        raise RuntimeError(f"{activation}, {size} images: {done.stderr[-2000:]}")
    return done.returncode == 0


def train_within(activation: str, size: int, *, budget: int = BUDGET, side: int = SIDE) -> None:
    """Takes a step on so many images, in at most `budget` bytes more than one on one image took."""
    model = compiled_net(activation, normalised=False, side=side)
    model.train_on_batch(images(1, side), images(1, side))
    x = images(size, side)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + budget
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print("limited", flush=True)
    for _ in range(2):
        model.train_on_batch(x, x)


if __name__ == "__main__":
    train_within(sys.argv[1], int(sys.argv[2]))
