# Two commands on a fresh machine: `make demo` and `make test`. Both may be run again at any time.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs install clean

demo: .venv/.demo-installed
	@echo "== Gathering the docstrings of this machine's Python standard library"
	$(BIN)/python demo/docstrings.py demo/docstrings.csv
	@echo "== Fine-tuning the starter encoder to tell their areas apart (runs/docstrings)"
	$(BIN)/tunesmith run demo/docstrings.yaml
	@echo "== Three predictions"
	$(BIN)/python demo/predictions.py runs/docstrings

test: .venv/.test-installed
	scripts/check
	scripts/test

check: .venv/.test-installed
	scripts/check

docs: .venv/.test-installed
	scripts/docs

install: .venv/.demo-installed

.venv/bin/python:
	@echo "== Making .venv with $(PYTHON)"
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv is missing: on Debian, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.demo-installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "== Installing tunesmith (some minutes the first time: torch is large)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[starter]"
	@touch $@

.venv/.test-installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "== Installing tunesmith with what its tests need (some minutes the first time: torch is large)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[starter,dev]"
	@touch $@ .venv/.demo-installed

clean:
	rm -rf .venv
