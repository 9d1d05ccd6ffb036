"""How the pictures of `make why` look: one file for every page, and readable when it is small.

Each is drawn on a white ground of its own, which stays white on a dark page, in colours that the
colour-blind tell apart. All are five inches wide, so that in 400 pixels their text of ten points is
eleven pixels high.
"""

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


def panels(layout, height, **kwargs):
    """A figure so many inches high, and its axes by the letters of `layout`."""
    pyplot.style.use(["default", STYLE])  # and not what a user's matplotlibrc says
    return pyplot.subplot_mosaic(layout, figsize=(WIDTH, height), **kwargs)


def save(figure, path):
    """Writes a figure and lets it go."""
    figure.savefig(path)
    pyplot.close(figure)
