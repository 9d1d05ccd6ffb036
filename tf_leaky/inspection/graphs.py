"""Finds what the backward pass keeps in the graph that TensorFlow makes of a function."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

# Operations whose output is one of their inputs: the first, in `_SEVERAL` any.
_VIEWS = {
    "Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient", "Snapshot",
    "CheckNumerics", "EnsureShape", "Bitcast", "Enter", "Exit", "NextIteration", "Switch",
    "TensorListFromTensor", "TensorListGetItem", "TensorListPopBack", "OptionalGetValue",
}  # fmt: skip
_SEVERAL = {"Merge", "TensorListPushBack", "TensorListSetItem", "OptionalFromValue"}
_GIVEN = {
    "Placeholder", "Const", "VarHandleOp", "ReadVariableOp", "VariableShape",
    "TensorListElementShape",
}  # fmt: skip
_ITEM = {"TensorListPushBack": 1, "TensorListSetItem": 2}  # which input joins a list


class Kept(NamedTuple):
    """A buffer that the backward pass uses."""

    name: str
    """Name of the operation that makes it."""
    bytes: int | None
    """None if the graph doesn't say."""


def kept_by(function: Any) -> list[Kept]:
    """Returns the buffers that the forward pass makes and the backward pass uses, each once.

    Args:
        function: A concrete function of flat arguments. The first is a number whose name no other
            function uses. What depends on it is the backward pass.
    """
    upstream = function.inputs[0].op.name
    definition = _optimized(function, upstream)
    loops = _loops(definition)
    graph = _imported(definition)
    while loops and _say_shapes(graph, definition):
        graph = _imported(definition)
    rounds = _rounds(graph, loops)
    operations = graph.get_operations()
    inside = {each: [i for i, loop in enumerate(loops) if each.name in loop] for each in operations}
    after = _after(graph, upstream, inside)
    buffers: dict[Any, tuple[Any, bool]] = {}
    for operation in after:
        for tensor in operation.inputs:
            if tensor.op not in after and not _is_workspace(tensor):
                for origin, many in _origins(tensor):
                    before = buffers.get(origin.ref(), (origin, False))[1]
                    buffers[origin.ref()] = origin, many or before
    return [
        Kept(origin.op.name, _bytes(origin, [rounds[i] for i in inside[origin.op]] * many))
        for origin, many in buffers.values()
    ]


def _is_workspace(tensor: Any) -> bool:
    """Whether a tensor is cuDNN's workspace, whose size no graph says; on a CPU it is empty."""
    fused = tensor.op.type in ("FusedBatchNormV3", "_FusedBatchNormEx")
    return fused and bool(tensor.value_index == 5)


def _bytes(tensor: Any, rounds: list[int | None]) -> int | None:
    size = tensor.shape.num_elements()
    if size is None or None in rounds:
        return None
    return int(math.prod([size, tensor.dtype.size, *rounds]))


def _optimized(function: Any, upstream: str) -> Any:
    """Returns the graph that TensorFlow would run for a function, with placeholders as arguments.

    The function isn't run. It is called on numbers of a wrong dtype, which TensorFlow refuses after
    it has optimized the graph.
    """
    wrong = [tf.constant(0, tf.int32) for _ in function.structured_input_signature[0]]
    tf.identity(0)  # here, so that it adds no graph below
    with tempfile.TemporaryDirectory() as folder:
        with tf.summary.create_file_writer(folder).as_default():
            tf.summary.trace_on(graph=True, profiler=False)
            with contextlib.suppress(tf.errors.InvalidArgumentError):
                function(*wrong)
            tf.identity(0)  # the graphs of a failed call are exported with the next call
            tf.summary.trace_export("graph", step=0)
        (path,) = Path(folder).iterdir()
        events = [
            tf.compat.v1.Event.FromString(record.numpy())
            for record in tf.data.TFRecordDataset(str(path))
        ]
    (trace,) = [value.tensor for event in events for value in event.summary.value]
    graphs = tf.compat.v1.RunMetadata.FromString(trace.string_val[0]).function_graphs
    (found,) = [
        each.post_optimization_graph
        for each in graphs
        if any(node.name == upstream for node in each.post_optimization_graph.node)
    ]
    return _with_placeholders(found)


def _with_placeholders(found: Any) -> Any:
    """Returns a graph with placeholders and variables, of known shapes, as arguments."""
    made = tf.compat.v1.GraphDef(versions=found.versions, library=found.library)
    for node in found.node:
        if node.op == "_Retval":
            continue
        new = made.node.add(name=node.name, op=node.op, input=node.input)
        if node.op == "_Arg" and node.attr["_handle_shapes"].list.shape:
            new.op = "VarHandleOp"
            new.attr["dtype"].type = node.attr["_handle_dtypes"].list.type[0]
            new.attr["shape"].shape.CopyFrom(node.attr["_handle_shapes"].list.shape[0])
        elif node.op == "_Arg":
            new.op = "Placeholder"
            new.attr["dtype"].type = node.attr["T"].type
            shapes = node.attr["_output_shapes"].list.shape
            new.attr["shape"].shape.CopyFrom(
                shapes[0] if shapes else tf.TensorShape(None).as_proto()
            )
        else:
            for name in node.attr:
                if not name.startswith("_"):
                    new.attr[name].CopyFrom(node.attr[name])
    return made


def _loops(definition: Any) -> list[set[str]]:
    """Returns the names of the nodes in each loop, and adds a counter of rounds to each loop."""
    users: dict[str, list[Any]] = {}
    for node in definition.node:
        for each in node.input:
            users.setdefault(each.lstrip("^").partition(":")[0], []).append(node)
    starts: dict[str, list[Any]] = {}
    for node in definition.node:
        if node.op == "Enter":
            starts.setdefault(node.attr["frame_name"].s, []).append(node)
    loops: list[set[str]] = []
    for enters in starts.values():
        waiting, depth, condition = list(enters), {node.name: 1 for node in enters}, None
        while waiting:
            node = waiting.pop()
            if node.op == "LoopCond" and depth[node.name] == 1:
                condition = node
            inner = depth[node.name] - (node.op == "Exit")
            for user in users.get(node.name, []) if inner else []:
                if user.name not in depth:
                    depth[user.name] = inner + (user.op == "Enter" and user not in enters)
                    waiting.append(user)
        if condition is not None:
            _add_counter(definition, f"rounds_{len(loops)}", enters[0], condition.name)
        loops.append(set(depth))
    return loops


def _imported(definition: Any) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    return graph


def _say_shapes(graph: Any, definition: Any) -> bool:
    """Fixes the shapes of loop variables to their initial ones; returns whether it changed any.

    When TensorFlow infers the shape of a Merge, it doesn't know that of the round's result yet.
    """
    known = {node.name for node in definition.node}
    shapes = {}
    for operation in graph.get_operations():
        if (
            operation.type in ("Merge", "TensorListStack")
            and f"{operation.name}/shaped" not in known
        ):
            x = operation.outputs[0]
            shape = x.shape if x.shape.is_fully_defined() else _shape_of_loops(operation)
            if shape is not x.shape and shape.is_fully_defined():
                shapes[operation.name] = x.dtype, shape
    for node in definition.node:
        for i, each in enumerate(node.input):
            if each in shapes:
                node.input[i] = f"{each}/shaped"
    for name, (dtype, shape) in shapes.items():
        node = definition.node.add(name=f"{name}/shaped", op="EnsureShape", input=[name])
        node.attr["T"].type = dtype.as_datatype_enum
        node.attr["shape"].shape.CopyFrom(shape.as_proto())
    return bool(shapes)


def _shape_of_loops(operation: Any) -> Any:
    """Returns the shape of a loop variable, or of what was written in all rounds."""
    shape = operation.outputs[0].shape
    if operation.type == "TensorListStack":
        items = [x.shape for x, many in _origins(operation.inputs[0]) if many]
        count = _length_of_list(operation.inputs[0])
        shapes = [tf.TensorShape([count]).concatenate(item) for item in items]
    elif operation.outputs[0].dtype == tf.variant:
        shapes = []
    else:
        shapes = [x.op.inputs[0].shape for x in operation.inputs if x.op.type == "Enter"]
    return next((each for each in shapes if shape.is_compatible_with(each)), shape)


def _length_of_list(tensor: Any) -> Any:
    """Returns how many items a list has room for, or None."""
    operation = tensor.op
    while operation.type in _VIEWS | _SEVERAL:
        operation = operation.inputs[0].op
    reserved = operation.type == "TensorListReserve"
    return tf.get_static_value(operation.inputs[1]) if reserved else None


def _add_counter(definition: Any, name: str, enter: Any, condition: str) -> None:
    """Adds a variable that counts the rounds of a loop; `name`/exit returns the count."""

    def add(op: str, part: str, *inputs: str) -> Any:
        node = definition.node.add(name=f"{name}/{part}", op=op)
        node.input.extend(f"{name}/{each}" for each in inputs)
        node.attr["T"].type = tf.int32.as_datatype_enum
        return node

    for part, value, control in (("zero", 0, []), ("one", 1, ["switch_1"])):
        node = definition.node.add(name=f"{name}/{part}", op="Const")
        node.attr["dtype"].type = tf.int32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
        node.input.extend(f"^{name}/{each}" for each in control)
    start = add("Enter", "enter", "zero")
    start.attr["frame_name"].CopyFrom(enter.attr["frame_name"])
    start.attr["parallel_iterations"].CopyFrom(enter.attr["parallel_iterations"])
    add("Merge", "merge", "enter", "next").attr["N"].i = 2
    add("Switch", "switch", "merge").input.append(condition)
    add("Identity", "switch_1", "switch:1")
    add("AddV2", "add", "switch_1", "one")
    add("NextIteration", "next", "add")
    add("Exit", "exit", "switch")


def _rounds(graph: Any, loops: list[set[str]]) -> list[int | None]:
    """Returns the number of rounds of each loop, by running its counter; None if unknown."""
    counts: list[int | None] = []
    on_cpu = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    for i in range(len(loops)):
        count = None
        # It may have no counter (ValueError), depend on data, or be in another loop.
        failures = contextlib.suppress(tf.errors.OpError, ValueError)
        with failures, tf.compat.v1.Session(graph=graph, config=on_cpu) as session:
            count = int(session.run(f"rounds_{i}/exit:0"))
        counts.append(count)
    return counts


def _after(graph: Any, upstream: str, inside: dict[Any, list[int]]) -> set[Any]:
    """Returns the operations of the backward pass: all that need upstream, and their loops."""
    users: dict[Any, list[Any]] = {}
    members: dict[int, list[Any]] = {}
    for operation in graph.get_operations():
        for each in [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]:
            users.setdefault(each, []).append(operation)
        for loop in inside[operation]:
            members.setdefault(loop, []).append(operation)
    waiting = [graph.get_operation_by_name(upstream)]
    found = set(waiting)
    while waiting:
        operation = waiting.pop()
        others = [each for loop in inside[operation] for each in members.pop(loop, [])]
        for each in [*users.get(operation, []), *others]:
            if each not in found:
                found.add(each)
                waiting.append(each)
    return found


def _origins(tensor: Any) -> Iterator[tuple[Any, bool]]:
    """Yields the tensors whose buffers a tensor uses, and whether each round has its own."""
    waiting, seen = [(tensor, False)], set()
    while waiting:
        each, many = waiting.pop()
        operation = each.op
        if (each.ref(), many) in seen or operation.type in _GIVEN:
            continue
        seen.add((each.ref(), many))
        if operation.type == "IdentityN":
            waiting.append((operation.inputs[each.value_index], many))
        elif operation.type in _VIEWS:
            waiting.append((operation.inputs[0], many))
        elif operation.type in _SEVERAL:
            joins = _ITEM.get(operation.type)
            waiting += [(x, many or i == joins) for i, x in enumerate(operation.inputs)]
        elif each.dtype not in (tf.variant, tf.resource):
            yield each, many
