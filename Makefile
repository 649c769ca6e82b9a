# Every target makes its own virtual environment when it is missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RIVALS := $(VENV)/.rivals
SPHINX := $(VENV)/.sphinx
FUZZ   := $(VENV)/.fuzz
SITE   := build/docs
# Installing builds the compiled core where there is a compiler, so a changed source means installing again.
CORE   := $(wildcard shm/core/*.[ch] engine/core/*.[ch] workers/core/*.[ch])
# What has a plain and a compiled form: its tests run once more on the plain one.
TWINS  := tests/engine/test_filler.py tests/process/test_multiplexer.py tests/workers/test_session.py \
          tests/workers/test_session_faults.py tests/workers/test_calls.py tests/workers/test_scheduler.py \
          tests/workers/test_waiting.py tests/workers/test_limits.py tests/workers/test_party_end_to_end.py \
          tests/workers/test_iris_lane.py

# A run starts several processes and the tests start hundreds, and each would compile anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test large interop check docs fuzz simulate soak perf clean

help: ## Show the targets.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 10

$(READY): pyproject.toml $(CORE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing partywire and its tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

run: $(READY) ## Three parties on this host match handwritten digits under MPC. RUN_ARGS="--probes 20" shortens it.
	@$(BIN)/partywire run digits --local 3 $(RUN_ARGS)

test: $(READY) ## The whole test suite, in parallel; then what also exists in plain Python once more without C.
	@$(BIN)/python -m pytest -n auto $(TEST_ARGS)
	@PARTYWIRE_CORE=pure $(BIN)/python -m pytest -n auto -q $(TWINS)

large: $(READY) ## Messages of 4 GiB - 1 between two parties: minutes, and 10 GiB of memory. Not a part of test.
	@$(BIN)/python -m pytest -m large -n 0 $(TEST_ARGS)

interop: $(READY) ## Against programs and libraries of others; says what could not be installed. INTEROP_ARGS="-k yamux" chooses.
	@$(BIN)/python -m pytest -m interop -n 0 -v --timeout 900 tests/interop $(INTEROP_ARGS)

check: $(READY) ## ruff, mypy --strict and the direction of imports.
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

$(SPHINX): $(READY)
	@echo "Installing what the documentation is built with ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

docs: $(SPHINX) ## The documentation as a site that is read without network; a broken link or docstring fails.
	@$(BIN)/python -m sphinx --fail-on-warning -b html -d $(SITE)/.doctrees docs $(SITE)
	@echo "The documentation is in $(SITE)/index.html"

$(FUZZ): $(READY)
	@echo "Installing atheris ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[fuzz]" || \
	  echo "It cannot be installed here; the targets are fuzzed without it."
	@touch $@

fuzz: $(FUZZ) ## Fuzz every parser, 20 s each. FUZZ_ARGS="--seconds 60 frames ring" chooses.
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

simulate: $(READY) ## Simulated parties in trouble, beside the seeds of test. SEEDS=5000-5999; SEEDS=7 shows what happens.
	@$(BIN)/python -m tests.simulation $(or $(SEEDS),1000-9999)

soak: $(READY) ## Random jobs, kills and stops for 10 minutes; prints a report. SOAK_ARGS="--minutes 1" shortens it.
	@$(BIN)/python -m tests.soak $(SOAK_ARGS)

$(RIVALS): $(READY)
	@echo "Installing the libraries that partywire is measured beside ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[perf]"
	@touch $@

perf: $(RIVALS) ## Measure everything beside other libraries (many minutes). PERF_ARGS="ring iris" shortens it.
	@$(BIN)/partywire perf $(or $(PERF_ARGS),all)

clean: ## Remove the virtual environment and caches.
	rm -rf $(VENV) build dist src/*.egg-info src/partywire/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
