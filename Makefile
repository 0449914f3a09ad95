# Every command stands on `make setup`, which makes .venv and does nothing when that is up to date.
PYTHON := .venv/bin/python
PERSEID := .venv/bin/perseid
UV := $(shell command -v uv || echo .venv-tools/bin/uv)

.PHONY: help setup demo test test-fast lint format crash bench-synthesis check-pack lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: ## the environment in .venv, with .venv/bin/perseid
	@scripts/setup.sh

demo: setup ## make the embedded model better at short Python problems
	$(PERSEID) run examples/quickstart.yaml

test: setup ## all tests, the fast ones first
	$(PYTHON) -m pytest tests

test-fast: setup ## the tests that start no engine and train no model
	$(PYTHON) -m pytest tests -m "not slow"

lint: setup ## style, types and the direction of imports
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

format: setup ## put the style right
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

crash: setup ## kill a run at ten random moments, go on each time, compare with an undisturbed one
	$(PYTHON) benchmarks/crash.py

bench-synthesis: setup ## synthesis against one call at a time and against the engine's saturated batch
	$(PYTHON) benchmarks/synthesis.py

check-pack: setup ## every reference solution passes, every wrong one fails
	$(PYTHON) scripts/check_pack.py

lock: ## resolve pyproject.toml's ranges into requirements/cpu.txt
	$(UV) pip compile pyproject.toml --extra cpu --extra dev --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements/cpu.txt

clean: ## remove what the commands above made, runs included
	rm -rf .venv .venv-tools runs dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
