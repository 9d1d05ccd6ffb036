"""Pictures of leaky ReLU. matplotlib is imported where it draws, so that the rest does without."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import constant_slopes
from tf_leaky.ops import DEFAULT_ALPHA, leaky_relu


def plot_leaky_relu(alpha: Any = DEFAULT_ALPHA, *, ax: Any = None) -> Any:
    """Returns the Axes on which it draws leaky ReLU and its derivative, for x from -5 to 5.

    Both are computed by `leaky_relu` and its gradient, not by a second formula. Nothing is shown or
    saved: do that with the Axes, or call `matplotlib.pyplot.show()`.

    Args:
        alpha: The slope (dimensionless), or a list of slopes that are drawn together.
        ax: The matplotlib Axes to draw on; None makes a new figure.

    Returns:
        The Axes: for each slope a solid line, f(x), and a dashed line, its derivative.

    Raises:
        ImportError: If matplotlib is not installed: `pip install "tf_leaky[plot]"`.
        TypeError: If `alpha` is not numeric, or `ax` no Axes.
        ValueError: If `alpha` is not finite, or holds no slope.

    Example:
        >>> ax = plot_leaky_relu([0.1, 0.3])
        >>> [line.get_label() for line in ax.lines][:2]
        ['f, alpha = 0.1', 'df/dx, alpha = 0.1']
        >>> ax.figure.savefig("/dev/null", format="png")
    """
    slopes = np.atleast_1d(constant_slopes(alpha, tf.float32, subject="plot_leaky_relu")).ravel()
    if not slopes.size:
        raise ValueError(
            "plot_leaky_relu: expected at least one slope. "
            f"Received: alpha={alpha!r}. Give a number or a list of numbers."
        )
    if ax is not None and not (hasattr(ax, "plot") and hasattr(ax, "set")):
        raise TypeError(
            "plot_leaky_relu: expected ax to be a matplotlib Axes or None. "
            f"Received: ax={ax!r}. None makes a new figure."
        )
    if ax is None:
        _, ax = _pyplot().subplots(layout="constrained")
    # 0 twice: the derivative jumps there, from alpha, which holds at 0 itself, to 1.
    above_zero = float(np.finfo(np.float32).tiny)
    x = np.concatenate([np.linspace(-5, 0, 501), np.linspace(above_zero, 5, 501)])
    points = tf.constant(x, tf.float32)
    for i, slope in enumerate(slopes.tolist()):
        with tf.GradientTape() as tape:
            tape.watch(points)
            y = leaky_relu(points, slope)
        derivative = tape.gradient(y, points)
        colour = f"C{i % 10}"
        ax.plot(x, y.numpy(), color=colour, label=f"f, alpha = {slope:g}")
        ax.plot(x, derivative.numpy(), "--", color=colour, label=f"df/dx, alpha = {slope:g}")
    ax.set(xlabel="x", ylabel="f(x) and df/dx", title="Leaky ReLU", xlim=(-5, 5))
    ax.grid(visible=True, alpha=0.4)
    ax.legend()
    return ax


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "plot_leaky_relu: expected matplotlib to be installed. Received: none. "
            'Install it with: pip install "tf_leaky[plot]".'
        ) from error
    return pyplot
