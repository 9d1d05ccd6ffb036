"""Compiles the copies of models like the models, with training states of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_leaky.checks import said
from tf_leaky.conversion.carrying import known
from tf_leaky.conversion.weights import Pair
from tf_leaky.keras_compat import (
    compile_settings,
    copy_exclusions,
    flags_when_compiled,
    given_name,
    trained_by,
)
from tf_leaky.slopes import LayerWithSlopes
from tf_leaky.structure import is_of_keras, layers_within, variables_of

_log = logging.getLogger("tf_leaky")


def compile_alike(pairs: list[Pair], same: dict[int, Any], *, subject: str) -> None:
    """Compiles the copies of a model and of those within it with the settings of each.

    Functions, losses and closures are the same objects. The optimizer and metrics are new ones with
    the same configuration. The optimizer's state is copied, unless it trains other variables now;
    that of metrics isn't, as Keras resets it before an epoch, and can't reset that of a copy yet.

    Args:
        pairs: What `pairs_of` returned.
        same: The variables of the copy by the ids of those of the model.
        subject: The name that messages start with.
    """
    for model, new, _ in pairs:
        if isinstance(model, tf.keras.Model):
            with _trainable_as_compiled(model, pairs):
                compiled = _compile(model, new, subject)
            if compiled and model.optimizer is not None:
                twins = [(each, same.get(id(each))) for each in variables_of(model)]
                copy_exclusions(model.optimizer, new.optimizer, twins)
                _copy_optimizer(model, new, same)


@contextlib.contextmanager
def _trainable_as_compiled(model: Any, pairs: list[Pair]) -> Iterator[None]:
    """Gives the copies of layers the `trainable` flags that a model was compiled with."""
    flags = flags_when_compiled(model)
    for old, new, _ in pairs if flags else ():
        new.trainable = flags.get(old, old.trainable)
    yield
    for old, new, _ in pairs if flags else ():
        new.trainable = old.trainable


def _compile(model: Any, new: Any, subject: str) -> bool:
    """Compiles a copy, if its model is compiled; returns whether with an optimizer of that kind."""
    settings = compile_settings(model)
    if settings is None:
        return False
    if not is_of_keras(type(new), "compile"):
        if not is_of_keras(type(new), "get_compile_config"):
            new.compile_from_config(model.get_compile_config())
            return False
        _log.warning(
            "%s: %r is returned without being compiled, as its class overrides `compile`. "
            "Compile it as you compiled the model.",
            subject,
            new.name,
        )
        return False

    def metric(each: Any) -> Any:
        own = isinstance(each, tf.keras.metrics.Metric)
        return _anew(each, name=given_name(each, model)) if own else each

    try:
        for key in ("metrics", "weighted_metrics"):
            settings[key] = tf.nest.map_structure(metric, settings.get(key))
        settings["optimizer"] = None if model.optimizer is None else _anew(model.optimizer)
    except Exception as error:  # of any kind: the user's classes are called
        _log.warning(
            "%s: %r is returned without being compiled, as its optimizer or a metric can't be made "
            "again from its config: %s Compile it as you compiled the model.",
            subject,
            new.name,
            said(error),
        )
        return False
    new.compile(**settings)
    return True


def _anew(value: Any, **settings: Any) -> Any:
    """Returns a new optimizer or metric of the same configuration, which may contain functions."""
    own = {type(value).__name__: type(value)}
    for each in vars(value).values():
        named = each if hasattr(each, "__name__") else type(each)
        if not str(getattr(named, "__module__", "")).startswith(("builtins", "keras", "tf_keras")):
            own[named.__name__] = named
    with known(own):
        return type(value).from_config(value.get_config() | settings)


def _copy_optimizer(model: Any, new: Any, same: dict[int, Any]) -> None:
    """Copies the optimizer's variables if the variables that it trains correspond one to one.

    It may train what is frozen at present, as a discriminator is within a model of its own.
    """
    now = [id(same.get(id(variable))) for variable in model.trainable_variables]
    trained = trained_by(model.optimizer, variables_of(model)) or model.trainable_variables
    twins = [same.get(id(variable)) for variable in trained]
    all_known = all(twin is not None for twin in twins)
    slopes = [x for x in layers_within(new) if isinstance(x, LayerWithSlopes) and x.trainable_alpha]
    of_slopes = {id(each) for layer in slopes for each in variables_of(layer)}
    more = of_slopes - {id(each) for each in same.values()}
    if now != [id(variable) for variable in new.trainable_variables] or more or not all_known:
        if getattr(model.optimizer, "built", False) and new.trainable_variables:
            _make_state(new.optimizer, new.trainable_variables)
        return
    before = _state(model.optimizer)
    if len(before) != len(_state(new.optimizer)):
        _make_state(new.optimizer, twins)
    after = _state(new.optimizer)
    if len(before) == len(after):  # else not built yet: nothing was trained
        for variable, twin in zip(before, after, strict=True):
            twin.assign(tf.reshape(tf.cast(variable, twin.dtype), twin.shape))
    for name, variable in vars(model.optimizer).items():  # tf_keras's Nadam has an unlisted one
        twin = vars(new.optimizer).get(name)
        if isinstance(variable, tf.Variable) and isinstance(twin, tf.Variable):
            twin.assign(variable)


def _make_state(optimizer: Any, variables: list[Any]) -> None:
    """Has an optimizer create the variables that it needs to train these."""
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
        return
    # tf_keras's `optimizers.legacy` create them only in their first step.
    values = [tf.identity(each) for each in variables]
    optimizer.apply_gradients([(tf.zeros_like(each), each) for each in variables])
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _state(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)
