"""Whole models: stock activations to ours, trained slopes to constants, and back to stock."""

from tf_leaky.conversion.models import convert, freeze, to_keras

__all__ = ["convert", "freeze", "to_keras"]
