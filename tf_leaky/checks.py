"""Checks of arguments, and the error messages for those that are wrong."""

from __future__ import annotations

import inspect
import logging
import os
import reprlib
import warnings
from numbers import Integral, Rational
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_log = logging.getLogger("tf_leaky")
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_LONGEST = 300  # characters that a message shows of one value
# For a subclassed model, of whose inputs Keras recorded too little.
WAY_OUT = (
    "Wrap it: whole = tf.keras.Model(inputs, model(*inputs)), with one tf.keras.Input for each "
    "argument of its call, and give `whole`."
)


class _Short(reprlib.Repr):
    """`repr` that is quick on large collections, and cuts out the middle of long texts."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxdeque = self.maxarray = 20
        self.maxstring = self.maxother = _LONGEST

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to print integers of more than 4300 digits."""
        if x.bit_length() < 10_000:
            return super().repr_int(x, level)
        return f"<{'a negative' if x < 0 else 'an'} integer of {x.bit_length()} bits>"


def shown(value: Any) -> str:
    """Returns `repr(value)` in at most 300 characters; the type if `repr` fails."""
    text = _SHORT.repr(value)
    half = _LONGEST // 2 - 2
    return text if len(text) <= _LONGEST else f"{text[:half]}...{text[-half:]}"


def said(error: Exception) -> str:
    """Returns an error's message; of more than 1000 characters, the middle is cut out."""
    text = str(error)
    return text if len(text) <= 1000 else f"{text[:500]} ... {text[-500:]}"


def note(error: Exception, text: str) -> None:
    """Adds a note to an error of a user's model.

    Before Python 3.11, which has no notes, it goes to the logger `tf_leaky`.
    """
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        _log.error(text)


def warn(text: str) -> None:
    """Gives a UserWarning that points at the line that called this package.

    Keras's own code may be in between.
    """
    frame: Any = inspect.currentframe()
    level = users = 1  # that of this frame
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            users = level + 1
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=users)


_SHORT = _Short()
_NO_NUMBERS = (bool, np.bool_, bytearray, memoryview)


def constant_slopes(alpha: Any, dtype: Any, *, subject: str) -> np.ndarray:
    """Returns `alpha`, a number or (nested lists of) numbers, as a float64 array.

    Args:
        alpha: A Python or NumPy number, nested lists of such, or an array.
        dtype: The floating-point dtype in which every value must be finite.
        subject: The name that an error message starts with.

    Raises:
        TypeError: If `alpha` is not numeric. True and False are not numbers.
        ValueError: If a value is NaN, infinite, or too large for `dtype`.
    """
    dtype = tf.as_dtype(dtype)
    try:
        leaves = tf.nest.flatten(alpha) if isinstance(alpha, list | tuple) else [alpha]
        # NumPy would read a variable once, and accept True as 1 and bytes as numbers.
        if any(hasattr(leaf, "numpy") or isinstance(leaf, _NO_NUMBERS) for leaf in leaves):
            raise TypeError
        given = np.asarray(alpha)
        kind = tf.as_dtype(given.dtype)
        if not (kind.is_floating or kind.is_integer) and not _holds_exact_numbers(given):
            raise TypeError
    except Exception as error:  # of any kind: an __array__ may do what it likes
        raise TypeError(
            f"{subject}: expected alpha to be a real number, or nested lists or an array of them. "
            f"Received: alpha={shown(alpha)}. Give a Python or NumPy number. For slopes that are "
            "tensors, call tf_leaky.leaky_relu; join several with tf.stack(slopes)."
        ) from error
    try:
        with np.errstate(over="ignore"):
            values = given.astype(np.float64)
            finite = bool(np.isfinite(values.astype(dtype.as_numpy_dtype)).all())
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(
            f"{subject}: expected alpha to be finite in {dtype.name}. "
            f"Received: alpha={shown(alpha)}. Give a finite slope of at most {dtype.max} in size."
        )
    return values


def _holds_exact_numbers(array: np.ndarray) -> bool:
    """Whether an object array holds only Python integers and fractions, of any size."""
    return array.dtype == object and all(
        isinstance(item, Rational) and not isinstance(item, bool) for item in array.flat
    )


def check_bool(value: Any, name: str, *, subject: str) -> None:
    """Raises TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(
            f"{subject}: expected {name} to be True or False. "
            f"Received: {name}={shown(value)}. Give a Python bool."
        )


def check_floating(dtype: Any, name: str, *, subject: str) -> None:
    """Raises TypeError unless `dtype` is one of the four that leaky ReLU is defined on."""
    dtype = tf.as_dtype(dtype)
    if dtype not in (tf.float16, tf.bfloat16, tf.float32, tf.float64):
        raise TypeError(
            f"{subject}: expected {name} to be of float16, bfloat16, float32 or float64. "
            f"Received: {name}.dtype={dtype.name!r}. Cast it, as in tf.cast({name}, tf.float32)."
        )


def floating_tensor(value: Any, name: str) -> tf.Tensor:
    """Returns `value` as a tensor of one of the four dtypes, or raises TypeError."""
    try:
        tensor = tf.convert_to_tensor(value)
        if not isinstance(tensor, tf.Tensor):  # tf_keras returns another symbolic tensor
            raise TypeError
        if tf.executing_eagerly() and not hasattr(tensor, "numpy"):
            raise TypeError("a tensor of a graph has no value outside of it")
    except Exception as error:  # of any kind: an __array__ may do what it likes
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"leaky_relu: expected {name} to be a tensor or something that converts to one. "
            f"Received: {name}={shown(value)} of type {kind}. For ragged and sparse tensors, give "
            "their values; for symbolic Keras tensors, use the layer tf_leaky.LeakyReLU of the "
            "same Keras."
        ) from error
    check_floating(tensor.dtype, name, subject="leaky_relu")
    return tensor


def checked_axis(axis: Any) -> int | tuple[int, ...] | None:
    """Returns `axis` in Python integers, a list as a tuple; raises an error if it is wrong."""
    axes = axis if isinstance(axis, list | tuple) else (axis,)
    if axis is None:
        return None
    if not axes or not all(isinstance(a, Integral) and not isinstance(a, bool) for a in axes):
        raise TypeError(
            "LeakyReLU: expected axis to be None, an integer or a list of integers. "
            f"Received: axis={shown(axis)}. Give None for one slope, -1 for one per channel."
        )
    if 0 in axes:
        raise ValueError(
            "LeakyReLU: expected axis without the batch axis, 0. "
            f"Received: axis={shown(axis)}. Give None for one slope, -1 for one per channel."
        )
    axes = tuple(int(a) for a in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(
            "LeakyReLU: expected axis to name each axis once. "
            f"Received: axis={shown(axis)}. Remove the duplicates."
        )
    return axes if isinstance(axis, list | tuple) else axes[0]


def checked_input_shape(input_shape: Any, *, subject: str = "LeakyReLU") -> tf.TensorShape:
    """Returns the shape of the one input, or raises a TypeError if there are several."""
    try:
        if not isinstance(input_shape, list | tuple | tf.TensorShape | None):
            raise TypeError
        return tf.TensorShape(input_shape)
    except Exception as error:  # of any kind: sizes may be any objects
        raise _several_inputs("input_shape", input_shape, subject) from error


def check_one_tensor(inputs: Any, *, subject: str = "LeakyReLU") -> None:
    """Raises TypeError for a list, tuple or dict, which TensorFlow would stack silently.

    Also for a sparse or ragged symbolic input, on which only the first real call would fail.
    """
    if isinstance(inputs, list | tuple | dict):
        raise _several_inputs("inputs", type(inputs), subject)
    if getattr(inputs, "sparse", False) or getattr(inputs, "ragged", False):
        raise TypeError(
            f"{subject}: expected a dense input. Received: inputs={shown(inputs)}. "
            "Make it dense first, or use tf_leaky.leaky_relu on its values."
        )


def _several_inputs(name: str, received: Any, subject: str) -> TypeError:
    return TypeError(
        f"{subject}: expected one input tensor. "
        f"Received: {name}={shown(received)}. Call the layer once for each tensor."
    )


def sizes_of_axes(axis: int | tuple[int, ...], input_shape: tf.TensorShape) -> dict[int, int]:
    """Returns the sizes of the named axes, by axis counted from 0, in ascending order."""
    given = axis if isinstance(axis, tuple) else (axis,)
    received = f"Received: axis={shown(axis)}, input_shape={input_shape}."
    rank = input_shape.rank
    if rank is None:
        raise ValueError(
            f"LeakyReLU: expected an input of known rank if axis is given. {received} "
            "Give the input a shape, or axis=None for one slope."
        )
    if not all(-rank <= a < rank for a in given):
        raise ValueError(
            f"LeakyReLU: expected axis to be within an input of rank {rank}. {received} "
            f"Apart from the batch axis, it has the axes {list(range(1, rank))}."
        )
    axes = sorted(a % rank for a in given)
    if axes[0] == 0 or len(set(axes)) < len(axes):
        raise ValueError(
            f"LeakyReLU: expected axis to name each axis once, and not the batch axis. {received} "
            f"These are the axes {axes}: remove duplicates and 0."
        )
    sizes = {a: input_shape[a] for a in axes}
    if None in sizes.values():
        raise ValueError(
            f"LeakyReLU: expected the sizes along axis to be known. {received} "
            "Give the input a full shape, or remove the unknown axes from axis: slopes are then "
            "shared along them."
        )
    return sizes


def checked_keras_object(kind: str, value: Any, *, of: str, subject: str) -> Any:
    """Returns the Keras constraint, regularizer or initializer that `value` stands for.

    Names and configs come from files. tf_keras would import any module that a config names, and
    use whatever is in it. Here, only registered objects and Keras's own are found.

    Args:
        kind: "constraint", "regularizer" or "initializer".
        value: Its name, its config or the object itself.
        of: The weight that it is for.
        subject: The name that an error message starts with.
    """
    keras = getattr(tf.keras, f"{kind}s")
    own_kind = getattr(keras, kind.title())
    try:
        if isinstance(value, dict):
            found = _from_config(keras, value)
        else:
            found = keras.get(value)
            # tf_keras finds its own functions by name, such as its deserializer.
            if isinstance(value, str) and not isinstance(found, own_kind):
                raise ValueError(found)
        # Keras passes a class through, and tf_keras some unknown names; a Lambda is a Layer.
        kinds = (tf.keras.constraints.Constraint, tf.keras.regularizers.Regularizer)
        other = isinstance(found, (type, tf.keras.layers.Layer, *kinds))
        other = other and not isinstance(found, own_kind)
        if other or not (found is None or callable(found)):
            raise ValueError(found)
        return found
    except Exception as error:  # of any kind: a name may be any object
        own = '"positive", ' if (of, kind) == ("alpha", "constraint") else ""
        raise ValueError(
            f"{subject}: expected {of}_{kind} to be {own}None or a Keras {kind}. "
            f"Received: {of}_{kind}={shown(value)}. See tf.keras.{kind}s; register your own "
            "with tf.keras.utils.register_keras_serializable."
        ) from error


def _from_config(keras: Any, config: dict[str, Any]) -> Any:
    """Returns the object of a Keras 3 or tf_keras config, without importing what it names."""
    name, inner = config["class_name"], config["config"]
    if name == "function":
        found = _registered(inner)
        if found is None:
            raise ValueError(inner)
        return found
    found = _registered(config.get("registered_name")) or _registered(name)
    return (found or getattr(keras, name)).from_config(inner)


def _registered(name: Any) -> Any:
    """Returns what is registered under a name or in a custom object scope, else None."""
    return tf.keras.utils.get_registered_object(name) if isinstance(name, str) else None


def check_built_model(model: Any, *, subject: str) -> None:
    """Raises TypeError unless `model` is a model of `tf.keras`, ValueError unless it is built."""
    if not isinstance(model, tf.keras.Model):
        keras = tf.keras.Model.__module__.partition(".")[0]
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        advice = "Build it with tf.keras; with TF_USE_LEGACY_KERAS=1, that is tf_keras."
        if isinstance(model, str | os.PathLike):
            advice = "Load it with tf.keras.models.load_model."
        raise TypeError(
            f"{subject}: expected a model of {keras}, which tf.keras stands for here. "
            f"Received: model={shown(model)} of type {kind}. {advice}"
        )
    if not model.built:
        raise ValueError(
            f"{subject}: expected model to be built. Received: model={model.name!r}, not built. "
            "Give it an Input, or call it once on data."
        )


def check_inputs_known(model: Any, inputs: Any, *, subject: str) -> None:
    """Raises ValueError if `inputs`, those of a model that Keras recorded, are None."""
    if inputs is None:
        raise ValueError(
            f"{subject}: expected a model whose inputs are known. Received: model={model.name!r}, "
            "of which Keras recorded no shapes. Call the model once on data. If its class says "
            f"`built` itself, that doesn't help. {WAY_OUT}"
        )


def check_one_argument(model: Any, *, subject: str) -> None:
    """Raises ValueError if the `call` of a model needs more than one argument for its inputs."""
    parameters = inspect.signature(model.call).parameters.values()
    needed = [
        each.name
        for each in parameters
        if each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        and each.name not in ("training", "mask")  # which Keras gives
    ]
    if len(needed) > 1:
        raise ValueError(
            f"{subject}: expected a model whose call takes its inputs as one argument. Received: "
            f"model={model.name!r}, whose call takes {', '.join(needed)}. {WAY_OUT}"
        )
