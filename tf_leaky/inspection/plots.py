"""Plots of leaky ReLU. matplotlib is imported only in the functions that draw."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from tf_leaky.checks import constant_slopes, shown
from tf_leaky.inspection.probing import Probe
from tf_leaky.inspection.statistics import Seen
from tf_leaky.layer import LeakyReLU
from tf_leaky.ops import DEFAULT_ALPHA, leaky_relu
from tf_leaky.slopes import slopes_in_use

# Okabe and Ito's colours for the colour-blind, those that are visible on white and on black.
COLOURS = ("#0090D0", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#8C6BB1")

_MOST = 100  # slopes in one plot


def plot_leaky_relu(alpha: Any = DEFAULT_ALPHA, *, ax: Any = None) -> Any:
    """Draws leaky ReLU and its derivative for x from -5 to 5, and returns the Axes.

    Both are computed with `leaky_relu` and its gradient, not with a second formula. Nothing is
    shown or saved: use the Axes, or call `matplotlib.pyplot.show()`.

    Args:
        alpha: The slope (dimensionless), a list of slopes to draw together, or a `LeakyReLU` whose
            present slopes are drawn; if there are more than six, six quantiles from the smallest to
            the largest.
        ax: The matplotlib Axes to draw on; None makes a new figure.

    Returns:
        The Axes, with a solid line, f(x), and a dashed line, its derivative, for each slope.

    Raises:
        ImportError: If matplotlib is not installed: `pip install "tf_leaky[plot]"`.
        TypeError: If `alpha` is not numeric, or `ax` is not an Axes.
        ValueError: If `alpha` is not finite, or has no slope or more than 100.

    Example:
        >>> ax = plot_leaky_relu([0.1, 0.3])
        >>> [line.get_label() for line in ax.lines][:2]
        ['f, alpha = 0.1', 'df/dx, alpha = 0.1']
        >>> ax.figure.savefig("/dev/null", format="png")
    """
    title = "Leaky ReLU"
    if isinstance(alpha, LeakyReLU):
        held = np.ravel(slopes_in_use(alpha))
        title = f"{alpha.name}: {_describe(held)}"
        alpha = np.unique(held)
        if alpha.size > 6:
            alpha = np.quantile(alpha, np.linspace(0, 1, 6), method="nearest")
    slopes = np.atleast_1d(constant_slopes(alpha, tf.float32, subject="plot_leaky_relu")).ravel()
    if not slopes.size:
        raise ValueError(
            "plot_leaky_relu: expected at least one slope. "
            f"Received: alpha={shown(alpha)}. Give a number or a list of numbers."
        )
    if slopes.size > _MOST:
        raise ValueError(
            f"plot_leaky_relu: expected at most {_MOST} slopes, to be readable. "
            f"Received: alpha={shown(alpha)}, with {slopes.size}. Give fewer of them."
        )
    pyplot = _pyplot("plot_leaky_relu")
    if ax is not None and not (isinstance(ax, pyplot.Axes) and ax.name == "rectilinear"):
        raise TypeError(
            "plot_leaky_relu: expected ax to be a plain matplotlib Axes or None. "
            f"Received: ax={shown(ax)}. None makes a new figure."
        )
    if ax is None:
        _, ax = pyplot.subplots(layout="constrained")
    # 0 and the number above it, as the derivative jumps: it is alpha at 0, and 1 above.
    above_zero = float(np.finfo(np.float32).tiny)
    x = np.concatenate([np.linspace(-5, 0, 501), np.linspace(above_zero, 5, 501)])
    points = tf.constant(x, tf.float32)
    for i, slope in enumerate(slopes.tolist()):
        with tf.GradientTape() as tape:
            tape.watch(points)
            y = leaky_relu(points, slope)
        derivative = tape.gradient(y, points)
        colour = COLOURS[i % len(COLOURS)]
        ax.plot(x, y.numpy(), color=colour, label=f"f, alpha = {slope:.4g}")
        # A longer legend would cover the lines.
        label = f"df/dx, alpha = {slope:.4g}" if slopes.size <= 3 or not i else "_"
        ax.plot(x, derivative.numpy(), "--", color=colour, label=label)
    if slopes.size == 1:
        _annotate(ax, float(slopes[0]))
        ax.set_ylim(bottom=ax.get_ylim()[0] - 0.7)
    quiet = {"color": "0.5", "linewidth": 0.8, "zorder": 0}
    ax.hlines(0, -5, 5, **quiet)
    ax.vlines(0, 0, 1, transform=ax.get_xaxis_transform(), **quiet)
    ax.set(xlabel="x", ylabel="f(x) and df/dx", title=title, xlim=(-5, 5))
    ax.grid(visible=True, alpha=0.25)
    ax.legend(loc="upper left", fontsize="medium" if slopes.size <= 3 else "x-small")
    return ax


def _annotate(ax: Any, slope: float) -> None:
    """Labels the two parts of the line with their slopes."""
    ax.annotate(
        f"slope {slope:g} for x <= 0",
        (-3, -3 * slope),
        xytext=(0, -18 if slope >= 0 else 14),
        textcoords="offset points",
        ha="center",
    )
    ax.annotate("slope 1 for x > 0", (3, 3), xytext=(-8, 8), textcoords="offset points", ha="right")


def plot_activations(model: Any, inputs: Any, *, layers: Any = None) -> Any:
    """Returns a Figure of the inputs and outputs of each activation of a model.

    For each activation, ours or stock, as a layer or as `activation=`, it draws the distributions
    of its inputs (filled) and outputs (a line), on a logarithmic scale; and its slopes, with a mark
    for each if there are several. The title has the share of inputs that are negative, and how many
    units are dead: their output and gradient are 0 for all of the data. A unit is an index along
    the last axis; of a `BatchNormLeakyReLU`, along its `axis`, and the inputs are the normalised
    values. The largest and smallest 0.05 % aren't drawn.

    Data of any size is read batch by batch, and only counts are kept. After ten seconds there is a
    progress bar. Activations that the model calls in a loop, a branch or its own `tf.function`,
    such as those of recurrent layers, are not drawn. A layer that is called twice is drawn twice,
    except for the steps of `TimeDistributed`; layers of the same name are numbered.

    Args:
        model: A built model of `tf.keras`, of any kind. No other thread may use it while it is
            traced: for the first batch, and for later batches of another shape.
        inputs: The model's inputs: arrays (a list or dict of them for several inputs), a
            `tf.data.Dataset`, a Keras dataset or an iterable of batches. If a batch is a tuple, its
            first part is used, as in `fit`. It must end.
        layers: The activations to draw: a name, a layer, or a list of these; None draws all that
            work element by element.

    Returns:
        The matplotlib Figure, with one Axes for each activation in the order of the model's layers,
        and another for the slopes of an activation that has several.

    Raises:
        ImportError: If matplotlib is not installed: `pip install "tf_leaky[plot]"`.
        TypeError: If `model` is not a model of `tf.keras`, or `inputs` is not data.
        ValueError: If `model` is not built, has no such activations, or has a `call` that takes
            several arguments, or if `inputs` is empty or the model can't be called on it.

    Example:
        >>> relu = tf.keras.layers.ReLU(name="relu")
        >>> model = tf.keras.Sequential([tf.keras.Input((2,)), relu])
        >>> figure = plot_activations(model, np.float32([[-1, 2], [-3, 4]]))
        >>> figure.axes[0].get_title().splitlines()
        ['relu', '50 % negative, 1 of 2 units dead']
    """
    pyplot = _pyplot("plot_activations")
    found = Probe(model, layers, subject="plot_activations").look(inputs)
    count = len(found)
    columns = min(count, 3 if count <= 9 else 5)
    rows = math.ceil(count / columns)
    small = count > 9
    size = (2.6, 2.2) if small else (4.2, 3.2)
    figure = pyplot.figure(
        figsize=(max(size[0] * columns, 5), size[1] * rows + 0.5), layout="constrained"
    )
    grid = figure.add_gridspec(rows, columns)
    for i, (name, seen) in enumerate(found.items()):
        several = seen.slopes is not None and seen.slopes.size > 1
        cell = grid[i // columns, i % columns].subgridspec(2, 1, height_ratios=(5, 1))
        ax = figure.add_subplot(cell[0] if several else cell[:])
        _draw_distributions(ax, name, seen, small=small)
        ax.set_gid(name)
        if several and seen.slopes is not None:
            _draw_slopes(figure.add_subplot(cell[1]), seen.slopes, small=small)
        if i % columns == 0:
            ax.set_ylabel("share of values", fontsize="x-small" if small else "medium")
    first = figure.axes[0].get_legend_handles_labels()
    figure.legend(*first, loc="outside upper center", ncols=2)
    return figure


def _draw_distributions(ax: Any, name: str, seen: Seen, *, small: bool) -> None:
    bins = 40 if small else 60
    for histogram, colour, label, fill in (
        (seen.before, COLOURS[0], "input", True),
        (seen.after, COLOURS[1], "output", False),
    ):
        edges, counts = histogram.cropped(bins)
        shares = counts / max(counts.sum(), 1)
        lowest = 0.5 / max(counts.sum(), 1)
        line = {"alpha": 0.5} if fill else {"linewidth": 1.3}
        ax.stairs(
            np.maximum(shares, lowest if fill else 0),
            edges,
            baseline=lowest,
            fill=fill,
            color=colour,
            label=label,
            **line,
        )
    ax.axvline(0, color="0.5", linewidth=0.8, zorder=0)
    ax.locator_params(axis="x", nbins=4 if small else 6)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))
    ax.xaxis.get_offset_text().set_fontsize("xx-small" if small else "small")
    ax.set_yscale("log")
    said = f"{seen.share_negative:.0%} negative, ".replace("%", " %")
    said += f"{int(seen.dead.sum())} of {seen.dead.size} units dead"
    if seen.slopes is not None and seen.slopes.size == 1:
        said += f"\nslope {seen.slopes[0]:.3g}"
    ax.set_title(f"{name}\n{said}", fontsize="x-small" if small else "small")
    ax.tick_params(labelsize="xx-small" if small else "small")
    ax.grid(visible=True, alpha=0.25)


def _draw_slopes(ax: Any, slopes: np.ndarray, *, small: bool) -> None:
    ax.plot(slopes, np.zeros_like(slopes), "|", color=COLOURS[2], markersize=6 if small else 10)
    ax.set_yticks([])
    ax.tick_params(labelsize="xx-small" if small else "small")
    ax.margins(x=0.1)
    if not small:
        ax.set_xlabel(_describe(slopes), fontsize="small")


def _describe(slopes: np.ndarray) -> str:
    if slopes.size == 1:
        return f"slope {slopes[0]:.3g}"
    return f"{slopes.size} slopes from {slopes.min():.3g} to {slopes.max():.3g}"


def draw_lines(epochs: list[int], values: dict[str, list[float]]) -> Any:
    """Returns a Figure of `ActivationMonitor`'s values by epoch, a line for each activation."""
    pyplot = _pyplot("ActivationMonitor")
    panels = {
        "share_negative": "share of inputs below 0",
        "dead": "dead units",
        "always_negative": "units without an input above 0",
        "alpha_mean": "slopes: mean, and spread",
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), sharex=True, layout="constrained")
    names = list(dict.fromkeys(key.rpartition("/")[0] for key in values))
    for ax, (kind, title) in zip(axes.ravel(), panels.items(), strict=True):
        for i, name in enumerate(names):
            if (series := values.get(f"{name}/{kind}")) is None:
                continue
            style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
            colour = COLOURS[i % len(COLOURS)]
            ax.plot(epochs, series, style, color=colour, label=name, marker=".")
            if kind == "alpha_mean":
                spread = np.array(values[f"{name}/alpha_std"])
                low, high = np.array(series) - spread, np.array(series) + spread
                ax.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.set_title(title, fontsize="medium")
        ax.grid(visible=True, alpha=0.25)
        if kind != "alpha_mean":
            ax.set_ylim(0, max(1, ax.get_ylim()[1]))
        if not ax.lines:
            ax.text(0.5, 0.5, "no slopes", ha="center", transform=ax.transAxes)
    for ax in axes[1]:
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", fontsize="small", ncols=1 + len(names) // 25)
    return figure


def _pyplot(subject: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{subject}: expected matplotlib to be installed. Received: none. "
            'Install it with: pip install "tf_leaky[plot]".'
        ) from error
    return pyplot
