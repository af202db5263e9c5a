# make demo    sets up, then simulates a catalyst and takes it from the raw series to a report
# make test    sets up, then checks style and types and runs the tests
# make test-numpy1  sets up an environment with NumPy 1 beside the other, and runs the tests of arrays and files
# make docs    sets up, then builds the documentation in docs/_build; warnings are errors
# make gpu     runs the tests for a GPU, and measures what one gains; with GPU_PYTHON, whose packages are taken as they are
# make campaign  sets up, then tries to lose data in every way; about an hour

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_JSON ?= gpu.json
NUMPY1 ?= .venv-numpy1
NUMPY1_TESTS ?= $(addprefix tests/unit/, io alignment reconstruction measurement stages export test_environments.py)

.PHONY: setup demo test test-slow test-numpy1 docs gpu campaign clean

setup: $(VENV)/installed-dev

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tomoseg needs Python 3.11 or newer")'
	@echo "Installing tomoseg, and the packages that it computes with, into $(VENV): a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing what the tests need as well."
	$(BIN)/python -m pip install --no-compile --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	mkdir -p $(DEMO)
	rm -rf $(DEMO)/catalyst.h5 $(DEMO)/catalyst_export
	$(BIN)/tomoseg simulate -o $(DEMO)/catalyst.mrc --truth $(DEMO)/catalyst_truth.h5
	$(BIN)/tomoseg run $(DEMO)/catalyst.mrc -o $(DEMO)/catalyst.h5 --pipeline catalyst
	$(BIN)/tomoseg report $(DEMO)/catalyst.h5 -o $(DEMO)/catalyst.html
	@echo
	@echo "The project file:        $(DEMO)/catalyst.h5"
	@echo "To open in ParaView:     $(DEMO)/catalyst_export/*.vti and *.vtp"
	@echo "To open in a browser:    $(DEMO)/catalyst.html"

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --durations=15

test-slow: setup
	$(BIN)/python -m pytest -m slow

# With the versions that TomoPy up to 1.15.2 asks for.
$(NUMPY1)/installed: pyproject.toml
	$(PYTHON) -m venv $(NUMPY1)
	$(NUMPY1)/bin/python -m pip install --quiet --no-compile --editable '.[dev,numpy1]' \
		'scikit-image<0.26' 'scipy<1.14' 'tifffile<2025.2.18'
	touch $@

test-numpy1: $(NUMPY1)/installed
	$(NUMPY1)/bin/python -m pytest -m 'not slow' -n 2 --dist loadfile $(NUMPY1_TESTS)

docs: setup
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

# Without any setting up: a machine with a GPU has its own ASTRA and Keras, and often no network.
gpu:
	PYTHONPATH=.:benchmarks $(GPU_PYTHON) benchmarks/gpu.py --json $(GPU_JSON)

campaign: setup
	$(BIN)/python -W ignore -m tests.crash.campaign --points all --kills 100 --others 200

clean:
	rm -rf $(VENV) $(NUMPY1) $(DEMO) build *.egg-info docs/_build docs/examples docs/commands.md
