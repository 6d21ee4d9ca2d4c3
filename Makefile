# The commands of development. `make help` lists them.

PYTHON ?= python3
DATA_DIR := $(if $(DELTADEX_DATA_DIR),$(DELTADEX_DATA_DIR),.deltadex)
BASE := $(DATA_DIR)/bases/HuggingFaceTB/SmolLM2-135M-Instruct
BIN := .venv/bin
BENCHMARKS := embed pipeline index clusters maps geometry served_geometries geometry_search arithmetic downloads jobs crawl faults hostile fuzz bodies costly_client publishing private_search
SOURCES := app catalog workers migrations benchmarks examples tests

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check-all lint fmt bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s  %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: .venv/.installed $(BASE)/model.safetensors ## create .venv, install dependencies, fetch the demo's base model

demo: setup ## index the example pool, print its nearest neighbors, serve the API (CHECK=1: exit after the table)
	@DELTADEX_DATA_DIR="$(DATA_DIR)" $(BIN)/python examples/demo.py $(if $(filter 1,$(CHECK)),--check)

test: setup ## run all but the long tests, in parallel (ARGS="-k name" selects tests)
	$(BIN)/pytest -n auto -m "not exhaustive" $(ARGS)

check-all: setup lint ## run lint and the long tests: real models, adapter kinds, killed processes, several hosts
	$(BIN)/pytest -n 2 -m exhaustive $(ARGS)
	.ci/namespaces

lint: .venv/.installed ## run ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fmt: .venv/.installed ## format the code and apply the fixes of ruff
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: setup ## run every benchmark, one line of JSON each (hours; installs the extra `bench`)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --json || exit 1; done

clean: ## remove .venv and caches, but not the data directory
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find $(wildcard $(SOURCES)) -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is required. Specify one: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[worker,embedded,demo,evaluate,dev]'
	@touch $@

$(BASE)/model.safetensors: | .venv/.installed
	$(BIN)/python examples/fetch_base.py "$(BASE)"
