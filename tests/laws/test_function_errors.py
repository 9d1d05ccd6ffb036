"""Bad input to `leaky_relu`: a clear error, as early as it can be known."""

import decimal
import fractions
import importlib

import numpy as np
import pytest
import tensorflow as tf
from wrong import ArrayThatFails, graph_tensor, in_itself

from tf_leaky import leaky_relu

X = tf.constant([-1.0, 2.0])
WRONG_DTYPE = ([1, 2], 1, np.array([3]), tf.constant([1j]), tf.constant([True]), "text")
NO_TENSOR = (
    *(None, object(), tf.ragged.constant([[1.0], []]), tf.sparse.from_dense([[1.0]])),
    *(in_itself(), ArrayThatFails(), graph_tensor()),
)
NO_NUMBERS = (
    *(True, np.True_, np.array([True, False]), "0.1", ["0.1"], None, [None, 0.1], 1j, {}),
    *(b"0.1", bytearray(b"0.1"), object(), decimal.Decimal("0.1"), [[0.1], [0.2, 0.3]]),
    *([True, 10**400], np.zeros(0, bool), np.array([True, 2], object), [[0.5], [np.False_]]),
    *([tf.Variable(0.1), 0.2], (tf.constant(0.1),), in_itself(), ArrayThatFails()),
    *(["x" * 1000] * 1000, "x" * 10**6),
)
NOT_FINITE = (
    *(float("nan"), float("inf"), -float("inf"), np.float32("nan"), 1e39, 10**400, 10**5000),
    *([0.1, np.inf], [np.nan] * 10**5),
)
UNFIT = (((2,), (3,)), ((2, 1), (3,)), ((2,), (1, 2)), ((2,), (1, 1, 2)), ((), (1,)), ((3,), (0,)))
# Arguments, the error, and what it says after "leaky_relu: expected ".
WRONG = [
    *(({"x": x}, TypeError, r"x to be of float16, .*x\.dtype='\w+'\. Cast") for x in WRONG_DTYPE),
    *(({"x": x}, TypeError, "x to be a tensor .*Received: x=.* of type ") for x in NO_TENSOR),
    *(
        ({"alpha": a}, TypeError, "alpha to be a real number.* Received: alpha=")
        for a in NO_NUMBERS
    ),
    *(({"alpha": a}, ValueError, r"alpha to be finite in float32\..*: alpha=") for a in NOT_FINITE),
    *(
        ({"alpha": tf.constant(a)}, TypeError, r"alpha to be of float16.*alpha\.dtype=")
        for a in (1, True, "a")
    ),
    ({"alpha": graph_tensor()}, TypeError, "alpha to be a tensor .*Received: alpha="),
    *(
        ({"positive_alpha": each}, TypeError, r"positive_alpha to be True or False\. Received: pos")
        for each in (1, None, "yes", np.True_, tf.constant(True))
    ),
    *(
        (
            {"x": tf.ones(x), "alpha": tf.ones(alpha), "positive_alpha": positive},
            *(
                ValueError,
                r"the shape of alpha to br.* Received: alpha\.shape=.*, x\.shape=.*Give one",
            ),
        )
        for x, alpha in UNFIT
        for positive in (False, True)
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^leaky_relu: expected {message}") as raised:
        leaky_relu(**{"x": X} | arguments)
    assert len(str(raised.value)) < 600


def in_a_graph(x):
    """Where a function that is traced reaches for an x from outside."""
    return tf.function(lambda: leaky_relu(x), autograph=False)()


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_symbolic_x_is_sent_to_the_layer(package):
    """Of `tf.keras`, and of the Keras that it isn't."""
    x = importlib.import_module(package).Input((3,))
    for call in (leaky_relu, in_a_graph):
        with pytest.raises(TypeError, match=r"symbolic Keras tensors, use the layer tf_leaky\."):
            call(x)


def test_what_does_not_fit_is_known_while_tracing():
    with pytest.raises(TypeError, match="expected alpha to be a real number"):
        tf.function(lambda a: leaky_relu(X, [a, a]), autograph=False)(tf.constant(0.1))
    function = tf.function(leaky_relu, autograph=False)
    with pytest.raises(ValueError, match="alpha to broadcast"):
        function.get_concrete_function(tf.TensorSpec([None, 4]), tf.TensorSpec([3]))


@pytest.mark.parametrize(
    ("dtype", "too_large", "largest"),
    [("float16", 65520.0, 65504.0), ("bfloat16", 3.4e38, 3.38e38), ("float32", 3.41e38, 3.4e38)],
)
def test_alpha_is_finite_in_the_dtype_of_x(dtype, too_large, largest):
    x = tf.constant([-1.0], dtype)
    assert float(leaky_relu(x, largest)[0]) < 0
    with pytest.raises(ValueError, match=f"finite in {dtype}"):
        leaky_relu(x, too_large)


@pytest.mark.parametrize("alpha", [1e300, 10**30, fractions.Fraction(1, 4)])
def test_numbers_of_every_kind_are_slopes(alpha):
    assert float(leaky_relu(tf.constant([-1.0], tf.float64), alpha)[0]) == -float(alpha)
