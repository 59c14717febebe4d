# make demo   the whole pipeline on the embedded emoji, from nothing
# make test   every test        make check  lint and the fast tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FREE_GB := 12
WORKERS ?= 3
PYTEST := $(BIN)/pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test check coverage soak fuzz lint format bench bench-gpu bench-scale serve cluster cluster-down screenshots clean

help:
	@echo "make demo | test | check | coverage | soak | fuzz | lint | format | bench | bench-gpu | bench-scale | serve | cluster | screenshots | clean"

demo: $(VENV)/.run
	$(BIN)/xclr run emoji

serve: $(VENV)/.run
	$(BIN)/xclr serve

test: $(VENV)/.dev
	$(PYTEST) -m "not soak" --durations=10

# of the tests that start no process: what those run is not seen
coverage: $(VENV)/.dev
	$(PYTEST) -m "not slow and not soak" --cov --cov-report=term:skip-covered

# pictures, tars, tables and answers that were tampered with, from a seed that is printed; SEED=... repeats one
SECONDS ?= 60
fuzz: $(VENV)/.dev
	$(BIN)/python -W ignore -m tests.fuzz $(SECONDS) $(SEED)

# thirty kills of flow, worker and server with jobs queued and running, on a real cluster: an hour and more
soak: $(VENV)/.dev
	$(BIN)/pytest -m soak -v

# a private Slurm cluster on this machine; ends with: make cluster-down
cluster: $(VENV)/.run
	$(BIN)/python -m infra.slurm.private up .slurm --accounting

cluster-down: $(VENV)/.run
	$(BIN)/python -m infra.slurm.private down .slurm

check: lint
	$(PYTEST) -m "not slow and not soak" -q

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

# on one GPU, about six minutes
bench-gpu: $(VENV)/.dev
	$(BIN)/python -m tests.bench.gpu

# captions, pictures, vectors and graph of up to a million drawn scenes; what is in HOME_DIR is not measured again
HOME_DIR ?= .bench/scale
bench-scale: $(VENV)/.dev
	$(BIN)/python -m tests.bench.scale $(HOME_DIR)

screenshots: $(VENV)/.dev
	$(BIN)/python -m docs.screenshots

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage

# What must be there before anything is installed; each failure is one line that says what to do.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed and $(PYTHON) is not one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: on Debian or Ubuntu, apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < $(FREE_GB) * 10**9)' || \
	  { echo "$(FREE_GB) GB of free disk are needed here: free some, or clone the project to another disk"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing (about 7 GB, some minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[pipeline]"
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[pipeline,dev]"
	@touch $@
