"""The benchmarks run, check answers before they time, and refuse wrong arguments."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS

from benchmarks import __main__ as command
from benchmarks import (
    batch,
    batch_norm,
    figure,
    isolated,
    kept,
    latency,
    memory,
    nets,
    op,
    peers,
    serving,
    training,
)

pytestmark = list(SLOW_UNDER_TF_KERAS)


class NoProgress:
    def start(self, name, rounds):
        pass

    def step(self):
        pass


ONE_LAYER = {"rounds": 1, "side": 4, "layers": 1, "count": 2}
# Arguments for a small run of each part, and a row or word of its report.
PARTS = {
    "op": ({"rounds": 3, "shapes": {"tiny": (2, 3, 3, 4)}}, "Largest error"),
    "memory": ({"runs": 2}, "quartiles in MiB"),
    "batch_norm": (
        {"processes": 1, "settings": ("graph",), "layers": 1, "side": 4, "count": 2},
        "BatchNormLeakyReLU, one slope",
    ),
    "training": (ONE_LAYER, "per channel / Keras PReLU"),
    "serving": (ONE_LAYER, "one slope, frozen / Keras PReLU"),
    "monitor": ({"rounds": 1, "side": 4, "count": 40}, "look / predict"),
    "call": ({"rounds": 2}, "ours, fixed "),
    "import": ({"rounds": 1}, " ms after tensorflow"),
    "precision": ({"shape": (64, 4), "gammas": (1.0, 1e-4)}, "dz, two"),
    "latency": ({"rounds": 2, "requests": 4, "callers": (1, 2), "widths": (4,)}, "folded"),
    "learning": ({"seeds": 1, "epochs": 1, "steps": 2}, "Largest relative difference"),
    "kernels": ({"rounds": 3}, "all of a step"),
    "xla": ({"layers": 3, "nets": ("Conv2D, BN", "Dense")}, "ours, per channel"),
    "rows": ({"processes": 1, "rows": 20_000}, "rows per second"),
}


@pytest.mark.filterwarnings("ignore")  # those of the converters of other packages
@pytest.mark.parametrize("name", [*list(PARTS)[:-1], pytest.param("rows", marks=pytest.mark.slow)])
def test_part_measures_checks_and_reports(name, monkeypatch, tmp_path):
    peak = {"memory": 1.0, "batch_norm": {"MiB": 1.0, "seconds": 1.0, "loss": 1.0}}
    if name in peak:  # one process is enough, below
        monkeypatch.setattr(isolated, "run", lambda *_, **__: peak[name])
    (part, _), (arguments, said) = command.PARTS[name], PARTS[name]
    results = part.measure(progress=NoProgress(), **arguments)
    assert said in part.report(results)
    if name == "learning":
        part.draw(results, tmp_path / "run.png")
        assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    if name == "xla":  # no net takes more than with stock activations
        for net, row in results.items():
            assert all(row[f"ours / peer, {kind}"] < 1.001 for kind in part.PEERS), net
        assert results["Dense"]["ours / peer, fixed"] < 0.8


@pytest.mark.parametrize("block", batch_norm.BLOCKS)
def test_block_trains(block):
    found = batch_norm.steps(block, "graph", layers=1, side=4, count=2)
    assert np.isfinite(found["loss"])


def test_peak_is_that_of_a_process():
    assert memory._in_a_process("Keras ReLU", normalised=True, layers=1, side=16) > 0


@pytest.mark.parametrize(
    "wrong", [lambda x: tf.nn.leaky_relu(x, 0.2), tf.nn.relu], ids=["slope", "ReLU"]
)
def test_wrong_answers_are_never_timed(monkeypatch, wrong):
    monkeypatch.setitem(op.RIVALS, "fixed, ours", (lambda: wrong, None))
    with pytest.raises(AssertionError):
        op.measure(rounds=1, shapes={"tiny": (2, 3, 3, 4)}, progress=NoProgress())


@pytest.mark.parametrize(
    ("part", "right", "wrong"),
    [
        (training, {"ours": 1.0, "theirs": 1.0}, {"ours": 1.0, "theirs": 1.1}),
        (serving, {"ours": np.ones(2)}, {"ours": np.ones(2), "theirs": np.ones(2) * 1.1}),
        (latency, {latency.STOCK: np.ones(2)}, {latency.STOCK: np.ones(2), "o": np.zeros(2)}),
        (
            batch_norm,
            {each: [{"loss": 0.5}] for each in batch_norm.BLOCKS},
            {each: [{"loss": len(each)}] for each in batch_norm.BLOCKS},
        ),
    ],
)
def test_different_answers_are_not_compared(part, right, wrong):
    part.check(right)
    with pytest.raises(AssertionError):
        part.check(wrong)


@pytest.mark.parametrize("name", [peers.OURS, *peers.PEERS])
def test_peers_answer_in_processes_of_their_own(name):
    if name != peers.OURS:
        pytest.importorskip(name)
    assert peers._in_turns([name], (2, 3, 3, 4), "per channel", 2, lambda: None)[name] > 0


def test_peer_with_another_answer_is_not_timed():
    x, upstream = np.random.default_rng(0).standard_normal((2, 2, 3, 3, 4), np.float32)
    right = peers.ALPHA * np.minimum(x, 0) + np.maximum(x, 0)
    dx = np.where(x > 0, upstream, peers.ALPHA * upstream)
    dalpha = np.sum(upstream * np.minimum(x, 0), (0, 1, 2))
    peers.check((right, dx, dalpha), x, upstream, "per channel")
    for wrong in [(x, dx, dalpha), (right, upstream, dalpha), (right, dx, 2 * dalpha)]:
        with pytest.raises(AssertionError):
            peers.check(wrong, x, upstream, "per channel")


def test_count_is_what_a_process_holds_after_the_forward_pass(monkeypatch):
    net, run = "DCGAN discriminator", kept._in_a_process
    held = functools.cache(lambda count: run(net, "held", count))  # and has a peak: one is enough
    monkeypatch.setattr(kept, "_in_a_process", lambda net, kind, count: held(count))
    results = kept.measure(progress=NoProgress(), processes=2, nets=(net, f"{net}, fused"))
    assert results[net]["counted / held"] == pytest.approx(1, rel=0.1)
    assert results[net]["counted / peak"] < 1.1
    assert results[f"{net}, fused"]["peak / stock"] == 1
    assert net in kept.report(results)


@pytest.mark.parametrize("name", [each for each in kept.NETS if not each.startswith("ResNet50")])
def test_nets_to_count_are_built(name):
    before = tf.keras.mixed_precision.global_policy()
    try:
        assert kept.build(name).count_params() > 0
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def test_largest_batch_is_found_by_halves():
    assert batch.largest(lambda size: size <= 41, lambda: None) == 41
    for always in (True, False):
        with pytest.raises(RuntimeError, match="expected the largest batch"):
            batch.largest(lambda size, always=always: always, lambda: None)


def test_batch_trains_where_there_is_memory():
    assert batch._trains("ours, fixed", 2)


def test_command_writes_tables_json_and_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(op.SHAPES, "64 k", (2, 3, 3, 4))
    peaks = {"MiB": dict.fromkeys(nets.ACTIVATIONS, 2.0)}
    monkeypatch.setattr(memory, "measure", lambda **_: {figure.MEMORY: peaks})
    monkeypatch.setattr(memory, "report", str)
    path, picture = tmp_path / "results" / "run.json", tmp_path / "pictures" / "run.png"
    flags = ["--rounds", "1", "--sizes", "64 k", "--json", str(path), "--figure", str(picture)]
    command.main(["op", "memory", *flags])
    assert "one slope / Keras PReLU" in capsys.readouterr().out
    results = json.loads(path.read_text())
    assert results["machine"]["tensorflow"] == tf.__version__
    assert set(results) == {"machine", "op", "memory"}
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", ["speed", "op --figure a.png"])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments.split())
    assert "expected" in capsys.readouterr().err
