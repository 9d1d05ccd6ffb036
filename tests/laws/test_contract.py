"""`docs/contract.md` is true: for ours in every mode, and for the others as they are installed."""

import contract
import modes
import numpy as np
import pytest


def held(found, point, alpha, *, positive=False):
    accepted = [answer[: len(found)] for answer in contract.right(point, alpha)]
    if positive:
        accepted += [
            (y, dx, {"-inf": "-inf", "-0": "0"}.get(y, dalpha)) for y, dx, dalpha in accepted
        ]
    return found in accepted


@pytest.mark.parametrize("mode", modes.ALL)
@pytest.mark.parametrize("dtype", contract.DTYPES)
@pytest.mark.parametrize("form", ["FIXED", "TRAINED", "POSITIVE"])
def test_ours_is_right_at_every_edge(form, dtype, mode):
    x = contract.points(dtype)
    for alpha in contract.ALPHAS:
        positive = form == "POSITIVE"
        if positive and alpha <= 0:
            continue
        found = contract.told(getattr(contract, form)(x, alpha, mode=mode), x, alpha)
        wrong = {
            point: answer
            for point, answer in zip(contract.POINTS, found, strict=True)
            if not held(answer, point, alpha, positive=positive)
        }
        assert not wrong, (alpha, wrong)


@pytest.mark.parametrize("mode", modes.ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])  # in the others, 1e-3 is another number
def test_slopes_below_the_bound_answer_as_the_bound(dtype, mode):
    x = contract.points(dtype)
    expected = contract.POSITIVE(x, 1e-3, mode=mode)
    assert np.isfinite(expected[1]).all()
    for alpha in (-0.5, 0.0):
        for found, right in zip(contract.POSITIVE(x, alpha, mode=mode), expected, strict=True):
            np.testing.assert_array_equal(found, right)


def test_page_is_as_it_is_measured():
    """If it fails, a peer has changed: `python tests/laws/contract.py` writes the page again."""
    text = contract.DOCUMENT.read_text()
    assert contract.page(text) == text
    assert "?" not in text


@pytest.mark.skipif(contract.KERAS_3, reason="says what the page says of tf_keras")
def test_layers_of_tf_keras_answer_as_the_page_says():
    of_tf_keras, stock, prelu = (
        contract.PEERS[name] for name in ("Keras LeakyReLU", "`tf.nn.leaky_relu`", "Keras PReLU")
    )
    rows = contract._cells_of(contract.DOCUMENT.read_text())
    for alpha in contract.ALPHAS:
        theirs = contract.answers(of_tf_keras, alpha)
        if alpha == 0:
            for point, found in zip(contract.POINTS, theirs, strict=True):
                if point[0] == "-":
                    assert set(found) <= {("0", "0"), ("-0", "0")}
        else:
            assert theirs == contract.answers(stock, alpha)
        found = contract.answers(prelu, alpha)
        column = 2 + list(contract.PEERS).index("Keras PReLU")
        for point in contract.POINTS:
            assert contract.cell(point, found, alpha) == rows[f"{alpha:g}", point][column]
