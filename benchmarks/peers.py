"""A trained slope against torch's prelu and jax.jit: each in a process of its own, in turns."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.tables import table

ALPHA = 0.25
SHAPES = {"4 M": (16, 64, 64, 64), "16 M": (64, 64, 64, 64)}
SHARINGS = ("one slope", "per channel")
OURS, PEERS = "tensorflow", ("torch", "jax")


def measure(*, rounds: int, sizes: list[str], progress: Any) -> dict[str, Any]:
    """Ratios of medians, ours to each peer's, by size and sharing; which peers are missing."""
    found = [peer for peer in PEERS if importlib.util.find_spec(peer)]
    results: dict[str, Any] = {"missing": sorted(set(PEERS) - set(found)), "ratios": {}}
    for size in sizes:
        for sharing in SHARINGS:
            progress.start(f"{size}, {sharing}: tf_leaky, {', '.join(found)}", rounds)
            seconds = _in_turns([OURS, *found], SHAPES[size], sharing, rounds, progress.step)
            results["ratios"][f"{sharing}, {size}"] = {
                peer: seconds[OURS] / seconds[peer] for peer in found
            }
    return results


def report(results: dict[str, Any]) -> str:
    """The table of `measure`'s results."""
    lines = [f"{peer} is not installed: not measured" for peer in results["missing"]]
    if len(results["missing"]) < len(PEERS):
        title = "Trained slope, forward + backward, ours by a peer's, ratio of medians"
        lines.append(table(title, results["ratios"]))
    return "\n".join(lines)


def _in_turns(
    names: list[str],
    shape: tuple[int, ...],
    sharing: str,
    rounds: int,
    progress: Callable[[], None],
) -> dict[str, float]:
    """Median seconds of each, from rounds in which each process runs once."""
    workers = {}
    try:
        for name in names:
            command = [sys.executable, "-m", "benchmarks.peers", name, json.dumps(shape), sharing]
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            workers[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        for name, worker in workers.items():
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError(f"{name} failed on {shape}, {sharing}: see above")
        order = random.Random(0)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in order.sample(names, len(names)):
                time.sleep(0.02)  # until the threads of the one before no longer spin
                worker = workers[name]
                print("run", file=worker.stdin, flush=True)
                seconds[name].append(float(worker.stdout.readline()))
            progress()
        return {name: statistics.median(times) for name, times in seconds.items()}
    finally:
        for worker in workers.values():
            worker.communicate()  # closes its input, which ends it


def _work(name: str, shape: tuple[int, ...], sharing: str) -> None:
    """One process: checks its answer, then runs and times a step for each line of its input."""
    rng = np.random.default_rng(0)
    x, upstream = (rng.standard_normal(shape, np.float32) for _ in range(2))
    step, answer = {OURS: _tensorflow, "torch": _torch, "jax": _jax}[name](x, upstream, sharing)
    step()
    check(answer(step()), x, upstream, sharing)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        kept = step()
        print(time.perf_counter() - start, flush=True)
        del kept


def check(answer: Any, x: np.ndarray, upstream: np.ndarray, sharing: str) -> None:
    """Holds value, dx and dalpha, as NumPy arrays, against float64.

    Raises:
        AssertionError: If one is not leaky ReLU's.
    """
    y, dx, dalpha = answer
    np.testing.assert_allclose(y, np.where(x > 0, x, ALPHA * x), rtol=1e-6)
    # Peers take the slope at 0 to be another, so that place is left out.
    np.testing.assert_allclose(
        np.where(x == 0, 0, dx),
        np.where(x == 0, 0, np.where(x > 0, upstream, ALPHA * upstream)),
        rtol=1e-6,
    )
    terms = np.where(x > 0, 0.0, x.astype(np.float64) * upstream)
    exact = terms.sum(axis=(0, 1, 2) if sharing == "per channel" else None)
    np.testing.assert_allclose(np.ravel(dalpha), np.ravel(exact), atol=1e-3 * np.abs(exact).max())


def _tensorflow(x: np.ndarray, upstream: np.ndarray, sharing: str) -> Any:
    import tensorflow as tf

    from benchmarks.op import step_of
    from benchmarks.timing import finish
    from tf_leaky import LeakyReLU

    layer = LeakyReLU(ALPHA, trainable_alpha=True, axis=-1 if sharing == "per channel" else None)
    inputs = tf.constant(x), tf.constant(upstream)
    compiled = tf.function(step_of(layer, inputs[0]), autograph=False)

    def step() -> Any:
        results = compiled(*inputs)
        finish(results)
        return results

    def answer(results: Any) -> Any:
        y, (dx, dalpha) = results
        return y.numpy(), dx.numpy(), dalpha.numpy()

    return step, answer


def _torch(x: np.ndarray, upstream: np.ndarray, sharing: str) -> Any:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # torch has the channels second; each library gets its own layout.
    first = [torch.tensor(np.moveaxis(a, -1, 1).copy()) for a in (x, upstream)]
    inputs, gradient = first[0].requires_grad_(), first[1]
    slopes = torch.full((x.shape[-1] if sharing == "per channel" else 1,), ALPHA)
    slopes.requires_grad_()

    def step() -> Any:
        y = torch.nn.functional.prelu(inputs, slopes)
        return y, *torch.autograd.grad(y, [inputs, slopes], gradient)

    def answer(results: Any) -> Any:
        y, dx, dalpha = (result.detach().numpy() for result in results)
        return np.moveaxis(y, 1, -1), np.moveaxis(dx, 1, -1), dalpha

    return step, answer


def _jax(x: np.ndarray, upstream: np.ndarray, sharing: str) -> Any:
    import jax
    import jax.numpy as jnp

    slopes = jnp.full((x.shape[-1],) if sharing == "per channel" else (), ALPHA)

    @jax.jit
    def both(x: Any, slopes: Any, upstream: Any) -> Any:
        y, pull = jax.vjp(lambda x, a: jnp.where(x > 0, x, a * x), x, slopes)
        return y, *pull(upstream)

    inputs = jnp.asarray(x), slopes, jnp.asarray(upstream)

    def step() -> Any:
        return jax.block_until_ready(both(*inputs))

    return step, lambda results: tuple(map(np.asarray, results))


if __name__ == "__main__":
    _work(sys.argv[1], tuple(json.loads(sys.argv[2])), sys.argv[3])
