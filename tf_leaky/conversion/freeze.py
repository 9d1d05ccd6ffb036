"""`freeze`: turns trained slopes into constants."""

from __future__ import annotations

from typing import Any

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.checks import check_bool, check_built_model, shown
from tf_leaky.conversion.folding import folded
from tf_leaky.conversion.frozen import PRELU_RANK, FrozenLeakyReLU
from tf_leaky.conversion.fusing import leaky_relu_of, split
from tf_leaky.conversion.remaking import copied, identity_of
from tf_leaky.layer import LeakyReLU
from tf_leaky.slopes import slopes_in_use


def freeze(model: Any, *, target: str = "serving", fold_batch_norm: bool = False) -> Any:
    """Returns a copy of a model in which the slopes of `LeakyReLU` layers are constants.

    The outputs are the same. A single slope becomes a number, which every export computes in one
    fused operation (LeakyRelu; LEAKY_RELU in LiteRT). Slopes along an `axis` are computed with the
    formula that suits the target. A `BatchNormLeakyReLU` becomes a Sequential of a
    BatchNormalization and a `LeakyReLU`. Stock layers don't change: `convert` them first.

    Args:
        model: A built model of `tf.keras`, as for `convert`. It is not changed.
        target: "serving" for the fastest exact graph: maximum(alpha * x, x) if all slopes are in
            [0, 1], else where(x > 0, x, alpha * x). "litert" for relu(x) + (-alpha) * relu(-x),
            which LiteRT's converter fuses to PRELU; inputs of more than four dimensions, for which
            LiteRT has no PRELU, get the formula for serving.
        fold_batch_norm: Whether to fold batch normalisation, stock or ours, into the convolution or
            Dense layer before it. That layer gets a bias and new weights, and one operation
            replaces several; in float16 and bfloat16, rounding differs. A normalisation is not
            folded if another layer uses the convolution's output too, if the convolution has an
            activation, if it is in a loop or a tf.function of the model's own, or if it normalises
            by the batch at inference. The logger `tf_leaky` reports at INFO what is not folded, and
            why. The result is for inference: if you train it, it no longer normalises.

    Returns:
        A new model of the same class, which saves, loads and exports like any other.

    Gradient:
        With respect to x, that of `LeakyReLU`; with "litert", it is 0 at x = 0. The slopes have
        none.

    Raises:
        TypeError: If `model` is not a model of `tf.keras`, or `fold_batch_norm` is not a bool.
        ValueError: If `model` is not built or can't be made again, or `target` is unknown.

    Example:
        >>> import tensorflow as tf
        >>> layers = [tf.keras.Input((4,)), LeakyReLU(0.25, trainable_alpha=True)]
        >>> freeze(tf.keras.Sequential(layers)).layers[0].alpha
        0.25
    """
    if not isinstance(target, str) or target not in ("serving", "litert"):
        raise ValueError(
            'freeze: expected target to be "serving" or "litert". '
            f"Received: target={shown(target)}. The docstring says what each does."
        )
    check_bool(fold_batch_norm, "fold_batch_norm", subject="freeze")
    check_built_model(model, subject="freeze")

    def rule(found: Any, host: Any) -> Any:
        if isinstance(found, BatchNormLeakyReLU):
            activation = leaky_relu_of(found)
            return split(found, rule(activation, found) or activation)
        if not isinstance(found, LeakyReLU) or not (found.trainable_alpha or found.axis):
            return None
        slopes = slopes_in_use(found)
        if found.axis is None:
            return LeakyReLU(float(slopes), **identity_of(found))
        form = "by maximum" if ((slopes >= 0) & (slopes <= 1)).all() else "by where"
        rank = found.input_spec.ndim if found.built else 0  # 0 if it is never called
        if target == "litert" and rank <= PRELU_RANK:
            form = "by relu"
        return FrozenLeakyReLU(
            float(slopes.mean()), axis=found.axis, form=form, **identity_of(found)
        )

    new = copied(model, rule, subject="freeze")
    return folded(new) if fold_batch_norm else new
