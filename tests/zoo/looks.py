"""What can be seen of a model from outside: its outputs, its graph, its weights, its parts."""

import warnings

import numpy as np
import tensorflow as tf

from zoo.table import LEGACY, called, named


def quietly(function, *args, **kwargs):
    """Keras warns of lambdas that users write on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def relu_operations(model, x):
    """How many ReLUs a model's graph computes, and whether it has loops, which repeat theirs."""
    traced = tf.function(lambda x: called(model, x), autograph=False)
    graph = quietly(traced.get_concrete_function, x).graph.as_graph_def()
    names = [node.op for node in nodes(graph)]
    return names.count("Relu"), "While" in names or "StatelessWhile" in names


def nodes(graph):
    """The nodes of a GraphDef, those within its functions included."""
    return [*graph.node, *(node for each in graph.library.function for node in each.node_def)]


def variables(model):
    """Weights and whatever else is a state: seeds, under Keras 3."""
    return model.weights if LEGACY else model.variables


def arrays(model):
    if LEGACY:
        return model.get_weights()  # of vocabularies too
    return [np.asarray(each) for each in variables(model)]


def assert_same_weights(model, other, slopes=True):
    """Bit for bit and in order; a PReLU's slopes may lose axes of size 1, or be left out."""

    def kept(m):
        pairs = zip(arrays(m), variables(m), strict=True)
        return [each for each, v in pairs if slopes or not slope(v)]

    mine, others = kept(model), kept(other)
    assert [each.size for each in mine] == [each.size for each in others]
    for one, two in zip(mine, others, strict=True):
        assert one.dtype == two.dtype
        assert one.tolist() == two.tolist() if one.dtype == object else identical(one, two)


def identical(one, two):
    """Bit for bit, NaN included."""
    return one.tobytes() == two.tobytes()


def slope(variable):
    return "alpha" in named(variable)


def parts(model):
    """Every layer within, at any depth."""
    return list(model._flatten_layers(include_self=True, recursive=True))


def half(model):
    return any("16" in str(part.compute_dtype) for part in parts(model))


def outputs(model, x):
    return [np.asarray(y) for y in tf.nest.flatten(quietly(called, model, x))]


def assert_same(model, x, expected):
    """The model's outputs are those of another, which tells how exact they can be."""
    tolerance = 3e-3 if half(expected) else 1e-5
    y, z = quietly(called, expected, x), quietly(called, model, x)
    tf.nest.assert_same_structure(y, z)
    for one, two in zip(map(np.asarray, tf.nest.flatten(y)), tf.nest.flatten(z), strict=True):
        two = np.asarray(two)
        assert one.dtype == two.dtype
        scale = np.abs(one).max()
        np.testing.assert_allclose(two, one, rtol=tolerance, atol=tolerance * scale)


def ours(model):
    """What is of tf_leaky within a model: layers, and functions that layers hold."""
    held = [thing for part in parts(model) for thing in (part, *vars(part).values())]
    held += [type(thing) for thing in held]
    return {thing for thing in held if str(getattr(thing, "__module__", "")).startswith("tf_leaky")}


def users(model):
    """The users' own layers within; a class of a graph may give way to a plain graph."""
    own = [part for part in parts(model) if type(part).__module__.startswith("zoo.")]
    graph = [part for part in own if getattr(part, "inputs", None)]
    return sorted(type(part).__name__ for part in own if part not in graph)
