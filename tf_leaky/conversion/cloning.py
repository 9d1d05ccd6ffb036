"""Copies a model with activations replaced: its layers, weights and training state."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tf_leaky.checks import said, warn
from tf_leaky.conversion.building import build
from tf_leaky.conversion.carrying import (
    Converted,
    alike,
    config_of,
    known,
    made,
    parts_of_graph,
    places_of,
    serialized,
    user_class,
    with_replaced,
    without_carrying,
)
from tf_leaky.conversion.compiling import compile_alike
from tf_leaky.conversion.fusing import fused_pairs
from tf_leaky.conversion.rebuilding import rebuilt
from tf_leaky.conversion.weights import pairs_of, transfer
from tf_leaky.keras_compat import LEGACY, copy_of_lambda, name_layer, operations_of
from tf_leaky.layer import LeakyReLU
from tf_leaky.structure import (
    Place,
    at,
    attributes,
    held,
    is_activation_function,
    is_graph,
    is_layer,
    is_stock,
    last_name,
    layers_within,
    put,
    shown_place,
    variables_of,
)

_log = logging.getLogger("tf_leaky")
# Takes an activation (a layer, a function or an operation of a graph) and the layer that it is in
# (itself if it stands alone); returns its replacement, or None if it stays.
Rule = Callable[[Any, Any], Any]


def clone(model: Any, rule: Rule, *, subject: str, carry: bool = True, fuse: bool = False) -> Any:
    """Returns a copy of a model, with activations replaced by `rule`. The model isn't changed.

    Names, weights, `trainable` flags, dtype policies, sharing and compile settings are those of the
    model, and of each model within it. So is the state of each optimizer, if the trained variables
    are the same.

    Args:
        model: A built model of any kind.
        rule: Returns the replacement of an activation.
        subject: The name that messages start with, here and below.
        carry: Whether layers of the user's own classes get a class of ours if something is replaced
            in them, so that files keep it. If not, a UserWarning says what files don't keep.
        fuse: Whether each BatchNormalization and the activation after it become one layer.

    Raises:
        ValueError: If a layer can't be made again from its config, or a weight would be lost.
    """
    copy = _Copy(rule, subject=subject)
    with warnings.catch_warnings(), copy.refusing_other_shapes(model):
        # Keras warns that it would write the code of a lambda. The copy keeps the same function.
        of_keras = f"(?!{subject}: ).*lambda"
        warnings.filterwarnings("ignore", message=of_keras, category=UserWarning)
        if fuse:
            copy.fuse_pairs(model)
        new = copy.of(model)
        build(model, new, subject)
    if fuse and not copy.fused:
        warn(
            f"{subject}: {model.name!r} has no BatchNormalization that can be fused with the leaky "
            "ReLU after it. Nothing was fused."
        )
    for by, hosts in copy.hosts.values() if carry else ():
        if len(hosts) > 1 and is_layer(by) and by.trainable_variables:
            warn(
                f"{subject}: {by.name!r} is in {', '.join(hosts.values())}. A .keras file of the "
                "copy has its weights for one of them only, and doesn't load. Save the weights, or "
                "give each layer an activation of its own in its code."
            )
    for layer in () if carry else [new, *layers_within(new)]:
        if isinstance(layer, Converted):
            without_carrying(layer, subject)
    pairs = pairs_of(model, new, copy.twin, subject)
    same = transfer(pairs, copy.replaced, subject)
    for old, twin, _ in pairs:
        twin.trainable = old.trainable
    for variable in variables_of(model) if not LEGACY else ():  # Keras 3 can freeze a single one
        if not variable.trainable and id(variable) in same:
            same[id(variable)].trainable = False
    compile_alike(pairs, same, subject=subject)
    return new


class _Copy:
    """Copies layers, each once, so that shared layers stay shared."""

    def __init__(self, rule: Rule, *, subject: str) -> None:
        self._rule, self._subject = rule, subject
        self._copies: dict[int, Any] = {}
        self._rules: dict[Any, tuple[Any, Any]] = {}
        self._open: set[int] = set()  # what is being looked through: a layer may refer to its owner
        self.replaced: set[int] = set()
        self.hosts: dict[int, tuple[Any, dict[int, str]]] = {}
        """The layers of the users' classes in which each replacement stands."""
        self.fused = False

    def of(self, layer: Any) -> Any:
        if id(layer) not in self._copies:
            with self._opened(layer):
                self._copies[id(layer)] = self._new(layer)
        return self._copies[id(layer)]

    def twin(self, layer: Any) -> Any:
        """The copy of a layer of a graph, or None."""
        return self._copies.get(id(layer))

    def _replacement(self, found: Any, host: Any) -> Any:
        """Returns the replacement of an activation; of a layer, the same wherever it is called."""
        key = _key(found, host)
        if key not in self._rules:
            new = self._rule(found, host)
            self._rules[key] = (found, new)  # `found` too, so that its id isn't used again
            if new is not None:
                self.replaced.add(id(found))
        return self._rules[key][1]

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

    def _changes(self, layer: Any) -> bool:
        """Whether any activation within a layer is to be replaced."""
        if id(layer) in self._open:
            return False
        with self._opened(layer):
            if is_graph(layer):
                return any(self._changes(each) for each in operations_of(layer))
            if self._replacement(layer, layer) is not None:
                return True
            return is_layer(layer) and any(
                self._changes(found)
                if is_layer(found)
                else self._replacement(found, host) is not None
                for _, host, found in self._activations(layer)
            )

    @contextlib.contextmanager
    def _opened(self, layer: Any) -> Iterator[None]:
        before = set(self._open)
        self._open.add(id(layer))
        try:
            yield
        finally:
            self._open = before

    def _activations(
        self, layer: Any, outer: tuple[int, ...] = ()
    ) -> Iterator[tuple[Place, Any, Any]]:
        """Yields the activations and graphs within a layer: place, outer layer, and itself."""
        outer = (*outer, id(layer))
        for place, value in held(layer):
            if id(value) in outer or id(value) in self._open:
                continue
            if is_layer(value):
                host = layer if last_name(place).endswith("activation") else value
                if is_graph(value) or self._replacement(value, host) is not None:
                    yield place, host, value
                else:
                    within = self._activations(value, outer)
                    yield from (([*place, *w], h, v) for w, h, v in within)
            elif is_activation_function(place, value):
                yield place, layer, value

    def _new(self, layer: Any) -> Any:
        if is_graph(layer):
            return rebuilt(layer, self.of, self._subject)
        new = self._replacement(layer, layer)
        if new is not None:
            return new
        if not is_layer(layer):  # an operation of Keras 3
            return type(layer).from_config(layer.get_config())
        if isinstance(layer, tf.keras.layers.Lambda):
            return copy_of_lambda(layer)
        return self._new_layer(layer)

    def _trial(self, layer: Any) -> Any:
        """Returns a copy that is only serialised: it is not the one in the new model."""
        copies, hosts, self.hosts = dict(self._copies), self.hosts, {}
        new = self._new(layer)
        self._copies, self.hosts = copies, hosts
        return new

    def _leaky_relu_for(self, layer: Any) -> Any:
        new = layer if isinstance(layer, LeakyReLU) else self._replacement(layer, layer)
        return new if isinstance(new, LeakyReLU) else None

    def fuse_pairs(self, model: Any) -> None:
        """Has normalisations replaced by fused layers, and their activations by nothing."""
        pairs, others = fused_pairs(model, self._leaky_relu_for)
        for normalization, activation, fused in pairs:
            # A layer that computes nothing keeps the activation's name and its dtype.
            of_leaky = self._leaky_relu_for(activation).get_config()
            identity = {"name": activation.name.replace(".", "_"), "dtype": of_leaky["dtype"]}
            nothing = tf.keras.layers.Activation("linear", **identity)
            for old, new in ((normalization, fused), (activation, nothing)):
                self._rules[_key(old, old)] = old, new
            self.replaced.add(id(activation))
            self.fused = True
            _log.info("%s: %s: fused with %s", self._subject, normalization.name, activation.name)
        for normalization, why in others:
            _log.info("%s: %s: not fused, as %s", self._subject, normalization.name, why)

    def _new_layer(self, layer: Any) -> Any:
        """Returns a layer of the same class and config, with its activations replaced."""
        own = user_class(layer)
        with self._making(layer):
            config = _config_without_functions(layer)
        if is_stock(layer):
            new = self._made(own, self._with_backward(self._within(config, layer), layer), layer)
            self._keep_functions(layer, new)
            return new
        try:
            within = self._within(config, layer)
            new = self._made(own, within, layer)
        except Exception:  # of any kind: the class may accept only its own names of activations
            within, new = config, self._made(own, config, layer)
        if within != config and (plain := self._with_other_traits(config, layer, new)) is not None:
            within, new = config, plain
        wanted = {
            tuple(place): by
            for place, by in self._wanted(layer)
            if any(by is each for each in self._copies.values())  # a graph, or in one
            or not alike(_found(new, place), by)
        }
        for by in wanted.values():
            self.hosts.setdefault(id(by), (by, {}))[1][id(layer)] = layer.name
        if wanted:
            try:
                with known(_classes(layer)):
                    new = _named_as(layer, with_replaced(own, within, wanted))
            except (TypeError, RecursionError) as error:
                raise ValueError(
                    f"{self._subject}: expected a class that can have a subclass, as the copy of "
                    f"{layer.name!r} is of one. Received: {own.__qualname__}, for which it fails: "
                    f"{said(error)} Write super().__init__(...) in its constructor, not "
                    "super(self.__class__, self).__init__(...)."
                ) from error
        self._keep_functions(layer, new)
        return new

    def _with_backward(self, config: Any, layer: Any) -> Any:
        """Returns a config that has both layers of a Bidirectional of tf_keras, if one changes.

        Else, when a file is loaded, the activation of one direction would be that of both.
        """
        kind = tf.keras.layers.Bidirectional
        if not (LEGACY and type(layer) is kind and self._changes(layer.backward_layer)):
            return config
        backward = serialized(self._trial(layer.backward_layer))
        backward["config"]["name"] = layer.backward_layer.name.removeprefix("backward_")
        return {**config, "backward_layer": backward}

    def _with_other_traits(self, config: Any, layer: Any, new: Any) -> Any:
        """Returns a layer made of a config, if it differs in more than activations; else None.

        A constructor may look at a name: `gain = 2**0.5 if activation == "relu" else 1`.
        """
        try:
            plain = self._made(user_class(layer), config, layer)
        except ValueError:  # with a function that can't be serialised
            return None
        return plain if self._traits(plain, layer) != self._traits(new, layer) else None

    def _traits(self, new: Any, layer: Any) -> dict[str, Any]:
        """Returns the attributes of a layer by place, but for what replaces those of `layer`."""
        skipped = [place for place, _ in self._wanted(layer)]
        found: dict[str, Any] = {}

        def read(holder: Any, way: Place, outer: list[Any]) -> None:
            for step, value in held(holder):
                place = [*way, *step]
                if place in skipped:
                    continue
                number_or_text = value is None or isinstance(value, bool | int | float | str)
                found[shown_place(place)] = value if number_or_text else type(value)
                seen = any(value is each for each in outer)
                if is_layer(value) and not is_graph(value) and not seen:
                    read(value, place, [*outer, value])

        read(new, [], [new])
        return found

    def _keep_functions(self, layer: Any, new: Any) -> None:
        """Puts the same functions in the copy of a layer, even if they can't be serialised."""
        for place, host, found in self._activations(layer):
            if _is_method_within(found, layer):  # the copy has its own
                continue
            if not is_layer(found) and self._replacement(found, host) is None:
                there = _found(new, place)
                if there is not None and there is not found:
                    put(new, place, found)

    def _wanted(self, layer: Any) -> Iterator[tuple[Place, Any]]:
        """Yields the replacements, by place, in the copy of a layer of the user's own class."""
        for place, host, found in self._activations(layer):
            new = self._replacement(found, host)
            if not is_graph(found) and new is not None:
                yield place, new
        for place, part in self._graphs(layer):
            yield place, self.of(part)
        for place in places_of(layer) if isinstance(layer, Converted) else ():
            found = at(layer, place)
            if not is_layer(found):
                if not any(new is not None for old, new in self._rules.values() if old is found):
                    yield place, found
            elif self._rules.get(id(found), (found, None))[1] is None:
                yield place, self.of(found)

    def _graphs(self, layer: Any) -> list[tuple[Place, Any]]:
        """Returns the graphs within a layer that change, and what shares layers with them."""
        graphs = [(place, each) for place, _, each in self._activations(layer) if is_graph(each)]
        parts = graphs + [(place, each) for place, each in held(layer) if is_layer(each)]
        found: list[tuple[Place, Any]] = []
        waiting = [(place, graph) for place, graph in graphs if self._changes(graph)]
        while waiting:
            found += waiting
            taken = {id(x) for _, graph in found for x in _in_graph(graph)}
            places = [place for place, _ in found]
            waiting = [
                (place, part)
                for place, part in parts
                if place not in places
                and self._replacement(part, part) is None
                and any(id(x) in taken for x in _in_graph(part))
            ]
        return found

    @contextlib.contextmanager
    def _making(self, layer: Any) -> Iterator[None]:
        """Says which layer can't be made again where its class can't."""
        try:
            with known(_classes(layer)):
                yield
        except (TypeError, NotImplementedError, KeyError) as error:
            raise ValueError(
                f"{self._subject}: expected layers that from_config(get_config()) makes again. "
                f"Received: {layer.name!r} of type {type(layer).__qualname__}, for which it fails: "
                f"{said(error)} Nothing was returned: give its class a get_config with the "
                "arguments of its constructor."
            ) from error

    def _made(self, own: Any, config: dict[str, Any], layer: Any) -> Any:
        with self._making(layer):
            return _named_as(layer, made(own, own, config))

    def _within(self, config: Any, host: Any) -> Any:
        """Returns the config of a layer, with the activations in it replaced."""
        parts: dict[str, list[Any]] = {}
        for part in layers_within(host):
            parts.setdefault(part.name, []).append(part)
            # The parts of a Bidirectional have a name of their own in it.
            parts.setdefault(part.name.removeprefix("forward_"), []).append(part)
        return self._value(config, parts, host)

    def _value(self, value: Any, parts: dict[str, list[Any]], host: Any) -> Any:
        if isinstance(value, list | tuple):
            values = [self._value(each, parts, host) for each in value]
            return values if isinstance(value, list) else tuple(values)
        if not isinstance(value, dict):
            return value
        inner = value.get("config")
        if isinstance(value.get("class_name"), str) and isinstance(inner, dict):
            found = parts.get(str(inner.get("name")))
            if found:
                part = found[0] if len(found) == 1 else found.pop(0)
                return serialized(self._trial(part)) if self._changes(part) else value
        return {
            key: self._activation(key, each, parts, host)
            if isinstance(key, str) and key.endswith("activation") and each is not None
            else self._value(each, parts, host)
            for key, each in value.items()
        }

    def _activation(self, key: str, value: Any, parts: dict[str, list[Any]], host: Any) -> Any:
        """Returns the config of an activation in an attribute of the host, replaced or not."""
        found = getattr(host, key, None)
        # The class reads it as it is.
        if found is None or isinstance(found, str | dict) or _is_method_within(found, host):
            return self._value(value, parts, host)
        new = self._replacement(found, host)
        if new is not None:
            return serialized(new)
        if is_layer(found):
            return serialized(self._trial(found))
        try:
            kept = tf.keras.activations.get(value) is found
        except Exception:  # of any kind: a lambda, or a function that isn't registered
            kept = False
        return value if kept else None


def _key(found: Any, host: Any) -> Any:
    """Returns what activations have in common that have one replacement."""
    return id(found) if is_layer(found) else (id(found), id(host))


def _in_graph(layer: Any) -> list[Any]:
    """Returns a layer and, if it is a graph, the layers of it and of graphs in it."""
    return [layer, *(part for _, part in parts_of_graph(layer))]


def _is_method_within(found: Any, layer: Any) -> bool:
    """Whether a function is a method of a layer or of one within it."""
    owner = getattr(found, "__self__", None)
    return any(owner is each for each in (layer, *layers_within(layer)))


def _named_as(layer: Any, new: Any) -> Any:
    """Gives `new`, which isn't called yet, the name of a layer whose constructor takes none."""
    if new.name != layer.name:
        with contextlib.suppress(AttributeError):  # the class has a `name` of its own
            name_layer(new, layer.name)
    return new


def _config_without_functions(layer: Any) -> dict[str, Any]:
    """Returns the config of a layer, without functions that can't be serialised (partial ones)."""
    odd = {
        name: tf.keras.activations.linear
        for name, value in attributes(layer).items()
        if is_activation_function([name], value) and not hasattr(value, "__name__")
    }
    if odd:
        shadow = object.__new__(type(layer))  # the layer itself must not change
        vars(shadow).update(vars(layer), **odd)
        layer = shadow
    return config_of(layer)


def _found(layer: Any, place: Place) -> Any:
    try:
        return at(layer, place)
    except LookupError:
        return None


def _classes(layer: Any) -> dict[str, type]:
    """Returns the users' classes of a layer and those within it, by name."""
    own = {type(each) for each in [layer, *layers_within(layer)]}
    return {
        kind.__name__: kind
        for kind in own
        if kind.__module__.split(".")[0] not in ("keras", "tf_keras", "tf_leaky")
    }
