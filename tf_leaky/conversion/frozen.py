"""`FrozenLeakyReLU`: constant slopes along axes, with the formula that suits the runtime."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_leaky.checks import floating_tensor, shown
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import SCOPE

# From an `.h5` file, Keras 3 turns a string such as "maximum" into the layer or function of that
# name. No such name has a space in it.
FORMS = ("by maximum", "by where", "by relu")
PRELU_RANK = 4  # the most dimensions that LiteRT's PRELU takes


@tf.keras.utils.register_keras_serializable("tf_leaky")
class FrozenLeakyReLU(LeakyReLU):
    """Leaky ReLU with constant slopes along axes, and a formula for the target of `freeze`.

    Args:
        alpha: The slopes (dimensionless), as in `LeakyReLU`.
        axis: The axes along which slopes differ, as in `LeakyReLU`.
        form: "by maximum" for maximum(alpha * x, x), exact for slopes in [0, 1]; "by where" for
            where(x > 0, x, alpha * x); "by relu" for relu(x) + (-alpha) * relu(-x), which LiteRT
            fuses to PRELU in up to four dimensions.
        **kwargs: As in `LeakyReLU`.
    """

    def __init__(self, alpha: Any, *, axis: Any, form: str, **kwargs: Any) -> None:
        super().__init__(alpha, axis=axis, **kwargs)
        if form not in FORMS:
            raise ValueError(
                f"FrozenLeakyReLU: expected form to be one of {', '.join(FORMS)}. "
                f"Received: form={shown(form)}. `freeze` chooses it."
            )
        self.form = form

    def call(self, inputs: Any) -> Any:
        """Returns leaky ReLU of `inputs`, in their shape and dtype."""
        x = floating_tensor(inputs, "x")
        with tf.name_scope(SCOPE):
            return self._select(x)

    def _select(self, x: tf.Tensor) -> tf.Tensor:
        # The fused kernels round slopes to x's dtype, and so does a constant here.
        alpha = tf.cast(self._slopes(), x.dtype)
        if self.form == "by maximum":
            return tf.maximum(alpha * x, x)  # in this order the gradient at 0 is alpha
        if self.form == "by where":
            return tf.where(x > 0, x, alpha * x)
        # LiteRT's converter looks for slopes with all axes except that of the batch.
        alpha = tf.reshape(alpha, [1] * (x.shape.rank - 1 - alpha.shape.rank) + alpha.shape)
        return tf.nn.relu(x) + (-alpha) * tf.nn.relu(-x)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs: JSON types only."""
        config = {**super().get_config(), "form": self.form}
        for trained in ("trainable_alpha", "alpha_constraint", "alpha_regularizer"):
            del config[trained]
        return config
