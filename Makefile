PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check -c requirements.lock
READY := $(VENV)/ready
INSTALLED := $(VENV)/installed
DEMO := runs/demo
NOTEBOOKS := $(patsubst notebooks/%.py,docs/notebooks/%.ipynb,$(wildcard notebooks/*.py))
DEMO_FLAGS ?= --gae-config latent_dim=10

.PHONY: help $(VENV) demo test cmd exhaustive lint docs lock bench clean
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

$(VENV): $(INSTALLED)

# What a run needs; the tests and the documentation need all extras.
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[features]'
	@touch $@

$(INSTALLED): $(READY)
	$(INSTALL) -e '.[dev,docs,features,hf,polars,wandb,mlflow]'
	@touch $@

demo: $(DEMO)/done  ## train, test and sample an autoencoder + mixture of Gaussians on the bundled digits
	@echo "report: $$(ls -td $(DEMO)/*/report.html | head -n 1)"

$(DEMO)/done: $(READY) $(shell find src -name '*.py')
	$(BIN)/twostep train --dataset digits --gae-model ae --de-model gmm --shared-config logdir_root=$(DEMO) $(DEMO_FLAGS)
	@touch $@

test: $(INSTALLED)  ## the fast tests
	$(BIN)/python -m pytest

cmd: $(INSTALLED)  ## the tests that run whole commands (minutes)
	$(BIN)/python -m pytest -m cmd

exhaustive: $(INSTALLED)  ## whole commands for every pair in every order; keeps pytest's last line for docs/results.md
	set -o pipefail; $(BIN)/python -m pytest -m cmd_exhaustive | tee $(VENV)/exhaustive
	tail -n 1 $(VENV)/exhaustive > docs/results/exhaustive.txt

lint: $(INSTALLED)  ## style, format, types, and which way imports point
	@status=0; \
	for check in "ruff check" "ruff format --check" "pyright --pythonpath $(BIN)/python" "lint-imports"; do \
	  echo "$$check"; $(BIN)/$$check || status=1; \
	done; exit $$status

docs: $(INSTALLED) $(NOTEBOOKS)  ## the documentation site in site/, with executed notebooks; a broken link or reference fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs/notebooks/%.ipynb: notebooks/%.py $(INSTALLED)
	@mkdir -p $(@D)
	OMP_NUM_THREADS=1 FIGURES=$$(mktemp -d) $(BIN)/jupytext --quiet --to ipynb --execute --output $@ $<

# CUDA packages and the "+cpu" of torch depend on where torch was found; torch itself pins the former.
lock: $(INSTALLED)  ## resolve the newest releases into requirements.lock
	echo torch==2.13.0 | $(BIN)/uv pip compile --quiet --all-extras --python-version 3.11 \
	  --no-annotate --no-header pyproject.toml - > $(VENV)/resolved
	( echo "# Exact versions for Python 3.11 with all extras; made by 'make lock', see CONTRIBUTING.md."; \
	  sed -E '/^(cuda|nvidia)-|^triton==/d; s/\+cpu$$//' $(VENV)/resolved ) > requirements.lock

bench: $(INSTALLED)  ## every benchmark, one after the other
	set -e; for script in $(sort $(filter-out benchmarks/bare.py,$(wildcard benchmarks/*.py))); do $(BIN)/python $$script; done

clean:  ## remove the environment and the caches of the tools, never runs
	rm -rf $(VENV) build site .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
