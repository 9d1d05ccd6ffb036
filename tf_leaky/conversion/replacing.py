"""Which activations of a model are replaced, by what, and where they are."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tf_leaky.conversion.fusing import fused_pairs
from tf_leaky.keras_compat import operations_of
from tf_leaky.layer import LeakyReLU
from tf_leaky.structure import (
    Place,
    held,
    is_activation_function,
    is_graph,
    is_layer,
    last_name,
)

_log = logging.getLogger("tf_leaky")
# Takes an activation (a layer, a function or an operation of a graph) and the layer that it is in
# (itself if it stands alone); returns its replacement, or None if it stays.
Rule = Callable[[Any, Any], Any]


class Replacements:
    """The replacements of a model's activations by a rule, each made once.

    Attributes:
        replaced: The ids of what has a replacement.
    """

    def __init__(self, rule: Rule, *, subject: str) -> None:
        self._rule, self._subject = rule, subject
        self._rules: dict[Any, tuple[Any, Any]] = {}
        self._open: set[int] = set()  # what is being looked through: a layer may refer to its owner
        self.replaced: set[int] = set()

    def of(self, found: Any, host: Any) -> Any:
        """Returns the replacement of an activation; of a layer, the same wherever it is called."""
        key = _key(found, host)
        if key not in self._rules:
            new = self._rule(found, host)
            self._rules[key] = (found, new)  # `found` too, so that its id isn't used again
            if new is not None:
                self.replaced.add(id(found))
        return self._rules[key][1]

    def has(self, found: Any) -> bool:
        """Whether an activation or a normalisation was replaced, wherever it is."""
        return any(new is not None for old, new in self._rules.values() if old is found)

    @contextlib.contextmanager
    def refusing_other_shapes(self, model: Any) -> Iterator[None]:
        """Says so if slopes along an axis can't be those of all inputs of an activation."""
        try:
            yield
        except ValueError as error:
            refused = re.search(r"of layer ['\"]([^'\"]*)['\"] is incompatible", str(error))
            made = [new for _, new in self._rules.values() if isinstance(new, LeakyReLU)]
            if refused and any(x.name == refused[1] and x.axis is not None for x in made):
                raise ValueError(
                    f"{self._subject}: expected inputs of one shape for {refused[1]!r}, whose "
                    f"slopes are along an axis. Received: calls with other shapes in "
                    f"{model.name!r}. Use one layer per shape in its code, or give axis=None."
                ) from error
            raise

    def changes(self, layer: Any) -> bool:
        """Whether any activation within a layer is to be replaced."""
        if id(layer) in self._open:
            return False
        with self.opened(layer):
            if is_graph(layer):
                return any(self.changes(each) for each in operations_of(layer))
            if self.of(layer, layer) is not None:
                return True
            return is_layer(layer) and any(
                self.changes(found) if is_layer(found) else self.of(found, host) is not None
                for _, host, found in self.within(layer)
            )

    @contextlib.contextmanager
    def opened(self, layer: Any) -> Iterator[None]:
        """Has no activations of a layer looked for while it is being looked through."""
        before = set(self._open)
        self._open.add(id(layer))
        try:
            yield
        finally:
            self._open = before

    def within(self, layer: Any, outer: tuple[int, ...] = ()) -> Iterator[tuple[Place, Any, Any]]:
        """Yields the activations and graphs within a layer: place, outer layer, and itself."""
        outer = (*outer, id(layer))
        for place, value in held(layer):
            if id(value) in outer or id(value) in self._open:
                continue
            if is_layer(value):
                host = layer if last_name(place).endswith("activation") else value
                if is_graph(value) or self.of(value, host) is not None:
                    yield place, host, value
                else:
                    within = self.within(value, outer)
                    yield from (([*place, *w], h, v) for w, h, v in within)
            elif is_activation_function(place, value):
                yield place, layer, value

    def fuse_pairs(self, model: Any) -> bool:
        """Has normalisations replaced by fused layers, and their activations by nothing.

        Returns whether there are any.
        """
        pairs, others = fused_pairs(model, self._leaky_relu_for)
        for normalization, activation, fused in pairs:
            # A layer that computes nothing keeps the activation's name and its dtype.
            of_leaky = self._leaky_relu_for(activation).get_config()
            identity = {"name": activation.name.replace(".", "_"), "dtype": of_leaky["dtype"]}
            nothing = tf.keras.layers.Activation("linear", **identity)
            for old, new in ((normalization, fused), (activation, nothing)):
                self._rules[_key(old, old)] = old, new
            self.replaced.add(id(activation))
            _log.info("%s: %s: fused with %s", self._subject, normalization.name, activation.name)
        for normalization, why in others:
            _log.info("%s: %s: not fused, as %s", self._subject, normalization.name, why)
        return bool(pairs)

    def _leaky_relu_for(self, layer: Any) -> Any:
        new = layer if isinstance(layer, LeakyReLU) else self.of(layer, layer)
        return new if isinstance(new, LeakyReLU) else None


def _key(found: Any, host: Any) -> Any:
    """Returns what activations have in common that have one replacement."""
    return id(found) if is_layer(found) else (id(found), id(host))
