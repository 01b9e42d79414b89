# `make demo` shows the main job on real data, `make test` checks everything but the slowest (`make test-all`), `make docs`
# writes the atlas.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo docs test test-all lint types unit clean

demo: .venv/demo
	$(BIN)/softknee bench fashion-mlp-fair -a identity -a relu -a gelu -a prelu --seeds 3 --out demo-results

docs: .venv/demo
	$(BIN)/softknee atlas --out site

test: lint types unit

test-all: lint types .venv/dev
	$(BIN)/pytest -n auto

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: .venv/dev
	$(BIN)/mypy

unit: .venv/dev
	$(BIN)/pytest -n auto -m 'not slow'

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "the pinned set-up needs Python 3.11 or later; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo: .venv/python pyproject.toml constraints.txt
	$(PIP) --editable '.[bench]'
	touch $@

.venv/dev: .venv/demo
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-results site
