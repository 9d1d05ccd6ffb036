"""Leaky ReLU as a function: its value, its gradients, and what it keeps in memory.

    y      = x           where x > 0,    alpha * x           elsewhere
    dx     = upstream    where x > 0,    alpha * upstream    elsewhere
    dalpha = the sum of 0 where x > 0, x * upstream elsewhere,
             over all the elements that share the slope

"Elsewhere" includes 0, -0.0 and NaN. The backward pass needs to know where x is positive, and the
negative part of x. Both follow from y: if alpha >= 0, y > 0 exactly where x > 0; if alpha > 0,
x = y / alpha elsewhere. So only y is kept, which the next layer keeps anyway, and x is freed: as
little memory as ReLU. If alpha may be negative, or zero and trained, x is kept instead.
`positive_alpha` bounds a trained slope: max(alpha, 1e-3) replaces alpha. What XLA compiles keeps
what XLA chooses: see `tf_leaky.xla`.

Three facts about TensorFlow shape the code, and a test checks each:

- A graph runs whatever is ready, in any order. It would compute a mask that needs only y during the
  forward pass, and keep it to the end: so every step of a backward pass waits for `upstream`. Once
  dx is ready, the layers before may go on and leave the sum of dalpha for later, with all that it
  needs: so dx waits for that sum.
- In eager mode, the tape also records the steps inside a custom gradient, and keeps what they need.
  `_hidden` prevents that. A graph keeps only what is used, and forward-mode differentiation goes
  through these steps: so there they stay visible.
- The fused kernels store alpha as a float32. For a float64 x they are used only if alpha is exactly
  a float32; else plain operations are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky import xla
from tf_leaky.checks import constant_slopes, floating_tensor, shown

DEFAULT_ALPHA = 0.1
SMALLEST_POSITIVE_ALPHA = 1e-3  # y / alpha keeps its digits
SCOPE = "tf_leaky"  # the name scope of its operations in a graph, by which `convert` knows them


def leaky_relu(x: Any, alpha: Any = DEFAULT_ALPHA, *, positive_alpha: bool = False) -> Any:
    """Returns `x` where `x > 0` and `alpha * x` elsewhere, element by element.

    If `alpha` is a number, TensorFlow's fused kernels are used, and for `alpha >= 0` only the
    output is kept for the backward pass. If `alpha` is a tensor or variable, it has a gradient too.

    Args:
        x: Tensor of any shape, in float16, bfloat16, float32 or float64.
        alpha: The slope for `x <= 0` (dimensionless), of any sign, finite in the dtype of `x`. A
            Python or NumPy number is a constant, which the fused kernels round to the dtype of `x`.
            Nested lists and arrays of numbers are constants too. A tensor or variable, of any of
            the four dtypes, is differentiable. All but numbers must broadcast to the shape of `x`.
        positive_alpha: Whether to compute with max(alpha, 1e-3) if `alpha` is a tensor, so that
            only the output is kept for the backward pass. NaN slopes stay NaN. Constants, whose
            signs are known, don't change.

    Returns:
        Tensor of the shape and dtype of `x`. NaN gives NaN, and -inf with a slope of 0 gives NaN.

    Gradient:
        dx = upstream where x > 0, alpha * upstream elsewhere: the slope at 0 is alpha.
        dalpha = sum(0 where x > 0, x * upstream elsewhere), over the axes that share the slope, in
        the shape and dtype of alpha. Products and sums are computed in the wider of the two dtypes,
        at least in float32. With `positive_alpha=True`, x is recovered as y / alpha, and so has the
        rounding error of y. dalpha is then the gradient of max(alpha, 1e-3), even if alpha is below
        the bound, so that it can grow back.

    Raises:
        TypeError: If `x` is not a floating-point tensor of one of the four dtypes, `alpha` is
            neither numeric nor a floating-point tensor (True and False are not numbers), or
            `positive_alpha` is not True or False.
        ValueError: If a constant `alpha` is not finite in the dtype of `x`, or the shape of `alpha`
            does not broadcast to that of `x`.

    Example:
        >>> import tensorflow as tf
        >>> leaky_relu([-2.0, 0.0, 3.0], 0.25).numpy().tolist()
        [-0.5, 0.0, 3.0]
        >>> slopes = tf.Variable([0.5, 0.25])
        >>> with tf.GradientTape() as tape:
        ...     y = leaky_relu([[-1.0, -1.0], [2.0, -3.0]], slopes)
        >>> tape.gradient(y, slopes).numpy().tolist()
        [-1.0, -4.0]

    References:
        - Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models" (2013)
        - He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", https://arxiv.org/abs/1502.01852, for
          the trained slope
    """
    x = floating_tensor(x, "x")
    if not isinstance(positive_alpha, bool):
        raise TypeError(
            "leaky_relu: expected positive_alpha to be True or False. "
            f"Received: positive_alpha={shown(positive_alpha)}. Give a Python bool."
        )
    if tf.executing_eagerly():
        return _apply(x, alpha, positive_alpha)
    with tf.name_scope(SCOPE):
        return _apply(x, alpha, positive_alpha)


def _apply(x: tf.Tensor, alpha: Any, positive_alpha: bool) -> tf.Tensor:
    if isinstance(alpha, float):
        # -0.0 becomes 0.0: the cache treats them as equal.
        return _fixed(alpha + 0.0, x.dtype)(_apart(x))
    if not tf.is_tensor(alpha):  # variables are tensors here
        slopes = constant_slopes(alpha, x.dtype, subject="leaky_relu")
        return _fixed_select(x, slopes) if slopes.ndim else _apply(x, float(slopes), False)
    alpha = floating_tensor(alpha, "alpha")
    alpha = tf.cast(alpha, _wider(x.dtype, alpha.dtype))
    if positive_alpha:
        return _from_output(x, _fit(bounded(alpha), x))
    return _from_input(x, _fit(alpha, x))


def bounded(alpha: tf.Tensor) -> tf.Tensor:
    """Returns max(alpha, 1e-3), with derivative 1 everywhere; NaN where alpha is NaN.

    `alpha` is float32 or float64: bfloat16 rounds 1e-3 down.
    """
    held = tf.stop_gradient(alpha)
    smallest = tf.constant(SMALLEST_POSITIVE_ALPHA, alpha.dtype)
    return tf.where(held < smallest, smallest, held) + (alpha - held)


def _hidden(tensor: tf.Tensor) -> tf.Tensor:
    """Returns `tensor`; in eager mode, the tape keeps nothing that is computed from it."""
    return tf.stop_gradient(tensor) if tf.executing_eagerly() else tensor


def _of_graph(tensor: tf.Tensor) -> tf.Tensor | None:
    """Returns `tensor` in a graph, where a closure that names it doesn't keep it, else None."""
    return None if tf.executing_eagerly() else tensor


def _local(tensor: tf.Tensor) -> tf.Tensor:
    """Returns `tensor` as a tensor of the graph that is being built.

    A backward pass that closes over a tensor of an outer graph, as in a branch of `tf.cond`, could
    not be differentiated again.
    """
    return tensor if tf.executing_eagerly() else tf.identity(tensor)


def _apart(x: tf.Tensor) -> tf.Tensor:
    """Returns `x`; if it is a sum, TensorFlow can't fuse it with the operation that follows.

    On a CPU, Grappler fuses a convolution, its bias, a sum and LeakyRelu into one operation, which
    oneDNN computes with a slope of 0.2, whatever alpha is. EnsureShape prevents that.
    """
    if tf.executing_eagerly():
        return x
    made = x.op
    while made.type == "Identity":
        made = made.inputs[0].op
    return tf.ensure_shape(x, x.shape) if made.type in ("Add", "AddV2", "AddN") else x


def _differentiate(
    forward: Callable[..., tf.Tensor], backward: Callable[..., Any], *inputs: tf.Tensor
) -> tf.Tensor:
    """Returns y = forward(*inputs), whose gradient is backward(upstream, y).

    The y that `backward` receives is the returned tensor itself, not the one made inside. So the
    next layer and the backward pass keep the same tensor; and as that one has a gradient, a tape
    finds derivatives of every order.

    In eager mode, forward-mode differentiation calls `backward` before the return, with the result
    of `forward`. If it could, it would use the derivative of the steps inside, from which x is
    hidden: so their result is hidden as well.
    """
    kept = {}

    @tf.custom_gradient
    def operation(*inputs: tf.Tensor) -> Any:
        kept["y"] = forward(*inputs)
        return _hidden(kept["y"]), lambda upstream: backward(upstream, kept["y"])

    kept["y"] = operation(*inputs)
    return kept["y"]


@functools.lru_cache(maxsize=256)
def _fixed(alpha: float, dtype: tf.DType) -> Any:
    """Returns a function that computes leaky ReLU with slope `alpha` on tensors of `dtype`.

    It uses the fused kernels, unless alpha would change as a float32, which is how they store it.

    Raises:
        ValueError: If `alpha` is not finite in `dtype`.
    """
    slope = constant_slopes(alpha, dtype, subject="leaky_relu")
    with np.errstate(over="ignore"):
        if dtype == tf.float64 and slope != np.float32(slope):
            return functools.partial(_fixed_select, alpha=slope)
    keeps_x = alpha < 0

    @tf.custom_gradient
    def fused(x: tf.Tensor) -> Any:
        x = _local(x) if keeps_x else x
        y = tf.raw_ops.LeakyRelu(features=_hidden(x), alpha=alpha)
        kept = x if keeps_x else y  # a closure keeps what it names
        x_of_graph = _of_graph(x)

        def backward(upstream: tf.Tensor) -> tf.Tensor:
            features = xla.to_keep(x_of_graph, kept)
            return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=features, alpha=alpha)

        return y, backward

    return fused


def _fixed_select(x: tf.Tensor, alpha: np.ndarray) -> tf.Tensor:
    """Leaky ReLU with constant slopes, computed with plain operations."""
    wide = _wider(x.dtype)
    slopes = _fit(tf.constant(alpha, wide), x)
    keeps_x = (alpha < 0).any()
    x = _local(x) if keeps_x else x
    kept_x = x if keeps_x else None  # a closure keeps what it names
    x_of_graph = _of_graph(x)
    dtype = x.dtype

    def backward(upstream: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        kept = xla.to_keep(x_of_graph, y) if kept_x is None else kept_x
        with tf.control_dependencies([upstream]):
            return tf.cast(_slope_at(kept, slopes) * tf.cast(upstream, wide), dtype)

    return _differentiate(lambda x: _select(x, slopes), backward, x)


def _from_input(x: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Leaky ReLU with a differentiable slope of any value, in the wide dtype; keeps x."""
    x, alpha = _local(x), _local(alpha)

    def backward(upstream: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _gradients(x, alpha, upstream)

    return _differentiate(_select, backward, x, alpha)


def _from_output(x: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Leaky ReLU with a differentiable slope above 0, in the wide dtype; keeps y.

    dalpha needs x = y / alpha, and second derivatives need the dependence of y on x and alpha. In
    eager mode, forward-mode differentiation uses y before the outer one exists: so an inner one
    with the same gradient replaces it.
    """
    x, alpha = _local(x), _local(alpha)
    x_of_graph = _of_graph(x)

    def backward(upstream: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        kept = xla.to_keep(x_of_graph, y)
        dx, total = _gradients(kept, alpha, upstream)
        if kept is y:
            return dx, total / alpha
        return dx, tf.where(alpha > 0, total, alpha)  # NaN where alpha is NaN

    def inner(x: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        return _differentiate(_select, backward, x, alpha)

    return _differentiate(inner, backward, x, alpha)


def _gradients(
    kept: tf.Tensor, alpha: tf.Tensor, upstream: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """dx, and the sum of kept * upstream where `kept`, which is x or y, isn't positive."""
    if xla.compiles_for_cpu():  # it orders and merges the steps itself
        wide = tf.cast(upstream, alpha.dtype)
        terms = tf.where(kept > 0, tf.zeros([], alpha.dtype), tf.cast(kept, alpha.dtype) * wide)
        total = _sum_like(alpha, terms, kept.shape.rank)
        return tf.cast(_slope_at(kept, alpha) * wide, kept.dtype), total
    with tf.control_dependencies([upstream]):
        wide = tf.cast(upstream, alpha.dtype)
        terms = _negative_part(kept, alpha.dtype, times=wide)
        total = _sum_like(alpha, terms, kept.shape.rank)
    with tf.control_dependencies([total]):
        return tf.cast(_slope_at(kept, alpha) * wide, kept.dtype), total


def _select(x: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """The value, with plain operations. `maximum(x, alpha * x)` would be wrong for alpha > 1."""
    x, alpha = _hidden(x), _hidden(alpha)
    return tf.cast(_slope_at(x, alpha) * tf.cast(x, alpha.dtype), x.dtype)


def _slope_at(x: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """1 where x > 0, alpha elsewhere. To multiply by it is faster than to select a product."""
    return tf.where(x > 0, tf.ones([], alpha.dtype), alpha)


def _negative_part(x: tf.Tensor, dtype: Any, *, times: tf.Tensor) -> tf.Tensor:
    """0 where x > 0, even if `times` is infinite or NaN there; x * times elsewhere."""
    return tf.math.multiply_no_nan(times, tf.minimum(tf.cast(x, dtype), tf.zeros([], dtype)))


def _sum_like(alpha: tf.Tensor, terms: tf.Tensor, rank: int | None) -> tf.Tensor:
    """Sums `terms`, of rank `rank`, to the shape of `alpha`, which was broadcast to theirs.

    The last half of the axes is summed before the others: so no float32 sum grows long, which is
    ten times more exact on images. The cast in between keeps XLA from merging the two steps.
    """
    if rank is None:  # so alpha is one slope, or was broadcast to the shape of x: see _fit
        return terms if alpha.shape.rank != 0 else tf.reduce_sum(terms)
    lead = rank - alpha.shape.rank
    ones = [lead + axis for axis, size in enumerate(alpha.shape) if size == 1]
    shared = [*range(lead), *ones]
    half = len(shared) // 2
    total = tf.reduce_sum(terms, shared[half:], True)
    if half:
        total = tf.reduce_sum(tf.cast(total, tf.float64), shared[:half], True)
        total = tf.cast(total, terms.dtype)
    return tf.squeeze(total, list(range(lead))) if lead else total


def _wider(*dtypes: Any) -> Any:
    """The dtype in which products and sums are computed."""
    return tf.float64 if tf.float64 in dtypes else tf.float32


def _fit(alpha: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns `alpha` if its shape is known to broadcast to that of x, else broadcasts it.

    That is for shapes that are unknown while a graph is traced: when the graph runs, it fails if x
    would have to broadcast to alpha. Its gradient is a sum, so alpha has the wide dtype already.
    """
    if alpha.shape.rank == 0:
        return alpha
    if alpha.shape.rank is not None and x.shape.rank is not None:
        sizes = [None] * alpha.shape.rank + x.shape.as_list()
        pairs = list(zip(alpha.shape.as_list(), sizes[-alpha.shape.rank :], strict=True))
        if alpha.shape.rank > x.shape.rank or any(
            mine not in (None, 1) and size not in (None, mine) for mine, size in pairs
        ):
            raise ValueError(
                "leaky_relu: expected the shape of alpha to broadcast to that of x. "
                f"Received: alpha.shape={alpha.shape}, x.shape={x.shape}. "
                "Give one slope, or sizes that are 1 or those of the last axes of x."
            )
        if all(mine == 1 or (mine is not None and mine == size) for mine, size in pairs):
            return alpha
    return tf.broadcast_to(alpha, tf.shape(x))
