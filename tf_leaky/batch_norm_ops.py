"""Batch normalisation and leaky ReLU as one operation: its value, gradients and memory.

    xhat = (z - mean) / sqrt(variance + epsilon)        along the channels' axis
    u    = gamma * xhat + beta
    y    = u where u > 0, alpha * u elsewhere

The backward pass recovers everything from y (in-place activated batch normalisation, Rota Bulo et
al. 2018): u = y where y > 0, y / alpha elsewhere, and xhat = (u - beta) / gamma. With du the
gradient of u, n the number of elements of a channel and all sums over a channel,

    du     = upstream where y > 0, alpha * upstream elsewhere
    dbeta  = sum(du)
    dgamma = sum(du * xhat)
    dalpha = sum(0 where y > 0, upstream * u elsewhere)
    dz     = gamma / sqrt(variance + epsilon) * (du - dbeta / n - xhat * dgamma / n)

and since du * u = upstream * y, the sums don't need u. So z is freed, and y, which the next layer
keeps anyway, is the only tensor of its size that is kept.

The mean and the variance are results with gradients, too: the backward pass uses them, and second
derivatives differentiate it.

A graph may compute what depends on y alone in the forward pass, and keep it to the end. So all that
the backward pass needs goes through `tf.identity_n`, which waits for the last of it, the upstream,
and copies nothing. Grappler removes control dependencies on the upstream, and an IdentityN unless
one operation takes two of its results. `_through_leaky_relu` takes two: y and the upstream. Control
dependencies on the sums stay: they come first, and free the products that they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_leaky.ops import _hidden, _local

LARGEST_BOUND = 1e-3  # gammas of at least this size are divided by unchanged
_RESOLUTION = {tf.float16: 2**-10, tf.bfloat16: 2**-7, tf.float32: 2**-23, tf.float64: 2**-52}


class Channels:
    """The axis of the channels, each of which has a gamma, a beta, a mean and a variance."""

    def __init__(self, rank: int, axis: int, size: int) -> None:
        self.shape = [1] * rank
        self.shape[axis] = size
        self.size = size
        self.others = [each for each in range(rank) if each != axis]
        self.is_last = axis == rank - 1

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """Returns one value per channel in a shape that broadcasts to the tensor's."""
        one_for_each = values.shape.rank and not self.is_last
        return tf.reshape(values, self.shape) if one_for_each else values

    def total(self, terms: tf.Tensor) -> tf.Tensor:
        """Returns the sum over each channel.

        It takes two steps, so that no float32 sum grows long, which is more exact and faster.
        """
        for axes in (self.others[1:], self.others[:1]):
            terms = tf.reduce_sum(terms, axes, keepdims=True) if axes else terms
        return tf.reshape(terms, [self.size])


class Batch:
    """The elements of a batch that its statistics are computed from.

    Args:
        channels: The channels.
        z: The batch.
        mask: None for all elements, else a bool tensor of z's shape without the last axis.
        extra: What is added to the number of unmasked elements.
        all_reduce: A function that sums a tensor over the replicas.
    """

    def __init__(
        self,
        channels: Channels,
        z: tf.Tensor,
        *,
        mask: tf.Tensor | None,
        extra: float,
        all_reduce: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        self.channels, self.all_reduce = channels, all_reduce
        wide = wider(z.dtype)
        self.mask = None
        if mask is None:
            elements = tf.cast(tf.size(z, tf.int64), wide) / channels.size
            count = tf.fill([channels.size], elements)
        else:
            mask = tf.broadcast_to(tf.cast(mask, tf.bool)[..., tf.newaxis], tf.shape(z))
            self.mask = mask
            count = channels.total(tf.cast(mask, wide))
        self.extra = extra if mask is not None else 0.0
        self.count = all_reduce(count) + self.extra

    def masked(self, terms: tf.Tensor) -> tf.Tensor:
        """Returns `terms`, with 0 for masked elements."""
        return terms if self.mask is None else tf.where(self.mask, terms, tf.zeros([], terms.dtype))

    def mean_of(self, terms: tf.Tensor) -> tf.Tensor:
        """Returns the mean over each channel; 0 if all its elements are masked."""
        total = self.all_reduce(self.channels.total(self.masked(terms)))
        return tf.math.divide_no_nan(total, self.count)


def wider(dtype: tf.DType) -> tf.DType:
    """Returns the dtype in which statistics, products and sums are computed."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def batch_norm_leaky_relu(
    z: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, alpha: Any, batch: Batch, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns y, and the mean and the variance of each channel.

    `gamma`, `beta` and, if it is a tensor, `alpha` have the wide dtype.
    """
    channels, dtype, wide = batch.channels, z.dtype, wider(z.dtype)

    def forward(z: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *alphas: tf.Tensor) -> Any:
        x = tf.cast(z, wide)
        mean = batch.mean_of(x)
        centred = x - channels.spread(mean)
        variance = batch.mean_of(tf.square(centred))
        factor = _never_zero(gamma, dtype) * tf.math.rsqrt(variance + epsilon)
        u = centred * channels.spread(factor) + channels.spread(beta)
        y = _times_slope(u, u, *(alphas or (alpha,)), channels=channels)
        return tf.cast(y, dtype), mean, variance

    def backward(
        upstreams: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], results: Sequence[tf.Tensor]
    ) -> Any:
        y, upstream, dmean, dvariance, mean, variance, gamma, beta, *alphas = tf.identity_n(
            [results[0], *upstreams, *results[1:], *inputs]
        )
        slope = alphas[0] if alphas else alpha
        total, dalphas = _totals(upstream, y, alphas, channels)
        with tf.control_dependencies([total, *dalphas]):  # so that `du` can take upstream's place
            du = _through_leaky_relu(upstream, y, slope, channels=channels)
        y = tf.cast(y, wide)
        dbeta = channels.total(du)
        bounded = _bounded(gamma, beta, dtype)
        dgamma = (total - beta * dbeta) / bounded
        scale = tf.math.rsqrt(variance + epsilon)
        dmean = batch.all_reduce(dmean - gamma * scale * dbeta)
        dvariance = batch.all_reduce(dvariance - gamma * scale * scale * dgamma / 2)
        # With a mask, the deviations from the mean don't quite add up to 0.
        dmean -= 2 * batch.extra * mean * tf.math.divide_no_nan(dvariance, batch.count)
        # Where the variance overflows, the scale is 0, and so are xhat and the gradient of z.
        of_xhat = tf.math.divide_no_nan(2 * dvariance, scale * batch.count) / bounded
        rest = tf.math.divide_no_nan(dmean, batch.count) - of_xhat * beta
        by_statistics = _over_slope(channels.spread(of_xhat) * y, y, slope, channels=channels)
        by_statistics = batch.masked(by_statistics + channels.spread(rest))
        dz = tf.cast(channels.spread(gamma * scale) * du + by_statistics, dtype)
        return dz, dgamma, dbeta, *dalphas

    y, mean, variance = _differentiate(forward, backward, z, gamma, beta, *_trained(alpha))
    return y, mean, variance


def normalized_leaky_relu(
    z: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    alpha: Any,
    mean: tf.Tensor,
    variance: tf.Tensor,
    channels: Channels,
    epsilon: float,
) -> tf.Tensor:
    """Returns y for a given mean and variance of each channel, as at inference."""
    dtype, wide = z.dtype, wider(z.dtype)

    def forward(
        z: tf.Tensor,
        gamma: tf.Tensor,
        beta: tf.Tensor,
        mean: tf.Tensor,
        variance: tf.Tensor,
        *alphas: tf.Tensor,
    ) -> Any:
        factor = _never_zero(gamma, dtype) * tf.math.rsqrt(variance + epsilon)
        offset = beta - mean * factor
        u = tf.cast(z, wide) * channels.spread(factor) + channels.spread(offset)
        y = _times_slope(u, u, *(alphas or (alpha,)), channels=channels)
        return (tf.cast(y, dtype),)

    def backward(
        upstreams: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], results: Sequence[tf.Tensor]
    ) -> Any:
        y, upstream, gamma, beta, _, variance, *alphas = tf.identity_n(
            [*results, *upstreams, *inputs]
        )
        slope = alphas[0] if alphas else alpha
        total, dalphas = _totals(upstream, y, alphas, channels)
        with tf.control_dependencies([total, *dalphas]):
            du = _through_leaky_relu(upstream, y, slope, channels=channels)
        dbeta = channels.total(du)
        dgamma = (total - beta * dbeta) / _bounded(gamma, beta, dtype)
        scale = tf.math.rsqrt(variance + epsilon)
        with tf.control_dependencies([dgamma]):
            dz = tf.cast(channels.spread(gamma * scale) * du, dtype)
        dvariance = -gamma * scale * scale * dgamma / 2
        dmean = -gamma * scale * dbeta
        return dz, dgamma, dbeta, dmean, dvariance, *dalphas

    (y,) = _differentiate(forward, backward, z, gamma, beta, mean, variance, *_trained(alpha))
    return y


def _trained(alpha: Any) -> list[tf.Tensor]:
    return [alpha] if tf.is_tensor(alpha) else []


def _differentiate(
    forward: Callable[..., Any], backward: Callable[..., Any], z: tf.Tensor, *inputs: tf.Tensor
) -> Any:
    """Returns forward(z, *inputs), whose gradients are backward(upstreams, inputs, results).

    The results that `backward` receives are the returned tensors themselves, which have gradients:
    so a tape finds derivatives of every order. In eager mode, forward-mode differentiation calls it
    before the outer results exist: so inner ones with the same gradients replace them. The steps
    inside are hidden from the tape in eager mode, where it would keep z; in a graph, forward-mode
    differentiation goes through them. See `tf_leaky.ops`.
    """
    inputs = tuple(_local(each) for each in inputs)

    def hidden(*inputs: tf.Tensor) -> Any:
        return forward(*map(_hidden, inputs))

    def once(function: Callable[..., Any]) -> Any:
        kept: dict[str, Any] = {}

        @tf.custom_gradient
        def operation(*each: tf.Tensor) -> Any:
            kept["results"] = function(*each)
            found = tuple(map(_hidden, kept["results"]))
            return found, lambda *upstreams: backward(upstreams, inputs, kept["results"])

        def run(*each: tf.Tensor) -> Any:
            kept["results"] = operation(*each)
            return kept["results"]

        return run

    return once(once(hidden))(z, *inputs)


def _times_slope(values: tf.Tensor, at: tf.Tensor, alpha: Any, *, channels: Channels) -> tf.Tensor:
    """`values` where `at` > 0, alpha * values elsewhere.

    The fused kernel is used for a number, which it stores as a float32.
    """
    if not tf.is_tensor(alpha) and at.dtype == tf.float32:
        return tf.raw_ops.LeakyReluGrad(gradients=values, features=at, alpha=alpha)
    slope = channels.spread(tf.convert_to_tensor(alpha, at.dtype))
    return tf.where(at > 0, tf.ones([], at.dtype), slope) * values


def _through_leaky_relu(
    upstream: tf.Tensor, y: tf.Tensor, alpha: Any, *, channels: Channels
) -> tf.Tensor:
    """du, in the wide dtype."""
    wide = wider(y.dtype)
    if y.dtype == wide:
        return _times_slope(upstream, y, alpha, channels=channels)
    if not tf.is_tensor(alpha):
        du = tf.raw_ops.LeakyReluGrad(gradients=upstream, features=y, alpha=alpha)
        return tf.cast(du, wide)
    # They are equal where y > 0, and where the upstream is 0, which no slope changes.
    positive = tf.equal(tf.raw_ops.ReluGrad(gradients=upstream, features=y), upstream)
    return tf.where(positive, tf.ones([], wide), channels.spread(alpha)) * tf.cast(upstream, wide)


def _over_slope(values: tf.Tensor, at: tf.Tensor, alpha: Any, *, channels: Channels) -> tf.Tensor:
    return _times_slope(values, at, 1 / alpha, channels=channels)


def inverted(y: tf.Tensor, alpha: Any, channels: Channels) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns u and the derivative dy/du, both in the wide dtype."""
    y = tf.cast(y, wider(y.dtype))
    derivative = _times_slope(tf.ones_like(y), y, alpha, channels=channels)
    return y / derivative, derivative


def _totals(
    upstream: tf.Tensor, y: tf.Tensor, alphas: Sequence[tf.Tensor], channels: Channels
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns sum(upstream * y) along the channels, and in a list the gradient of a trained alpha.

    They come before all else, so that no later step holds the products.
    """
    wide = wider(y.dtype)
    products = tf.cast(upstream, wide) * tf.cast(y, wide)
    total = channels.total(products)
    if not alphas:
        return total, []
    (alpha,) = alphas
    below = channels.total(tf.where(y > 0, tf.zeros([], wide), products))
    return total, [(below if alpha.shape.rank else tf.reduce_sum(below)) / alpha]


def _sign(gamma: tf.Tensor) -> tf.Tensor:
    one = tf.ones([], gamma.dtype)
    return tf.where(gamma < 0, -one, one)


def _smallest(dtype: tf.DType) -> float:
    """Returns a gamma that has no effect in place of 0, but lets xhat be recovered from y."""
    return 2.0**-14 if dtype == tf.float16 else 1e-20


def _never_zero(gamma: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Returns gamma, but at least `_smallest` in size, with derivative 1."""
    smallest = tf.constant(_smallest(dtype), gamma.dtype)
    used = tf.where(tf.abs(gamma) < smallest, _sign(gamma) * smallest, gamma)
    return gamma + tf.stop_gradient(used - gamma)


def _bounded(gamma: tf.Tensor, beta: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Returns gamma as a divisor: with its sign, but at least as large as y's rounding error.

    Where it is smaller, gamma * xhat is lost in the rounding of y, in `dtype` and near beta.
    """
    bound = tf.clip_by_value(_RESOLUTION[dtype] * tf.abs(beta), _smallest(dtype), LARGEST_BOUND)
    return tf.where(tf.abs(gamma) < bound, _sign(gamma) * tf.stop_gradient(bound), gamma)
