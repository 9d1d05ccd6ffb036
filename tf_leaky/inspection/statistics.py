"""Statistics of the inputs and outputs of activations: counts, added up batch by batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

_BINS = 2048  # of a histogram; the middle one begins at 0


class Histogram(NamedTuple):
    """How many finite numbers there are from edge to edge; 0 is an edge."""

    edges: np.ndarray
    counts: np.ndarray

    def cropped(self, bins: int, share: float = 0.999) -> Histogram:
        """Returns about `bins` bins that cover the middle `share` of the numbers, and 0."""
        total = self.counts.sum()
        if not total:
            return Histogram(np.array([-1.0, 0.0, 1.0]), np.zeros(2, np.int64))
        below = np.cumsum(self.counts) / total
        first = int(np.searchsorted(below, (1 - share) / 2))
        last = int(np.searchsorted(below, (1 + share) / 2)) + 1
        middle = _BINS // 2
        first, last = min(first, middle - 1), min(max(last, middle + 1), _BINS)
        step = max(1, -(-(last - first) // bins))
        first = middle - -(-(middle - first) // step) * step
        last = middle + -(-(last - middle) // step) * step
        low, high = max(0, -first), max(0, last - _BINS)
        counts = np.pad(self.counts[max(first, 0) : min(last, _BINS)], (low, high))
        width = self.edges[1] - self.edges[0]
        edges = (np.arange(first, last + 1, step) - middle) * width
        return Histogram(edges, counts.reshape(-1, step).sum(1))


class Seen(NamedTuple):
    """Statistics of one activation. A unit is an index along the last axis: a channel."""

    before: Histogram
    """Of its inputs."""
    after: Histogram
    """Of its outputs."""
    share_negative: float
    """Share of its inputs that are below 0."""
    dead: np.ndarray
    """For each unit, whether its output and gradient are 0 for all of the data."""
    always_negative: np.ndarray
    """For each unit, whether it has no input above 0."""
    slopes: np.ndarray | None
    """The present slopes of the activation, if it has slopes."""


def summary_of(x: Any, y: Any, slope: Any) -> dict[str, tf.Tensor]:
    """Returns the statistics of one batch: a few numbers for each unit, and two histograms."""
    if slope is None:
        slope = tf.zeros_like(x)
    return {
        "before": _histogram(x),
        "after": _histogram(y),
        "count": tf.size(x, tf.int64),
        "negative": tf.math.count_nonzero(x < 0),
        "dead": _by_unit((y == 0) & (slope == 0)),
        "always_negative": _by_unit(x <= 0),
    }


def _by_unit(holds: Any) -> Any:
    """Returns whether `holds` is true for all numbers of each unit; without units, for all."""
    if holds.shape.rank == 1:
        holds = holds[:, tf.newaxis]
    return tf.reduce_all(holds, tf.range(tf.rank(holds) - 1))


def _histogram(x: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the smallest k such that all numbers are from -2**k to 2**k, and the counts there.

    Bins have a power of two as width, so that the quotient is exact. A number below 0, however
    small, is in a bin below 0: `tf.histogram_fixed_width` adds 2**k first, which rounds it away.
    """
    x = tf.reshape(x if x.dtype == tf.float64 else tf.cast(x, tf.float32), [-1])
    x = tf.boolean_mask(x, tf.math.is_finite(x))
    reach = tf.reduce_max(tf.abs(tf.concat([x, tf.zeros([1], x.dtype)], 0)))
    reach = tf.where(reach > 0, reach, tf.constant(2.0**-20, x.dtype))
    power = tf.math.ceil(tf.math.log(reach) / tf.math.log(tf.constant(2.0, x.dtype)))
    # A bin of 2**-100 / 1024 is a normal float32; numbers beyond 2**127 are in the last bins.
    power = tf.clip_by_value(power, -100, 127)
    middle = _BINS // 2
    places = tf.floor(x * (middle / 2.0**power))
    places = tf.where(x < 0, tf.minimum(places, -1), places)  # it may have underflowed
    places = tf.cast(tf.clip_by_value(places, -middle, middle - 1), tf.int32) + middle
    counts = tf.math.bincount(places, minlength=_BINS, maxlength=_BINS)
    return tf.cast(power, tf.int32), counts


class Total:
    """The sum of the statistics of batches."""

    def __init__(self) -> None:
        self._counts = self._negative = 0
        self._histograms: dict[str, tuple[int, np.ndarray]] = {}
        self._units: dict[str, np.ndarray] = {}

    def add(self, summary: dict[str, Any]) -> None:
        """Adds the statistics of a batch."""
        self._counts += int(summary["count"])
        self._negative += int(summary["negative"])
        for name in ("dead", "always_negative"):
            batch = np.atleast_1d(summary[name].numpy())
            before = self._units.get(name, batch)
            both = np.ones(max(batch.size, before.size), bool)  # batches may differ in length
            both[: batch.size] &= batch
            both[: before.size] &= before
            self._units[name] = both
        for name in ("before", "after"):
            power, counts = (each.numpy() for each in summary[name])
            made = (int(power), counts.astype(np.int64))
            so_far = self._histograms.get(name, (made[0], np.zeros_like(made[1])))
            self._histograms[name] = _merged(so_far, made)

    def seen(self, slopes: np.ndarray | None) -> Seen:
        """Returns the statistics of all batches, for an activation with these slopes."""
        before, after = (
            Histogram(np.linspace(-(2.0**power), 2.0**power, _BINS + 1), counts)
            for power, counts in (self._histograms[name] for name in ("before", "after"))
        )
        share = self._negative / max(self._counts, 1)
        dead, always_negative = self._units["dead"], self._units["always_negative"]
        return Seen(before, after, share, dead, always_negative, slopes)


def _merged(one: tuple[int, np.ndarray], other: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
    """Returns the sum of two histograms, over the range of the wider."""
    (low, counts), (power, more) = sorted((one, other), key=lambda each: each[0])
    for _ in range(power - low):
        halved = counts.reshape(-1, 2).sum(1)
        counts = np.zeros_like(counts)
        counts[_BINS // 4 : 3 * _BINS // 4] = halved
    return power, counts + more
