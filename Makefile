# Everything installs what it needs: Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test verify lint unit clean

demo: $(READY)
	$(BIN)/python -m lab.demo $(if $(KEEP),--keep)

# Unit tests first: they are quick, and what they find needs no registry to understand.
test: $(READY) unit
	$(BIN)/pytest -m "not verify" tests --ignore tests/unit

unit: $(READY)
	$(BIN)/pytest tests/unit tests/properties tests/test_imports.py tests/test_docs.py

verify: lint test
	$(BIN)/pytest -m verify tests

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -qq -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .venvs .demo build *.egg-info
