# The two commands of a new user: `make demo` and `make test`. Each needs Python 3.11 and make only.
PYTHON ?= python3.11
# The oldest Python, where it is found, else that of the other targets.
FLOOR_PYTHON ?= $(shell for each in python3.10 $(HOME)/.pyenv/versions/3.10.*/bin/python; do \
  $$each -c "import venv" 2>/dev/null && echo $$each && exit; done; echo $(PYTHON))
BIN = .venv/bin
READY = .venv/ready-dev
PARALLEL = --numprocesses auto --dist loadfile --no-loadscope-reorder
PYTEST = $(BIN)/python -m pytest $(PARALLEL)
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo serve batch convert distributed why docs bench test test-all test-slow test-floor zoo goldens lint format wheel clean

demo: .venv/ready-examples  ## Train, save, reload, export and plot on real data
	$(BIN)/python examples/digits.py

serve: .venv/ready-examples  ## Export, serve, ask over REST and gRPC, compare, and stop it again
	$(BIN)/python examples/serving/serve.py

batch: .venv/ready-batch  ## Score 200 000 digits with Ray Data, by the export of `make demo`
	$(BIN)/python examples/batch_inference.py

convert: .venv/ready-export  ## Convert a model of keras.applications, write all formats, read all back
	$(BIN)/python examples/convert.py

distributed: .venv/ready-examples  ## Train by two worker processes on this machine, whose slopes stay equal
	$(BIN)/python examples/distributed.py

why: .venv/ready-examples  ## The claims about leaky ReLU as runs, tables and pictures
	for claim in dying gradient_flow sensitivity slopes; do $(BIN)/python examples/why_leaky/$$claim.py || exit 1; done

docs: .venv/ready-docs  ## The pages, from the docstrings and docs/, into build/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html docs build/docs

test: lint  ## Before each commit: the laws under Keras 3, a few of them under tf_keras (minutes)
	$(PYTEST) --dist worksteal tests/laws
	TF_USE_LEGACY_KERAS=1 $(BIN)/python -m pytest tests/laws -m smoke

test-all: $(READY)  ## All that is quick, under Keras 3 and tf_keras, with the coverage of both
	$(PYTEST) --cov --cov-report=
	TF_USE_LEGACY_KERAS=1 $(PYTEST) --cov --cov-append --cov-fail-under=98

test-slow: $(READY)  ## The large counts, and what takes minutes
	$(BIN)/python -m pytest -m slow
	TF_USE_LEGACY_KERAS=1 $(BIN)/python -m pytest -m slow

test-floor: .venv-floor/ready  ## As test-all, on the oldest Python, TensorFlow and Keras
	.venv-floor/bin/python -m pytest $(PARALLEL)
	TF_USE_LEGACY_KERAS=1 .venv-floor/bin/python -m pytest $(PARALLEL)

zoo: $(READY)  ## Models of libraries from PyPI, each in an environment of its own in .zoo
	PYTHONPATH=.:tests $(BIN)/python -m zoo_of_libraries

goldens: $(READY)  ## Adds this version's files under both Kerases, which every later one has to load
	PYTHONPATH=. $(BIN)/python tests/write_goldens.py
	PYTHONPATH=. TF_USE_LEGACY_KERAS=1 $(BIN)/python tests/write_goldens.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[br]*.yml

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# On Linux a plain torch brings gigabytes of GPU libraries; the CPU build isn't offered everywhere.
bench: .venv/ready-benchmarks  ## Time and memory, ours and others', in some hours
	@$(BIN)/python -c "import torch" 2>/dev/null \
	  || $(BIN)/pip install --quiet --disable-pip-version-check "torch==2.13.0+cpu" \
	  || echo "No CPU build of torch is offered here: it is left out"
	$(BIN)/python -m benchmarks --json benchmarks/results/latest.json \
	  --figure benchmarks/results/latest.png

wheel: $(READY)  ## The sdist, and the wheel that is built from it, as an index takes them
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf .zoo .venv .venv-floor dist build

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/ready-%: pyproject.toml | .venv/bin/python
	@echo "Installing tf_leaky[$*] into .venv (about a minute)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[tensorflow,$*]"
	@touch $@

.venv-floor/ready: pyproject.toml tests/floor.txt
	@echo "Installing the versions of tests/floor.txt into .venv-floor (two minutes)"
	$(FLOOR_PYTHON) -m venv --clear .venv-floor
	.venv-floor/bin/pip install --quiet --disable-pip-version-check \
	  --constraint tests/floor.txt --editable ".[dev]"
	@touch $@
