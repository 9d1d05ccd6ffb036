"""`activation_memory`: what a training step of a model keeps for the backward pass."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.checks import check_built_model, check_one_argument, note, shown
from tf_leaky.conversion.convert import convert
from tf_leaky.inspection.graphs import Kept, kept_by
from tf_leaky.inspection.probing import Target, check_one_for_each_input, probed, unused_name
from tf_leaky.keras_compat import call_traced, functions_in_line
from tf_leaky.structure import layers_within

_SUBJECT = "activation_memory"
_MARK = "tf_leaky_row_"
_COUNT = itertools.count()  # TensorFlow may export the graph of a call with those of the next
_ALPHA = 0.01  # for the ReLUs that `convert` changes


class ActivationMemory:
    """What a training step keeps for the backward pass; prints as a table.

    Attributes:
        total: Total bytes.
        by_layer: Bytes by the name of the layer that makes them, in the order of the calls. Layers
            within others have names such as `encoder/conv`. What a model computes itself, outside
            of its layers, is under the model's name.
        unknown: The operations whose outputs are kept, but whose sizes the graph doesn't say. They
            are not counted.
    """

    def __init__(self, model: Any, inputs: Any, rows: dict[str, list[Kept]]) -> None:
        self._model, self._inputs = model, inputs
        self._converted: ActivationMemory | None = None
        self.by_layer = {name: sum(each.bytes or 0 for each in kept) for name, kept in rows.items()}
        self.total = sum(self.by_layer.values())
        self.unknown = [k.name for kept in rows.values() for k in kept if k.bytes is None]

    @property
    def converted(self) -> ActivationMemory | None:
        """The same for `convert(model, alpha=0.01, fuse_batch_norm=True)`, counted on first use.

        None if `convert` finds no BatchNormalization with an activation after it, or refuses the
        model.
        """
        stock = tf.keras.layers.BatchNormalization
        if self._converted is None and any(type(x) is stock for x in layers_within(self._model)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what convert leaves alone
                try:
                    new = convert(self._model, alpha=_ALPHA, fuse_batch_norm=True)
                except (TypeError, ValueError):
                    return None
            if any(isinstance(each, BatchNormLeakyReLU) for each in layers_within(new)):
                self._converted = activation_memory(new, self._inputs)
        return self._converted

    def __str__(self) -> str:
        width = max(map(len, ["Layer", "Total", *self.by_layer]))
        line = f"{{:<{width}}}  {{:>14}}  {{:>7}}".format
        lines = [line("Layer", "Kept", "Share"), "=" * (width + 25)]
        for name, size in self.by_layer.items():
            if size:
                lines.append(line(name, _shown(size), f"{size / self.total:.1%}"))
        lines += ["-" * (width + 25), line("Total", _shown(self.total), "")]
        if self.unknown:
            lines.append(f"Of unknown size, not counted: {len(self.unknown)} ({self.unknown[0]})")
        if self.converted is not None and self.total:
            share = self.converted.total / self.total
            call = f"convert(model, alpha={_ALPHA}, fuse_batch_norm=True)"
            lines.append(f"With {call}: {_shown(self.converted.total)}, {share:.2f} of it")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<ActivationMemory of {self._model.name!r}: {_shown(self.total)}>"


def activation_memory(model: Any, inputs: Any) -> ActivationMemory:
    """Returns the bytes that a training step keeps for the backward pass, by layer and in total.

    The count is taken from the graph that TensorFlow would run, after optimization; the step is not
    run. It includes each buffer that the forward pass makes and the backward pass uses, each time
    step of a recurrent layer, and copies of inputs and weights in another dtype, but not inputs and
    weights themselves. The loss is the sum of all outputs and of the model's own losses: what your
    loss keeps is not included.

    The peak memory of a step is higher. It includes the weights, their gradients, the optimizer's
    state, the gradients of the largest layers, and what the allocator rounds up.

    The count is for a graph without XLA, on this machine's device. A step that is compiled with
    `jit_compile=True`, as Keras 3 does by default on a GPU, keeps what XLA chooses, which computes
    cheap operations a second time. In eager mode a step keeps more. Both branches of a `tf.cond`
    count. LSTM and GRU layers of tf_keras are counted as on a CPU.

    Args:
        model: A built model of `tf.keras`, of any kind. It is not changed.
        inputs: What the model is called on: arrays or `tf.TensorSpec`s, one or a list, tuple or
            dict of them. Their shapes must be known, including the batch. Arrays of floats count
            in the dtype that `fit` converts them to, Keras's `floatx()`.

    Returns:
        An object that prints as a table, with the attributes `total`, `by_layer` and `unknown`, and
        with `converted`, the same for `convert(model, alpha=0.01, fuse_batch_norm=True)`.

    Raises:
        TypeError: If `model` is not a model of `tf.keras`, or `inputs` are neither arrays nor
            specs.
        ValueError: If `model` is not built, its `call` takes several arguments, a shape is not
            fully known, a list or tuple has not one item for each input, or it is called in the
            scope of a `tf.distribute` strategy.

    Example:
        >>> import tensorflow as tf
        >>> relu = tf.keras.layers.Dense(8, activation="relu", name="hidden")
        >>> model = tf.keras.Sequential([tf.keras.Input((4,)), relu, tf.keras.layers.Dense(1)])
        >>> activation_memory(model, tf.TensorSpec((32, 4), tf.float32)).by_layer["hidden"]
        1024
    """
    check_built_model(model, subject=_SUBJECT)
    check_one_argument(model, subject=_SUBJECT)
    if tf.distribute.in_cross_replica_context():
        raise ValueError(
            f"{_SUBJECT}: expected a call outside of the scope of a strategy, in which the "
            "variables of several replicas have no gradients. Received: "
            f"strategy={shown(tf.distribute.get_strategy())}. Call it after the scope's block."
        )
    specs = tf.nest.map_structure(_spec, inputs)
    if isinstance(inputs, list | tuple):
        check_one_for_each_input(model, specs, "inputs", subject=_SUBJECT)
    trace = _Trace(model)
    try:
        function = trace.of_step(specs)
    except Exception as error:  # of any kind: it is the model that is called
        note(
            error,
            f"{_SUBJECT}: the error above is of {model.name!r}, called on {shown(inputs)} in a "
            "graph. Give inputs that the model can be called on.",
        )
        raise
    rows: dict[str, list[Kept]] = {name: [] for name in trace.names}
    for kept in kept_by(function) if function.outputs else []:
        marks = re.findall(rf"{_MARK}(\d+)", kept.name)
        rows[trace.names[int(marks[-1]) if marks else 0]].append(kept)
    return ActivationMemory(model, inputs, rows)


def _shown(size: int) -> str:
    return f"{size / 2**20:,.2f} MiB" if size >= 2**20 else f"{size:,} bytes"


def _spec(leaf: Any) -> tf.TensorSpec:
    is_array = hasattr(leaf, "__array__") and hasattr(leaf, "shape")
    if not (is_array or isinstance(leaf, tf.TensorSpec) or tf.is_tensor(leaf)):
        raise TypeError(
            f"{_SUBJECT}: expected inputs to be arrays or tf.TensorSpecs. "
            f"Received: inputs={shown(leaf)}. Give what the model is called on, or "
            "tf.TensorSpec((batch, ...), tf.float32)."
        )
    shape = tf.TensorShape(leaf.shape)
    if not shape.is_fully_defined():
        raise ValueError(
            f"{_SUBJECT}: expected inputs whose shapes are fully known. "
            f"Received: inputs={shown(leaf)}. Give the batch a size, as in "
            "tf.TensorSpec((32, 224, 224, 3), tf.float32)."
        )
    if isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating):
        return tf.TensorSpec(shape, tf.keras.backend.floatx())
    return tf.TensorSpec(shape, leaf.dtype)


class _Trace:
    """A training step of a model, in which each layer's operations have their own name scope.

    Attributes:
        names: The rows of the table, in the order of the calls; the first is the model.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._layers = model, layers_within(model)
        self._marks: dict[int, int] = {id(model): 0}
        self._way: list[str] = []
        self.names = [model.name or type(model).__name__]

    def of_step(self, specs: Any) -> Any:
        """Returns the concrete function from the upstream number and flat inputs to gradients."""

        def step(upstream: Any, *inputs: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                loss = self._loss(tf.nest.pack_sequence_as(specs, inputs))
            weights = [
                each if isinstance(each, tf.Variable) else each.value  # Keras 3's own
                for each in self._model.trainable_variables
            ]
            gradients = tape.gradient(loss, weights, upstream)
            return [each for each in gradients if each is not None]

        upstream = tf.TensorSpec((), tf.float32, name=f"upstream_{next(_COUNT)}")
        return call_traced(step).get_concrete_function(upstream, *tf.nest.flatten(specs))

    def _loss(self, inputs: Any) -> Any:
        with contextlib.ExitStack() as probes:
            for layer in self._layers:
                target = Target(layer.name, layer, "call", False)
                probes.enter_context(probed(target, self._call))
            outputs = self._model(inputs, training=True)
        parts = [*tf.nest.flatten(outputs), *self._model.losses]
        sums = [tf.cast(tf.reduce_sum(x), tf.float32) for x in parts if x.dtype.is_floating]
        return tf.add_n([tf.zeros(()), *sums])

    def _call(self, target: Target, original: Any, arguments: Any, keywords: Any) -> Any:
        layer = target.holder
        self._way.append(target.name)
        if id(layer) not in self._marks:
            self._marks[id(layer)] = len(self.names)
            self.names.append(unused_name(_joined(self._way), self.names, "{} #{}"))
        try:
            with functions_in_line(layer), tf.name_scope(self._scope(self._marks[id(layer)])):
                return original(*arguments, **keywords)
        finally:
            self._way.pop()

    def _scope(self, mark: int) -> str:
        """Returns a name scope that begins with the names that Keras uses and ends with the mark.

        TensorFlow sorts the factors of a product by name before it optimizes. So what a step keeps
        of an attention layer depends on whether the model's name comes before "gradient_tape".
        """
        # A scope that ends with a slash is not nested in others.
        return _joined([self._model.name, *self._way, f"{_MARK}{mark}/"])


def _joined(names: list[str]) -> str:
    """Returns names joined with slashes, but for empty ones: a model may be called ""."""
    return "/".join(filter(None, names))
