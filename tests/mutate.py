"""Tests of the tests: small wrong changes to the package, each of which a test has to notice.

    python tests/mutate.py                      # all of ops, layer and checks, samples of the rest
    python tests/mutate.py ops --patience 300   # the slow tests of one module too

A mutant is a copy of the package with one change. TensorFlow starts its threads with its first
operation, so that a process which has only imported it can be forked for each mutant: the fork puts
the copy first on its path, and on that of its own processes, and runs the tests that ran the
changed lines when nothing was changed, until one fails. Nothing is written to the working tree.

Survivors are printed as `survivors.txt` holds them: either a test is missing, or a line there.
"""

import argparse
import ast
import collections
import contextlib
import functools
import gc
import importlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from mutants import mutants

ROOT = Path(__file__).parents[1]
EXPLAINED = ROOT / "tests" / "survivors.txt"
WHOLE = ("ops", "layer", "checks")  # every mutant of these, a sample of the others
# The files of tests that count for a module.
TESTS = {
    "ops": "house function_errors function_value memory function_gradients properties",
    "layer": "house layer_errors layer old_files memory saving properties",
    "messages": "messages function_errors layer_errors",
    "checks": "function_errors layer_errors memory function_value layer models plot "
    "function_gradients hostile_files",
    "keras_compat": "models old_files probe layer export export_check export_errors",
    "models": "models other_runtimes",
    "cloning": "models",
    "frozen": "layer_errors models other_runtimes",
    "counts": "probe",
    "probe": "probe",
    "monitor": "probe",
    "plot": "plot probe",
    "export": "export export_errors export_versions export_check",
    "versions": "export export_errors export_versions",
    "verify": "export_check export export_errors",
    "warmup": "export export_errors export_check",
    "native": "native export_check",
}
_SLOWER = 3  # times as long as the tests took before: a mutant that takes longer is timed out
_START = 60  # seconds beside


def main():
    """Runs the mutants that the command names, and tells which survived."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="module", help="all, if none is given")
    parser.add_argument("--sample", type=int, default=15, help="mutants of the larger part")
    parser.add_argument("--seed", type=int, default=7, help="chooses the sample")
    parser.add_argument("--patience", type=int, default=60, help="seconds of tests for a mutant")
    given = parser.parse_args()
    prepare()
    explained, tests, rows, unexplained = read_explained(), Tests(), [], 0
    for module in given.modules or TESTS:
        original = (ROOT / "tf_leaky" / f"{module}.py").read_bytes()
        chosen = mutants(module, original)
        if module not in WHOLE:
            chosen = random.Random(given.seed).sample(chosen, min(given.sample, len(chosen)))
        counts = collections.Counter(mutants=len(chosen))
        for mutant in chosen:
            outcome, killer = tests.judge(mutant, TESTS[module], given.patience)
            description = mutant.describe(original)
            if outcome == "survived" and description in explained:
                outcome = "explained"
            counts[outcome] += 1
            unexplained += outcome == "survived"
            print(f"{outcome}: {killer or explained.get(description)}\n{description}\n", flush=True)
        rows.append(" ".join([module, *(f"{count} {name}" for name, count in counts.items())]))
    print(*rows, f"{unexplained} unexplained survivors", sep="\n")
    return int(unexplained > 0)


def read_explained():
    """The mutants that may survive, each with the reason."""
    found = {}
    for block in EXPLAINED.read_text().strip().split("\n\n"):
        place, *lines = block.splitlines() or [""]
        changes = [line for line in lines if re.match("[-+]( |$)", line)]
        reason = " ".join(line for line in lines if line not in changes)
        for change in re.findall(r"(?:^-.*\n)+(?:^\+.*\n?)*", "\n".join(changes), re.MULTILINE):
            found[f"{place}\n{change.strip()}"] = reason
    return found


def prepare():
    """Imports what takes long, and starts no threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("coverage", "hypothesis.extra.numpy", "pytest", "tensorflow"):
        importlib.import_module(name)
    assert sys.modules["tensorflow"].keras.layers.Dense  # Keras is imported when it is first named
    settings, phase = sys.modules["hypothesis"].settings, sys.modules["hypothesis"].Phase
    settings.register_profile("mutants", phases=[phase.generate])  # the first failure will do
    settings.load_profile("mutants")
    gc.freeze()  # so that no fork looks through all of it, and so copies it


class Tests:
    """What tests take, the lines of the package that each runs, and the mutants that it killed."""

    def __init__(self):
        self._seconds, self._killed = {}, collections.Counter()
        self._ran = collections.defaultdict(lambda: collections.defaultdict(set))

    def watch(self, names):
        """Runs files of tests without a change, unless that was done."""
        seen = {name.partition("::")[0] for name in self._seconds}
        new = [file for file in files(names) if file not in seen]
        if not new:
            return
        with tempfile.TemporaryDirectory() as folder:
            code = _in_fork(folder, functools.partial(_watch, folder, new))
            log = Path(folder, "log").read_text()
            assert code == 0, f"these tests fail without a change: {new}\n{log}"
            seconds, ran = ast.literal_eval(Path(folder, "answer").read_text())
        self._seconds |= seconds
        for module, lines in ran.items():
            for line, tests in lines.items():
                self._ran[module][line].update(tests)

    def judge(self, mutant, names, patience):
        """How a mutant fares with files of tests, and the test that killed it."""
        self.watch(names)
        lines = self._ran[mutant.module]
        ran = {name for line in mutant.lines for name in lines.get(line, ())}
        anyone = not ran or "" in ran  # run by the import, or by other processes only
        whole, turns, order = collections.Counter(), collections.Counter(), {}
        for name in sorted(self._seconds, key=self._seconds.get):
            file, function = name.partition("::")[0], name.partition("[")[0]
            if file in files(names) and (anyone or {name, file} & ran):
                whole[file] += self._seconds[name]
                turns[function] += 1
                order[name] = file, turns[function]

        def rank(name):  # a file stays together, for its fixtures; one case of each test goes first
            file, turn = order[name]
            return -self._killed[name], whole[file], turn, self._seconds[name]

        chosen, left = [], float(patience)
        for name in sorted(order, key=rank):
            if self._seconds[name] < left or not chosen:
                chosen.append(name)
                left -= self._seconds[name]
        limit = _START + _SLOWER * round(patience - left)
        outcome, killer = trial(mutant, chosen, limit)
        self._killed[killer] += killer is not None
        return outcome, killer


def files(names):
    return [f"tests/test_{name}.py" for name in names.split()]


def trial(mutant, chosen, limit):
    """Runs the chosen tests on a mutant: whether it survives, and the test that killed it."""
    with tempfile.TemporaryDirectory() as folder:
        work = functools.partial(_run, folder, chosen)
        code = _in_fork(folder, work, mutant, limit)
        answer = Path(folder, "answer")
        killer = answer.read_text() if answer.exists() else f"exit status {code}"
    if code == -signal.SIGALRM:
        return "timed out", None
    return ("survived", None) if code == 0 else ("killed", killer)


def _in_fork(folder, work, mutant=None, limit=0):
    """Does `work` in a fork whose tf_leaky is a copy, or a mutant; returns its exit status."""
    package = Path(folder, "tf_leaky")
    shutil.copytree(ROOT / "tf_leaky", package, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        (package / f"{mutant.module}.py").write_bytes(mutant.source)
    sys.stdout.flush()
    process = os.fork()
    if not process:
        try:
            os.setsid()  # so that what it starts can be ended with it
            signal.alarm(limit)
            sink = os.open(Path(folder, "log"), os.O_WRONLY | os.O_CREAT)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            os.chdir(folder)  # where `python -c` looks first
            sys.path[:0] = [folder, str(ROOT)]
            os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
            code = work()
        except BaseException:
            code = 70
        os._exit(code)
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _pytest(plugin, tests, *options):
    import pytest

    options = [
        *("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"),
        *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)),
        *options,
    ]
    return int(pytest.main([*options, *(str(ROOT / test) for test in tests)], [plugin]))


def _run(folder, chosen):
    """Runs the chosen tests in this order, and writes down the first that fails."""
    rank = {name: i for i, name in enumerate(chosen)}

    class Plugin:
        def pytest_collection_modifyitems(self, items):
            items[:] = sorted((i for i in items if i.nodeid in rank), key=lambda i: rank[i.nodeid])

        def pytest_runtest_logreport(self, report):
            if report.failed:
                Path(folder, "answer").write_text(report.nodeid)

        pytest_collectreport = pytest_runtest_logreport

    return _pytest(Plugin(), sorted({name.partition("[")[0] for name in chosen}), "--tb=no")


def _watch(folder, files):
    """Runs all tests, and writes down what each takes and which lines of the package it runs."""
    import coverage
    import pytest

    package = f"{folder}/tf_leaky/*"
    watched = coverage.Coverage(data_file=None, include=[package], config_file=False)
    seconds, users = {}, collections.defaultdict(list)

    class Plugin:
        def pytest_collection_modifyitems(self, items):
            items[:] = [item for item in items if "xla-" not in item.nodeid]  # slow, and the same
            for item in items:
                for fixture in item.fixturenames:
                    users[fixture].append(item.nodeid)

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item):
            watched.switch_context(item.nodeid)
            for name in [name for name in sys.modules if name.startswith("tf_leaky.")]:
                for value in vars(sys.modules[name]).values():
                    if hasattr(value, "cache_clear"):
                        value.cache_clear()  # else only the first test to need it would run it
            start = time.monotonic()
            done = yield
            seconds[item.nodeid] = seconds.get(item.nodeid, 0) + time.monotonic() - start
            return done

        @pytest.hookimpl(wrapper=True)
        def pytest_fixture_setup(self, fixturedef, request):
            if fixturedef.scope == "function":
                return (yield)
            watched.switch_context(request.node.nodeid.partition("::")[0])
            start = time.monotonic()
            made = yield
            for test in users[fixturedef.argname]:  # each of which may be the first
                seconds[test] = seconds.get(test, 0) + time.monotonic() - start
            return made

    watched.start()
    code = _pytest(Plugin(), files)
    watched.stop()
    data = watched.get_data()
    ran = {Path(path).stem: data.contexts_by_lineno(path) for path in data.measured_files()}
    Path(folder, "answer").write_text(repr((seconds, ran)))
    return code


if __name__ == "__main__":
    sys.exit(main())
