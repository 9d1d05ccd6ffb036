"""Tells, while a graph is built, whether XLA compiles it for a CPU, and what is then best kept.

In a backward pass, XLA computes cheap operations a second time. So the input x of a leaky ReLU
costs nothing if it is the result of batch normalisation, for example, while its output y costs a
tensor: XLA doesn't see that y > 0 exactly where x > 0. A matrix product is not computed again:
there it is x that costs a tensor. `python -m benchmarks xla` has the figures, by XLA's own report.

Nobody has measured XLA on a GPU or TPU. Where there is one, nothing here applies, and y is kept.
"""

from __future__ import annotations

import weakref
from typing import Any

import tensorflow as tf

_PRODUCTS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}
# What may follow a product. What is added to a layer's product is its bias.
_AFTER = ("Identity", "Reshape", "EnsureShape", "BiasAdd", "Add", "AddV2")
_found: Any = weakref.WeakKeyDictionary()  # by graph


def compiles_for_cpu() -> bool:
    """Whether XLA compiles the graph that is being built, and there are only CPUs."""
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    if graph not in _found:
        kinds = {each.device_type for each in tf.config.list_physical_devices()}
        _found[graph] = kinds == {"CPU"} and not _has_lowered_branches()
    return bool(_found[graph])


def _has_lowered_branches() -> bool:
    """Whether TensorFlow lowers branches of this graph, as it does unless XLA compiles them.

    No public name says what compiles. A function that is traced here adds nothing to this graph.
    """
    function = tf.function(lambda x: tf.cond(x, lambda: x, lambda: x), autograph=False)
    traced = function.get_concrete_function(tf.TensorSpec((), tf.bool)).graph
    lowered = "_lower_using_switch_merge"
    return any(lowered in each.node_def.attr for each in traced.get_operations())


def to_keep(x: tf.Tensor | None, y: tf.Tensor) -> tf.Tensor:
    """Returns what a backward pass shall use: y, or x if XLA for a CPU rather computes it again.

    Args:
        x: The input of a leaky ReLU; None in eager mode, where a closure would keep it.
        y: Its output.
    """
    if x is None or x.graph is not tf.compat.v1.get_default_graph() or not compiles_for_cpu():
        return y
    made = x.op
    while made.type in _AFTER:
        made = made.inputs[0].op
    return y if made.type in _PRODUCTS else x
