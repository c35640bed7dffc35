# Every target does its own set-up. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo down test test-fast test-cluster fuzz lint format manifests lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## Make .venv ready (the other targets do it themselves)
	@tools/bootstrap

demo: setup ## The main job, end to end: cluster, chart, dataset, search, training, A/B-tested service
	@$(BIN)/python examples/tweets/demo.py

down: setup ## Stop the embedded cluster that `make demo` started
	@$(BIN)/mizzen down

test: setup ## Every test (two cores: under 20 minutes)
	@$(BIN)/python -m pytest

test-fast: setup ## Tests without cluster and Ray (under a minute)
	@$(BIN)/python -m pytest -m "not cluster and not slow"

# KUBECONFIG counts only on the command line: nobody's everyday cluster is tested by accident.
test-cluster: setup ## The conformance suite on the embedded cluster, or on any with KUBECONFIG=file
	@$(if $(filter command line,$(origin KUBECONFIG)),MIZZEN_TEST_KUBECONFIG=$(abspath $(KUBECONFIG))) \
		$(BIN)/python -m pytest tests/cluster

fuzz: setup ## Random requests against the embedded API server: EXAMPLES=20000
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/python -m pytest -q tests/local/test_api_fuzz.py

lint: setup ## ruff, mypy strict, import rules, generated files
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy crds/mizzen_api operator/mizzen_operator runtime/mizzen kernels/mizzen_kernels local/mizzen_local
	@PYTHONWARNINGS=ignore $(BIN)/lint-imports
	@$(BIN)/mypy dashboards docs/generate_api.py docs/generate_cli.py
	@for part in crds dashboards; do $(BIN)/python $$part/generate.py --check || exit 1; done
	@$(BIN)/python docs/generate_api.py --check && $(BIN)/python docs/generate_cli.py --check

format: setup ## Let ruff mend what it can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

manifests: setup ## Generate CRDs, dashboard and references from code
	@$(BIN)/python crds/generate.py && $(BIN)/python dashboards/generate.py && $(BIN)/python docs/generate_api.py \
		&& $(BIN)/python docs/generate_cli.py

lock: setup ## Write requirements.lock from what .venv holds
	@$(BIN)/python tools/lock.py

clean: ## Remove .venv and caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
