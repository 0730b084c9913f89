# The development commands of this project. `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
# `make test TESTS=tests/model` runs one folder, `make test TESTS="-k gallery"` the tests that match a word.
TESTS ?=
# pytest exits with 5 if TESTS chooses no test of a half.
NONE_CHOSEN = { code=$$?; [ $$code = 5 ] && [ -n '$(TESTS)' ] || exit $$code; }
# Two workers beside the tests on Ray: whichever half is shorter leaves no core idle.
WORKERS = --numprocesses 2 --dist loadfile
# `make demo DEMO="FOLDER PHOTOS"` sets the output folder and the number of photos.
DEMO ?=
# `make chaos N=200 SEED=7` injects that many faults; the seed draws them and their moments.
N ?= 20
SEED ?= 0
# The CUDA build of torch is large: allow for slow networks.
export UV_HTTP_TIMEOUT ?= 600
# Compiled once: where Python may not write bytecode (PYTHONDONTWRITEBYTECODE), each process would compile
# what it imports, 10 of its 16 seconds of CPU.
export UV_COMPILE_BYTECODE ?= 1

.PHONY: help setup demo search test test-on-ray test-off-ray test-fast test-cluster chaos format format-check lint types lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY) ## create .venv from requirements.lock, with the project in editable mode

demo: setup ## synthetic data -> training -> gallery -> report -> one answered query (CPU, minutes)
	PATH="$(CURDIR)/$(RUN):$$PATH" bash runs/demo.sh $(DEMO)

SEARCH_USAGE = make search PHOTOS=FOLDER CHECKPOINT=URI [PORT=N]
search: setup ## draw to find: index PHOTOS with CHECKPOINT, serve them, take up new files
	$(RUN)/python -m serve.search_folder "$(or $(PHOTOS),$(error PHOTOS: missing; $(SEARCH_USAGE)))" \
		--checkpoint "$(or $(CHECKPOINT),$(error CHECKPOINT: missing; $(SEARCH_USAGE)))" $(PORT:%=--port %)

test: format-check lint types ## format, lint, types and tests: what every change must pass
	+$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-on-ray test-off-ray

test-on-ray: setup ## the tests that share a Ray cluster
	$(RUN)/python -m pytest --ignore=tests/cluster -m ray $(TESTS) || $(NONE_CHOSEN)

test-off-ray: setup ## all other tests
	$(RUN)/python -m pytest --ignore=tests/cluster -m "not ray" $(WORKERS) $(TESTS) || $(NONE_CHOSEN)

test-fast: setup ## the quick tests: without Ray, browser and those marked slow, with fewer random examples
	$(RUN)/python -m pytest --ignore=tests/cluster -m "not ray and not browser and not slow" \
		--hypothesis-profile fast $(WORKERS) $(TESTS)

test-cluster: setup ## tests that start clusters: lost nodes, failures, load (an hour)
	$(RUN)/python -m pytest $(or $(TESTS),tests/cluster)

chaos: setup ## N random faults in jobs and serving, drawn by SEED; checks invariants
	$(RUN)/python -m tests.chaos.run --count $(N) --seed $(SEED)

format: setup ## format the code
	$(RUN)/ruff check --fix-only --quiet .
	$(RUN)/ruff format .

format-check: setup
	$(RUN)/ruff format --check .

lint: setup ## check the code with ruff
	$(RUN)/ruff check .

types: setup ## check types with mypy (strict)
	$(RUN)/mypy

lock: $(VENV)/uv ## resolve pyproject.toml into requirements.lock and requirements.runtime.lock
	$$(cat $(VENV)/uv) pip compile --quiet --universal --generate-hashes --no-emit-index-url \
		--python-version 3.11 --upgrade --group dev --output-file requirements.lock pyproject.toml
	$$(cat $(VENV)/uv) pip compile --quiet --universal --generate-hashes --no-emit-index-url \
		--python-version 3.11 --extra hf --extra openvino --extra milvus --constraint requirements.lock \
		--output-file requirements.runtime.lock pyproject.toml

clean: ## remove .venv and all caches
	rm -rf $(VENV) .venv-uv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The project is installed in editable mode with the build backend of the lock: no further download.
$(READY): requirements.lock pyproject.toml | $(VENV)/uv
	$$(cat $(VENV)/uv) pip sync --python $(RUN)/python --require-hashes requirements.lock
	$$(cat $(VENV)/uv) pip install --python $(RUN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# Creates the environment and records the uv command to use: uv on PATH, a module of this Python, one
# installed by pip, or one in its own environment if the system's Python forbids that.
$(VENV)/uv:
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer on PATH; install one, or: make PYTHON=/path/to/python3" >&2; exit 2; }
	@find_uv() { \
		if uv --version >/dev/null 2>&1; then echo uv; \
		elif $(PYTHON) -m uv --version >/dev/null 2>&1; then echo "$(PYTHON) -m uv"; \
		else return 1; fi; }; \
	own_uv() { $(PYTHON) -m venv .venv-uv && .venv-uv/bin/pip install --quiet uv && echo .venv-uv/bin/uv; }; \
	uv=$$(find_uv || { $(PYTHON) -m pip install --quiet uv >/dev/null 2>&1 && find_uv; } || own_uv) \
		|| { echo "setup: uv could not be installed; install it and put it on PATH" >&2; exit 2; }; \
	$$uv venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
	echo "$$uv" > $@
