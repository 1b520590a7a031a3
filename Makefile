# On a fresh machine: `make demo` shows faces with landmarks, `make test` runs the tests. Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
DEMO := ls3dw-data

# Minutes of damage, kills and crowds; STRESS_SECONDS for each harness.
STRESS_SECONDS ?= 120

.PHONY: demo test stress lint types wheel docs clean

demo: .venv/installed
	$(BIN)/ls3dw build --source sample --out $(DEMO)
	$(BIN)/ls3dw verify $(DEMO)

# Two at a time, each with one thread: the networks of the tests are too small to share cores. The fast ones go first.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal

stress: .venv/installed
	set -e; for harness in flipped_bits mutated_files concurrent_readers; do \
	  OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m stress.$$harness $(STRESS_SECONDS); done

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

wheel: .venv/installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# The guide and the reference, into build/docs; a broken link or anchor is an error.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

# Pinned to constraints.txt; the package itself admits a range.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv dist build $(DEMO)
