"""The benchmarks run, check answers before they time, and refuse wrong arguments."""

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import __main__ as command
from benchmarks import memory, op, timing


class NoProgress:
    def start(self, name, rounds):
        pass

    def step(self):
        pass


def test_every_rival_answers_and_is_timed():
    results = op.measure(rounds=3, shapes={"tiny": (2, 3, 3, 4)}, progress=NoProgress())
    assert set(results) == {"tiny, graph", "tiny, XLA", "tiny, eager"}
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
    medians = timing.interleaved_medians(rivals, rounds=3, progress=lambda: None)
    assert turns == ["one", "one", "other", "other", *["one", "other"] * 3]
    assert all(seconds > 0 for seconds in medians.values())


@pytest.mark.parametrize("activation", memory.ACTIVATIONS)
@pytest.mark.parametrize("normalised", [False, True])
def test_every_net_trains(activation, normalised):
    peak = memory.peak_of_training(activation, normalised=normalised, layers=1, side=4)
    assert np.isfinite(peak)


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


def test_report_of_memory_and_import():
    net = {"MiB": dict.fromkeys(memory.ACTIVATIONS, 2.0)}
    net["ratios to ReLU"] = dict.fromkeys(memory.ACTIVATIONS, 1.0)
    text = command.report({"memory": {"a net": net}, "import": {"median ms": 6.0}})
    assert "ours, one slope" in text
    assert "6 ms after tensorflow" in text


@pytest.mark.parametrize("arguments", [["speed"], ["op", "--rounds", "0"]], ids=str)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "expected" in capsys.readouterr().err
