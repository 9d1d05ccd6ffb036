"""The few places where Keras 3 and tf_keras differ, and a check that TensorFlow is the backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
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
            f"Received: {error} Install keras, or tf_keras if TF_USE_LEGACY_KERAS=1 is set, "
            "and unset KERAS_BACKEND."
        ) from error
    if backend != "tensorflow":
        raise ImportError(
            "tf_leaky: expected Keras to run on the TensorFlow backend. "
            f"Received: backend={backend!r}. Set KERAS_BACKEND=tensorflow before Keras is imported."
        )


refuse_other_backends()
LEGACY = tf.keras.Model.__module__.partition(".")[0] == "tf_keras"


def recorded_inputs(model: Any) -> Any:
    """Returns a model's inputs, with shapes and dtypes, or None if they aren't known.

    Of a model whose `call` takes several arguments, those in the first.
    """
    arguments, keywords = recorded_call(model)
    return next(iter([*arguments, *keywords.values()]), None)


def recorded_call(model: Any) -> tuple[list[Any], dict[str, Any]]:
    """Returns the arguments of a model's call, with shapes and dtypes; none if they aren't known.

    Keras 3 records several only if the model has a `build` that takes the shape of each.
    """
    if LEGACY:
        if (specs := model.save_spec()) is not None:
            arguments, keywords = specs
            while arguments[-1] is None:  # no tensor
                arguments = arguments[:-1]
            return arguments, keywords
    # A Sequential has none if it is called before Keras knows the shapes within it.
    elif (inputs := getattr(model, "inputs", None)) is not None:
        return [inputs[0] if isinstance(model, tf.keras.Sequential) else model.input], {}
    shapes = _built_on(model)
    if len(shapes) == 1:
        return list(shapes.values()), {}
    return [], {name.removesuffix("_shape"): each for name, each in shapes.items()}


def records_dtypes(model: Any) -> bool:
    """Whether the dtypes of a model's inputs are known: not for subclassed models of Keras 3."""
    if LEGACY:
        return model.save_spec() is not None
    return getattr(model, "inputs", None) is not None


def _built_on(model: Any) -> dict[str, Any]:
    """Returns what a model of no known graph was built on, by the names in its config for that.

    Keras doesn't record the dtypes. From a file, shapes are lists.
    """
    config = model.get_build_config() or {}
    return {
        name: _specs_of(shape, model.compute_dtype)
        for name, shape in config.get("shapes_dict", config).items()
        if isinstance(shape, dict | list | tuple | tf.TensorShape)
    }


def _specs_of(shapes: Any, dtype: Any) -> Any:
    """Returns a shape, or a structure of them, as specs of `dtype`."""
    if isinstance(shapes, dict):
        return {key: _specs_of(shape, dtype) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec(shapes, dtype)
    return [_specs_of(shape, dtype) for shape in shapes]


def call_traced(function: Any, **options: Any) -> Any:
    """Returns a tf.function of a function that calls a model on batches of any size.

    Under tf_keras, autograph has to convert the `call` of a subclassed model.
    """
    return tf.function(function, reduce_retracing=True, autograph=LEGACY, **options)


def write(archive: Any, path: Any) -> None:
    """Writes what `serving.signatures.traced` returned as the SavedModel `path`.

    `tf.saved_model.save` would not do: under Keras 3, every request to what it writes fails in a
    server.
    """
    if not LEGACY:
        archive.write_out(str(path), verbose=False)
        return
    # tf_keras logs what it would print: in this thread alone, unlike with another `sys.stdout`.
    loud = tf.keras.utils.is_interactive_logging_enabled()
    tf.keras.utils.disable_interactive_logging()
    try:
        archive.write_out(str(path))
    finally:
        if loud:
            tf.keras.utils.enable_interactive_logging()


def clone_graph(model: Any, of: Callable[[Any], Any]) -> Any:
    """Returns a Sequential or functional model, not compiled, of copies of a model's layers.

    A functional model of a user's class becomes a plain one. Operations of Keras 3 are copied too.
    """
    if isinstance(model, tf.keras.Sequential):
        order = _call_order(model) if LEGACY else model.layers
        # tf_keras's `clone_model` calls a layer once that was added twice, as does a file of the
        # model. That of Keras 3 compiles too, which fails for functions that aren't registered.
        if LEGACY and len(order) <= len(model.layers):
            return tf.keras.models.clone_model(model, clone_function=of)
        new = tf.keras.Sequential(name=model.name)
        x: Any = model.inputs[0] if LEGACY else recorded_inputs(model) if model.built else None
        if hasattr(x, "shape"):  # no list or dict of tensors
            name = x.node.layer.name if LEGACY else x.name
            new.add(tf.keras.Input(batch_shape=x.shape, dtype=x.dtype, name=name))
        for layer in order:
            new.add(of(layer))
        return new
    plain = _plain(model)
    if LEGACY:
        return tf.keras.models.clone_model(plain, clone_function=of)
    # `clone_model` doesn't keep the names of input layers.
    kind = tf.keras.layers.InputLayer
    inputs = {id(each.output): each for each in model.layers if isinstance(each, kind)}

    def alike(x: Any) -> Any:
        return kind.from_config(inputs[id(x)].get_config()).output

    return tf.keras.models.clone_model(
        plain, input_tensors=tf.nest.map_structure(alike, model.input), clone_function=of
    )


def _plain(model: Any) -> Any:
    """Returns a functional model of no user's class with a model's graph and its layers."""
    new = tf.keras.Model(model.input, model.output, name=model.name)
    keep_added(model, new)
    return new


def keep_added(model: Any, new: Any) -> None:
    """Has a functional model of the graph of another one compute the losses added to that.

    In tf_keras, `add_loss` and `add_metric` of a tensor add layers to a graph, which no output
    depends on.
    """
    if nodes := _added(model):
        known = {id(layer) for layer in new.layers}
        layers = {id(node.layer): node.layer for node in nodes if id(node.layer) not in known}
        new._insert_layers([*layers.values()], nodes)


def count_added(model: Any) -> int:
    """Returns how many losses and metrics were added to the graph of a model of tf_keras."""
    kinds = [type(node.layer).__name__ for node in _added(model)]
    return kinds.count("AddLoss") + kinds.count("AddMetric")


def count_loss_functions(layer: Any) -> int:
    """Returns how many functions, regularizers too, tf_keras's `add_loss` of a layer was given."""
    return len(getattr(layer, "_callable_losses", ()))


def _added(model: Any) -> list[Any]:
    depths = model._nodes_by_depth if LEGACY and model.inputs else {}
    return [node for depth, nodes in depths.items() if depth < 0 for node in nodes]


def _call_order(model: Any) -> list[Any]:
    """Returns the layers of tf_keras's Sequential in the order of their calls, each once per call.

    Empty if it has no graph yet. `model.layers` has each layer once.
    """
    made_by = {
        id(outputs[0]): (layer, inputs[0])
        for layer in model.layers
        for inputs, outputs in calls_of(layer)
        if len(inputs) == 1
    }
    order: list[Any] = []
    x = (model.outputs or [None])[0]
    while id(x) in made_by:
        layer, x = made_by[id(x)]
        order.append(layer)
    return order[::-1]


def arguments_of(layer: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the arguments of a function for which tf_keras made a layer, but for the tensor.

    `names` are those of the arguments, in their order.
    """
    node = layer.inbound_nodes[0]
    return {**dict(zip(names, node.call_args[1:], strict=False)), **node.call_kwargs}


def graph_layers(model: Any) -> list[Any]:
    """Returns the layers of a functional model's graph.

    In tf_keras, `model.layers` also has those in the attributes of a model.
    """
    return list((_plain(model) if LEGACY else model).layers)


def operations_of(model: Any) -> list[Any]:
    """Returns the layers of a graph, and in Keras 3 the functions in it."""
    return list(getattr(model, "operations", model.layers))


def calls_of(operation: Any) -> list[tuple[list[Any], list[Any]]]:
    """Returns the inputs and outputs of each call of a layer on symbolic tensors."""
    # In Keras 3 these aren't public.
    nodes = operation.inbound_nodes if LEGACY else operation._inbound_nodes
    return [
        (tf.nest.flatten(node.input_tensors), tf.nest.flatten(node.output_tensors))
        for node in nodes
    ]


def called_to_train(layer: Any) -> bool:
    """Whether a graph calls a layer with `training=True`.

    `model(x)` then has it train; in Keras 3, `model(x, training=False)` and `predict` don't.
    """
    nodes = layer.inbound_nodes if LEGACY else layer._inbound_nodes
    keywords = [each.call_kwargs if LEGACY else each.arguments.kwargs for each in nodes]
    return any(each.get("training") is True for each in keywords)


def compile_settings(model: Any) -> dict[str, Any] | None:
    """Returns the arguments that a model was compiled with; None if it isn't compiled."""
    if not (model.compiled_loss if LEGACY else model.compiled):
        return None
    # Keras's public API has only a serialised form, which loses functions.
    return dict(model._compile_config.config)


def flags_when_compiled(model: Any) -> Mapping[Any, bool]:
    """Returns the `trainable` flags, by layer, that a model had when it was compiled.

    tf_keras trains it with those, whatever they are by then. Keras 3 doesn't record them: it takes
    those that it finds in the first step.
    """
    flags = model._compiled_trainable_state if LEGACY else None
    return flags or {}


def trained_by(optimizer: Any, variables: list[Any]) -> list[Any]:
    """Returns those of some variables for which an optimizer has a state, in its order.

    There are none if it isn't built, or if it is a legacy one that needs no such state.
    """
    if not LEGACY:
        return list(optimizer._trainable_variables)
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # where it scales the loss
    old = isinstance(inner, tf.keras.optimizers.legacy.Optimizer)
    places = inner._slots if old else getattr(inner, "_index_dict", {})
    by_key = {each._unique_id: each for each in variables}
    return [by_key[key] for key in places if key in by_key]


def copy_exclusions(old: Any, new: Any, twins: list[tuple[Any, Any]]) -> None:
    """Copies what `exclude_from_weight_decay` told an optimizer, which isn't in its config.

    `twins` has variables of a model with those of its copy, or None.
    """
    if keys := getattr(old, "_exclude_from_weight_decay", None):
        new._exclude_from_weight_decay = [
            new._var_key(twin)
            for each, twin in twins
            if twin is not None and old._var_key(each) in keys
        ]
    if LEGACY:
        if names := getattr(old, "_exclude_from_weight_decay_names", None):
            new._exclude_from_weight_decay_names = names
    elif pattern := getattr(old, "_exclude_from_weight_decay_pattern", None):
        new._exclude_from_weight_decay_pattern = pattern


def given_name(metric: Any, model: Any) -> str:
    """Returns the name that a metric was given: in training, tf_keras prefixes its output's."""
    name = str(metric.name)
    if LEGACY and model.compiled_metrics.built and len(model.output_names or ()) > 1:
        for output in sorted(model.output_names, key=len, reverse=True):
            if name.startswith(f"{output}_"):
                return name.removeprefix(f"{output}_")
    return name


def name_layer(layer: Any, name: str) -> None:
    """Names a layer that isn't called yet, as tf_keras itself does: its `name` can't be set."""
    if LEGACY:
        layer._name = name
    else:
        layer.name = name


def replace_attribute(layer: Any, name: str, value: Any, before: Any, after: Any) -> None:
    """Sets an attribute of a layer, built or not, to a value in which one part is replaced.

    The value is `after`, or a list, tuple or dict with it in the place of `before`. Keras then
    tracks the new part where it tracked the old one, so that the order of weights stays the same.
    It has no public way to do that.
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


def trace(
    model: Any,
    *,
    like: Any = None,
    training: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> Any:
    """Returns the concrete function of a model's forward pass on what Keras recorded of its call.

    Args:
        model: The model.
        like: The model of whose call the arguments are known, if not of this one.
        training: What the model is called with. None would not do: in Keras 3, layers after one
            such as RandomFlip, whose default is True, then get True.
        begin: Is called when a trace begins: a second one if the first fails, on integers in place
            of floats if the dtypes aren't known.
    """
    like = model if like is None else like
    fixed = not isinstance(model, tf.keras.Sequential) and getattr(model, "inputs", None)

    def spec(leaf: Any) -> Any:
        if leaf is None:
            return None
        shape = leaf.shape if fixed or not leaf.shape else [None, *leaf.shape[1:]]
        if getattr(leaf, "sparse", False) or isinstance(leaf, tf.SparseTensorSpec):
            return tf.SparseTensorSpec(shape, leaf.dtype)
        if getattr(leaf, "ragged", False) or isinstance(leaf, tf.RaggedTensorSpec):
            return tf.RaggedTensorSpec(shape, leaf.dtype)
        return tf.TensorSpec(shape, leaf.dtype)

    def forward(*arguments: Any, **keywords: Any) -> Any:
        begin()
        return model(*arguments, **keywords, training=training)

    arguments, keywords = tf.nest.map_structure(spec, recorded_call(like))
    try:
        return call_traced(forward).get_concrete_function(*arguments, **keywords)
    except Exception:  # of any kind: it is the user's model that is called
        if not records_dtypes(like):
            whole = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, tf.int32), arguments)
            with contextlib.suppress(Exception):
                return call_traced(forward).get_concrete_function(*whole, **keywords)
        raise


def handle_of(variable: Any) -> Any:
    """Returns the handle with which the operations of a graph read a variable."""
    return variable.handle if LEGACY else variable.value.handle


def is_quantized(layer: Any) -> bool:
    """Whether a layer computes in integers or float8, as after `quantize` in Keras 3."""
    return getattr(getattr(layer, "dtype_policy", None), "quantization_mode", None) is not None


def copy_of_lambda(layer: Any) -> Any:
    """Returns a copy of a Lambda, also of a subclass, with the same functions.

    Its config may not be enough: Keras 3 reads none with code in it, and some of TensorFlow
    Probability's layers have only that of the class above them.
    """
    kind = tf.keras.layers.Lambda
    config = tf.keras.layers.Layer.get_config(layer)
    functions = {"output_shape": layer._output_shape, "mask": getattr(layer, "mask", None)}
    new = kind(layer.function, arguments=layer.arguments, **functions, **config)
    new.__class__ = type(layer)
    for name, value in vars(layer).items():
        vars(new).setdefault(name, value)
    return new


def as_instance(kind: str, found: Any) -> Any:
    """Returns a constraint or regularizer, which may be any function, as a weight accepts it.

    Keras 3.10 accepts only instances of its own class.
    """
    base = getattr(getattr(tf.keras, f"{kind}s"), kind.title())
    if found is None or isinstance(found, base):
        return found
    return type(base.__name__, (base,), {"__call__": lambda _, weight: found(weight)})()


def keras_leaky_relu(slope: float, **kwargs: Any) -> Any:
    """Returns Keras's own LeakyReLU, whose slope Keras 3 and tf_keras name differently."""
    spelled = "alpha" if LEGACY else "negative_slope"
    return tf.keras.layers.LeakyReLU(**{spelled: slope}, **kwargs)


def slope_of_keras_leaky_relu(layer: Any) -> float:
    """Returns the slope of Keras's own LeakyReLU."""
    return float(layer.negative_slope if hasattr(layer, "negative_slope") else layer.alpha)


def batch_norm_is_fused(rank: int, axis: int, dtype: Any, *, synchronized: bool) -> bool:
    """Whether Keras's own BatchNormalization uses TensorFlow's fused kernel, as tf_keras's may.

    If so, the moving variance averages batch variances that are divided by n - 1, not by n.
    """
    if not LEGACY or synchronized or tf.as_dtype(dtype) == tf.float64:
        return False
    return (rank, axis) in ((4, 1), (4, 3), (5, 1), (5, 4))


def moving_average_options() -> dict[str, Any]:
    """Returns the options of BatchNormalization's moving averages for distribution strategies."""
    if not LEGACY:
        return {}
    return {
        "synchronization": tf.VariableSynchronization.ON_READ,
        "aggregation": tf.VariableAggregation.MEAN,
    }


def added_to_masked_count() -> float:
    """Returns what Keras 3's BatchNormalization adds to the number of unmasked elements."""
    return 0.0 if LEGACY else float(tf.keras.backend.epsilon())


@contextlib.contextmanager
def functions_in_line(layer: Any) -> Iterator[None]:
    """Has an LSTM or GRU of tf_keras traced without tf.functions of its own.

    Grappler would choose the implementation of those, and what is in them can't be read.
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
