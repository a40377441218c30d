# Every target sets up what it needs. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SEED ?= 7
DEMO := demo
ICHTUNE := $(BIN)/ichtune
# Tests that start Ray, or measure a whole machine: side by side they would take each other's cores and memory.
ONE_BY_ONE := tests/cluster tests/unit/search tests/gpu tests/pipeline/test_short_of_memory.py
SOURCES := ichtune tests benchmarks
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: help setup demo test test-fast check format lint types floors lock bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv with the pinned dependencies and the command .venv/bin/ichtune

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"ichtune needs Python 3.11 to 3.13, got {v[0]}.{v[1]}; name one with make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'uv>=0.9,<1'
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --compile-bytecode --requirement requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --no-deps --editable .
	@touch $(READY)

demo: $(READY)  ## the whole job on generated data: demo/submission.csv, demo/report.html (SEED=7)
	@test "$$(cat $(DEMO)/.seed 2>/dev/null)" = "$(SEED)" || rm -rf $(DEMO)
	@mkdir -p $(DEMO) && echo $(SEED) > $(DEMO)/.seed
	$(ICHTUNE) phantom $(DEMO)/phantom --patients 150 --size 128 --seed $(SEED)
	$(ICHTUNE) prepare $(DEMO)/phantom --labels $(DEMO)/phantom/stage_2_train.csv --out $(DEMO) --size 64 --folds 3
	$(ICHTUNE) search --space demo --work $(DEMO)
	$(ICHTUNE) train --work $(DEMO)
	$(ICHTUNE) stack --work $(DEMO)
	$(ICHTUNE) blend --ensemble demo --work $(DEMO) --quiet
	$(ICHTUNE) score $(DEMO)/submission.csv --truth $(DEMO)/phantom/truth.csv --ladder --work $(DEMO)
	$(ICHTUNE) report --work $(DEMO)

test: test-fast  ## every test
	$(BIN)/python -m tests -n auto --maxprocesses 8 --dist worksteal -m "slow and not gpu" $(ONE_BY_ONE:%=--ignore=%)
	$(BIN)/python -m tests -m "slow or gpu" $(ONE_BY_ONE)

test-fast: $(READY)  ## the tests without Ray, processes and whole pipelines
	$(BIN)/python -m tests -n auto --maxprocesses 8 --dist worksteal -m "not slow and not gpu"

check: format-check lint types floors test  ## what CI runs: format, lint, types, import floors, tests

format: $(READY)  ## put the sources into the one format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix --select I $(SOURCES)

.PHONY: format-check
format-check: $(READY)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(READY)  ## ruff and codespell
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/codespell $(SOURCES) docs search_spaces ensembles recipes deploy *.md

types: $(READY)  ## mypy
	$(BIN)/mypy ichtune

floors: $(READY)  ## imports point down the floors only
	$(BIN)/lint-imports

bench: $(READY)  ## the benchmarks behind the figures in docs/benchmarks.md
	$(BIN)/python -m benchmarks

lock: $(READY)  ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --no-annotate \
		--group dev pyproject.toml --output-file requirements.lock

clean:  ## remove what the demo and the tools left, not .venv
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
