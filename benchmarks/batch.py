"""The largest batch, and the largest image, that trains where memory is limited.

20 times (Conv2D of 32 channels, 3 x 3, then the activation) on images of 64 x 64 x 32, or on 8
larger ones. Each trial is a process of its own, which takes one step on one small image, then
limits its address space to what it has by now and 1 GiB more, and takes a step on the batch: it
succeeds, or there is no memory.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import batch_norm
from benchmarks.nets import compiled_net, images
from benchmarks.tables import table

OURS = ("ours, fixed", "ours, one slope", "ours, per channel")
PEERS = ("Keras LeakyReLU", "Keras PReLU, per channel")
SIDE, COUNT = 64, 8  # of images whose number is looked for; of images whose side is
SIDES = range(208, 64, -8)  # pixels
BUDGET = 1 << 30  # bytes
LIMIT = 256  # images


def measure(*, progress: Any) -> dict[str, Any]:
    """The largest batch and image of each net, and the ratios of ours to the peers'."""
    images, sides = {}, {}
    for name in ("Keras ReLU", *OURS, *PEERS, *batch_norm.THREE):
        progress.start(f"Largest batch in 1 GiB, {name}", LIMIT.bit_length() - 1)
        images[name] = largest(lambda size, name=name: _trains(name, size), progress.step)
    for name in batch_norm.THREE:
        progress.start(f"Largest image in 1 GiB, {name}", len(SIDES))
        # From above, as a larger one may fit where a smaller one doesn't: TensorFlow's allocator
        # fills a block of up to twice the size of a tensor.
        for side in SIDES:
            progress.step()
            if _trains(name, COUNT, side):
                sides[name] = side
                break
    ratios = {mine: {f"/ {peer}": images[mine] / images[peer] for peer in PEERS} for mine in OURS}
    return {"images": images, "sides": sides, "ratios": ratios}


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    images = {name: {"images": count} for name, count in results["images"].items()}
    sides = {name: {"pixels wide and high": side} for name, side in results["sides"].items()}
    return "\n".join(
        [
            table(f"Largest batch of {SIDE} x {SIDE} pixels that trains in 1 GiB", images),
            table(f"Largest images of which {COUNT} train in 1 GiB", sides),
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


def _trains(activation: str, size: int, side: int = SIDE) -> bool:
    command = [sys.executable, "-m", "benchmarks.batch", activation, str(size), str(side)]
    # More arenas would reserve addresses that nobody uses.
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if "limited" not in done.stdout:
        raise RuntimeError(f"{activation}, {size} images: {done.stderr[-2000:]}")
    return done.returncode == 0


def train_within(activation: str, size: int, side: int, *, budget: int = BUDGET) -> None:
    """Takes a step on so many images, in at most `budget` bytes more than a small one took."""
    if activation in batch_norm.THREE:
        model = batch_norm.compiled_net(activation, "graph", layers=20, side=None)
    else:
        model = compiled_net(activation, normalised=False, side=None)
    model.train_on_batch(images(1, 16), images(1, 16))
    x = images(size, side)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + budget
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print("limited", flush=True)
    for _ in range(2):
        model.train_on_batch(x, x)


if __name__ == "__main__":
    train_within(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
