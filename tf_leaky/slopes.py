"""What both layers share: slopes, one or several, fixed or trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky import keras_compat
from tf_leaky.checks import check_bool, check_floating, check_one_tensor, checked_keras_object
from tf_leaky.ops import SMALLEST_POSITIVE_ALPHA, bounded


class LayerWithSlopes(tf.keras.layers.Layer):
    """A layer with a slope or several, in `alpha`."""

    built: bool
    _subject: str  # that error messages start with
    _bounds_alpha: bool  # whether the layer computes with 1e-3 in place of smaller slopes

    def __init__(
        self, trainable_alpha: bool, alpha_constraint: Any, alpha_regularizer: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        check_floating(self.compute_dtype, "dtype", subject=self._subject)
        check_bool(trainable_alpha, "trainable_alpha", subject=self._subject)
        self.trainable_alpha = trainable_alpha
        if not (isinstance(alpha_constraint, str) and alpha_constraint == "positive"):
            alpha_constraint = self._checked_part("alpha", "constraint", alpha_constraint)
        self.alpha_constraint = alpha_constraint
        self.alpha_regularizer = self._checked_part("alpha", "regularizer", alpha_regularizer)

    def _checked_part(self, weight: str, kind: str, value: Any) -> Any:
        """Returns an initializer, regularizer or constraint of a weight."""
        return checked_keras_object(kind, value, of=weight, subject=self._subject)

    def _checked_alpha(self, alpha: Any) -> np.ndarray:
        """Returns the slopes as an array, or raises an error if the layer can't have them."""
        raise NotImplementedError

    def _begin_with(self, alpha: Any, axis: Any) -> None:
        """Sets `alpha` to what it is before the layer is built, with slopes along `axis`."""
        self._is_number = not self.trainable_alpha and axis is None
        self._initial_alpha = self._checked_alpha(alpha)
        several = self._initial_alpha.ndim > 0
        self.alpha: Any = self._initial_alpha if several else float(self._initial_alpha)

    def _add_alpha(self, shape: tuple[int, ...], axis: Any) -> None:
        """Creates the weight `alpha`, unless the slope is one fixed number."""
        if self._is_number:
            return
        if self._initial_alpha.ndim and self._initial_alpha.shape != shape:
            raise ValueError(
                f"{self._subject}: expected alpha to be a number or of shape {shape}, the sizes of "
                f"the input along axis {axis}. Received: alpha.shape={self._initial_alpha.shape}. "
                "Give one slope for each index along these axes, in ascending order of the axes."
            )
        constraint = regularizer = None
        if self.trainable_alpha:
            positive = self.alpha_constraint == "positive"
            constraint = _KeepPositive() if positive else self.alpha_constraint
            regularizer = self.alpha_regularizer
        self.alpha = self._add_weight(
            "alpha",
            shape,
            initializer=self._fill,
            trainable=self.trainable_alpha,
            constraint=constraint,
            regularizer=regularizer,
        )

    def _fill(self, shape: Any, dtype: Any) -> tf.Tensor:
        return tf.broadcast_to(tf.constant(self._initial_alpha, dtype), shape)

    def _add_weight(
        self, name: str, shape: Any, *, constraint: Any, regularizer: Any, **options: Any
    ) -> Any:
        """Adds a weight, at least in float32: below, small steps and long sums would be lost."""
        return self.add_weight(
            name=name,
            shape=shape,
            dtype="float64" if self.dtype == "float64" else "float32",
            autocast=False,
            constraint=keras_compat.as_instance("constraint", constraint),
            regularizer=keras_compat.as_instance("regularizer", regularizer),
            **options,
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns `input_shape`."""
        return input_shape

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        """Keras 3 calls this on symbolic inputs, instead of tracing `call`."""
        check_one_tensor(inputs, subject=self._subject)
        return super().compute_output_spec(inputs, **kwargs)

    def get_prunable_weights(self) -> list[Any]:
        """Returns no weights. TensorFlow Model Optimization asks each layer what to prune."""
        return []

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs: JSON types only.

        `alpha` is the present value of a fixed scalar slope, else the initial value.
        """
        constraint = self.alpha_constraint
        alpha = self._checked_alpha(self.alpha) if self._is_number else self._initial_alpha
        regularizer = serialized_part("regularizer", self.activity_regularizer)
        return {
            **super().get_config(),
            **({} if regularizer is None else {"activity_regularizer": regularizer}),
            "alpha": alpha.tolist(),
            "trainable_alpha": self.trainable_alpha,
            "alpha_constraint": constraint
            if constraint == "positive"
            else serialized_part("constraint", constraint),
            "alpha_regularizer": serialized_part("regularizer", self.alpha_regularizer),
        }


class _KeepPositive(tf.keras.constraints.Constraint):
    """The constraint "positive": slopes below 1e-3 become 1e-3; NaN stays NaN."""

    def __call__(self, alpha: Any) -> tf.Tensor:
        alpha = tf.convert_to_tensor(alpha)
        smallest = tf.constant(SMALLEST_POSITIVE_ALPHA, alpha.dtype)
        return tf.where(alpha < smallest, smallest, alpha)


def serialized_part(kind: str, value: Any) -> Any:
    """Returns the config of an initializer, regularizer or constraint."""
    return None if value is None else getattr(tf.keras, f"{kind}s").serialize(value)


def slopes_in_use(layer: LayerWithSlopes) -> np.ndarray:
    """The slopes that a layer computes with now, in the shape of `alpha`.

    They differ from `alpha` if "positive" bounds a trained slope that was set or averaged.
    """
    if isinstance(layer.alpha, float | np.ndarray):
        return np.asarray(layer.alpha)
    slopes = tf.convert_to_tensor(layer.alpha)
    return np.asarray(bounded(slopes) if layer._bounds_alpha else slopes)
