"""Times rivals against each other: in turns, in one process, as medians with their quartiles."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf


def interleaved_medians(
    rivals: Mapping[str, Callable[[], Any]], *, rounds: int, progress: Callable[[], None]
) -> dict[str, float]:
    """Median seconds of each rival, from rounds in which each runs once."""
    seconds = interleaved(rivals, rounds=rounds, progress=progress)
    return {name: statistics.median(times) for name, times in seconds.items()}


def summary(
    seconds: Mapping[str, list[float]], ratios: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Medians and quartiles of seconds, ratios of medians, and quartiles of ratios by round.

    Args:
        seconds: What `interleaved` returned.
        ratios: The names of two rivals for each row: what is divided by what.
    """
    by_round = {
        row: [mine / theirs for mine, theirs in zip(seconds[a], seconds[b], strict=True)]
        for row, (a, b) in ratios.items()
    }
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "seconds": medians,
        "seconds, quartiles": {name: quartiles(times) for name, times in seconds.items()},
        "ratios": {row: medians[a] / medians[b] for row, (a, b) in ratios.items()},
        "ratios, quartiles": {row: quartiles(each) for row, each in by_round.items()},
    }


def quartiles(values: list[float]) -> list[float]:
    """The first and the third quartile."""
    return [float(each) for each in np.quantile(values, [0.25, 0.75])]


def interleaved(
    rivals: Mapping[str, Callable[[], Any]], *, rounds: int, progress: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of each rival, from rounds in which each runs once.

    What slows the machine down for a while slows all of them, so their ratios carry over to another
    run where single times don't. Their order changes from round to round, as each finds the caches
    and the free memory that the one before it leaves. Each is run twice before, so that nothing is
    traced or compiled under the clock.
    """
    order = random.Random(0)
    for run in rivals.values():
        finish(run())
        finish(run())
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name in order.sample(list(rivals), len(rivals)):
            start = time.perf_counter()
            results = rivals[name]()
            finish(results)
            seconds[name].append(time.perf_counter() - start)
            del results  # before the next rival allocates
        progress()
    return seconds


def finish(results: Any) -> None:
    """Waits for the results; reads one element of each, as a copy of all would be timed too."""
    for result in tf.nest.flatten(results):
        np.asarray(tf.reshape(result, [-1])[:1])
