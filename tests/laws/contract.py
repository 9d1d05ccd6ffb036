"""Writes `docs/contract.md`: what each leaky ReLU returns at the edges of the number line.

    python tests/laws/contract.py    # the columns of what isn't installed are left as they were

Every cell is measured, in four precisions, with an upstream of 1.
"""

import functools
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import tensorflow as tf

from tf_leaky import leaky_relu

try:
    import torch
except ImportError:
    torch = None

KERAS_3 = tf.keras.layers.Layer.__module__.startswith("keras.")
DOCUMENT = Path(__file__).parents[2] / "docs" / "contract.md"
DTYPES = ("float16", "bfloat16", "float32", "float64")
ALPHAS = (-0.5, 0.0, 0.25, 1.0, 1.5)  # exact in all four
SIZES = ("0", "smallest subnormal", "smallest normal", "largest", "inf")
POINTS = (*(sign + size for size in SIZES for sign in "+-"), "NaN")
HEAD = """\
# The contract at the edges

After this page you know what `tf_leaky` returns at zeros, infinities, NaN and the ends of the
number line, and where TensorFlow, Keras and PyTorch return something else.

A cell has y; dx; dalpha for an upstream of 1. (Others with a fixed slope have no dalpha.) It is
the same in float16, bfloat16, float32 and float64, and in tf_leaky for fixed and for trained
slopes. "same" is what tf_leaky returns; what differs is bold. Every cell is measured:

```sh
python tests/laws/contract.py    # writes this page
pytest tests/laws/test_contract.py    # checks it, in eager mode, in a graph and under XLA
```

Many kernels of TensorFlow, the stock ones too, treat a subnormal number as a zero of its sign.
Other kernels and PyTorch do not. So for subnormal x, and where alpha*x is subnormal, the values
at 0 are correct, too. `positive_alpha=True` computes x from y, with max(alpha, 1e-3): dalpha is
-inf where y overflowed to -inf, and 0 where y became 0.

Keras is Keras 3 here. The LeakyReLU of tf_keras takes a negative alpha and returns what
`tf.nn.leaky_relu` does, except at alpha = 0, where it is ReLU: 0 for -inf, too. Its PReLU is
that of Keras 3.
"""


def points(dtype):
    """The numbers of POINTS in a precision."""
    finfo = ml_dtypes.finfo(tf.as_dtype(dtype).as_numpy_dtype)
    ends = (finfo.smallest_subnormal, finfo.smallest_normal, finfo.max)
    sizes = [0.0, *map(float, ends), math.inf]
    signed = [sign * size for size in sizes for sign in (1, -1)]
    return np.array([*signed, math.nan]).astype(tf.as_dtype(dtype).as_numpy_dtype)


def by_tape(function, x, alpha, *, trained=False, mode=lambda function: function):
    """y, dx and, where it is trained, dalpha, element by element: each has a slope of its own."""
    slopes = tf.Variable(np.full(x.shape, alpha), dtype=x.dtype)

    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, slopes if trained else alpha)
        return y, tape.gradient(y, [x, slopes] if trained else [x])

    y, gradients = mode(both)(tf.constant(x))
    return [value.numpy() for value in (y, *gradients)]


def keras_leaky_relu(x, alpha):
    spelled = "negative_slope" if KERAS_3 else "alpha"
    return tf.keras.layers.LeakyReLU(**{spelled: alpha}, dtype=x.dtype.name)(x)


def keras_prelu(x, alpha):
    layer = tf.keras.layers.PReLU(dtype=x.dtype.name)
    layer.build((1, *x.shape))
    layer.set_weights([np.full(x.shape, alpha)])
    point = tf.constant(x[None])
    with tf.GradientTape() as tape:
        tape.watch(point)
        y = layer(point)
    (slopes,) = tape.watched_variables()
    return [np.ravel(value) for value in (y, *tape.gradient(y, [point, slopes]))]


def by_torch(name, x, alpha, *, trained=False):
    dtype = getattr(torch, x.dtype.name)
    point = torch.tensor(x[None].astype("float64"), dtype=dtype, requires_grad=True)
    slopes = torch.full(x.shape, alpha, dtype=dtype, requires_grad=True)
    y = getattr(torch.nn.functional, name)(point, slopes if trained else alpha)
    y.backward(torch.ones_like(y))
    found = (y.detach()[0], point.grad[0], *([slopes.grad] if trained else []))
    return [value.double().numpy().astype(x.dtype) for value in found]


FIXED = functools.partial(by_tape, leaky_relu)
TRAINED = functools.partial(by_tape, leaky_relu, trained=True)
POSITIVE = functools.partial(
    by_tape, functools.partial(leaky_relu, positive_alpha=True), trained=True
)
PEERS = {
    "`tf.nn.leaky_relu`": functools.partial(by_tape, tf.nn.leaky_relu),
    "Keras LeakyReLU": functools.partial(by_tape, keras_leaky_relu),
    "torch `leaky_relu`": functools.partial(by_torch, "leaky_relu"),
    "Keras PReLU": keras_prelu,
    "torch `prelu`": functools.partial(by_torch, "prelu", trained=True),
}


def measurable(peer):
    """Whether a peer is the one that the page means, and installed."""
    return KERAS_3 if "Keras" in peer else torch or "torch" not in peer


def told(found, x, alpha):
    """The answers of one precision, point by point: y by what it is of x, dx, dalpha likewise."""
    y, dx, *dalpha = found
    rows = []
    for i, at in enumerate(map(float, x)):
        row = [_named(float(y[i]), {at: "x"}, "alpha*x"), f"{float(dx[i]) + 0:g}"]
        rows.append((*row, *(_named(float(sums[i]) + 0, {at: "x"}, "?") for sums in dalpha)))
    return rows


def _named(value, names, other):
    if math.isfinite(value) and value != 0:
        return names.get(value, other)
    return f"{value:g}"


def right(point, alpha):
    """What is right at a point, by the formula: the answer, and near 0 what else is."""
    slope = f"{alpha:g}"
    if point == "NaN":
        return [("nan", slope, "nan")]
    sign, size = point[0], point[1:]
    zero = ("-0" if (sign == "-") != (alpha < 0) else "0", slope, "0")
    if sign == "+":
        answer = zero if size == "0" else ("inf" if size == "inf" else "x", "1", "0")
    elif size == "0":
        answer = zero
    else:
        answer = (_times(alpha, size), slope, "-inf" if size == "inf" else "x")
    if size == "smallest subnormal":
        return [answer, zero, (zero[0], *answer[1:])]
    if point == "-smallest normal":  # its product may be subnormal
        return [answer, (zero[0], *answer[1:])]
    return [answer]


def _times(alpha, size):
    """alpha * x for an x < 0 of such a size."""
    if alpha == 0:
        return "nan" if size == "inf" else "-0"
    if size == "inf" or (size == "largest" and abs(alpha) > 1):
        return "-inf" if alpha > 0 else "inf"
    return "x" if alpha == 1 else "alpha*x"


def answers(function, alpha):
    """For each point the answers of a function in the four precisions; None if it refuses alpha."""
    try:
        return list(
            zip(*(told(function(points(d), alpha), points(d), alpha) for d in DTYPES), strict=True)
        )
    except ValueError:
        return None


def cell(point, theirs, alpha):
    """A cell of a peer with such answers: "same", or what differs."""
    if theirs is None:
        return "refuses alpha"
    found = theirs[POINTS.index(point)]
    accepted = [answer[: len(found[0])] for answer in right(point, alpha)]
    if set(found) <= set(accepted):
        return "same"
    if "subnormal" in point:
        zero = f"{point[0]}0"
        if set(found) <= {*accepted, *theirs[POINTS.index(zero)]}:
            return f"same, or as at {zero}"
    texts = ["same"] if set(found) & set(accepted) else []
    for answer in dict.fromkeys(found):
        if answer not in accepted:
            parts = zip(answer, accepted[0], strict=True)
            texts.append("; ".join(part if part == own else f"**{part}**" for part, own in parts))
    return " or ".join(texts)


def page(previous=""):
    """The text of the document; columns that can't be measured are those of the previous text."""
    known = _cells_of(previous)
    lines = [HEAD]
    for alpha in ALPHAS:
        found = {name: answers(peer, alpha) for name, peer in PEERS.items() if measurable(name)}
        lines += [f"## alpha = {alpha:g}", "", f"| x | tf_leaky | {' | '.join(PEERS)} |"]
        lines += ["| --- | :--- " + "| --- " * len(PEERS) + "|"]
        for point in POINTS:
            before = known.get((f"{alpha:g}", point), ["?"] * 7)[2:]
            row = [
                cell(point, found[name], alpha) if name in found else old
                for name, old in zip(PEERS, before, strict=True)
            ]
            lines.append(f"| {' | '.join([point, '; '.join(right(point, alpha)[0]), *row])} |")
        lines.append("")
    return "\n".join(lines)


def _cells_of(text):
    """The rows of the tables of such a page, by alpha and point."""
    rows, alpha = {}, None
    for line in text.splitlines():
        if line.startswith("## alpha = "):
            alpha = line.removeprefix("## alpha = ")
        elif alpha and line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[alpha, cells[0]] = cells
    return rows


if __name__ == "__main__":
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(page(DOCUMENT.read_text() if DOCUMENT.exists() else ""))
    print(f"Wrote {DOCUMENT}" + ("" if all(map(measurable, PEERS)) else ", but not every column"))
