"""`freeze`: trained slopes become constants."""

from __future__ import annotations

import warnings
from typing import Any

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.checks import check_built_model, shown
from tf_leaky.conversion.folding import folded
from tf_leaky.conversion.frozen import PRELU_RANK, FrozenLeakyReLU
from tf_leaky.conversion.fusing import leaky_relu_of, split
from tf_leaky.conversion.remaking import copied, identity_of
from tf_leaky.layer import LeakyReLU, slopes_in_use
from tf_leaky.structure import layers_within


def freeze(model: Any, *, target: str = "serving", fold_batch_norm: bool = False) -> Any:
    """Returns a copy of a model in which the slopes of `LeakyReLU` layers are constants.

    The outputs are the same. One slope becomes a fixed number, which is one fused operation
    (LeakyRelu; LEAKY_RELU in LiteRT) in every export. Slopes along an `axis` are computed in the
    form that suits the target. A `BatchNormLeakyReLU` becomes a Sequential of a BatchNormalization
    and a `LeakyReLU`. Stock layers stay as they are: `convert` them first.

    Args:
        model: A built model of `tf.keras`, as `convert` takes it. It is not touched.
        target: "serving" for the fastest exact graph: maximum(alpha * x, x) where all slopes are
            in [0, 1], else where(x > 0, x, alpha * x). "litert" for relu(x) + (-alpha) * relu(-x),
            which LiteRT's converter fuses to PRELU, on inputs of up to four dimensions: LiteRT
            has no PRELU for more, which take the form for serving.
        fold_batch_norm: Whether batch normalisation, stock or ours, becomes a part of the
            convolution or Dense layer before it. That layer gets a bias and other weights, and
            computes in one operation what was computed in several; in float16 and bfloat16,
            rounding differs. It is left as it is where another layer takes what the convolution
            returns, too; where that has an activation of its own; in a loop or a tf.function of
            its own; and where it normalises by the batch at inference. What is left, and why, goes
            to the logger `tf_leaky` at INFO. The result is for inference: trained on, it no longer
            normalises.

    Returns:
        A new model of the same class, which saves, loads and exports as any other.

    Gradient:
        That of `LeakyReLU` in x; with "litert", it is 0 at x = 0. There is none in the slopes.

    Raises:
        TypeError: If `model` is no model of `tf.keras`, or `fold_batch_norm` no bool.
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
            f"Received: target={shown(target)}. See the docstring for what each does."
        )
    if not isinstance(fold_batch_norm, bool):
        raise TypeError(
            "freeze: expected fold_batch_norm to be True or False. "
            f"Received: fold_batch_norm={shown(fold_batch_norm)}. Give a Python bool."
        )
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
        rank = found.input_spec.ndim if found.built else 0  # of one that is never called
        if target == "litert" and rank <= PRELU_RANK:
            form = "by relu"
        return FrozenLeakyReLU(
            float(slopes.mean()), axis=found.axis, form=form, **identity_of(found)
        )

    new = copied(model, rule, subject="freeze")
    left = [
        layer.name
        for layer in layers_within(new)
        if isinstance(layer, LeakyReLU) and layer.trainable_alpha
    ]
    if left:
        warnings.warn(
            f"freeze: the slopes of {', '.join(left)} in {new.name!r} are still variables: no "
            "attribute of their layers leads to them.",
            stacklevel=2,
        )
    return folded(new, subject="freeze") if fold_batch_norm else new
