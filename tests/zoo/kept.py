"""Each model of the zoo and its oracle, made once for all laws of a file."""

import functools

import tensorflow as tf

import zoo
from tf_leaky import convert
from zoo import looks
from zoo.table import SLOPE


@functools.cache
def stock(name):
    model, x = looks.quietly(zoo.built, name)
    looks.outputs(model, x)  # makes the weights of layers that are activations of others
    return model, x


@functools.cache
def oracle(name):
    """The same code with the slope where ReLU was, and the same weights."""
    model, x = looks.quietly(zoo.built, name, oracle=True)
    looks.outputs(model, x)
    model.set_weights(stock(name)[0].get_weights())
    return model


@functools.cache
def sloped(name):
    """Converted with the slope; an error where a ReLU stays that should have been changed."""
    strict = not zoo.MODELS[name].left
    return looks.quietly(convert, stock(name)[0], alpha=SLOPE, strict=strict)


def forget():
    for each in (stock, oracle, sloped):
        each.cache_clear()
    tf.keras.backend.clear_session()
