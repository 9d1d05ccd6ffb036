"""What error messages show of what was received."""

import collections

import numpy as np
import pytest

from tf_leaky.checks import said, shown


class Fails:
    def __repr__(self):
        raise OSError


@pytest.mark.parametrize("value", [-1.5, [1, 2], {"a": (3,)}, None, 10**30, "x" * 298], ids=repr)
def test_what_takes_300_characters_or_fewer_is_shown_as_it_is(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000, list(range(10_000)), np.arange(10_000), dict.fromkeys(range(99), "long" * 90)],
    ids=["text", "list", "array", "dict"],
)
def test_long_things_are_cut_in_the_middle(value):
    text = shown(value)
    assert "..." in text
    assert len(text) <= 300
    assert len(text) >= 299 or not isinstance(value, str | dict)


def test_collections_show_their_first_twenty():
    for kind in (list, tuple, set, collections.deque):
        assert "19" in shown(kind(range(21)))
        assert "20" not in shown(kind(range(21)))


def test_integers_are_cut_or_told_by_their_size_where_python_does_not_write_them_out():
    assert shown(10**41) == f"1{'0' * 17}...{'0' * 19}"
    assert shown(2**20_000) == "<an integer of 20001 bits>"
    assert shown(-(2**20_000)) == "<a negative integer of 20001 bits>"


def test_what_has_no_repr_is_told_by_its_type():
    text = shown([Fails()])
    assert "Fails" in text
    assert len(text) <= 300


def test_errors_are_cut_in_the_middle():
    assert said(ValueError("short")) == "short"
    assert said(ValueError("a" * 1000)) == "a" * 1000
    assert said(ValueError("a" * 900 + "b" * 900)) == "a" * 500 + " ... " + "b" * 500
