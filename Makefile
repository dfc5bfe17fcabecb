# make demo             train four models on the embedded digits, attack them, write a report; a robust one that ships
# make check            lint, types and the tests that are not slow (before every commit)
# make test             install what tests need and run them
# make bench            measure gradients, attacks and training here (minutes, on an idle machine)
# make reproduce        every study, the paper's among them, at a size for two cores (hours; DATA=folder)
# make lint             ruff and mypy
# make lock             resolve the dependencies anew (needs uv)
# Another interpreter:  make test PYTHON=python3.12 (its own virtual environment)

PYTHON ?= python3
TAG := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])')
DEFAULT_TAG := $(shell python3 -c 'import sys; print("%d%d" % sys.version_info[:2])')
VENV ?= $(if $(filter $(TAG),$(DEFAULT_TAG)),.venv,.venv-py$(TAG))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo bench reproduce test check lint lock install clean

# The lock holds exact versions and hashes: every fresh install is the same.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("bnn_adv needs Python 3.11 or newer; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m experiments.compare --preset=digits --workdir=runs/demo
	$(BIN)/python -m experiments.bracket

bench: $(STAMP)
	$(BIN)/python -m experiments.benchmark --workdir=runs/benchmark

DATA ?=
reproduce: $(STAMP)
	$(BIN)/python -m experiments.reproduce --scale=cpu --data_dir=$(DATA) --workdir=runs/reproduce

test: $(STAMP)
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest

check: lint
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .venv-py* .pytest_cache .mypy_cache .ruff_cache .hypothesis
