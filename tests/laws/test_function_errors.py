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


@pytest.mark.parametrize(
    "x",
    [[1, 2], 1, np.array([3]), tf.constant([1]), tf.constant([1j]), tf.constant([True]), "text"],
    ids=str,
)
def test_x_of_a_wrong_dtype(x):
    with pytest.raises(
        TypeError, match=r"expected x to be of float16, .*Received: x\.dtype='\w+'\. Cast it"
    ):
        leaky_relu(x)


@pytest.mark.parametrize(
    "x",
    [None, object(), tf.ragged.constant([[1.0], []]), tf.sparse.from_dense([[1.0]])],
    ids=lambda x: type(x).__name__,
)
def test_x_that_is_no_tensor(x):
    with pytest.raises(TypeError, match=r"expected x to be a tensor .*Received: x=.* of type "):
        leaky_relu(x)


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


@pytest.mark.parametrize(
    "alpha",
    [
        *(True, False, np.True_, np.array([True, False]), "0.1", ["0.1"], None, [None, 0.1], 1j),
        *(b"0.1", object(), decimal.Decimal("0.1"), [[0.1], [0.2, 0.3]], {}, [True, 10**400]),
        *(np.zeros(0, bool), np.array([True, 2], object)),
        *([True, 0.5], [[0.5], [np.False_]], [tf.Variable(0.1), 0.2], (tf.constant(0.1),)),
        bytearray(b"0.1"),
    ],
    ids=lambda alpha: type(alpha).__name__ if type(alpha) in (object, np.bool_) else repr(alpha),
)
def test_alpha_that_is_not_numeric(alpha):
    with pytest.raises(
        TypeError, match=r"leaky_relu: expected alpha to be a real number.* Received: alpha="
    ):
        leaky_relu(X, alpha)


def test_list_of_symbolic_slopes():
    with pytest.raises(TypeError, match="expected alpha to be a real number"):
        tf.function(lambda a: leaky_relu(X, [a, a]), autograph=False)(tf.constant(0.1))


@pytest.mark.parametrize(
    "alpha",
    [float("nan"), float("inf"), -float("inf"), np.float32("nan"), 1e39, 10**400, [0.1, np.inf]],
    ids=lambda alpha: f"{type(alpha).__name__} {alpha!r}"[:20],
)
def test_alpha_that_is_not_finite(alpha):
    with pytest.raises(
        ValueError, match=r"expected alpha to be finite in float32\. Received: alpha="
    ):
        leaky_relu(X, alpha)


@pytest.mark.parametrize(
    ("dtype", "too_large", "largest"),
    [("float16", 65520.0, 65504.0), ("bfloat16", 3.4e38, 3.38e38), ("float32", 3.41e38, 3.4e38)],
)
def test_alpha_is_finite_in_the_dtype_of_x(dtype, too_large, largest):
    x = tf.constant([-1.0], dtype)
    assert float(leaky_relu(x, largest)[0]) < 0
    with pytest.raises(ValueError, match=f"finite in {dtype}"):
        leaky_relu(x, too_large)


def test_alpha_that_float64_holds():
    assert float(leaky_relu(tf.constant([-1.0], tf.float64), 1e300)[0]) == -1e300


def test_fractions_and_huge_integers_are_numbers():
    assert float(leaky_relu(X, fractions.Fraction(1, 4))[0]) == -0.25
    assert float(leaky_relu(tf.constant([-1.0], tf.float64), 10**30)[0]) == -1e30


@pytest.mark.parametrize("alpha", [tf.constant(1), tf.constant(True), tf.constant("a")], ids=str)
def test_alpha_tensor_of_a_wrong_dtype(alpha):
    with pytest.raises(TypeError, match=r"expected alpha to be of float16.*alpha\.dtype="):
        leaky_relu(X, alpha)


@pytest.mark.parametrize(
    ("x_shape", "alpha_shape"),
    [((2,), (3,)), ((2, 1), (3,)), ((2,), (1, 2)), ((2,), (1, 1, 2)), ((), (1,)), ((3,), (0,))],
)
@pytest.mark.parametrize("positive", [False, True])
def test_alpha_that_does_not_broadcast(x_shape, alpha_shape, positive):
    with pytest.raises(
        ValueError, match=r"alpha to broadcast .* Received: alpha\.shape=.*, x\.shape=.*Give one"
    ):
        leaky_relu(tf.ones(x_shape), tf.ones(alpha_shape), positive_alpha=positive)


def test_alpha_that_does_not_broadcast_is_known_while_tracing():
    function = tf.function(leaky_relu, autograph=False)
    with pytest.raises(ValueError, match="alpha to broadcast"):
        function.get_concrete_function(tf.TensorSpec([None, 4]), tf.TensorSpec([3]))


@pytest.mark.parametrize(
    "positive_alpha", [1, 0, None, "yes", np.True_, tf.constant(True)], ids=repr
)
def test_positive_alpha_that_is_no_bool(positive_alpha):
    with pytest.raises(TypeError, match=r"positive_alpha to be True or False\. Received: positive"):
        leaky_relu(X, positive_alpha=positive_alpha)


@pytest.mark.parametrize("make", [in_itself, ArrayThatFails])
def test_what_fails_while_it_is_read(make):
    with pytest.raises(TypeError, match=r"expected alpha to be a real number.* Received: alpha="):
        leaky_relu(X, make())
    with pytest.raises(TypeError, match=r"expected x to be a tensor .*Received: x="):
        leaky_relu(make())


def test_tensor_of_a_graph_that_is_gone():
    gone = graph_tensor()
    with pytest.raises(TypeError, match=r"expected x to be a tensor .*Received: x="):
        leaky_relu(gone)
    with pytest.raises(TypeError, match=r"expected alpha to be a tensor .*Received: alpha="):
        leaky_relu(X, gone)


@pytest.mark.parametrize(
    "alpha",
    [["x" * 1000] * 1000, "x" * 10**6, 10**5000, [np.nan] * 10**5],
    ids=["texts", "text", "integer", "list"],
)
def test_messages_are_short(alpha):
    with pytest.raises((TypeError, ValueError), match="expected alpha") as error:
        leaky_relu(X, alpha)
    assert len(str(error.value)) < 600
