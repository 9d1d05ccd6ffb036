"""Bad input to `leaky_relu`: a clear error, as early as it can be known."""

import fractions
import importlib

import numpy as np
import pytest
import tensorflow as tf

from tf_leaky import leaky_relu
from tf_leaky.checks import said


def tensor_of_a_graph():
    """A tensor that a user kept from a graph that is gone."""
    kept = []
    tf.function(lambda x: kept.append(x + 1) or x)(tf.ones([2, 3]))
    return kept[0]


class WithoutRepr:
    def __repr__(self):
        raise OSError


X = tf.constant([-1.0, 2.0])
# Arguments, the error, and what it says after "leaky_relu: expected ".
WRONG = [
    *(
        ({"x": x}, TypeError, r"x to be of float16, .*x\.dtype='\w+'\. Cast")
        for x in ([1, 2], tf.constant([True]), "text")
    ),
    *(
        ({"x": x}, TypeError, "x to be a tensor .*Received: x=.* of type ")
        for x in (None, tf.ragged.constant([[1.0], []]), WithoutRepr(), tensor_of_a_graph())
    ),
    *(
        ({"alpha": alpha}, TypeError, "alpha to be a real number.* Received: alpha=")
        for alpha in (
            *(True, "0.1", None, 1j, [True, 10**400], [tf.Variable(0.1), 0.2], "x" * 10**6),
            ["x" * 1000] * 1000,
        )
    ),
    *(
        ({"alpha": alpha}, ValueError, rf"alpha to be finite in float32\. Received: alpha={shown}")
        for alpha, shown in (
            (float("nan"), "nan"),
            (1e39, r"1e\+39"),
            ([0.1, np.inf], r"\[0.1, inf\]"),
            (10**5000, "<an integer of 16610 bits>"),
            ([np.nan] * 10**5, r"\[nan, .*\.\.\."),
        )
    ),
    ({"alpha": tf.constant(1)}, TypeError, r"alpha to be of float16.*alpha\.dtype="),
    ({"alpha": tensor_of_a_graph()}, TypeError, "alpha to be a tensor .*Received: alpha="),
    ({"positive_alpha": 1}, TypeError, r"positive_alpha to be True or False\. Received: pos"),
    *(
        ({"x": tf.ones(x), "alpha": tf.ones(alpha)}, ValueError, r"the shape of alpha to br.*Give")
        for x, alpha in (((2,), (3,)), ((2, 1), (3,)), ((2,), (1, 2)), ((), (1,)), ((3,), (0,)))
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^leaky_relu: expected {message}") as raised:
        leaky_relu(**{"x": X} | arguments)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_symbolic_x_is_sent_to_the_layer(package):
    """Of `tf.keras`, and of the Keras that it isn't."""
    x = importlib.import_module(package).Input((3,))
    for call in (leaky_relu, tf.function(lambda: leaky_relu(x), autograph=False)):
        with pytest.raises(TypeError, match=r"symbolic Keras tensors, use the layer tf_leaky\."):
            call(*[x] * (call is leaky_relu))


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


@pytest.mark.parametrize("alpha", [10**30, fractions.Fraction(1, 4)])
def test_numbers_of_every_kind_are_slopes(alpha):
    assert float(leaky_relu(tf.constant([-1.0], tf.float64), alpha)[0]) == -float(alpha)


def test_long_errors_of_models_are_cut_in_the_middle():
    assert said(ValueError("a" * 1000)) == "a" * 1000
    assert said(ValueError("a" * 900 + "b" * 900)) == "a" * 500 + " ... " + "b" * 500
