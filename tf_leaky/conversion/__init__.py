"""Converts models: stock activations to ours, trained slopes to constants, ours to stock.

| question | file |
| --- | --- |
| what becomes what? | `convert`, `freeze` (with the forms in `frozen`), `to_keras` |
| which activations of Keras are leaky ReLUs? | `stock` |
| how is a model copied? | `remaking`; its parts: `replacing`, `configs`, `cloning`, `rebuilding` |
| how do files keep what changed in layers of the user's classes? | `carrying` |
| what does the copy take over? | `building` and `weights` (`unused`), `compiling` |
| what happens to batch normalisation? | `fusing`, `folding`, with traces from `tracer` |
| which ReLUs are left? | `remaining` |
"""

from tf_leaky.conversion.convert import convert
from tf_leaky.conversion.freeze import freeze
from tf_leaky.conversion.to_keras import to_keras

__all__ = ["convert", "freeze", "to_keras"]
