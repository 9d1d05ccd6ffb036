"""Figures as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of figures under columns; a dash where a row has no figure for a column.

    A figure may be a list, such as two quartiles.
    """
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    width = max(map(len, rows))
    widths = [max(len(column), 12) for column in columns]
    lines = [title, _line("", width, columns, widths)]
    for name, row in rows.items():
        cells = [_shown(row[column]) if column in row else "-" for column in columns]
        lines.append(_line(name, width, cells, widths))
    return "\n".join(lines)


def _shown(figure: Any) -> str:
    """Three digits, or all of those before the point."""
    each_of = figure if isinstance(figure, list) else [figure]
    return " - ".join(f"{x:.0f}" if 1000 <= abs(x) < 1e6 else f"{x:.3g}" for x in each_of)


def _line(name: str, width: int, cells: list[str], widths: list[int]) -> str:
    aligned = (f"{cell:>{size}}" for cell, size in zip(cells, widths, strict=True))
    return "  ".join([f"{name:<{width}}", *aligned])


def turned(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of what is given by columns."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return {
        name: {title: column[name] for title, column in columns.items() if name in column}
        for name in names
    }


def by_kind(kinds: Mapping[str, str], results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of each kind of figures, by setting. Kinds that an older run lacks are left out."""
    columns = {
        kind: {setting: found[kind] for setting, found in results.items() if kind in found}
        for kind in kinds
    }
    return "\n\n".join(table(kinds[kind], turned(each)) for kind, each in columns.items() if each)
