"""Latency of a request to a residual net over gRPC, and its files for LiteRT and ONNX.

The net has a stem and 6 residual blocks (convolution, batch normalisation, activation,
convolution, batch normalisation, sum, activation) on images of 32 x 32 x 3. All rivals have the
same weights and slopes, so their answers agree. Each is served by a process of its own, and asked
in turns by 1, 4 and 16 callers at a time, one image a request. The server is TensorFlow Serving if
`tensorflow_model_server` or docker is found, else `examples/serving/stand_in.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.tables import table
from benchmarks.timing import interleaved, quartiles
from tf_leaky import convert, export_saved_model, freeze

ALPHA = 0.1
SIDE = 32
STOCK = "Keras LeakyReLU"
RIVALS = (STOCK, "Keras PReLU, one slope", "ours, frozen", "ours, frozen and folded")
EXAMPLES = Path(__file__).parents[1] / "examples"


def measure(
    *,
    progress: Any,
    rounds: int = 15,
    requests: int = 64,
    callers: tuple[int, ...] = (1, 4, 16),
    widths: tuple[int, ...] = (16, 32, 64),
) -> dict[str, Any]:
    """Milliseconds of requests for each rival and number of callers; times and sizes of files."""
    x = np.random.default_rng(0).random((16, SIDE, SIDE, 3), np.float32)
    models = nets(x, widths)
    return served(models, x, progress, rounds, requests, callers) | {
        "files": files(models, x, progress, rounds)
    }


def nets(x: Any, widths: tuple[int, ...]) -> dict[str, Any]:
    """The rivals, with the statistics of x in their batch normalisation."""
    keras = tf.keras.layers
    stock = _net(lambda: keras.LeakyReLU(ALPHA), x, widths)
    initial = tf.keras.initializers.Constant(ALPHA)
    prelu = _net(lambda: keras.PReLU(initial, shared_axes=[1, 2, 3]), x, widths)
    frozen = freeze(convert(prelu))
    folded = freeze(convert(prelu), fold_batch_norm=True)
    return dict(zip(RIVALS, (stock, prelu, frozen, folded), strict=True))


def _net(activation: Callable[[], Any], x: Any, widths: tuple[int, ...]) -> Any:
    keras = tf.keras.layers
    tf.keras.utils.set_random_seed(0)

    def normalised(x: Any, width: int, size: int, strides: int) -> Any:
        x = keras.Conv2D(width, size, strides, padding="same", use_bias=False)(x)
        return keras.BatchNormalization(momentum=0.0)(x)

    y = inputs = tf.keras.Input((SIDE, SIDE, 3), name="x")
    y = activation()(normalised(y, widths[0], 3, 1))
    for number, width in enumerate(widths):
        for strides in (1 + (number > 0), 1):
            skip = y if y.shape[-1] == width and strides == 1 else normalised(y, width, 1, strides)
            y = activation()(normalised(y, width, 3, strides))
            y = activation()(keras.Add()([normalised(y, width, 3, 1), skip]))
    y = keras.Dense(10, name="y")(keras.GlobalAveragePooling2D()(y))
    model = tf.keras.Model(inputs, y)
    model(x, training=True)
    return model


def served(
    models: dict[str, Any],
    x: Any,
    progress: Any,
    rounds: int,
    requests: int,
    callers: tuple[int, ...],
) -> dict[str, Any]:
    """Percentiles of the latency by number of callers, over gRPC."""
    client, serve = _example("client"), _example("serve")
    found = serve.find_server()
    if found.kind == "address":  # that serves a model of its own
        found = serve.Found("stand-in", "the stand-in of the examples")
    latencies: dict[int, dict[str, list[Any]]] = {
        count: {name: [] for name in models} for count in callers
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        clients = {}
        progress.start(f"Exports, to be served by {found.kind}", len(models))
        for number, (name, model) in enumerate(models.items()):
            base = Path(folder) / str(number)
            export_saved_model(model, base)
            addresses = opened.enter_context(serve.serving(found, base, "net"))
            clients[name] = opened.enter_context(
                contextlib.closing(client.GrpcClient(addresses.grpc, "net"))
            )
            progress.step()
        check({name: each.predict(x) for name, each in clients.items()})
        progress.start("Requests over gRPC", rounds)
        order = random.Random(0)
        for number in range(rounds + 1):
            for count, found_by_name in latencies.items():
                for name in order.sample(list(clients), len(clients)):
                    asked = client.measure(clients[name], x, requests, 1, count, quiet=True)
                    if number:  # the first round warms up
                        found_by_name[name].append(asked.latencies * 1e3)
            if number:
                progress.step()
    return {"server": found.kind, "callers": {str(k): _summary(v) for k, v in latencies.items()}}


def _summary(latencies: dict[str, list[Any]]) -> dict[str, Any]:
    p50 = {name: [float(np.median(each)) for each in runs] for name, runs in latencies.items()}
    by_round = {
        name: [mine / theirs for mine, theirs in zip(runs, p50[STOCK], strict=True)]
        for name, runs in p50.items()
    }
    p99 = {name: float(np.quantile(np.concatenate(runs), 0.99)) for name, runs in latencies.items()}
    return {
        name: {
            "p50, ms": statistics.median(p50[name]),
            "p99, ms": p99[name],
            f"p50 / {STOCK}": statistics.median(by_round[name]),
            "quartiles": quartiles(by_round[name]),
            f"p99 / {STOCK}": p99[name] / p99[STOCK],
        }
        for name in latencies
    }


def files(models: dict[str, Any], x: Any, progress: Any, rounds: int) -> dict[str, Any]:
    """KiB, milliseconds and the largest error of each rival's files, relative to the answers."""
    formats, answers = _example("convert"), {name: np.asarray(m(x)) for name, m in models.items()}
    wanted = answers[STOCK]
    results: dict[str, Any] = {}
    progress.start("Files for LiteRT and ONNX", len(models))
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, dict[str, Callable[[], Any]]] = {}
        for name, model in models.items():
            if name.startswith("ours"):
                model = freeze(model, target="litert")
            for kind, content in {
                "LiteRT float": formats.to_litert(model),
                "LiteRT int8": formats.to_litert(model, x),
            }.items():
                path = Path(folder) / f"{len(runs)} {name} {kind}.tflite"
                path.write_bytes(content)
                runs.setdefault(kind, {})[name] = _litert(path, x)
                results.setdefault(kind, {})[name] = {"KiB": len(content) / 2**10}
                if kind == "LiteRT float":
                    onnx = path.with_suffix(".onnx")
                    formats.to_onnx(path, onnx)
                    runs.setdefault("ONNX", {})[name] = _onnx(onnx, x)
                    size = onnx.stat().st_size / 2**10
                    results.setdefault("ONNX", {})[name] = {"KiB": size}
            progress.step()
        for kind, rivals in runs.items():
            progress.start(f"{kind}, {len(x)} images", rounds)
            seconds = interleaved(rivals, rounds=rounds, progress=progress.step)
            median = {name: statistics.median(each) for name, each in seconds.items()}
            for name, run in rivals.items():
                error = np.abs(run() - wanted).max() / np.abs(wanted).max()
                if error > (0.2 if kind == "LiteRT int8" else 1e-4):
                    raise AssertionError(f"{name}, {kind}: expected the answers. Off by {error}.")
                results[kind][name] |= {
                    "ms": median[name] * 1e3,
                    f"ms / {STOCK}": median[name] / median[STOCK],
                    "largest error": float(error),
                }
    return results


def _litert(path: Path, x: Any) -> Callable[[], Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], x.shape)
    interpreter.allocate_tensors()

    def run() -> Any:
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return run


def _onnx(path: Path, x: Any) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def _example(name: str) -> Any:
    """A script of the examples as a module."""
    for folder in (EXAMPLES, EXAMPLES / "serving"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return importlib.import_module(name)


def check(answers: dict[str, Any]) -> None:
    """Raises AssertionError unless all answers agree."""
    for name, answer in answers.items():
        scale = np.abs(answers[STOCK]).max()
        np.testing.assert_allclose(answer, answers[STOCK], atol=1e-4 * scale, err_msg=name)


def report(results: dict[str, Any]) -> str:
    """The tables of `measure`'s results."""
    title = f"Requests over gRPC to {results['server']}"
    tables = [
        table(f"{title}, {count} at a time", rows) for count, rows in results["callers"].items()
    ]
    tables += [table(kind, rows) for kind, rows in results["files"].items()]
    return "\n\n".join(tables)
