"""The few places where Keras 3 and tf_keras differ, and the refusal of what isn't supported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise ImportError(
        f"tf_leaky: expected TensorFlow to be installed. Received: {error}. Install "
        "tf_leaky[tensorflow], or a TensorFlow of your own such as tensorflow-cpu or tf-nightly."
    ) from error


def refuse_other_backends() -> None:
    """Raises ImportError unless `tf.keras` computes with TensorFlow."""
    try:
        backend = tf.keras.backend.backend()
    except ImportError as error:
        raise ImportError(
            "tf_leaky: expected tf.keras to be importable. "
            f"Received: {error} Install keras, or tf_keras where TF_USE_LEGACY_KERAS=1 is set, "
            "and unset KERAS_BACKEND."
        ) from error
    if backend != "tensorflow":
        raise ImportError(
            "tf_leaky: expected Keras to run on the TensorFlow backend. "
            f"Received: backend={backend!r}. Set KERAS_BACKEND=tensorflow before Keras is imported."
        )


refuse_other_backends()
InputLayer = tf.keras.layers.InputLayer
LEGACY = tf.keras.Model.__module__.partition(".")[0] == "tf_keras"


def recorded_inputs(model: Any) -> Any:
    """What the model takes, with its shapes and dtypes, or None where that isn't known."""
    if LEGACY:
        specs = model.save_spec()
        return None if specs is None else specs[0][0]
    if isinstance(model, tf.keras.Sequential):
        return model.inputs[0]
    if getattr(model, "inputs", None) is not None:
        return model.input
    if not model._called:  # what `model.export` goes by
        return None
    shapes = model.get_build_config()
    return shapes and _specs_of(next(iter(shapes.values())), model.input_dtype)


def _specs_of(shapes: Any, dtype: Any) -> Any:
    """The structure of shapes that a subclassed model of Keras 3 was built with, as specs.

    Their dtypes aren't recorded.
    """
    if isinstance(shapes, dict):
        return {key: _specs_of(shape, dtype) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec(shapes, dtype)
    return [_specs_of(shape, dtype) for shape in shapes]


def call_traced(function: Any, **options: Any) -> Any:
    """A tf.function of what calls a model on batches of any size.

    tf_keras leaves it to autograph to convert the `call` of a subclassed model.
    """
    return tf.function(function, reduce_retracing=True, autograph=LEGACY, **options)


def write(archive: Any, path: Any) -> None:
    """Writes what `serving.signatures.traced` returned as the SavedModel `path`.

    It is never written by `tf.saved_model.save`: under Keras 3, what that writes fails every
    request in a server.
    """
    if LEGACY:
        with _no_report():
            archive.write_out(str(path))
    else:
        archive.write_out(str(path), verbose=False)


@contextlib.contextmanager
def _no_report() -> Iterator[None]:
    """Has tf_keras log what it would print; this thread's alone, while `sys.stdout` is all's."""
    loud = tf.keras.utils.is_interactive_logging_enabled()
    tf.keras.utils.disable_interactive_logging()
    try:
        yield
    finally:
        if loud:
            tf.keras.utils.enable_interactive_logging()


def clone_graph(model: Any, of: Callable[[Any], Any]) -> Any:
    """Returns a Sequential or functional model of the copies of a model's layers, not compiled.

    Args:
        model: The model. A functional one of a class of the user's becomes a plain one.
        of: Returns the copy of a layer, or of an operation of Keras 3.
    """
    if isinstance(model, tf.keras.Sequential) and not LEGACY:
        # `clone_model` compiles by itself, and fails on functions that aren't registered.
        new = tf.keras.Sequential(name=model.name)
        if model.built:
            x = model.inputs[0]
            new.add(tf.keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name))
        for layer in model.layers:
            new.add(of(layer))
        return new
    if isinstance(model, tf.keras.Sequential):
        return tf.keras.models.clone_model(model, clone_function=of)
    if LEGACY:
        own = type(model).__module__.partition(".")[0] != "tf_keras"
        plain = tf.keras.Model(model.input, model.output, name=model.name) if own else model
        return tf.keras.models.clone_model(plain, clone_function=of)
    plain = tf.keras.Model(model.input, model.output, name=model.name)
    # Of these, `clone_model` doesn't keep the names.
    inputs = {id(each.output): each for each in model.layers if isinstance(each, InputLayer)}

    def alike(x: Any) -> Any:
        return InputLayer.from_config(inputs[id(x)].get_config()).output

    return tf.keras.models.clone_model(
        plain, input_tensors=tf.nest.map_structure(alike, model.input), clone_function=of
    )


def arguments_of(layer: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """What tf_keras calls the layer with that it makes of a function on symbolic tensors.

    Args:
        layer: The layer.
        names: The names of the function's arguments after the tensor, in their order.
    """
    node = layer.inbound_nodes[0]
    return {**dict(zip(names, node.call_args[1:], strict=False)), **node.call_kwargs}


def operations_of(model: Any) -> list[Any]:
    """What a functional model calls: its layers, and in Keras 3 the functions in its graph."""
    return list(model.layers if LEGACY else model.operations)


def calls_of(operation: Any) -> list[tuple[list[Any], list[Any]]]:
    """The tensors that each call of a layer on symbolic tensors took, and those that it made."""
    # Keras 3 has these on no public side.
    nodes = operation.inbound_nodes if LEGACY else operation._inbound_nodes
    return [
        (tf.nest.flatten(node.input_tensors), tf.nest.flatten(node.output_tensors))
        for node in nodes
    ]


def compile_settings(model: Any) -> dict[str, Any] | None:
    """What a model was compiled with, as it was given; None if it isn't compiled."""
    if not (model.compiled_loss if LEGACY else model.compiled):
        return None
    # What Keras has on its public side is a serialised form, which functions don't survive.
    return dict(model._compile_config.config)


def given_name(metric: Any, model: Any) -> str:
    """The name that a metric was given: tf_keras puts that of its output before it, in training."""
    name = str(metric.name)
    if LEGACY and model.compiled_metrics.built and len(model.output_names or ()) > 1:
        for output in sorted(model.output_names, key=len, reverse=True):
            if name.startswith(f"{output}_"):
                return name.removeprefix(f"{output}_")
    return name


def replace_attribute(layer: Any, name: str, value: Any, before: Any, after: Any) -> None:
    """Sets an attribute of a layer, built or not, in which one part takes the place of another.

    Keras tracks the new part where it tracked the old one, so that the order of weights stays what
    it was. It has no public means for that.

    Args:
        layer: The layer.
        name: The name of the attribute.
        value: What the attribute is to be: the new part, or a list, tuple or dict with it.
        before: The part that the attribute, or what is in it, was until now.
        after: The new part.
    """
    if LEGACY:
        tracked, old = list(layer._self_tracked_trackables), getattr(layer, name)
        setattr(layer, name, value)
        new = getattr(layer, name)
        now = layer._self_tracked_trackables
        index = next((i for i, each in enumerate(tracked) if each is old), None)
        if index is not None and any(each is new for each in now):
            now[:] = [each for each in now if each is not new]
            now.insert(index, new)
        return
    tracker = layer._tracker
    locked = tracker.locked
    tracker.unlock()
    if tracker.is_in_store("layers", before):
        if isinstance(after, tf.keras.layers.Layer) and not tracker.is_in_store("layers", after):
            tracker.replace_tracked_value("layers", before, after)
        else:
            tracker.untrack(before)
    setattr(layer, name, value)
    if locked:
        tracker.lock()


def trace(model: Any, inputs: Any, *, training: bool | None = False) -> Any:
    """The concrete function of a model's forward pass, for inference, on `recorded_inputs`.

    With None for `training`, layers that a graph calls with `training=True` keep to it. In Keras 3
    False is handed to them, too.
    """
    fixed = not isinstance(model, tf.keras.Sequential) and getattr(model, "inputs", None)

    def spec(leaf: Any) -> Any:
        shape = leaf.shape if fixed or not leaf.shape else [None, *leaf.shape[1:]]
        if getattr(leaf, "sparse", False) or isinstance(leaf, tf.SparseTensorSpec):
            return tf.SparseTensorSpec(shape, leaf.dtype)
        if getattr(leaf, "ragged", False) or isinstance(leaf, tf.RaggedTensorSpec):
            return tf.RaggedTensorSpec(shape, leaf.dtype)
        return tf.TensorSpec(shape, leaf.dtype)

    function = call_traced(lambda inputs: model(inputs, training=training))
    return function.get_concrete_function(tf.nest.map_structure(spec, inputs))


def handle_of(variable: Any) -> Any:
    """The handle of a variable, which the operations of a graph read it by."""
    return variable.handle if LEGACY else variable.value.handle


def copy_of_lambda(layer: Any) -> Any:
    """A Lambda with the very function of another: no code is read from a config.

    Keras 3 refuses to, as in a file it may be a stranger's.
    """
    trusted = {} if LEGACY else {"safe_mode": False}
    new = type(layer).from_config(layer.get_config(), **trusted)
    new.function = layer.function
    return new


def as_instance(kind: str, found: Any) -> Any:
    """A constraint or regularizer that may be any function, as a weight of every Keras takes it.

    Keras 3.10 insists on instances of its own class.
    """
    base = getattr(getattr(tf.keras, f"{kind}s"), kind.title())
    if found is None or isinstance(found, base):
        return found
    return type(base.__name__, (base,), {"__call__": lambda _, weight: found(weight)})()


def keras_leaky_relu(slope: float, **kwargs: Any) -> Any:
    """Keras's own LeakyReLU, which spells its slope in two ways."""
    spelled = "alpha" if LEGACY else "negative_slope"
    return tf.keras.layers.LeakyReLU(**{spelled: slope}, **kwargs)


def slope_of_keras_leaky_relu(layer: Any) -> float:
    """The slope of Keras's own LeakyReLU."""
    return float(layer.negative_slope if hasattr(layer, "negative_slope") else layer.alpha)


def batch_norm_is_fused(rank: int, axis: int, dtype: Any, *, synchronized: bool) -> bool:
    """Whether Keras's own BatchNormalization uses TensorFlow's fused kernel, as tf_keras's may.

    With that, the moving variance is of batch variances with n - 1 in place of n.
    """
    if not LEGACY or synchronized or tf.as_dtype(dtype) == tf.float64:
        return False
    return (rank, axis) in ((4, 1), (4, 3), (5, 1), (5, 4))


def moving_average_options() -> dict[str, Any]:
    """How Keras's own BatchNormalization adds its moving averages, for distribution strategies."""
    if not LEGACY:
        return {}
    return {
        "synchronization": tf.VariableSynchronization.ON_READ,
        "aggregation": tf.VariableAggregation.MEAN,
    }


def added_to_masked_count() -> float:
    """What Keras 3's BatchNormalization adds to the number of elements that a mask lets through."""
    return 0.0 if LEGACY else float(tf.keras.backend.epsilon())


@contextlib.contextmanager
def functions_in_line(layer: Any) -> Iterator[None]:
    """Has an LSTM or GRU of tf_keras traced without functions of its own.

    In those, the optimizer would choose an implementation, and what is in them can't be read.
    """
    if not (LEGACY and isinstance(layer, tf.keras.layers.LSTM | tf.keras.layers.GRU)):
        yield
        return
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
