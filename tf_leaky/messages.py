"""How error messages show what was received: in one short piece, whatever it is."""

from __future__ import annotations

import reprlib
from typing import Any

_LONGEST = 300  # characters


class _Short(reprlib.Repr):
    """As `repr`, but quick on large collections, and cut in the middle where it is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxdeque = self.maxarray = 20
        self.maxstring = self.maxother = _LONGEST

    def repr_int(self, x: int, level: int) -> str:
        """Python writes out no integer of more than 4300 digits."""
        return super().repr_int(x, level) if x.bit_length() < 10_000 else _bits(x)


def shown(value: Any) -> str:
    """`repr(value)` in at most 300 characters; the type of what has no `repr` that works."""
    try:
        text = _SHORT.repr(value)
    except Exception:
        text = f"<{type(value).__qualname__} without a repr>"
    half = _LONGEST // 2 - 2
    return text if len(text) <= _LONGEST else f"{text[:half]}...{text[-half:]}"


def said(error: Exception) -> str:
    """What an error says, cut in its middle where that is more than 1000 characters."""
    text = str(error)
    return text if len(text) <= 1000 else f"{text[:500]} ... {text[-500:]}"


def _bits(number: int) -> str:
    sign = "a negative" if number < 0 else "an"
    return f"<{sign} integer of {number.bit_length()} bits>"


_SHORT = _Short()
