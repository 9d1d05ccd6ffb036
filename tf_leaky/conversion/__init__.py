"""Converts models: stock activations to ours, trained slopes to constants, ours to stock."""

from tf_leaky.conversion.convert import convert
from tf_leaky.conversion.freeze import freeze
from tf_leaky.conversion.to_keras import to_keras

__all__ = ["convert", "freeze", "to_keras"]
