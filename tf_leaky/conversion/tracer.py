"""Records what layers receive and return while a model is traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tf_leaky.keras_compat import handle_of, trace

# The slope of oneDNN's kernel for a convolution, its bias, a sum and leaky ReLU (TensorFlow 2.21).
TAKEN_BY_ONEDNN = 0.2
_COPIES = ("Identity", "IdentityN", "StopGradient", "Reshape", "Cast")


@dataclass
class Call:
    """A call of a layer while a model was traced."""

    x: Any
    y: Any
    reads: int
    """The operations within it that take `x`."""


class Tracer:
    """A trace of a model, with the calls of some of its layers."""

    def __init__(self, model: Any, layers: list[Any], training: bool = False) -> None:
        self._layers = layers
        self._begin()
        kinds = [type(layer) for layer in layers]
        try:
            for layer, kind in zip(layers, kinds, strict=True):
                layer.__class__ = type(kind.__name__, (_Noted, kind), {"_tf_leaky_tracer": self})
            function = trace(model, training=training, begin=self._begin)
        finally:
            for layer, kind in zip(layers, kinds, strict=True):
                layer.__class__ = kind
        self._graph = function.graph

    def _begin(self) -> None:
        self.calls: dict[int, list[Call]] = {id(layer): [] for layer in self._layers}
        self._reads: dict[int, int] = {}

    def called(self, layer: Any, kind: Any, arguments: Any, keywords: Any) -> Any:
        """Calls a layer, and records its input and output."""
        x = arguments[0] if arguments else keywords.get("inputs")
        graph = tf.compat.v1.get_default_graph()
        watched = [x, *(graph.capture(handle_of(each)) for each in layer.weights)]
        before = [users_of(each) for each in watched]
        y = kind.__call__(layer, *arguments, **keywords)
        reads = [users_of(each) - n for each, n in zip(watched, before, strict=True)]
        self.calls[id(layer)].append(Call(x, y, reads[0]))
        for each, count in zip(watched[1:], reads[1:], strict=True):
            self._reads[id(each)] = self._reads.get(id(each), 0) + count
        return y

    def users_of_weights(self, layer: Any) -> set[str] | None:
        """Returns the types of operations that use a layer's weights; None if any is outside it."""
        types = set()
        for each in layer.weights:
            inner = self._graph.capture(handle_of(each))
            if users_of(inner) != self._reads.get(id(inner)):
                return None
            types |= {operation.type for operation in inner.consumers()}
        return types


def users_of(x: Any) -> int:
    """Returns how many operations of a graph use a tensor."""
    return len(x.consumers()) if isinstance(x, tf.Tensor) else 0


class _Noted:
    """A layer whose calls are recorded while a model is traced."""

    _tf_leaky_tracer: Tracer

    @tf.autograph.experimental.do_not_convert
    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        kind = type(self).__mro__[2]
        return self._tf_leaky_tracer.called(self, kind, arguments, keywords)


def is_sum_of_convolution(x: Any) -> bool:
    """Whether a tensor is a sum of something and a convolution with a bias."""
    return isinstance(x, tf.Tensor) and any(
        each.type in ("BiasAdd", "Add", "AddV2")
        and any(maker_of(part).type.startswith("Conv") for part in each.inputs)
        for each in summands(x)
    )


def summands(x: Any) -> list[Any]:
    """Returns the operations whose results are added up in a tensor; none if it isn't a sum."""
    operation = maker_of(x)
    return [*map(maker_of, operation.inputs)] if operation.type in ("Add", "AddV2", "AddN") else []


def maker_of(x: Any) -> Any:
    """Returns the operation that makes a tensor, or what it is a copy of."""
    while x.op.type in _COPIES:
        x = x.op.inputs[x.value_index]
    return x.op
