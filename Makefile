# `make help` lists the targets.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PRESET DATA_DIR MODEL

.PHONY: help run run-beyond test test-fast lint format check data lab clean
.DEFAULT_GOAL := help

help: ## Show this help
	@echo "Usage: make TARGET [PRESET=quick|laptop|book] [DATA_DIR=folder of flowers, or 'painted'] [MODEL=folder of a run]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@echo "Start with 'make run': figures 8-2 to 8-16 of the chapter, in build/figures, after some minutes."

# A stamp newer than the files it was installed from means that nothing needs installing.
$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); ok or sys.exit(f"error: Python {sys.version.split()[0]} is not supported: pass PYTHON=python3.11, 3.12 or 3.13")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements.txt
	@touch $@

$(VENV)/.installed-test: requirements-test.txt pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -r requirements-test.txt
	@touch $@

run: $(VENV)/.installed ## Execute notebooks 01 to 06; the figures go to build/figures
	$(BIN)/python scripts/run_notebooks.py

run-beyond: $(VENV)/.installed ## Execute notebooks/beyond, what the chapter only points at
	$(BIN)/python scripts/run_notebooks.py notebooks/beyond/*.ipynb

test: lint ## Check the style, then run all tests, notebooks included
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.installed-test ## Run the quick tests: no notebooks, no other processes
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(VENV)/.installed-test ## Check style, format (in notebooks too) and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test ## Format code and notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: ## Report what this machine has, what is missing, and what to type next
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) scripts/check_environment.py

data: $(VENV)/.installed ## Download the real flowers (from Kaggle with credentials, else from Oxford)
	bash scripts/download_data.sh

lab: $(VENV)/.installed ## Open the notebooks in JupyterLab
	@test "$$(id -u)" -ne 0 || echo "You are root: JupyterLab starts with --allow-root, and anyone who has its token acts as root."
	@exec $(BIN)/jupyter lab notebooks $$(test "$$(id -u)" -ne 0 || echo --allow-root)

clean: ## Remove what was built (not data, models or the environment)
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
