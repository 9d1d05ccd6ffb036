"""The Keras layer: it validates, stores, builds and saves. The mathematics is in `ops`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import (
    check_floating,
    check_one_tensor,
    checked_axis,
    checked_input_shape,
    constant_slopes,
    shown,
    sizes_of_axes,
)
from tf_leaky.ops import DEFAULT_ALPHA, SMALLEST_POSITIVE_ALPHA, leaky_relu
from tf_leaky.slopes import LayerWithSlopes

_register = tf.keras.utils.register_keras_serializable
_register(package="tf_leaky", name="leaky_relu")(leaky_relu)


@_register(package="tf_leaky", name="LeakyReLU")
class LeakyReLU(LayerWithSlopes):
    """Leaky ReLU as a Keras layer, with a fixed or a trained slope.

    y = x where x > 0, alpha * x elsewhere. PyTorch and Keras 3 call `alpha` `negative_slope`.

    Args:
        alpha: The slope for x <= 0 (dimensionless), or the initial value of a trained slope. A
            number; with `axis`, also nested lists or an array of the slopes' shape.
        trainable_alpha: Whether the slope is trained. Keras's own `trainable` is independent of it:
            `False` freezes a trained slope, but `True` never trains a fixed one.
        axis: None for one slope. Else the axis or axes of the input along which slopes differ, as
            in Keras's normalisation layers: -1 for one slope per channel, `(1, 2, 3)` for one per
            element of an image. The batch axis, 0, is not allowed.
        alpha_constraint: The bounds of a trained slope. "positive" keeps it >= 1e-3, and the layer
            computes with max(alpha, 1e-3), whatever was set, loaded or averaged, so that only the
            output is kept for the backward pass. With None (no bounds) or any Keras constraint,
            the input is kept too. Ignored for fixed slopes.
        alpha_regularizer: A Keras regularizer for a trained slope. Ignored for fixed slopes.
        **kwargs: `name`, `dtype` and the other arguments of every Keras layer.

    Attributes:
        alpha: A float if there is one fixed slope, else the variable, or its initial value before
            the layer is built. The float can be set; a compiled model uses the new value after it
            is compiled again. The variable has shape `()` if `axis` is None, else the sizes of the
            named axes in ascending order. It is float32, or float64 in a float64 layer.

    Input shape:
        Any `(batch, ...)`. The sizes of the axes in `axis` must be known.

    Output shape:
        Same as the input. Masks pass through.

    Gradient:
        dx = upstream where x > 0, alpha * upstream elsewhere: the slope at 0 is alpha.
        dalpha = sum(0 where x > 0, x * upstream elsewhere), over the axes that share the slope,
        summed in float32 or wider, whatever the dtype of x. With "positive", a slope below 1e-3
        has the gradient of a slope of 1e-3, so that it can grow back.

    Raises:
        TypeError: If `alpha` is not numeric, `trainable_alpha` is not a bool, `axis` is not None,
            an integer or a list of integers, `negative_slope` is given in place of `alpha`, or the
            input is not one floating-point tensor.
        ValueError: If `alpha` is not finite, doesn't fit `axis`, or is below 1e-3 and trained with
            the constraint "positive"; if `axis` names the batch axis, an axis twice, or an axis
            that the input doesn't have or whose size is unknown; or if `alpha_constraint` or
            `alpha_regularizer` is unknown.

    Example:
        >>> import tensorflow as tf
        >>> LeakyReLU(0.25)(tf.constant([[-2.0, 3.0]])).numpy().tolist()
        [[-0.5, 3.0]]
        >>> layer = LeakyReLU(0.25, trainable_alpha=True, axis=-1)
        >>> layer(tf.zeros((8, 28, 28, 16))).shape, layer.alpha.shape
        (TensorShape([8, 28, 28, 16]), TensorShape([16]))

    References:
        - Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models" (2013)
        - He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", https://arxiv.org/abs/1502.01852
    """

    _subject = "LeakyReLU"

    def __init__(
        self,
        alpha: Any = DEFAULT_ALPHA,
        *,
        trainable_alpha: bool = False,
        axis: Any = None,
        alpha_constraint: Any = "positive",
        alpha_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if "negative_slope" in kwargs:
            slope = shown(kwargs["negative_slope"])
            raise TypeError(
                "LeakyReLU: expected alpha, which Keras 3 calls negative_slope. "
                f"Received: negative_slope={slope}. Give alpha={slope}."
            )
        super().__init__(trainable_alpha, alpha_constraint, alpha_regularizer, **kwargs)
        self.axis = checked_axis(axis)
        # With slopes that stay positive, the output is enough for the backward pass.
        self._bounds_alpha = trainable_alpha and self.alpha_constraint == "positive"
        self._broadcast_shape: tuple[int, ...] | None = None
        self._begin_with(alpha, self.axis)

    def _checked_alpha(self, alpha: Any) -> np.ndarray:
        values = constant_slopes(alpha, self.compute_dtype, subject="LeakyReLU")
        if values.ndim and self.axis is None:
            raise ValueError(
                "LeakyReLU: expected alpha to be one number if axis is None. "
                f"Received: alpha={shown(alpha)}. "
                "Give the axes along which slopes differ, as in axis=-1."
            )
        if self._bounds_alpha and (values < SMALLEST_POSITIVE_ALPHA).any():
            raise ValueError(
                f"LeakyReLU: expected alpha to be at least {SMALLEST_POSITIVE_ALPHA}, as a trained "
                f"slope is kept positive by default. Received: alpha={shown(alpha)}. "
                "Give a larger alpha, or alpha_constraint=None to train it without bounds."
            )
        return values

    def build(self, input_shape: Any) -> None:
        """Creates the weight `alpha`, unless the slope is one fixed number."""
        if self.built:  # when it is loaded from a file, before its outer layer builds it
            return
        shape = checked_input_shape(input_shape)
        self._add_alpha(
            () if self.axis is None else self._place_slopes(self.axis, shape), self.axis
        )
        self.built = True

    def _place_slopes(self, axis: Any, input_shape: tf.TensorShape) -> tuple[int, ...]:
        """Returns the shape of the slopes for an input; stores how they broadcast to it."""
        sizes = sizes_of_axes(axis, input_shape)
        shape = tuple(sizes.values())
        spread = tuple(sizes.get(axis, 1) for axis in range(min(sizes), input_shape.rank))
        self._broadcast_shape = None if spread == shape else spread
        self.input_spec = tf.keras.layers.InputSpec(ndim=input_shape.rank, axes=sizes)
        return shape

    def call(self, inputs: Any) -> Any:
        """Returns leaky ReLU of `inputs`, in their shape and dtype."""
        check_one_tensor(inputs)
        return leaky_relu(inputs, self._slopes(), positive_alpha=self._bounds_alpha)

    def _slopes(self) -> Any:
        if self._broadcast_shape is None:
            return self.alpha
        return tf.reshape(self.alpha, self._broadcast_shape)

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        """Keras 3 calls this on symbolic inputs, instead of tracing `call`."""
        check_one_tensor(inputs)
        check_floating(inputs.dtype, "inputs", subject="LeakyReLU")
        return super().compute_output_spec(inputs, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs: JSON types only.

        `alpha` is the present value of a fixed scalar slope, else the initial value.
        """
        config = super().get_config()
        config["axis"] = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        if isinstance(self.axis, tuple) and len(self.axis) > 1:
            # From configs in `.h5` files, Keras 3 drops an `axis` that lists several axes.
            config["axes"] = config["axis"]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LeakyReLU:
        """Returns a layer made from a config of this class or of Keras's own LeakyReLU.

        Keras 3 calls alpha `negative_slope`; Keras 2.0 wrote it as
        `{"type": "ndarray", "value": alpha}`.
        """
        if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
            raise TypeError(
                "LeakyReLU: expected config to be a dict with names as keys. "
                f"Received: config={shown(config)}. Give what get_config returned."
            )
        config = dict(config)
        axes = config.pop("axes", None)
        if axes is not None:
            config["axis"] = axes
        if "negative_slope" in config:
            config["alpha"] = config.pop("negative_slope")
        alpha = config.get("alpha")
        if isinstance(alpha, dict) and "value" in alpha:
            config["alpha"] = alpha["value"]
        return cls(**config)
