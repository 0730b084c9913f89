# Every habit of this project is one command. `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
# `make test TESTS=tests/model` runs one folder, `make test TESTS="-k gallery"` what a word matches.
TESTS ?=
# `make demo DEMO="FOLDER PHOTOS"` keeps what it makes elsewhere, or draws fewer photos.
DEMO ?=
# The CUDA build of torch is large and slow links are common.
export UV_HTTP_TIMEOUT ?= 600

.PHONY: help setup demo test test-cluster format format-check lint types lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(READY) ## .venv from requirements.lock, with the project itself in it, and nothing else

demo: setup ## synthetic pictures -> training -> gallery -> report -> an answered query (CPU, minutes)
	PATH="$(CURDIR)/$(RUN):$$PATH" bash runs/demo.sh $(DEMO)

test: format-check lint types ## everything a change must pass: format, lint, types, tests
	$(RUN)/python -m pytest --ignore=tests/cluster $(TESTS)

test-cluster: setup ## what takes minutes: clusters of its own, machines lost, load
	$(RUN)/python -m pytest $(or $(TESTS),tests/cluster)

format: setup ## rewrite the code in the project's format
	$(RUN)/ruff check --fix-only --quiet .
	$(RUN)/ruff format .

format-check: setup
	$(RUN)/ruff format --check .

lint: setup ## ruff's rules
	$(RUN)/ruff check .

types: setup ## strict types over stbir, ray_jobs, serve
	$(RUN)/mypy

lock: $(VENV)/uv ## resolve pyproject.toml anew into requirements.lock
	$$(cat $(VENV)/uv) pip compile --quiet --universal --generate-hashes --no-emit-index-url \
		--python-version 3.11 --upgrade --group dev --output-file requirements.lock pyproject.toml

clean: ## remove .venv and every cache
	rm -rf $(VENV) .venv-uv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The project goes in as it lies here (editable), built by what the lock holds: no download beyond the lock.
$(READY): requirements.lock pyproject.toml | $(VENV)/uv
	$$(cat $(VENV)/uv) pip sync --python $(RUN)/python --require-hashes requirements.lock
	$$(cat $(VENV)/uv) pip install --python $(RUN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# The environment, and beside it the name of the uv that fills it: the one on PATH, a module of this
# Python, one that pip may install, or (where the system's Python forbids that) one of its own.
$(VENV)/uv:
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer on PATH; install one, or: make PYTHON=/path/to/python3" >&2; exit 2; }
	@find_uv() { \
		if uv --version >/dev/null 2>&1; then echo uv; \
		elif $(PYTHON) -m uv --version >/dev/null 2>&1; then echo "$(PYTHON) -m uv"; \
		else return 1; fi; }; \
	own_uv() { $(PYTHON) -m venv .venv-uv && .venv-uv/bin/pip install --quiet uv && echo .venv-uv/bin/uv; }; \
	uv=$$(find_uv || { $(PYTHON) -m pip install --quiet uv >/dev/null 2>&1 && find_uv; } || own_uv) \
		|| { echo "setup: uv could not be installed; put it on PATH (any way its authors offer)" >&2; exit 2; }; \
	$$uv venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
	echo "$$uv" > $@
