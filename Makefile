# `make demo` and `make test` set everything up in .venv by themselves; a second run installs nothing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
KEY := $(shell cat constraints.txt pyproject.toml | sha256sum | cut -c1-16)
STAMP := $(VENV)/.installed-$(KEY)
# many tests start processes, none of which shall compile our modules again
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo setup test pytest coverage lint slow quick help-pages site mutants clean

demo: $(STAMP)
	$(BIN)/oneword demo

setup: $(STAMP)

# the types are checked beside the tests, since they keep one core alone
test: $(STAMP)
	$(MAKE) --no-print-directory -j2 lint pytest

pytest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# between changes: lint without types, and the tests that need no more than a minute and a half
quick: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/unit/test_*.py \
		tests/unit/config tests/unit/concepts tests/unit/vocabulary tests/unit/training tests/unit/runs \
		tests/unit/cli tests/cli/test_help.py

# the same tests, traced, which takes nearly twice as long
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# every constant of presets, protocols, setups, editing and baselines changed once: which tests notice
mutants: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py

# the pages of docs/reference/cli, anew
help-pages: $(STAMP)
	$(BIN)/python tests/help_pages.py

# the pages of docs/ as a site, in oneword-site/
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -q --no-compile -c constraints.txt torch
	PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install -q --no-compile -e '.[dev,track,cluster]'
	# on all cores, but what is never imported or seldom; what cannot be compiled is left, as by pip
	$(BIN)/python -m compileall -qq -j 0 -x '/tests/|/transformers/models/|/ray/(rllib|tune|train|serve)/' \
		$(VENV)/lib || true
	rm -f $(VENV)/.installed-*
	touch $@

clean:
	rm -rf $(VENV) oneword-demo oneword-site
