"""The options and pictures of `make why`. The pictures are readable on any page, even if small.

Each is drawn on a white background, which stays white on a dark page, in colours that the
colour-blind can tell apart. All are five inches wide: shown 400 pixels wide, their text of ten
points is eleven pixels high.
"""

import argparse
from pathlib import Path

import matplotlib as mpl

from tf_leaky.inspection.plots import COLOURS

mpl.use("Agg")
from matplotlib import pyplot  # after the backend is chosen

BLUE, RED, GREEN, PINK, *_ = COLOURS
GREY = "0.4"
WIDTH = 5  # inches
STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "savefig.dpi": 160,
    "savefig.transparent": False,
}


def options(description, **numbers):
    """Returns the command line's: `--folder`, and integers with these defaults."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    folder = Path(__file__).parents[2] / "saved_models"
    parser.add_argument("--folder", type=Path, default=folder, help="where to draw")
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number, help=f"by default {number}")
    return parser.parse_args()


def panels(layout, height, **kwargs):
    """Returns a figure, `height` inches high, and its axes by the letters of `layout`."""
    pyplot.style.use(["default", STYLE])  # instead of a user's matplotlibrc
    return pyplot.subplot_mosaic(layout, figsize=(WIDTH, height), **kwargs)


def save(figure, path):
    """Writes a figure, and prints where it is."""
    figure.savefig(path)
    print(f"\n{path}")
