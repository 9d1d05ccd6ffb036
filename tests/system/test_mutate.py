"""The changes that `make mutants` makes; that known ones are killed by name."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mutate
import pytest
from conftest import SLOW_UNDER_TF_KERAS
from mutants import Mutant, mutants

pytestmark = list(SLOW_UNDER_TF_KERAS)

TOY = '''
"""A text that stays."""

@cached(size=3)
def function(x: int | None = 2, *, wide: bool = False) -> int | None:
    """Another text."""
    if not 0 < x <= size(x, axis=1) and wide:
        raise ValueError(f"expected {x + 1}")
    with held():
        total = sum(x * 2.0 for _ in x if x in (1, 2))
    log.info("a message", 3)
    return tf.cast(total, tf.float64) if total is None else "float32"
'''
CHANGED = """
def function(x: int | None = 3, *, wide: bool = False) -> int | None:
def function(x: int | None = 2, *, wide: bool = True) -> int | None:
if not (not 0 < x <= size(x, axis=1) and wide):
if not 0 < x <= size(x, axis=1) or wide:
if (wide):
if (not 0 < x <= size(x, axis=1)):
if (0 < x <= size(x, axis=1)) and wide:
if not 0 <= x <= size(x, axis=1) and wide:
if not 0 > x <= size(x, axis=1) and wide:
if not 0 < x < size(x, axis=1) and wide:
if not 0 < x > size(x, axis=1) and wide:
if not 1 < x <= size(x, axis=1) and wide:
if not 0 < x <= size(x) and wide:
if not 0 < x <= size(x, axis=2) and wide:
pass
with __import__("contextlib").nullcontext():
total = ((x * 2.0 for _ in x if x in (1, 2)))
total = sum(x for _ in x if x in (1, 2))
total = sum(2.0 for _ in x if x in (1, 2))
total = sum(x * 4.0 for _ in x if x in (1, 2))
total = sum(x * 2.0 for _ in x if x not in (1, 2))
total = sum(x * 2.0 for _ in x if x in (2,))
total = sum(x * 2.0 for _ in x if x in (1,))
total = sum(x * 2.0 for _ in x if x in (2, 2))
total = sum(x * 2.0 for _ in x if x in (1, 3))
pass
return None
return tf.cast(total, tf.float64) if total is not None else "float32"
return total if total is None else "float32"
return tf.cast(total, tf.float32) if total is None else "float32"
return tf.cast(total, tf.float64) if total is None else "float16"
"""


def test_each_change_is_made_once():
    made = mutants("toy", TOY.encode())
    lines = [each.describe(TOY.encode()).splitlines() for each in made]
    changed = [line.removeprefix("+ ") for one in lines for line in one if line[0] == "+"]
    assert sorted(changed) == sorted(CHANGED.strip().splitlines())


@pytest.mark.parametrize("module", ["ops", "frozen"])
def test_mutants_of_the_package_compile_and_are_told_apart(module):
    original = (mutate.ROOT / "tf_leaky" / f"{module}.py").read_bytes()
    made = mutants(module, original)
    assert len(made) > 30
    for each in made:
        ast.parse(each.source)
        assert "\n- " in each.describe(original)
    assert len({each.source for each in made} | {original}) == len(made) + 1


def test_every_module_with_code_has_its_tests():
    modules = {path.stem for path in (mutate.ROOT / "tf_leaky").glob("*.py")}
    assert set(mutate.TESTS) == modules - {"__init__"}
    for names in mutate.TESTS.values():
        assert all((mutate.ROOT / file).exists() for file in mutate.files(names))


def test_explained_survivors_are_read(tmp_path, monkeypatch):
    table = tmp_path / "survivors.txt"
    table.write_text(
        "ops.f\n- a > b\n+ a >= b\n- c(\n- d)\n+ c()\nWhy: two\nlines.\n\nlayer\n- e\n+ f\nSo.\n"
    )
    monkeypatch.setattr(mutate, "EXPLAINED", table)
    assert mutate.read_explained() == {
        "ops.f\n- a > b\n+ a >= b": "Why: two lines.",
        "ops.f\n- c(\n- d)\n+ c()": "Why: two lines.",
        "layer\n- e\n+ f": "So.",
    }


def test_explained_survivors_have_reasons_and_are_still_made():
    explained = mutate.read_explained()
    assert all(reason for reason in explained.values())
    modules = {re.split(r"[.\n]", each)[0] for each in explained}
    assert modules <= set(mutate.TESTS)
    made = set()
    for module in modules:
        source = (mutate.ROOT / "tf_leaky" / f"{module}.py").read_bytes()
        made |= {mutant.describe(source) for mutant in mutants(module, source)}
    assert not set(explained) - made  # of code that is gone


GRADIENTS = "tests/laws/test_function_gradients.py::"
FORM = f"{GRADIENTS}test_gradient_is_the_closed_form[float32-eager-one-slope]"
EDGE = f"{GRADIENTS}test_slope_at_zero_and_nan_is_alpha[-0.5-tensor-eager-float32]"
# What is known to be wrong, as it stands in `ops` and as it is changed, and the test that says so.
KNOWN = {
    "sign of the mask": ("where(x > 0, tf.ones", "where(x < 0, tf.ones", FORM),
    "upstream dropped": ("_slope_at(x, tf.cast(alpha, wide)) * upstream", "upstream", FORM),
    "> for >=": ("where(x > 0, tf.ones", "where(x >= 0, tf.ones", EDGE),
    "sum forgotten": ("tf.reduce_sum(terms)", "terms", FORM),
    "nothing": ("Args:", "Arguments:", None),
}


def judge_what_is_known():
    """In a process of its own, as no fork is safe where TensorFlow has run."""
    mutate.prepare()
    original = (mutate.ROOT / "tf_leaky" / "ops.py").read_bytes()
    found = {}
    for name, (before, after, killer) in KNOWN.items():
        assert original.count(before.encode()) == 1, before
        wrong = Mutant("ops", original.replace(before.encode(), after.encode()), range(1))
        found[name] = mutate.trial(wrong, [killer or FORM], limit=100)
    tests = mutate.Tests()
    for made in mutants("ops", original):
        place, before, *_ = made.describe(original).splitlines()
        if "isinstance(positive_alpha, bool)" in before or before == "- return terms":
            found[f"{place} {before}"] = tests.judge(made, "function_errors", patience=60)
    print(json.dumps(found))


def test_known_mutants_are_killed_by_name_and_no_change_survives():
    code = "import test_mutate; test_mutate.judge_what_is_known()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONPATH": str(mutate.ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (_, _, killer) in KNOWN.items():
        assert found.pop(name) == (["killed", killer] if killer else ["survived", None]), name
    assert found.pop("ops._sum_like - return terms") == [
        "survived",
        None,
    ]  # which no test of errors runs
    ((outcome, killer),) = found.values()
    assert outcome == "killed"
    assert killer.startswith("tests/laws/test_function_errors.py::")
