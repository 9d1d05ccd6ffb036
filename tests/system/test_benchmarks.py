"""The benchmarks run, check answers before they time, and refuse wrong arguments."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import SLOW_UNDER_TF_KERAS

from benchmarks import __main__ as command
from benchmarks import (
    batch,
    batch_norm,
    call,
    figure,
    imports,
    kept,
    kernels,
    latency,
    learning,
    memory,
    monitor,
    nets,
    op,
    peers,
    precision,
    rows,
    serving,
    timing,
    training,
    xla,
)

pytestmark = list(SLOW_UNDER_TF_KERAS)


class NoProgress:
    def start(self, name, rounds):
        pass

    def step(self):
        pass


def test_every_rival_answers_and_is_timed():
    results = op.measure(rounds=3, shapes={"tiny": (2, 3, 3, 4)}, progress=NoProgress())
    assert set(results) == {f"tiny, {mode}" for mode in op.MODES}
    for result in results.values():
        assert set(result["seconds"]) == set(op.RIVALS)
        assert set(result["ratios"]) == set(op.RATIOS)
        assert all(ratio > 0 for ratio in result["ratios"].values())
        assert all(error < 1e-5 for error in result["slope gradient errors"].values())


@pytest.mark.parametrize(
    "wrong", [lambda x: tf.nn.leaky_relu(x, 0.2), tf.nn.relu], ids=["slope", "ReLU"]
)
def test_wrong_answers_are_never_timed(monkeypatch, wrong):
    monkeypatch.setitem(op.RIVALS, "fixed, ours", (lambda: wrong, None))
    with pytest.raises(AssertionError):
        op.measure(rounds=1, shapes={"tiny": (2, 3, 3, 4)}, progress=NoProgress())


def test_median_is_of_turns():
    turns = []
    rivals = {
        name: lambda name=name: turns.append(name) or tf.zeros([1]) for name in ("one", "other")
    }
    medians = timing.interleaved_medians(rivals, rounds=8, progress=lambda: None)
    assert turns[:4] == ["one", "one", "other", "other"]
    rounds = [tuple(turns[i : i + 2]) for i in range(4, len(turns), 2)]
    assert set(rounds) == {("one", "other"), ("other", "one")}
    assert len(rounds) == 8
    assert all(seconds > 0 for seconds in medians.values())


def test_summary_has_quartiles():
    seconds = {"ours": [1.0, 2.0, 3.0, 4.0, 5.0], "theirs": [1.0, 1.0, 2.0, 2.0, 2.0]}
    found = timing.summary(seconds, {"ours / theirs": ("ours", "theirs")})
    assert found["seconds"] == {"ours": 3.0, "theirs": 2.0}
    assert found["seconds, quartiles"] == {"ours": [2.0, 4.0], "theirs": [1.0, 2.0]}
    assert found["ratios"] == {"ours / theirs": 1.5}
    assert found["ratios, quartiles"] == {"ours / theirs": [1.5, 2.0]}


def test_peaks_are_medians_of_processes(monkeypatch):
    monkeypatch.setattr(memory, "ACTIVATIONS", ("Keras ReLU",))
    results = memory.measure(
        runs=2, progress=NoProgress(), threads={"1 thread": 1}, layers=1, side=4
    )
    assert set(results) == {f"{each} BatchNormalization, 1 thread" for each in ("with", "without")}
    for result in results.values():
        first, third = result["MiB, quartiles"]["Keras ReLU"]
        assert 0 < first <= result["MiB"]["Keras ReLU"] <= third
        assert result["ratios to ReLU"] == {"Keras ReLU": 1.0}
    assert "quartiles in MiB" in memory.report(results)
    with pytest.raises(RuntimeError, match="no such, "):
        memory._in_a_process("no such", normalised=False)


@pytest.mark.parametrize("name", [peers.OURS, *peers.PEERS])
def test_peers_answer_in_processes_of_their_own(name):
    if name != peers.OURS:
        pytest.importorskip(name)
    turns = []
    seconds = peers._in_turns([name], (2, 3, 3, 4), "per channel", 2, lambda: turns.append(1))
    assert list(seconds) == [name]
    assert seconds[name] > 0
    assert len(turns) == 2


def test_peer_with_another_answer_is_not_timed():
    x, upstream = np.random.default_rng(0).standard_normal((2, 2, 3, 3, 4), np.float32)
    right = peers.ALPHA * np.minimum(x, 0) + np.maximum(x, 0)
    dx = np.where(x > 0, upstream, peers.ALPHA * upstream)
    dalpha = np.sum(upstream * np.minimum(x, 0), (0, 1, 2))
    peers.check((right, dx, dalpha), x, upstream, "per channel")
    for wrong in [(x, dx, dalpha), (right, upstream, dalpha), (right, dx, 2 * dalpha)]:
        with pytest.raises(AssertionError):
            peers.check(wrong, x, upstream, "per channel")
    with pytest.raises(RuntimeError, match="torch failed on"):
        peers._in_turns(["torch"], (0,), "no such", 1, lambda: None)


@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_every_net_trains(activation):
    assert np.isfinite(memory.peak_of_training(activation, normalised=True, layers=1, side=4))


def test_other_parts_measure_and_check_what_they_time(monkeypatch):
    small = {"rounds": 1, "progress": NoProgress(), "side": 4}
    assert "per channel / Keras PReLU" in training.report(
        training.measure(**small, layers=1, count=2)
    )
    assert "one slope, frozen / Keras PReLU" in serving.report(
        serving.measure(**small, layers=1, count=2)
    )
    assert "look / predict" in monitor.report(monitor.measure(**small, count=40))
    assert "ours, fixed " in call.report(call.measure(rounds=2, progress=NoProgress()))
    assert imports.measure(rounds=1, progress=NoProgress())["median ms"] > 0
    for part, right, wrong in [(training, 1.0, 1.1), (serving, np.ones(2), np.ones(2) * 1.1)]:
        with pytest.raises(AssertionError):
            part.check({"ours": right, "theirs": wrong})


@pytest.mark.parametrize("block", batch_norm.BLOCKS)
@pytest.mark.parametrize("setting", ["graph", pytest.param("eager", marks=pytest.mark.slow)])
def test_every_block_trains(block, setting):
    found = batch_norm.steps(block, setting, layers=1, side=4, count=2)
    assert np.isfinite(found["MiB"])
    assert np.isfinite(found["loss"])
    assert found["seconds"] > 0


def test_blocks_are_compared_by_medians_of_processes(monkeypatch):
    losses = iter(range(1000))

    def run(block, *_):
        return {"MiB": 100.0 - len(block), "seconds": 1.0 + 1e-3 * next(losses), "loss": 0.5}

    monkeypatch.setattr(batch_norm, "_in_a_process", run)
    results = batch_norm.measure(progress=NoProgress(), processes=3, settings=("graph",))
    ratios = results["graph"]["MiB / BN + ReLU"]
    assert ratios["BN + ReLU"] == 1
    assert ratios["BatchNormLeakyReLU"] == pytest.approx(82 / 91)
    assert results["graph"]["seconds"]["BN + ReLU"] == pytest.approx(1.007)
    assert "BatchNormLeakyReLU, per channel" in batch_norm.report(results)
    monkeypatch.setattr(
        batch_norm, "_in_a_process", lambda block, *_: run(block) | {"loss": len(block)}
    )
    with pytest.raises(AssertionError):
        batch_norm.measure(progress=NoProgress(), processes=1, settings=("graph",))


@pytest.mark.slow
def test_rows_are_scored_by_both_nets():
    pytest.importorskip("ray")
    results = rows.measure(progress=NoProgress(), processes=1, rows=20_000)
    assert results["ratio"] > 0
    assert "rows per second" in rows.report(results)
    with pytest.raises(RuntimeError, match="run `make demo` first"):
        rows._rate(Path("no such folder"), 1)


@pytest.mark.filterwarnings("ignore")  # those of the converters of other packages
def test_requests_and_files_of_a_residual_net_are_timed():
    results = latency.measure(
        progress=NoProgress(), rounds=2, requests=4, callers=(1, 2), widths=(4,)
    )
    for count in ("1", "2"):
        rows = results["callers"][count]
        assert rows[latency.STOCK][f"p50 / {latency.STOCK}"] == 1
        assert all(row["p99, ms"] >= row["p50, ms"] > 0 for row in rows.values())
    assert set(results["files"]) == {"LiteRT float", "LiteRT int8", "ONNX"}
    assert "ours, frozen and folded" in latency.report(results)
    with pytest.raises(AssertionError):
        latency.check({latency.STOCK: np.ones(2), "ours, frozen": np.ones(2) * 1.1})


def test_growth_of_the_count_is_compared_with_that_of_the_peak(monkeypatch):
    found = kept._in_a_process("DCGAN discriminator", 8)
    assert found["peak"] > 0
    assert found["counted"] > 2**20

    def run(net, count):
        return {"peak": 2.0e6 * count + 1e8, "counted": 1.9e6 * count + 1e7}

    monkeypatch.setattr(kept, "_in_a_process", run)
    results = kept.measure(
        progress=NoProgress(), processes=3, nets=("LSTM", "U-Net", "U-Net, fused")
    )
    assert results["LSTM"]["counted / measured"] == pytest.approx(0.95)
    assert results["U-Net, fused"]["measured / stock"] == pytest.approx(1)
    assert "LSTM" in kept.report(results)


@pytest.mark.parametrize("name", [each for each in kept.NETS if not each.startswith("ResNet50")])
def test_nets_to_count_are_built(name):
    before = tf.keras.mixed_precision.global_policy()
    try:
        assert kept.build(name).count_params() > 0
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def test_nets_learn_and_are_drawn(tmp_path):
    pytest.importorskip("sklearn")
    results = learning.measure(progress=NoProgress(), seeds=1, epochs=1, steps=2)
    for losses in results["losses"].values():
        for name, found in losses.items():
            np.testing.assert_allclose(found, losses[learning.KINDS[1]], rtol=1e-3, err_msg=name)
    assert all(0 <= found[0] <= 1 for found in results["accuracy"].values())
    assert results["kept"]["BatchNormLeakyReLU"] < 0.7 * results["kept"]["BN + ReLU"]
    assert "Largest relative difference" in learning.report(results)
    learning.draw(results, tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_gradients_are_compared_with_those_of_float64():
    results = precision.measure(progress=NoProgress(), shape=(64, 4), gammas=(1.0, 1e-4))
    assert len(results) == len(precision.POLICIES) * len(precision.BETAS)
    rows = results["float32, beta=1"]
    assert (
        0 < rows["gamma=1"]["dgamma, one layer"] < 1e-6 < rows["gamma=0.0001"]["dgamma, one layer"]
    )
    assert "dz, two" in precision.report(results)


def test_largest_batch_is_found_by_halves():
    trials = []
    assert batch.largest(lambda size: size <= 41, lambda: trials.append(1)) == 41
    assert len(trials) == batch.LIMIT.bit_length() - 1
    for always in (True, False):
        with pytest.raises(RuntimeError, match="expected the largest batch"):
            batch.largest(lambda size, always=always: always, lambda: None)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is set as Linux has it")
@pytest.mark.parametrize(
    ("images", "trains"), [(2, True), pytest.param(250, False, marks=pytest.mark.slow)]
)
def test_batch_trains_or_is_out_of_memory(images, trains):
    assert batch._trains("ours, fixed", images) == trains


def test_command_writes_tables_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(op.SHAPES, "64 k", (2, 3, 3, 4))
    path = tmp_path / "results" / "run.json"
    command.main(["op", "--rounds", "1", "--sizes", "64 k", "--json", str(path)])
    text = capsys.readouterr().out
    assert "one slope / Keras PReLU" in text
    assert "Largest error" in text
    results = json.loads(path.read_text())
    assert results["machine"]["tensorflow"] == tf.__version__
    assert set(results) == {"machine", "op"}


def _a_run():
    each = dict.fromkeys(nets.ACTIVATIONS, 2.0)
    net = {
        "MiB": each,
        "MiB, quartiles": {key: [1.5, 2.5] for key in nets.ACTIVATIONS},
        "ratios to ReLU": dict.fromkeys(nets.ACTIVATIONS, 1.0),
    }
    sizes = {
        "seconds": dict.fromkeys(op.RIVALS, 0.5),
        "ratios": {"one slope / Keras PReLU": 0.5},
        "ratios, quartiles": {"one slope / Keras PReLU": [0.4, 0.6]},
        "slope gradient errors": {"one slope, ours": 1e-7},
    }
    return {
        "op": {"16 M, graph": sizes},
        "memory": {figure.MEMORY: net},
        "batch": {"images": {"ours, fixed": 9}, "ratios": {"ours, fixed": {"/ PReLU": 1.5}}},
        "import": {"median ms": 6.0},
    }


def test_picture_shows_memory_and_time(tmp_path):
    path = tmp_path / "run.png"
    figure.draw(_a_run(), path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ["speed"],
        ["op", "--rounds", "0"],
        ["memory", "--processes", "0"],
        ["op", "--figure", "a.png"],
    ],
    ids=" ".join,
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "expected" in capsys.readouterr().err


def test_no_net_takes_more_under_xla_than_with_stock_activations():
    results = xla.measure(layers=3, nets=("Conv2D, BN", "Dense"), progress=NoProgress())
    for net, row in results.items():
        for kind in xla.PEERS:
            assert row[f"ours / peer, {kind}"] < 1.001, (net, kind)
    assert results["Dense"]["ours / peer, fixed"] < 0.8
    assert "ours, per channel" in xla.report(results)


def test_kernels_of_a_step_are_timed_one_by_one():
    text = kernels.report(kernels.measure(rounds=3, progress=NoProgress()))
    assert "Greater" in text
    assert "all of a step" in text
