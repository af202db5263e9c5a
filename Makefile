# make demo    sets up, then simulates a catalyst and takes it from the raw series to a report
# make test    sets up, then checks style and types and runs the tests
# make docs    sets up, then builds the documentation in docs/_build; warnings are errors
# make campaign  sets up, then tries to lose data in every way; about an hour

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: setup demo test test-slow docs campaign clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tomoseg needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev,fast]'
	touch $@

demo: setup
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

docs: setup
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

campaign: setup
	$(BIN)/python -W ignore -m tests.crash.campaign --points all --kills 100 --others 200

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info docs/_build docs/examples docs/commands.md
