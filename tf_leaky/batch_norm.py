"""The Keras layer `BatchNormLeakyReLU`. The mathematics is in `batch_norm_ops`."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky import keras_compat
from tf_leaky.batch_norm_ops import (
    Batch,
    Channels,
    batch_norm_leaky_relu,
    inverted,
    normalized_leaky_relu,
    wider,
)
from tf_leaky.checks import check_one_tensor, checked_input_shape, constant_slopes, shown
from tf_leaky.ops import DEFAULT_ALPHA, SMALLEST_POSITIVE_ALPHA, bounded
from tf_leaky.slopes import LayerWithSlopes

_NAME = "BatchNormLeakyReLU"
_PARTS = ("initializer", "regularizer", "constraint")  # of gamma and beta; averages have the first


@tf.keras.utils.register_keras_serializable(package="tf_leaky", name=_NAME)
class BatchNormLeakyReLU(LayerWithSlopes, tf.keras.layers.BatchNormalization):
    """Batch normalisation followed by leaky ReLU, in one layer that keeps only its output.

    It computes the same as `BatchNormalization` followed by `LeakyReLU`, with the same weights.
    Those two keep two or three tensors of the input's size for the backward pass. This layer keeps
    one, its output, which the next layer keeps anyway: leaky ReLU can be inverted, so the rest is
    recomputed from the output.

    It is a subclass of `BatchNormalization`, so that code that freezes those finds it too.

    Args:
        alpha: The slope of leaky ReLU for negative inputs (dimensionless), or the initial value of
            a trained slope; at least 1e-3. A number; with `alpha_axis`, also a list or an array
            with one slope per channel.
        trainable_alpha: Whether the slope is trained.
        alpha_axis: None for one slope; the same as `axis` for one slope per channel.
        alpha_constraint: The bounds of a trained slope: "positive" for at least 1e-3, None or a
            Keras constraint. The layer always computes with 1e-3 in place of a smaller slope.
        alpha_regularizer: A Keras regularizer for a trained slope.
        axis: The axis of the channels, each of which has its own gamma and beta.
        momentum: Momentum of the moving averages: new = momentum * old + (1 - momentum) * batch.
        epsilon: Number added to the variance before its square root is taken.
        center: Whether there is a beta.
        scale: Whether there is a gamma.
        beta_initializer: Initializer of beta.
        gamma_initializer: Initializer of gamma.
        moving_mean_initializer: Initializer of the moving mean.
        moving_variance_initializer: Initializer of the moving variance.
        beta_regularizer: Regularizer of beta.
        gamma_regularizer: Regularizer of gamma.
        beta_constraint: Constraint of beta.
        gamma_constraint: Constraint of gamma.
        synchronized: Whether mean and variance are computed over all replicas' parts of a batch.
        **kwargs: `name`, `dtype` and the other arguments of every Keras layer.

    Call arguments:
        inputs: Tensor of shape `(batch, ..., channels)`, or with the channels at `axis`.
        training: True to normalise with the mean and variance of the batch, and to update the
            moving averages. Else, or if the layer's `trainable` is False, the moving averages are
            used.
        mask: None, or a bool tensor of the shape of `inputs` without the last axis. It selects the
            elements for the mean and variance; all elements are normalised.

    Attributes:
        gamma: The scale of each channel, or None. It and the next three have shape `(channels,)`
            and dtype float32, or float64 in a float64 layer.
        beta: The offset of each channel, or None.
        moving_mean: The moving mean of each channel.
        moving_variance: The moving variance of each channel.
        alpha: A float if there is one fixed slope, else a variable, the last of the weights.

    Output shape:
        Same as the input. Masks pass through.

    Gradient:
        With xhat = (z - mean) / sqrt(variance + epsilon), u = gamma * xhat + beta, du = upstream
        where y > 0 and alpha * upstream elsewhere, and sums and means over a channel:
        dbeta = sum(du), dgamma = sum(du * xhat), dalpha = sum(0 where y > 0, upstream * u
        elsewhere), dz = gamma / sqrt(variance + epsilon) * (du - mean(du) - xhat * mean(du*xhat)).
        u is recovered from y, and xhat as (u - beta) / gamma, in float32 or wider. So dgamma has
        the rounding error of y times beta / gamma. It is too small where abs(gamma) is below both
        1e-3 and abs(beta) times the machine epsilon of y's dtype. A gamma of 0 counts as 1e-20
        (6e-5 in float16), so that it can be trained.

    Raises:
        TypeError: If `alpha`, `momentum` or `epsilon` is not numeric, `trainable_alpha` is not a
            bool, `axis` or `alpha_axis` is not an integer, or the layer is called on several
            tensors.
        ValueError: If `alpha` is below 1e-3, not finite or doesn't fit the channels; if the input
            has no axis `axis`, or its size there is unknown; if `alpha_axis` is another axis than
            `axis`; if a mask has the wrong shape; if `renorm` is given; or if an initializer,
            regularizer or constraint is unknown.

    Example:
        >>> import tensorflow as tf
        >>> layer = BatchNormLeakyReLU(alpha=0.25)
        >>> y = layer(tf.constant([[-1.0], [1.0]]), training=True)
        >>> [round(float(each), 3) for each in y[:, 0]]
        [-0.25, 1.0]
        >>> [weight.name.split("/")[-1].split(":")[0] for weight in layer.weights]
        ['gamma', 'beta', 'moving_mean', 'moving_variance']

    References:
        - Ioffe, Szegedy, "Batch Normalization", https://arxiv.org/abs/1502.03167
        - Rota Bulo, Porzi, Kontschieder, "In-Place Activated BatchNorm for Memory-Optimized
          Training of DNNs", https://arxiv.org/abs/1712.02616
    """

    _subject, _bounds_alpha = _NAME, True

    def __init__(
        self,
        *,
        alpha: Any = DEFAULT_ALPHA,
        trainable_alpha: bool = False,
        alpha_axis: int | None = None,
        alpha_constraint: Any = "positive",
        alpha_regularizer: Any = None,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        options = _without_renorm(kwargs)
        super().__init__(trainable_alpha, alpha_constraint, alpha_regularizer, **options)
        self.axis = _checked_axis("axis", axis)
        self.alpha_axis = None if alpha_axis is None else _checked_axis("alpha_axis", alpha_axis)
        self.momentum = _checked_number("momentum", momentum)
        self.epsilon = _checked_number("epsilon", epsilon)
        self.center, self.scale = bool(center), bool(scale)
        self.synchronized = bool(synchronized)
        self.beta_initializer = self._checked_part("beta", "initializer", beta_initializer)
        self.gamma_initializer = self._checked_part("gamma", "initializer", gamma_initializer)
        self.moving_mean_initializer = self._checked_part(
            "moving_mean", "initializer", moving_mean_initializer
        )
        self.moving_variance_initializer = self._checked_part(
            "moving_variance", "initializer", moving_variance_initializer
        )
        self.beta_regularizer = self._checked_part("beta", "regularizer", beta_regularizer)
        self.gamma_regularizer = self._checked_part("gamma", "regularizer", gamma_regularizer)
        self.beta_constraint = self._checked_part("beta", "constraint", beta_constraint)
        self.gamma_constraint = self._checked_part("gamma", "constraint", gamma_constraint)
        self._begin_with(alpha, self.alpha_axis)
        self.gamma = self.beta = self.moving_mean = self.moving_variance = None

    def _checked_alpha(self, alpha: Any) -> np.ndarray:
        values = constant_slopes(alpha, self.compute_dtype, subject=_NAME)
        if values.ndim > (self.alpha_axis is not None):
            raise ValueError(
                f"{_NAME}: expected alpha to be one number, or one for each channel if "
                f"alpha_axis is given. Received: alpha={shown(alpha)}, "
                f"alpha_axis={self.alpha_axis}. Give alpha_axis={self.axis} for slopes per channel."
            )
        if (values < SMALLEST_POSITIVE_ALPHA).any():
            raise ValueError(
                f"{_NAME}: expected alpha to be at least {SMALLEST_POSITIVE_ALPHA}, as the output "
                f"is inverted. Received: alpha={shown(alpha)}. Give a larger alpha, or use "
                "BatchNormalization followed by ReLU or LeakyReLU."
            )
        return values

    def build(self, input_shape: Any) -> None:
        """Creates gamma, beta, the moving averages and, unless it is one fixed number, alpha."""
        if self.built:  # when it is loaded from a file, before its outer layer builds it
            return
        shape = checked_input_shape(input_shape, subject=_NAME)
        self._rank, self._positive_axis, size = self._place(shape)
        self.input_spec = tf.keras.layers.InputSpec(
            ndim=self._rank, axes={self._positive_axis: size}
        )
        self.gamma = self._add_for_channels("gamma", size) if self.scale else None
        self.beta = self._add_for_channels("beta", size) if self.center else None
        average = {"trainable": False, **keras_compat.moving_average_options()}
        self.moving_mean = self._add_for_channels("moving_mean", size, **average)
        self.moving_variance = self._add_for_channels("moving_variance", size, **average)
        self._add_alpha(() if self.alpha_axis is None else (size,), self.alpha_axis)
        self.built = True

    def _place(self, shape: tf.TensorShape) -> tuple[int, int, int]:
        """Returns the rank of an input, its axis of channels from 0, and the number of channels."""
        received = f"Received: axis={shown(self.axis)}, input_shape={shape}."
        if shape.rank is None or not -shape.rank <= self.axis < shape.rank:
            raise ValueError(
                f"{_NAME}: expected an input of known rank that has the axis of the channels. "
                f"{received} Give the input a shape, and set axis to its axis of channels."
            )
        axis = self.axis % shape.rank
        if shape[axis] is None:
            raise ValueError(
                f"{_NAME}: expected the number of channels to be known. {received} "
                "Give the input a known size along axis."
            )
        if self.alpha_axis is not None and self.alpha_axis % shape.rank != axis:
            raise ValueError(
                f"{_NAME}: expected alpha_axis to be None or the axis of the channels. {received} "
                f"alpha_axis={shown(self.alpha_axis)}. "
                f"Give alpha_axis={self.axis} for slopes per channel."
            )
        return shape.rank, axis, shape[axis]

    def _add_for_channels(self, name: str, size: int, **options: Any) -> Any:
        parts = {kind: getattr(self, f"{name}_{kind}", None) for kind in _PARTS}
        return self._add_weight(name, (size,), **parts, **options)

    @property
    def weights(self) -> list[Any]:
        """Those of gamma, beta, moving_mean, moving_variance and alpha that exist."""
        if not self.built:
            return []
        own = (self.gamma, self.beta, self.moving_mean, self.moving_variance, self.alpha)
        return [each for each in own if not isinstance(each, float | None)]

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Returns leaky ReLU of the normalised `inputs`, in their shape and the compute dtype."""
        check_one_tensor(inputs, subject=_NAME)
        z = tf.cast(inputs, self.compute_dtype)
        channels = self._channels()
        gamma = _values(self.gamma, 1.0, channels, z.dtype)
        beta = _values(self.beta, 0.0, channels, z.dtype)
        moving_mean = _values(self.moving_mean, 0.0, channels, z.dtype)
        moving_variance = _values(self.moving_variance, 1.0, channels, z.dtype)
        alpha = self._slopes(z.dtype)
        if not (training and self.trainable):
            return normalized_leaky_relu(
                z, gamma, beta, alpha, moving_mean, moving_variance, channels, self.epsilon
            )
        batch = Batch(
            channels,
            z,
            mask=_checked_mask(mask, z),
            extra=keras_compat.added_to_masked_count(),
            all_reduce=_sum_over_replicas if self.synchronized else lambda tensor: tensor,
        )
        y, mean, variance = batch_norm_leaky_relu(z, gamma, beta, alpha, batch, self.epsilon)
        if mask is None and keras_compat.batch_norm_is_fused(
            self._rank, self._positive_axis, z.dtype, synchronized=self.synchronized
        ):
            variance *= batch.count / tf.maximum(batch.count - 1, 1)
        self._update(self.moving_mean, moving_mean, mean, batch)
        self._update(self.moving_variance, moving_variance, variance, batch)
        return y

    def _channels(self) -> Channels:
        size = self.input_spec.axes[self._positive_axis]
        return Channels(self._rank, self._positive_axis, size)

    def _slopes(self, dtype: tf.DType) -> Any:
        """Returns a float if it is fixed, else a tensor; at least 1e-3, with derivative 1."""
        if self._is_number:
            return max(float(self.alpha), SMALLEST_POSITIVE_ALPHA)
        return bounded(tf.cast(tf.convert_to_tensor(self.alpha), wider(dtype)))

    def _update(self, average: Any, old: tf.Tensor, new: tf.Tensor, batch: Batch) -> None:
        """Moves an average, unless the batch is empty."""
        moved = old * self.momentum + new * (1 - self.momentum)
        average.assign(tf.cast(tf.where(batch.count > 0, moved, old), average.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs: JSON types only.

        `alpha` is the present value of a single fixed slope, else the initial value.
        """
        return {
            **_without_renorm(super().get_config()),
            "alpha_axis": self.alpha_axis,
            "synchronized": self.synchronized,  # tf_keras leaves it out
        }


def recovered(layer: BatchNormLeakyReLU, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns gamma * xhat + beta, where a layer returned y, and leaky ReLU's derivative there."""
    return inverted(y, layer._slopes(y.dtype), layer._channels())


def _values(weight: Any, default: float, channels: Channels, dtype: tf.DType) -> tf.Tensor:
    """Returns a weight's values, or `default` if there is no weight, in the wide dtype."""
    if weight is None:
        return tf.fill([channels.size], tf.constant(default, wider(dtype)))
    return tf.cast(tf.convert_to_tensor(weight), wider(dtype))


def _sum_over_replicas(tensor: tf.Tensor) -> tf.Tensor:
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, tensor) if replica else tensor


def _checked_mask(mask: Any, z: tf.Tensor) -> tf.Tensor | None:
    if mask is None:
        return None
    mask = tf.convert_to_tensor(mask)
    if mask.shape.rank != z.shape.rank - 1:
        raise ValueError(
            f"{_NAME}: expected a mask of the inputs' shape without the last axis. "
            f"Received: mask.shape={mask.shape}, inputs.shape={z.shape}. "
            "Give one value for each position."
        )
    return mask


def _checked_axis(name: str, axis: Any) -> int:
    """Returns the axis, which configs of tf_keras have in a list."""
    given = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if not isinstance(given, Integral) or isinstance(given, bool):
        raise TypeError(
            f"{_NAME}: expected {name} to be an integer. Received: {name}={shown(axis)}. "
            "Give the axis of the channels: -1, or 1 if the channels come first."
        )
    return int(given)


def _checked_number(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f"{_NAME}: expected {name} to be a real number. Received: {name}={shown(value)}. "
            "Give a Python or NumPy number."
        )
    return float(value)


def _without_renorm(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options without those of batch renormalisation, which Keras 3's configs have."""
    if options.get("renorm"):
        raise ValueError(
            f"{_NAME}: expected no batch renormalisation. Received: renorm="
            f"{shown(options['renorm'])}. For it, use BatchNormalization followed by LeakyReLU."
        )
    return {name: value for name, value in options.items() if not name.startswith("renorm")}
