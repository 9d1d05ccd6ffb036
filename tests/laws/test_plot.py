"""What the pictures hold."""

import sys

import matplotlib as mpl
import numpy as np
import oracle
import pytest

from tf_leaky import DEFAULT_ALPHA, LeakyReLU, plot_leaky_relu

mpl.use("Agg")
from matplotlib import pyplot  # after the backend is chosen


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


def test_default_is_the_classic_picture():
    ax = plot_leaky_relu()
    f, derivative = ax.lines
    x, y = f.get_data()
    assert (x[0], x[-1]) == (-5, 5)
    np.testing.assert_allclose(y, oracle.value(x, DEFAULT_ALPHA), rtol=1e-6)
    x, slope = derivative.get_data()
    np.testing.assert_allclose(slope, np.where(x > 0, 1, DEFAULT_ALPHA), rtol=1e-6)
    assert slope[x == 0] == pytest.approx(DEFAULT_ALPHA)
    assert ax.get_xlabel() == "x"
    assert ax.get_ylabel() == "f(x) and df/dx"
    assert ax.xaxis.get_gridlines()[0].get_visible()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["f, alpha = 0.1", "df/dx, alpha = 0.1"]


@pytest.mark.parametrize("alpha", [-0.5, np.float32(0.25), [0.1, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
def test_slopes(alpha):
    slopes = np.atleast_1d(alpha)
    ax = plot_leaky_relu(alpha)
    assert len(ax.lines) == 2 * len(slopes)
    for slope, line in zip(slopes, ax.lines[::2], strict=True):
        x, y = line.get_data()
        np.testing.assert_allclose(y, oracle.value(x, slope), rtol=1e-6)
    assert len({line.get_color() for line in ax.lines}) == len(slopes)
    entries = 2 * len(slopes) if len(slopes) < 4 else len(slopes) + 1  # one for all derivatives
    assert len(ax.get_legend().get_texts()) == entries


def test_draws_on_the_given_axes_and_shows_nothing(monkeypatch):
    monkeypatch.setattr(pyplot, "show", lambda *_: pytest.fail("shown"))
    _, ax = pyplot.subplots()
    assert plot_leaky_relu(ax=ax) is ax
    assert len(pyplot.get_fignums()) == 1


@pytest.mark.parametrize("ax", [3, "axes", pyplot, "polar", "3d"], ids=str)
def test_ax_that_is_no_plain_axes(ax):
    if ax in ("polar", "3d"):
        _, ax = pyplot.subplots(subplot_kw={"projection": ax})
    with pytest.raises(TypeError, match=r"ax to be a plain matplotlib Axes or None\. Rec.*: ax="):
        plot_leaky_relu(ax=ax)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot")
    with pytest.raises(ImportError, match=r'pip install "tf_leaky\[plot\]"'):
        plot_leaky_relu()


@pytest.mark.parametrize(
    ("alpha", "error", "message"),
    [
        ("steep", TypeError, "alpha to be a real number"),
        (float("nan"), ValueError, "alpha to be finite"),
        ([], ValueError, "at least one slope"),
        ([0.1] * 101, ValueError, r"at most 100 slopes.*alpha=.*, with 101\. Give few"),
    ],
)
def test_bad_slopes(alpha, error, message):
    with pytest.raises(error, match=f"(?s)plot_leaky_relu: expected {message}"):
        plot_leaky_relu(alpha)
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("arguments", "lines", "title"),
    [
        ({"alpha": 0.3, "name": "fixed"}, 1, "fixed: slope 0.3"),
        ({"alpha": 0.2, "trainable_alpha": True, "name": "one"}, 1, "one: slope 0.2"),
        ({"alpha": [0.1, 0.5, 0.1], "axis": -1, "name": "few"}, 2, "few: 3 slopes from 0.1 to 0.5"),
        ({"alpha": np.linspace(0, 1, 30), "axis": -1, "name": "many"}, 6, "many: 30 slopes from 0"),
    ],
)
def test_layers_are_drawn_with_their_slopes(arguments, lines, title):
    layer = LeakyReLU(**arguments)
    layer.build((None, np.size(arguments["alpha"])))
    ax = plot_leaky_relu(layer)
    assert ax.get_title().startswith(title)
    slopes = [-line.get_ydata()[0] / 5 for line in ax.lines[::2]]
    assert len(slopes) == lines
    assert min(slopes) == pytest.approx(np.min(arguments["alpha"]))
    assert max(slopes) == pytest.approx(np.max(arguments["alpha"]))
