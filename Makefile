# Needs python3 (3.10 or newer) with venv and pip; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint typecheck golden clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Set-up happens once, and again when what it installs has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "nndiag needs Python 3.10 or newer; choose one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,torch]'
	@touch $@

setup: $(READY) ## create .venv with nndiag, torch and the development tools

demo: $(READY) ## watch a small training that goes wrong, and diagnose it
	$(BIN)/nndiag demo

test: $(READY) ## ruff, mypy and pytest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

lint: $(READY) ## ruff alone, with its corrections applied
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(READY) ## mypy alone
	$(BIN)/mypy

golden: $(READY) ## rewrite the golden reports and what README.md shows; read the diff
	$(BIN)/python -m pytest tests/reports tests/test_readme.py --refresh-golden

clean: ## remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
