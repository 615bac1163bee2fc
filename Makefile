# `make help` says what each of these does.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PRESET DATA_DIR MODEL

.PHONY: help run run-beyond test lint format check data lab clean
.DEFAULT_GOAL := help

help: ## Say what each target does
	@echo "Usage: make TARGET [PRESET=quick|laptop|book] [DATA_DIR=folder of flowers, or 'painted'] [MODEL=folder of a run]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@echo "First 'make run': figures 8-2 to 8-16 of the chapter, in build/figures, after minutes."

# Each stamp is newer than what it was installed from, so that nothing is installed twice.
$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); ok or sys.exit(f"error: Python {sys.version.split()[0]} is not supported: pass PYTHON=python3.11, 3.12 or 3.13")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements.txt
	@touch $@

$(VENV)/.installed-test: requirements-test.txt pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements-test.txt
	@touch $@

run: $(VENV)/.installed ## Execute notebooks 01 to 06; figures go to build/figures
	$(BIN)/python scripts/run_notebooks.py

run-beyond: $(VENV)/.installed ## Execute what the chapter points at: notebooks/beyond, 07 to 10
	$(BIN)/python scripts/run_notebooks.py notebooks/beyond/*.ipynb

test: lint ## Check style, then run all tests, notebooks included
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-test ## Check style, format (notebooks too) and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test ## Put code and notebooks into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: ## Say what this machine has, what is missing, and what to type next
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/check_environment.py

data: $(VENV)/.installed ## Download the real flowers (Kaggle if it knows you, else Oxford)
	bash scripts/download_data.sh

lab: $(VENV)/.installed ## Open the notebooks in Jupyter Lab
	$(BIN)/jupyter lab notebooks

clean: ## Remove what was built (not data, models or the environment)
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
