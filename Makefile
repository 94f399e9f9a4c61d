# Every target makes the virtual environment it needs, with the versions pinned in constraints.txt.

PYTHON ?= python3
VENV ?= .venv
# where PyTorch's CPU builds come from, if your usual index has only CUDA builds:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed

.PHONY: help demo test check format bench clean
help:
	@echo "make demo    synthetic nuclei: train on a few labels, predict, score, picture (about 5 minutes)"
	@echo "make test    all tests (under 10 minutes)"
	@echo "make check   format, lint, types"
	@echo "make format  mends format and lint where it can"
	@echo "make bench   measures the parts of this machine's training and prediction"
	@echo "make clean   removes the environment and caches"

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@echo "== installing into $(VENV) (about 2 GB; 2 to 4 minutes, done once)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --progress-bar off -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e ".[dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/fewvox demo

test: $(INSTALLED)
	$(BIN)/pytest -q --durations=10

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)
	$(BIN)/python -m fewvox.experiments.bench.slice

clean:
	rm -rf $(VENV) build dist *.egg-info .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
