# `make demo` and `make test` set everything up in .venv, and are all that a newcomer types.
#
# Each command first calls scripts/setup_env.py, which answers in a tenth of a second when nothing changed.
# On the command line: PYTHON=python3.12 chooses the Python, LLAMA_CPP_WHEEL=file.whl or LLAMA_CPP_PIP_ARGS="..."
# a llama-cpp-python that somebody built already (docs/install.md).

ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11 python3.10 python; do \
  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then echo "$$python"; break; fi; \
  done)
endif
ifeq ($(PYTHON),)
$(error ggrank needs Python 3.10 or newer, and there is none on PATH; name one with PYTHON=path/to/python)
endif

ifeq ($(OS),Windows_NT)
BIN := Scripts
else
BIN := bin
endif

SET_UP := @$(PYTHON) scripts/setup_env.py

BENCH_MODELS := build/benchmark-models

.PHONY: help demo test integrations parity bench lint check-stock-build lock clean
.NOTPARALLEL: # two setups at once would get in each other's way

help:
	@echo "make demo               rank real text with the bundled model"
	@echo "make test               the tests"
	@echo "make integrations       the tests of the adapters, with the frameworks that they are for"
	@echo "make parity             the tests that recompute with torch and the original models"
	@echo "make bench              speed and memory beside llama-server, torch and ONNX Runtime; BENCH=\"--rounds 9\""
	@echo "make lint               ruff and mypy"
	@echo "make check-stock-build  prove that ggrank is right on a stock build of llama-cpp-python"
	@echo "make lock               resolve the dependencies anew (requirements/)"
	@echo "make clean              remove what make made"

demo:
	$(SET_UP) .venv run
	@.venv/$(BIN)/python -m ggrank demo

test:
	$(SET_UP) .venv test
	.venv/$(BIN)/python -m pytest

integrations:
	$(SET_UP) .venv-integrations integrations
	.venv-integrations/$(BIN)/python -m pytest -m integration

parity:
	$(SET_UP) .venv-parity parity
	.venv-parity/$(BIN)/python -m pytest -m parity

bench:
	$(SET_UP) .venv-bench bench
	@.venv-bench/$(BIN)/python benchmarks/make_models.py $(BENCH_MODELS)
	@server=$$(.venv-bench/$(BIN)/python benchmarks/build_llama_server.py) && \
	  .venv-bench/$(BIN)/python benchmarks/run.py $(BENCH_MODELS) --llama-server "$$server" $(BENCH)

lint:
	$(SET_UP) .venv test
	.venv/$(BIN)/python -m ruff check .
	.venv/$(BIN)/python -m mypy

check-stock-build:
	$(PYTHON) scripts/check_stock_build.py

lock:
	$(SET_UP) .venv run
	@.venv/$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	.venv/$(BIN)/python scripts/lock_requirements.py

clean:
	rm -rf .venv .venv-integrations .venv-parity .venv-bench build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
