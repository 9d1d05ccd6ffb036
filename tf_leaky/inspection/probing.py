"""Reads the inputs and outputs of a model's activations, over data of any size, by batch."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_leaky.batch_norm import BatchNormLeakyReLU, recovered
from tf_leaky.checks import check_built_model, check_one_argument, note, shown
from tf_leaky.inspection.statistics import Seen, Total, summary_of
from tf_leaky.keras_compat import call_traced, slope_of_keras_leaky_relu
from tf_leaky.slopes import LayerWithSlopes, slopes_in_use
from tf_leaky.structure import attributes, is_activation_function, is_layer, layers_within

BATCH = 32  # examples at a time, of arrays
_layers, _functions = tf.keras.layers, tf.keras.activations
_KINDS = (
    LayerWithSlopes,
    _layers.ReLU,
    _layers.LeakyReLU,
    _layers.PReLU,
    _layers.ELU,
    _layers.ThresholdedReLU,
    _layers.Activation,
)
_NOT_BY_ELEMENT = [
    getattr(_functions, name)
    for name in ("linear", "softmax", "log_softmax", "sparsemax", "glu")
    if hasattr(_functions, name)  # tf_keras lacks some
]


class Probe:
    """Reads some activations of a model, or all; the graph for it is made once."""

    def __init__(self, model: Any, layers: Any, *, subject: str) -> None:
        check_built_model(model, subject=subject)
        check_one_argument(model, subject=subject)
        self._model, self._subject, self._named = model, subject, layers is not None
        self._targets = _chosen(model, layers, subject)
        self._layers: dict[str, Any] = {}  # by the names of activations that were called
        # A model that asks to be run eagerly may be one that can't be traced.
        self._measure = self._trace if model.run_eagerly else call_traced(self._trace)

    def check(self, data: Any) -> None:
        """Raises an error as `check_data`, and if a list has not one array for each input."""
        check_data(data, subject=self._subject)
        if isinstance(data, list):
            check_one_for_each_input(self._model, data, "data", subject=self._subject)

    def look(self, data: Any) -> dict[str, Seen]:
        """Returns a summary of each activation over all of the data, by name."""
        self.check(data)
        totals: dict[str, Total] = {}
        bar = _LateBar()
        for batch in batches(data, subject=self._subject):
            for name, summaries in self._measured(batch).items():
                for summary in summaries:
                    totals.setdefault(name, Total()).add(summary)
            bar.step()
        bar.close()
        unseen = [target.name for target in self._targets if target.name not in totals]
        if unseen and (self._named or not totals):
            raise ValueError(
                f"{self._subject}: expected activations that the model calls outside of loops, "
                f"branches and tf.functions of its own. Received: {', '.join(unseen)}. "
                "Inside of those, activations can't be read."
            )
        return {name: total.seen(slopes_of(self._layers[name])) for name, total in totals.items()}

    def _measured(self, batch: Any) -> Any:
        try:
            return self._measure(batch)
        except Exception as error:  # of any kind: it is the model that is called
            if f"{self._subject}: expected" not in str(error):
                note(
                    error,
                    f"{self._subject}: the error above is of {self._model.name!r}, called on a "
                    f"batch of the data: {shown(batch)}. Give what `fit` takes as x.",
                )
            raise

    def _trace(self, inputs: Any) -> dict[str, list[dict[str, tf.Tensor]]]:
        found: dict[str, list[dict[str, tf.Tensor]]] = {}
        graph = tf.compat.v1.get_default_graph()

        def call(target: Target, original: Any, arguments: Any, keywords: Any) -> Any:
            tensors = [x for x in (*arguments, *keywords.values()) if isinstance(x, tf.Tensor)]
            # Tensors can't leave the graph of a loop, and a tf.function would keep the probe.
            if tf.compat.v1.get_default_graph() is not graph or not tensors:
                return original(*arguments, **keywords)
            x = tensors[0]
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = original(*arguments, **keywords)
            if self._keeps_shape(target, x, y):
                name = target.name
                if not target.repeated:
                    name = unused_name(name, found, "{} (call {})")
                self._layers[name] = target.holder
                if isinstance(target.holder, BatchNormLeakyReLU):
                    read = _read_fused(target.holder, y)
                else:
                    read = x, y, tape.gradient(y, x)
                found.setdefault(name, []).append(summary_of(*read))
            return y

        with contextlib.ExitStack() as probes:
            for target in self._targets:
                probes.enter_context(probed(target, call))
            self._model(inputs, training=False)
        return found

    def _keeps_shape(self, target: Target, x: Any, y: Any) -> bool:
        if x.shape.is_compatible_with(y.shape):
            return True
        if self._named:
            raise ValueError(
                f"{self._subject}: expected layers that are activations, which keep the shape. "
                f"Received: {target.name!r}, from {x.shape} to {y.shape}. Leave it out."
            )
        return False


def _read_fused(layer: BatchNormLeakyReLU, y: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns what leaky ReLU receives and returns in a layer, and its slope, channels last."""
    u, slope = recovered(layer, y)
    return tuple(tf.experimental.numpy.moveaxis(each, layer.axis, -1) for each in (u, y, slope))


class Target(NamedTuple):
    """An activation: the layer that is or has it, and its attribute there."""

    name: str
    holder: Any
    attribute: str
    repeated: bool
    """Whether its calls count as one: TimeDistributed calls it at each step."""


@contextlib.contextmanager
def probed(target: Target, call: Callable[..., Any]) -> Iterator[None]:
    """Has an activation called through `call` while the model is traced.

    The attribute is set without Keras, which would track it, and is restored at the end.
    """
    holder, attribute = target.holder, target.attribute
    own = attribute in vars(holder)
    original = getattr(holder, attribute)

    def probe(*arguments: Any, **keywords: Any) -> Any:
        return call(target, original, arguments, keywords)

    object.__setattr__(holder, attribute, probe)
    try:
        yield
    finally:
        if own:
            object.__setattr__(holder, attribute, original)
        else:
            object.__delattr__(holder, attribute)


def _chosen(model: Any, layers: Any, subject: str) -> list[Target]:
    """Returns the activations to read, each with a different name."""
    within = layers_within(model)
    loops = _parts(within, _layers.RNN)
    outside = [each for each in within if id(each) not in loops]
    found = [(layer, where) for layer in outside for where in _attributes_of(layer)]
    if layers is not None:
        wanted = list(layers) if isinstance(layers, list | tuple) else [layers]
        chosen = []
        for each in wanted:
            text = each if isinstance(each, str) else None
            matches = [pair for pair in found if pair[0] is each or pair[0].name == text]
            matches = matches or [(layer, "call") for layer in within if layer is each]
            if not matches:
                names = ", ".join(layer.name for layer, _ in found)
                raise ValueError(
                    f"{subject}: expected layers to name activations of the model. "
                    f"Received: layers={shown(each)}. It has {names or 'none'}."
                )
            chosen += matches
        found = chosen
    if not found:
        raise ValueError(
            f"{subject}: expected a model with activations. Received: model={model.name!r}, "
            "with none that works element by element. Name layers to read others."
        )
    steps = _parts(within, _layers.TimeDistributed)
    targets: dict[str, Target] = {}
    for layer, where in found:
        name = unused_name(layer.name, targets, "{} #{}")
        targets[name] = Target(name, layer, where, id(layer) in steps)
    return list(targets.values())


def unused_name(name: str, used: Container[str], numbered: str) -> str:
    """Returns the name, with a number from 2 on if it is in use."""
    names = itertools.chain([name], (numbered.format(name, i) for i in itertools.count(2)))
    return next(each for each in names if each not in used)


def _parts(layers: list[Any], kind: Any) -> set[int]:
    """Returns the ids of the layers within those of a kind."""
    return {id(part) for each in layers if isinstance(each, kind) for part in layers_within(each)}


def _attributes_of(layer: Any) -> list[str]:
    """Returns the attributes that are elementwise activations; "call" for the layer itself."""
    if isinstance(layer, _KINDS):
        function = getattr(layer, "activation", None)
        # An activation that is a layer is found separately.
        other = is_layer(function) or any(function is each for each in _NOT_BY_ELEMENT)
        return [] if other else ["call"]
    return [
        name
        for name, value in attributes(layer).items()
        if is_activation_function([name], value)
        and not any(value is each for each in _NOT_BY_ELEMENT)
    ]


def slopes_of(layer: Any) -> np.ndarray | None:
    """Returns the slopes of an activation layer as a flat array; None if it has none."""
    if isinstance(layer, LayerWithSlopes):
        return np.ravel(slopes_in_use(layer)).astype(np.float64)
    if isinstance(layer, _layers.PReLU):
        return np.ravel(tf.convert_to_tensor(layer.alpha)).astype(np.float64)
    if isinstance(layer, _layers.LeakyReLU):
        return np.ravel(slope_of_keras_leaky_relu(layer))
    return None


def check_one_for_each_input(model: Any, given: Any, name: str, *, subject: str) -> None:
    """Raises ValueError if the number of arrays is not that of a model's inputs, where it is known.

    Keras 3 calls a Sequential on a list of two arrays as if it were one.
    """
    one = isinstance(model, tf.keras.Sequential)
    inputs = 1 if one else len(tf.nest.flatten(getattr(model, "inputs", None) or []))
    if inputs and len(tf.nest.flatten(given)) != inputs:
        raise ValueError(
            f"{subject}: expected {name} with one array for each input of {model.name!r}, which "
            f"has {inputs}. Received: {name}={shown(given)}. Give what `fit` takes as x, without "
            "targets."
        )


def check_data(data: Any, *, subject: str) -> None:
    """Raises TypeError or ValueError if data are wrong, as far as that shows without reading."""
    if isinstance(data, tuple):
        raise TypeError(
            f"{subject}: expected data to be arrays, without targets. Received: data="
            f"{shown(data)}, a tuple. Give x, not (x, y); for several inputs, a list or dict."
        )
    if _is_arrays(data):
        _check_arrays(data, subject)
        return
    texts = isinstance(data, str | bytes | bytearray | Mapping)
    if texts or not (hasattr(data, "__getitem__") or hasattr(data, "__iter__")):
        raise TypeError(
            f"{subject}: expected data to be arrays, a tf.data.Dataset or an iterable of batches. "
            f"Received: data={shown(data)}. Give what `fit` takes as x."
        )
    if isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"{subject}: expected data that ends. Received: data={shown(data)}, which is infinite. "
            "Give a part of it, such as dataset.take(100)."
        )


def batches(data: Any, *, subject: str) -> Iterator[Any]:
    """Yields a model's inputs from arrays, a tf.data.Dataset, a Keras dataset or an iterable.

    Arrays (one, or a list or dict of them for several inputs) are split into batches. The
    others yield batches; if these are tuples, the inputs come first, as in `fit`.
    """
    if _is_arrays(data):
        for start in range(0, int(tf.nest.flatten(data)[0].shape[0]), BATCH):
            yield tf.nest.map_structure(lambda part, at=start: part[at : at + BATCH], data)
        return
    indexed = hasattr(data, "__getitem__") and not isinstance(data, tf.data.Dataset)
    empty = True
    for batch in (data[i] for i in range(len(data))) if indexed else data:
        empty = False
        yield batch[0] if isinstance(batch, tuple) else batch
    if empty:
        raise ValueError(
            f"{subject}: expected data with at least one batch. Received: data={shown(data)}, with "
            "none. An iterator that was read to its end has no more."
        )


def _is_arrays(data: Any) -> bool:
    return isinstance(data, list | dict) or hasattr(data, "shape")


def _check_arrays(data: Any, subject: str) -> None:
    try:
        sizes = {part.shape[0] if _is_array(part) else None for part in tf.nest.flatten(data)}
    except Exception:  # of any kind: lists may be deep, and a shape without a first size
        sizes = {None}
    if len(sizes) != 1 or sizes & {None, 0}:
        raise ValueError(
            f"{subject}: expected arrays with one number of examples, above 0. "
            f"Received: data={shown(data)}, sizes {sorted(sizes, key=str)}. "
            "The first axis is that of the examples."
        )


def _is_array(part: Any) -> bool:
    """Whether it can be sliced: not a sparse tensor, nor one of a graph that no longer exists."""
    return hasattr(part, "__getitem__") and (not tf.is_tensor(part) or hasattr(part, "numpy"))


class _LateBar:
    """A progress bar that appears after ten seconds."""

    def __init__(self) -> None:
        self._began, self._bar, self._done = time.monotonic(), None, 0

    def step(self) -> None:
        self._done += 1
        if self._bar is None and time.monotonic() - self._began > 10:
            self._bar = tf.keras.utils.Progbar(None, interval=1, unit_name="batch")
        if self._bar is not None:
            self._bar.update(self._done)

    def close(self) -> None:
        """Ends the line."""
        if self._bar is not None:
            self._bar.update(self._done, finalize=True)
