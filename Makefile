# What there is to do here. Every target prepares what it needs: `make hello` and `make test` work on a fresh Debian 12.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PYTEST_ARGS ?=
export PATH := $(PATH):$(HOME)/.cargo/bin

FIRKIN := .venv/bin/firkin
PYTEST := .venv/bin/python -m pytest
# Two at a time: a VM under software emulation keeps a core busy. worksteal evens out what takes minutes and what takes none.
PARALLEL := -n 2 --dist worksteal

.PHONY: help hello test unit lint format bench soak scenarios docs coverage setup ready images wheel clean

help: ## what there is to do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

hello: ready ## a container in its own micro-VM says hello
	@$(FIRKIN) run --rm busybox echo "hello from a micro-VM"

test: ready images ## every test that CI runs, in real VMs too
	@cd guest && cargo test --locked --quiet
	@$(PYTEST) $(PARALLEL) -m "not soak" $(PYTEST_ARGS)

unit: ready images ## the tests that boot no VM
	@$(PYTEST) $(PARALLEL) -m "not vm and not soak" $(PYTEST_ARGS)

scenarios: ready images ## the integration scenarios in real VMs
	@$(PYTEST) $(PARALLEL) -m "not soak" $(PYTEST_ARGS) tests/scenarios

soak: ready images ## the long tests
	@$(PYTEST) $(PARALLEL) -m soak --timeout 3600 $(PYTEST_ARGS)

bench: ready images ## the benchmarks; BENCH="names" for some of them
	@.venv/bin/python -m bench $(BENCH)

lint: ready ## formatting, types, layers, of Python and Rust
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@cd guest && cargo fmt --check
	@cd guest && cargo clippy --locked --quiet --all-targets -- -D warnings

format: ready ## put Python and Rust into their standard form
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format
	@cd guest && cargo fmt

docs: ready ## the documentation as a site, in site/
	@.venv/bin/sphinx-build -W --keep-going -q -b html docs site

coverage: ready images ## branch coverage of core, ext4 and vminitd by the tests, with VMs
	@.venv/bin/python tools/coverage.py $(PYTEST_ARGS)

wheel: ready ## dist/firkin-*.whl, with the guest inside
	@.venv/bin/python -m hatchling build -t wheel

setup: ## packages, kernel and toolchain of this machine (root, where something is missing)
	@tools/setup.sh

ready: setup
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is wanted: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) tools/environment.py
	@.venv/bin/python tools/build_guest.py
	@# Where PYTHONDONTWRITEBYTECODE is set every start would compile all modules anew.
	@.venv/bin/python -m compileall -q src/firkin

# What the tests need beyond that.
images: ready
	@tools/setup.sh tests
	@tools/testimages.sh
	@tools/freshroot.sh >/dev/null

clean: ## remove what was built here (not .venv, not the machine's kernel)
	rm -rf .build dist site guest/target src/firkin/_guest src/firkin/vminitd/_generated .mypy_cache .ruff_cache .import_linter_cache .hypothesis
