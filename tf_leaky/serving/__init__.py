"""Exports any Keras model as a version directory for TensorFlow Serving."""

from tf_leaky.serving.export import export_saved_model

__all__ = ["export_saved_model"]
