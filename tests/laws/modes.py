"""The three ways in which TensorFlow runs a function."""

import tensorflow as tf


def eager(function):
    return function


def graph(function):
    return tf.function(function, autograph=False)


def xla(function):
    return tf.function(function, autograph=False, jit_compile=True)


ALL = (eager, graph, xla)
