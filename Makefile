# One command for each habit. A fresh machine needs Python 3.11 or newer, git and make; no Docker,
# no Java, no Redis: real ones come with the environment (see runtime/embedded).

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first of these that is Python >= 3.11 makes the environment; override with PYTHON=...
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

LOCK_FLAGS := --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
	--no-emit-find-links --no-header --quiet

.PHONY: help venv demo test fuzz check format bench lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

venv: $(STAMP) ## make the environment from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python >= 3.11 found. Install one, or run: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"$(PYTHON) is Python {v[0]}.{v[1]}; 3.11 or newer is needed. Run: make PYTHON=/path/to/python3.11 ...")'
	rm -f $(STAMP)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: $(STAMP) ## start everything, send orders, show the views
	$(BIN)/orderflow demo

# Half of a run is waiting for sessions and transactions of killed processes to run out, so three files
# run at a time, the ones that wait longest first; each of the three has servers of its own.
JOBS ?= 3

test: $(STAMP) ## all tests, against real servers
	$(BIN)/python -m pytest tests -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Each target for so long; the corpus that the runs keep is part of `make test`, too.
SECONDS ?= 10

fuzz: $(STAMP) ## fuzz every decoder, SECONDS each (Linux, x86-64)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(FUZZ)

check: $(STAMP) ## formatting, lint, types, import rules, the published contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(BIN)/python -m orderflow.schema_files --check

format: $(STAMP) ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# docs/BENCHMARKS.md has the parts; e.g. BENCH="--quick --only processing".
BENCH ?= --plots docs/plots

bench: $(STAMP) ## measure throughput, latency and growth on this machine
	$(BIN)/python -m benchmarks $(BENCH)

# Both lists carry the hash of every file. Pins already in the lists stay; UPGRADE=--upgrade moves them.
lock: $(STAMP) ## rewrite the lock files from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --group dev $(LOCK_FLAGS) $(UPGRADE) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml -c requirements.lock $(LOCK_FLAGS) --no-annotate -o requirements-runtime.lock

clean: ## remove the environment and all caches of tools
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
