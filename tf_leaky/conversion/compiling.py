"""Compiles a copy of a model like the model, with its own training state."""

from __future__ import annotations

import logging
from typing import Any

import tensorflow as tf

from tf_leaky.conversion.carrying import known
from tf_leaky.keras_compat import compile_settings, given_name
from tf_leaky.structure import is_of_keras

_log = logging.getLogger("tf_leaky")


def compile_alike(model: Any, new: Any, same: dict[int, Any], *, subject: str) -> None:
    """Compiles a copy of a model with the model's settings.

    Functions, losses and closures are the same objects. The optimizer and metrics are new ones with
    the same configuration. The optimizer's state is copied, unless it trains other variables now;
    that of metrics isn't, as Keras resets it before an epoch, and can't reset that of a copy yet.
    `same` has the variables of the copy by the ids of those of the model.
    """
    settings = compile_settings(model)
    if settings is None:
        return
    if not is_of_keras(type(new), "compile"):
        if not is_of_keras(type(new), "get_compile_config"):
            new.compile_from_config(model.get_compile_config())
            return
        _log.warning(
            "%s: %r is returned without being compiled, as its class overrides `compile`. "
            "Compile it as you compiled the model.",
            subject,
            new.name,
        )
        return

    def metric(each: Any) -> Any:
        own = isinstance(each, tf.keras.metrics.Metric)
        return _anew(each, name=given_name(each, model)) if own else each

    for key in ("metrics", "weighted_metrics"):
        settings[key] = tf.nest.map_structure(metric, settings.get(key))
    optimizer = getattr(model, "optimizer", None)
    settings["optimizer"] = None if optimizer is None else _anew(optimizer)
    new.compile(**settings)
    if optimizer is not None:
        _copy_optimizer(model, new, same)


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
    """Copies the optimizer's variables if the variables that it trains correspond one to one."""
    twins = [id(same.get(id(variable))) for variable in model.trainable_variables]
    if twins != [id(variable) for variable in new.trainable_variables]:
        if getattr(model.optimizer, "built", False):
            _make_state(new.optimizer, new.trainable_variables)
        return
    before = _state(model.optimizer)
    if len(before) != len(_state(new.optimizer)):
        _make_state(new.optimizer, new.trainable_variables)
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
