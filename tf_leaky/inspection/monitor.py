"""`ActivationMonitor`: watches dead units, negative inputs and slopes during training."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import said, shown
from tf_leaky.inspection.plots import draw_lines
from tf_leaky.inspection.probing import Probe, check_data
from tf_leaky.inspection.statistics import Seen


class ActivationMonitor(tf.keras.callbacks.Callback):
    """A Keras callback that measures the activations of a model after epochs.

    For each activation, ours or stock, as a layer or as `activation=`, it adds these values to the
    `logs` of the epoch, for `History` and the callbacks that come after it in the list
    (`EarlyStopping`, `CSVLogger`):

    | key | value |
    | --- | --- |
    | `<layer>/dead` | number of units whose output and gradient are 0 for all of the data |
    | `<layer>/always_negative` | number of units with no input above 0: linear ones, if leaky |
    | `<layer>/share_negative` | share of its inputs that are below 0, from 0 to 1 |
    | `<layer>/alpha_mean`, `<layer>/alpha_std` | mean and spread of its slopes, if it has slopes |

    A unit is an index along the last axis: a channel of an image, an output of a Dense layer. Of a
    `BatchNormLeakyReLU`, it is one along its `axis`, and the inputs are the normalised values.
    Activations that the model calls in a loop, a branch or its own `tf.function`, such as those of
    recurrent layers, are not measured. The state of stateful layers changes, as in `predict`.

    A measurement takes one forward pass over `data`, and for each activation its derivative and two
    histograms. For six convolutions of 32 channels, that took 1.7 and 2.7 times the time of
    `predict` in two runs of `python -m benchmarks monitor`, so give a small part of the data.

    Args:
        data: The data to measure on: arrays (a list or dict of them for several inputs), a
            `tf.data.Dataset`, a Keras dataset or an iterable of batches. If a batch is a tuple, its
            first part is used, as in `fit`. It must end. The inputs from a generator are kept in
            memory, as it yields them only once.
        every: Measure once in so many epochs, beginning with the first. In between, the logs repeat
            the last values.
        log_dir: A folder for TensorBoard: scalars of the values above, and histograms of each
            activation's inputs and slopes. None writes nothing.

    Attributes:
        epochs: The epochs that were measured, from 0.
        values: For each key, its value at each of these epochs.

    Raises:
        TypeError: If `every` is not an integer, `log_dir` not a path or `data` none of the above.
        ValueError: If `every` is below 1, `log_dir` doesn't name a folder, or `data` is empty or
            infinite; when training begins, if the model has no activations or another number of
            inputs than `data`; at the first measurement, if an iterable yields nothing or the model
            can't be called on the data.
        OSError: If `log_dir` can't be written, when training begins.

    Example:
        >>> import numpy as np
        >>> x = np.float32([[-1.0, 2.0], [-3.0, 4.0]])
        >>> relu = tf.keras.layers.ReLU(name="relu")
        >>> dense = tf.keras.layers.Dense(2, kernel_initializer="identity")
        >>> model = tf.keras.Sequential([tf.keras.Input((2,)), dense, relu])
        >>> model.compile(loss="mse")
        >>> monitor = ActivationMonitor(x)
        >>> logs = model.fit(x, x, verbose=0, callbacks=[monitor]).history
        >>> logs["relu/dead"], logs["relu/share_negative"]
        ([1.0], [0.5])
    """

    def __init__(self, data: Any, *, every: int = 1, log_dir: Any = None) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int | np.integer):
            raise TypeError(
                "ActivationMonitor: expected every to be an integer. "
                f"Received: every={shown(every)}. Give a number of epochs."
            )
        if every < 1:
            raise ValueError(
                "ActivationMonitor: expected every to be at least 1. "
                f"Received: every={shown(every)}. Give a number of epochs."
            )
        if log_dir is not None and not isinstance(log_dir, str | Path):
            raise TypeError(
                "ActivationMonitor: expected log_dir to be a path or None. "
                f"Received: log_dir={shown(log_dir)}. Give the folder that TensorBoard reads."
            )
        if log_dir is not None and (not str(log_dir).strip() or "\0" in str(log_dir)):
            raise ValueError(
                "ActivationMonitor: expected log_dir to name a folder. "
                f"Received: log_dir={shown(log_dir)}. Give the folder that TensorBoard reads."
            )
        check_data(data, subject="ActivationMonitor")
        # An iterator can be read only once, and every measurement needs all of it.
        once = hasattr(data, "__next__")
        self._data = _Kept(data) if once else data
        self._every, self._log_dir = every, log_dir
        self._probe: Probe | None = None
        self._writer: Any = None
        self.epochs: list[int] = []
        self.values: dict[str, list[float]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds the activations, and clears earlier values."""
        self._probe = None
        if self.model.built:
            self._probe = Probe(self.model, None, subject="ActivationMonitor")
            self._probe.check(self._data)
        if self._log_dir is not None:
            self._writer = _writer(self._log_dir)
        self.epochs, self.values = [], {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, if it is due, and writes into `logs`."""
        if not self.epochs or (epoch - self.epochs[0]) % self._every == 0:
            if self._probe is None:  # built by its first batch
                self._probe = Probe(self.model, None, subject="ActivationMonitor")
            found = self._probe.look(self._data)
            self.epochs.append(epoch)
            for key, value in _values(found).items():
                self.values.setdefault(key, []).append(value)
            if self._writer is not None:
                self._write(epoch, found)
        if logs is not None:
            logs.update({key: series[-1] for key, series in self.values.items()})

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the files for TensorBoard."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def plot(self) -> Any:
        """Returns a matplotlib Figure of the values by epoch, a line for each activation.

        Raises:
            ImportError: If matplotlib is not installed: `pip install "tf_leaky[plot]"`.
            ValueError: If nothing has been measured yet.
        """
        if not self.epochs:
            raise ValueError(
                "ActivationMonitor: expected a measured epoch to plot. Received: none. "
                "Pass the monitor to fit first, as in callbacks=[monitor]."
            )
        return draw_lines(self.epochs, self.values)

    def _write(self, epoch: int, found: dict[str, Seen]) -> None:
        with self._writer.as_default(step=epoch):
            for key, value in _values(found).items():
                _summarize(key, np.float32(value), "scalars")
            for name, seen in found.items():
                edges, counts = seen.before.cropped(60)
                _summarize(f"{name}/inputs", _rows(edges, counts), "histograms")
                if seen.slopes is not None:
                    slopes = seen.slopes[np.isfinite(seen.slopes)]
                    around = 1e-3 * max(abs(slopes), default=1.0)  # no bin is too narrow
                    ends = min(slopes, default=0.0) - around, max(slopes, default=0.0) + around
                    counts, edges = np.histogram(slopes, 30, ends)
                    _summarize(f"{name}/alpha", _rows(edges, counts), "histograms")
        self._writer.flush()


def _writer(log_dir: Any) -> Any:
    try:
        with contextlib.suppress(FileNotFoundError):
            Path(log_dir).lstat()  # of a path that is too long, TensorFlow would create a part
        return tf.summary.create_file_writer(str(log_dir))
    except (OSError, ValueError, tf.errors.OpError) as error:  # ValueError: it isn't UTF-8
        raise OSError(
            "ActivationMonitor: expected log_dir to be a folder that can be written. "
            f"Received: log_dir={shown(log_dir)}, and {said(error)}. Give another folder."
        ) from error


class _Kept:
    """Keeps the inputs of an iterator's batches, so that they can be read repeatedly."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        self._batches: list[Any] = []
        self._error: Exception | None = None

    def __iter__(self) -> Any:
        try:
            for batch in () if self._error else self._iterator:
                inputs = batch[0] if isinstance(batch, tuple) else batch
                # Copies, as some iterators reuse one array for all batches.
                self._batches.append((tf.nest.map_structure(_copied, inputs),))
        except Exception as error:  # later batches are lost, so each reading has to fail
            self._error = error
        if self._error:
            raise self._error
        return iter(self._batches)


def _copied(x: Any) -> Any:
    return x.copy() if isinstance(x, np.ndarray) else x


def _values(found: dict[str, Seen]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, seen in found.items():
        values[f"{name}/dead"] = float(seen.dead.sum())
        values[f"{name}/always_negative"] = float(seen.always_negative.sum())
        values[f"{name}/share_negative"] = seen.share_negative
        if seen.slopes is not None:
            values[f"{name}/alpha_mean"] = float(seen.slopes.mean())
            with np.errstate(invalid="ignore"):  # NaN for infinite slopes
                values[f"{name}/alpha_std"] = float(seen.slopes.std())
    return values


def _rows(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns a histogram in TensorBoard's form: left edge, right edge and count of each bin."""
    return np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64)


def _summarize(name: str, values: Any, plugin: str) -> None:
    """Writes for a plugin of TensorBoard, which need not be installed."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
    )
    tf.summary.write(name, values, metadata=metadata)
