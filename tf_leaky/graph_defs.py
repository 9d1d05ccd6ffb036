"""Walks through the nodes of a GraphDef, those in its functions included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def nodes_of(graph: Any) -> Iterator[tuple[str, Any, set[str]]]:
    """Yields the nodes that a GraphDef runs, each with its path and the functions that it calls.

    Backward functions of custom gradients are in a graph's library too, but no node calls them.
    """
    library = {function.signature.name: function for function in graph.library.function}
    nodes, seen = [("", node) for node in graph.node], set[str]()
    for path, node in nodes:  # grows by those of each function that is called
        names = {node.op, *(value.func.name for value in node.attr.values())}
        names.update(each.name for value in node.attr.values() for each in value.list.func)
        called = names & library.keys()
        yield f"{path}{node.name}", node, called
        for name in sorted(called - seen):
            seen.add(name)
            nodes.extend((f"{path}{node.name}/", each) for each in library[name].node_def)
