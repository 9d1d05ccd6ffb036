"""Models as users write them, in a table that the laws run over. See `table.py`."""

import importlib

from zoo.table import MODELS, built, called

__all__ = ["MODELS", "built", "called", "custom_objects"]

ROOMS = [
    importlib.import_module(f"zoo.{name}")
    for name in (
        *("architectures", "compiled", "custom_layers", "functional_classes"),
        *("functions", "sharing", "subclassed"),
    )
]


def custom_objects():
    """The users' classes and functions by name, as `load_model` takes them."""
    return {
        name: thing
        for room in ROOMS
        for name, thing in vars(room).items()
        if callable(thing) and getattr(thing, "__module__", None) == room.__name__
    }
