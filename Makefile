# `make demo` and `make test` need nothing but Python 3.11+; everything lands in $(VENV).
# Stamp files remember what is installed, so the second run of a target starts at once.
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# `make PYTHON=/path/to/python3.13 ...` overrides the search.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
BENCH ?= all
CUDA ?= cuda13
# A process for each core, each taking whole files: most of the time goes into compiling kernels.
WORKERS := -n auto --maxprocesses=8 --dist loadfile --no-loadscope-reorder
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench docs warmup gpu clean

help:
	@echo "make demo    collect from a simulated exchange: features, Parquet, an HTML report in demo-output/"
	@echo "make test    the tests, warnings are errors (PYTEST_ARGS='-k ewma' picks some)"
	@echo "make check   formatting, lint and types, as CI runs them (make format mends what it can)"
	@echo "make bench   the benchmarks (BENCH=features|kernels|stream|cold|memory|joins|bars|collect picks one)"
	@echo "make docs    write docs/kernels.md, docs/cli.md and the README's table of measurements"
	@echo "make warmup  compile the default features into the cache"
	@echo "make gpu     on a GPU machine: the GPU tests, then the GPU benchmark (CUDA=cuda12 for CUDA 12)"
	@echo "make clean   remove $(VENV) and demo-output/"

$(PY):
	@test -n "$(PYTHON)" || { echo "gpukern needs Python 3.11 or newer, and no python3 on the PATH is;" \
		"install one or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "gpukern needs Python 3.11 or newer, but $(PYTHON) is" \
		"$$($(PYTHON) --version 2>&1); name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(PY)
	$(PIP) --editable '.[report]'
	@touch $@

# Dependency groups need pip 25.1.
$(VENV)/.pip: | $(PY)
	$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.installed | $(VENV)/.pip
	$(PIP) --group $*
	@touch $@

demo: $(VENV)/.installed
	@$(VENV)/bin/gpukern demo

warmup: $(VENV)/.installed
	@$(VENV)/bin/gpukern warmup

test: $(VENV)/.installed-test
	$(PY) -m pytest -W error $(WORKERS) $(PYTEST_ARGS)

check: $(VENV)/.installed-check
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: $(VENV)/.installed-check
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(VENV)/.installed-bench
	$(PY) -m bench $(BENCH)

docs: $(VENV)/.installed
	$(PY) docs/build.py

$(VENV)/.installed-$(CUDA): pyproject.toml $(VENV)/.installed-gpu
	$(PIP) --editable '.[$(CUDA)]'
	@touch $@

gpu: $(VENV)/.installed-$(CUDA)
	$(PY) -m pytest -W error tests/gpu $(PYTEST_ARGS)
	$(PY) -m bench gpu

clean:
	rm -rf $(VENV) demo-output
