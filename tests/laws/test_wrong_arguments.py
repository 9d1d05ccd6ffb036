"""Every argument of every public name, given what is wrong for it.

The call ends in an answer, or in an error that the docstring lists, in the house form, about that
argument; it leaves no file and no figure behind.
"""

import functools
import inspect
import re

import numpy as np
import pytest
import tensorflow as tf

import tf_leaky

layers = tf.keras.layers
HOUSE = re.compile(r"(?P<subject>\w+): expected .+?\. Received: (?P<received>.+\. .+)", re.DOTALL)
X = np.float32([[1, -2, 3], [-4, 5, -6]])
WRONG = {
    repr(each): each
    for each in (
        *(None, True, 0, -1, 0.5, float("nan"), 1e39, "text", "", b"bytes", [], [0.1, "a"], (1,)),
        *({"a": 1}, {"class_name": "NoSuch", "config": {}}, np.full((2, 3), np.nan)),
        *(np.ones((2, 7), "float32"), np.ones((2, 3), int), tf.constant(0.25), tf.float32, len),
        *(layers.ReLU(), tf.keras.Sequential([layers.Dense(2)])),
    )
}


@functools.cache
def model():
    slopes = tf_leaky.LeakyReLU(0.3, trainable_alpha=True, axis=-1)
    parts = [layers.Dense(4, activation="relu"), layers.BatchNormalization(), slopes]
    return tf.keras.Sequential([tf.keras.Input((3,)), *parts])


def measured(**arguments):
    """A monitor that has looked once, without a training."""
    monitor = tf_leaky.ActivationMonitor(**arguments)
    monitor.set_model(model())
    try:
        monitor.on_train_begin()
        monitor.on_epoch_end(0, {})
    finally:
        monitor.on_train_end()


RIGHT = {"model": model, "x": X, "inputs": X, "data": X, "base_path": "base"}
CALLS = {"ActivationMonitor": measured}
# What Keras's own layers have, too, and Keras speaks about.
OF_KERAS = re.compile("(gamma|beta|moving_).*|center|scale|synchronized")
ARGUMENTS = [
    (name, argument)
    for name in sorted(tf_leaky.__all__)
    if callable(getattr(tf_leaky, name))
    for argument, parameter in inspect.signature(getattr(tf_leaky, name)).parameters.items()
    if parameter.kind != parameter.VAR_KEYWORD and not OF_KERAS.fullmatch(argument)
]


def documented(public):
    """The errors in the section Raises of a docstring."""
    section = inspect.getdoc(public).partition("Raises:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"^    (\w+):", section, re.MULTILINE))


def fault(public, argument, error):
    """What is wrong with an error about an argument, or nothing."""
    if any("the error above is of" in note for note in getattr(error, "__notes__", ())):
        return ""  # it is the model's own
    if not {kind.__name__ for kind in type(error).__mro__} & documented(public):
        return "not documented"
    found = HOUSE.fullmatch(str(error))
    if not found or found["subject"] not in (public.__name__, "LeakyReLU"):
        return "not in the house form"
    spoken = {"inputs": "inputs|data", "model": "model|data|inputs"}.get(argument, argument)
    return "" if re.search(rf"\b({spoken})\b", found["received"]) else f"not about {argument}"


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_errors_are_documented_and_speak_of_the_argument(
    name, argument, tmp_path, monkeypatch, in_this_process
):
    monkeypatch.chdir(tmp_path)
    public = getattr(tf_leaky, name)
    given = {each: RIGHT[each] for each in inspect.signature(public).parameters if each in RIGHT}
    given = {each: value() if value is model else value for each, value in given.items()}
    faults = {}
    for shown, wrong in WRONG.items():
        before = sorted(tmp_path.rglob("*"))
        try:
            CALLS.get(name, public)(**given | {argument: wrong})
        except Exception as error:
            what = fault(public, argument, error)
            what = what or ("leaves files" if sorted(tmp_path.rglob("*")) != before else "")
            if what:
                faults[shown] = f"{what}: {type(error).__name__}: {str(error)[:300]}"
    assert not faults


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (TypeError("leaky_relu: expected x. Received: x=1. Give another."), "^$"),
        (KeyError("leaky_relu: expected x. Received: x=1. Give another."), "documented"),
        (TypeError("other: expected x. Received: x=1. Give another."), "in the house form"),
        (TypeError("leaky_relu: expected x. Received: y=1. Give another."), "about x"),
    ],
)
def test_what_is_a_fault(error, match):
    """The test of the test."""
    assert re.search(match, fault(tf_leaky.leaky_relu, "x", error))
