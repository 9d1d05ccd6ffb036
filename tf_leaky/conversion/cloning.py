"""Copies a model with activations replaced: its layers, weights and training state."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import tensorflow as tf

from tf_leaky.batch_norm import BatchNormLeakyReLU
from tf_leaky.checks import said, warn
from tf_leaky.conversion.building import build
from tf_leaky.conversion.carrying import (
    Converted,
    alike,
    known,
    made,
    parts_of_graph,
    places_of,
    user_class,
    with_replaced,
    without_carrying,
)
from tf_leaky.conversion.compiling import compile_alike
from tf_leaky.conversion.configs import Configs, config_without_functions, is_method_within
from tf_leaky.conversion.rebuilding import rebuilt
from tf_leaky.conversion.replacing import Replacements, Rule
from tf_leaky.conversion.weights import pairs_of, transfer
from tf_leaky.keras_compat import LEGACY, copy_of_lambda, count_loss_functions, name_layer
from tf_leaky.structure import (
    Place,
    at,
    held,
    is_activation_function,
    is_graph,
    is_layer,
    is_stock,
    layers_within,
    put,
    shown_place,
    variables_of,
)

_WRAPPERS = tf.keras.layers.TimeDistributed, tf.keras.layers.SpectralNormalization


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
    replacements = Replacements(rule, subject=subject)
    copy = _Copy(replacements, subject=subject)
    with warnings.catch_warnings(), replacements.refusing_other_shapes(model):
        # Keras warns that it would write the code of a lambda. The copy keeps the same function.
        of_keras = f"(?!{subject}: ).*lambda"
        warnings.filterwarnings("ignore", message=of_keras, category=UserWarning)
        fused = fuse and replacements.fuse_pairs(model)
        new = copy.of(model)
        build(model, new, subject)
    if fuse and not fused:
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
    same = transfer(pairs, replacements.replaced, subject)
    lost = []
    for old, twin, path in pairs:
        twin.trainable = old.trainable
        kept = id(old) in replacements.replaced or isinstance(old, BatchNormLeakyReLU)
        if not kept and count_loss_functions(old) > count_loss_functions(twin):
            lost.append(path)
    if lost:
        warn(
            f"{subject}: {', '.join(lost)} got functions by add_loss from outside, which may use "
            "the weights of this model. The copy lacks them: add them to it as well."
        )
    for variable in variables_of(model) if not LEGACY else ():  # Keras 3 can freeze a single one
        if not variable.trainable and id(variable) in same:
            same[id(variable)].trainable = False
    compile_alike(pairs, same, subject=subject)
    return new


class _Copy:
    """Copies layers, each once, so that shared layers stay shared."""

    def __init__(self, replacements: Replacements, *, subject: str) -> None:
        self._replacements, self._subject = replacements, subject
        self._configs = Configs(replacements, self._trial)
        self._copies: dict[int, Any] = {}
        self.hosts: dict[int, tuple[Any, dict[int, str]]] = {}
        """The layers of the users' classes in which each replacement stands."""

    def of(self, layer: Any) -> Any:
        if id(layer) not in self._copies:
            with self._replacements.opened(layer):
                self._copies[id(layer)] = self._new(layer)
        return self._copies[id(layer)]

    def twin(self, layer: Any) -> Any:
        """The copy of a layer of a graph, or None."""
        return self._copies.get(id(layer))

    def _new(self, layer: Any) -> Any:
        if is_graph(layer):
            return rebuilt(layer, self.of, self._subject)
        new = self._replacements.of(layer, layer)
        if new is not None:
            return new
        if not is_layer(layer):  # an operation of Keras 3
            return type(layer).from_config(layer.get_config())
        if isinstance(layer, tf.keras.layers.Lambda):
            return _like(layer, copy_of_lambda(layer))
        return self._new_layer(layer)

    def _trial(self, layer: Any) -> Any:
        """Returns a copy that is only serialised: it is not the one in the new model."""
        copies, hosts, self.hosts = dict(self._copies), self.hosts, {}
        new = self._new(layer)
        self._copies, self.hosts = copies, hosts
        return new

    def _new_layer(self, layer: Any) -> Any:
        """Returns a layer of the same class and config, with its activations replaced."""
        own = user_class(layer)
        with self._making(layer):
            config = config_without_functions(layer)
        if own in _WRAPPERS:  # no config of theirs has functions, or a layer that is elsewhere too
            return own(
                self.of(layer.layer), **{key: config[key] for key in config if key != "layer"}
            )
        if is_stock(layer):
            new = self._made(own, self._configs.replaced(config, layer), layer)
            self._keep_functions(layer, new, config)
            return new
        try:
            within = self._configs.replaced(config, layer)
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
                    new = _like(layer, with_replaced(own, within, wanted))
            except (TypeError, RecursionError) as error:
                raise ValueError(
                    f"{self._subject}: expected a class that can have a subclass, as the copy of "
                    f"{layer.name!r} is of one. Received: {own.__qualname__}, for which it fails: "
                    f"{said(error)} Write super().__init__(...) in its constructor, not "
                    "super(self.__class__, self).__init__(...)."
                ) from error
        self._keep_functions(layer, new, config)
        return new

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

    def _keep_functions(self, layer: Any, new: Any, config: dict[str, Any]) -> None:
        """Puts the same functions in the copy of a layer, even if they can't be serialised."""
        for place, host, found in self._replacements.within(layer):
            if is_method_within(found, layer):  # the copy has its own
                continue
            if not is_layer(found) and self._replacements.of(found, host) is None:
                there = _found(new, place)
                if there is not None and there is not found:
                    put(new, place, found)
        for name in config:  # TensorFlow Probability's layers make others of their configs
            function = vars(layer).get(name)
            is_given = isinstance(function, FunctionType) and isinstance(
                vars(new).get(name), FunctionType
            )
            if is_given and not is_activation_function([name], function):
                setattr(new, name, function)

    def _wanted(self, layer: Any) -> Iterator[tuple[Place, Any]]:
        """Yields the replacements, by place, in the copy of a layer of the user's own class."""
        for place, host, found in self._replacements.within(layer):
            new = self._replacements.of(found, host)
            if not is_graph(found) and new is not None:
                yield place, new
        for place, part in self._graphs(layer):
            yield place, self.of(part)
        for place in places_of(layer) if isinstance(layer, Converted) else ():
            found = at(layer, place)
            if not self._replacements.has(found):
                yield place, self.of(found) if is_layer(found) else found

    def _graphs(self, layer: Any) -> list[tuple[Place, Any]]:
        """Returns the graphs within a layer that change, and what shares layers with them."""
        graphs = [
            (place, each) for place, _, each in self._replacements.within(layer) if is_graph(each)
        ]
        parts = graphs + [(place, each) for place, each in held(layer) if is_layer(each)]
        found: list[tuple[Place, Any]] = []
        waiting = [(place, graph) for place, graph in graphs if self._replacements.changes(graph)]
        while waiting:
            found += waiting
            taken = {id(x) for _, graph in found for x in _in_graph(graph)}
            places = [place for place, _ in found]
            waiting = [
                (place, part)
                for place, part in parts
                if place not in places
                and self._replacements.of(part, part) is None
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
            return _like(layer, made(own, own, config))


def _in_graph(layer: Any) -> list[Any]:
    """Returns a layer and, if it is a graph, the layers of it and of graphs in it."""
    return [layer, *(part for _, part in parts_of_graph(layer))]


def _like(layer: Any, new: Any) -> Any:
    """Gives `new`, which isn't called yet, what the config of a layer may lack.

    A constructor may take no name, and tf_keras's `get_config` has no activity_regularizer.
    """
    if new.name != layer.name:
        with contextlib.suppress(AttributeError):  # the class has a `name` of its own
            name_layer(new, layer.name)
    if new.activity_regularizer is None and layer.activity_regularizer is not None:
        new.activity_regularizer = layer.activity_regularizer
    return new


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
