"""The picture of a run: memory and time side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, THEIRS, RELU = (
    "#0072b2",
    "#999999",
    "#555555",
)  # told apart without colour too: by their names
MEMORY = "without BatchNormalization, default threads"
# Blocks of the part `batch_norm`, and what the picture calls them.
BLOCKS = {
    "BN + Keras LeakyReLU": "BN, Keras LeakyReLU",
    "BN + ReLU": "BN, Keras ReLU",
    "BN + ours": "BN, our LeakyReLU",
    "BatchNormLeakyReLU": "BatchNormLeakyReLU",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the peak memory of training steps, and the time of one activation, to an image file.

    Args:
        results: Of a run with the parts `op` and `memory`.
        path: Of the image; the ending says its format.
    """
    from matplotlib.figure import Figure

    mebibytes = results["memory"][MEMORY]["MiB"]
    size = next(s for s in ("16 M", "4 M", "64 k") if f"{s}, graph" in results["op"])
    seconds = results["op"][f"{size}, graph"]["seconds"]
    base = seconds["fixed, tf.nn.leaky_relu"]
    figure = Figure(figsize=(10, 3.6), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(wspace=0.05)
    memory, time = figure.subplots(1, 2)
    _bars(memory, mebibytes, "{:.0f}")
    memory.set_title("Peak memory of training steps, 20 x (convolution, activation)", fontsize=9)
    memory.set_xlabel("MiB above the built model")
    _bars(time, {name: each / base for name, each in seconds.items()}, "{:.2f}")
    time.set_title(f"Forward + backward in a graph, {size} elements", fontsize=9)
    time.set_xlabel("time, in units of tf.nn.leaky_relu's")
    figure.savefig(path, dpi=110)


def draw_blocks(results: dict[str, Any], path: Path) -> None:
    """Draws the peak memory of training blocks with batch normalisation to an image file.

    It is five inches wide on a white ground, to be read 400 pixels wide on pages of any colour.

    Args:
        results: Of a run with the part `batch_norm`.
        path: Of the image; the ending says its format.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    mebibytes = results["batch_norm"]["graph"]["MiB"]
    with rc_context({"font.size": 10}):
        figure = Figure(figsize=(5, 2.4), layout="constrained", facecolor="white")
        axes = figure.subplots()
        _bars(axes, {name: mebibytes[block] for block, name in BLOCKS.items()}, "{:.0f}", size=10)
        axes.set_title("Peak memory of a training step", fontsize=10, loc="right")
        axes.set_xlabel("MiB above the built model, 20 blocks")
        figure.savefig(path, dpi=160)


def _bars(axes: Any, figures: dict[str, float], form: str, size: int = 8) -> None:
    names = sorted(figures, key=figures.__getitem__, reverse=True)
    colours = [
        OURS if "our" in n or "BatchNormLeaky" in n else RELU if "Keras ReLU" in n else THEIRS
        for n in names
    ]
    bars = axes.barh(names, [figures[name] for name in names], color=colours)
    axes.bar_label(bars, [form.format(figures[name]) for name in names], padding=3, fontsize=size)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=size)
