# Everything a person or a machine does with this repository. Needs Python 3.11 or newer with its venv module and make.

# The interpreter that makes .venv: the first one that is new enough; or `make run PYTHON=/path/to/python`.
PYTHON ?= $(or $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,\
  $(shell $(python) -c 'import sys; sys.version_info >= (3, 11) and print("$(python)")' 2>/dev/null))),python3)
ARGS ?=
BENCH ?= codecs fleet

BIN := .venv/bin
QUIET := --quiet --disable-pip-version-check --no-input
PROTO_BIN := .venv-proto/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-slow check check-proto format proto bench constraints clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: .venv/.has-simulation ## Train ten clients on the digits, beside dense FedAvg; options: ARGS="--rounds 10"
	$(BIN)/thinwire simulate $(ARGS)

test: .venv/.has-test ## Run the tests, but not the long experiments; options: ARGS="tests/test_random.py"
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-slow: .venv/.has-test ## Run the long experiments
	$(BIN)/python -m pytest -m slow $(ARGS)

check: .venv/.has-check check-proto ## Lint, format, types, imports between rooms, freshness of the generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/.has-check ## Format the code, and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: .venv-proto/.done ## Generate thinwire/v1 from proto/
	$(PROTO_BIN)/python proto/generate.py .

check-proto: .venv-proto/.done
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(PROTO_BIN)/python proto/generate.py "$$fresh" && \
	for file in thinwire/v1/*_pb2* thinwire/v1/SOURCES.sha256 "$$fresh"/thinwire/v1/*; do \
	  name=$$(basename "$$file"); \
	  cmp -s "thinwire/v1/$$name" "$$fresh/thinwire/v1/$$name" || \
	    { echo "error: thinwire/v1/$$name is not what proto/ generates; run make proto and commit the result"; exit 1; }; \
	done && echo "thinwire/v1 is fresh"

bench: .venv/.has-simulation ## Measure; one of benchmarks/ with BENCH=fleet
	@for name in $(BENCH); do $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; done

constraints: $(BIN)/python ## Pin the newest versions that fit pyproject.toml in constraints.txt
	$(BIN)/python -m venv --clear .venv-constraints
	.venv-constraints/bin/python -m pip install $(QUIET) '.[test,check]'
	{ sed -n '/^#/p' constraints.txt; .venv-constraints/bin/python -m pip freeze --all --exclude pip \
	  --exclude thinwire | sed 's/+[a-z0-9.]*$$//' | LC_ALL=C sort -f; } > .venv-constraints/constraints.txt
	mv .venv-constraints/constraints.txt constraints.txt
	rm -rf .venv-constraints

clean: ## Remove environments and caches; runs/ stays
	rm -rf .venv .venv-proto .venv-constraints build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- environments: a stamp says what is installed, so that a second call starts at once ------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Thinwire needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1): name another, make PYTHON=/path/to/python"; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) lacks its venv module; install it (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.has-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(QUIET) -c constraints.txt -e '.[$*]'
	@touch $@

# The generator of the wire code wants an older protobuf than a run does, so it lives apart.
.venv-proto/.done: pyproject.toml | $(BIN)/python
	@test -x $(PROTO_BIN)/python || $(BIN)/python -m venv .venv-proto
	@$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	  print(*extras["proto"], sep="\n")' >.venv-proto/requirements.txt
	@$(PROTO_BIN)/python -m pip install $(QUIET) -r .venv-proto/requirements.txt || { \
	  echo "error: the generator of thinwire/v1 cannot be installed, so nobody can tell whether that is fresh"; exit 1; }
	@touch $@
