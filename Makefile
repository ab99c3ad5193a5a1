# For a newcomer: `make fraud`, `make defect`, `make medical`, `make test`. Each works alone from a
# bare clone.
# ARGS goes to the command: make fraud ARGS=trainer=smoke, make test ARGS='-k fold'.

PYTHON ?= python3
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PIP := .venv/bin/python -m pip --disable-pip-version-check
BUILD_KERNELS := .venv/bin/python -m kernels.build
BUILD_SETTINGS := pyproject.toml hatch_build.py kernels/build.py
# What is installed already; the smaller set if nothing is.
INSTALLED := $(firstword $(wildcard .venv/.dev .venv/.defect .venv/.fraud) .venv/.fraud)
NEWEST_DEFECT = $$(ls -d runs/defect/* | tail -n 1)
# OpenVINO in bfloat16 is the fastest where the processor has it; ONNX Runtime runs anywhere.
ifeq ($(shell uname -m),x86_64)
MEDICAL_TARGET := 'target.ids=[x86_64-openvino-cpu-bf16,x86_64-ort-cpu,portable-onnx]'
else
MEDICAL_TARGET := target=aarch64
endif
NEWEST_MEDICAL = $$(ls -d runs/medical/* | tail -n 1)

.PHONY: help fraud defect medical serve monitor first-bundle signing-key test test-slow lint bench zoo kernels aarch64 system lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1|/p' Makefile | column -t -s '|'

fraud: .venv/.fraud ## train the fraud model, compare it with its baselines, write a report
	@$(BUILD_KERNELS)
	.venv/bin/python -m kits.fraud.train $(ARGS)

# ARGS goes to both trainings: make medical ARGS=trainer=smoke.
medical: .venv/.medical ## simulated chest CTs: a teacher, a student distilled from it, reports, a bundle
	@$(BUILD_KERNELS)
	.venv/bin/python -m kits.medical.train $(ARGS)
	.venv/bin/python -m kits.medical.distill teacher="$(NEWEST_MEDICAL)" $(ARGS)
	@$(MAKE) --no-print-directory signing-key
	.venv/bin/python -m kits.medical.export run="$(NEWEST_MEDICAL)" $(MEDICAL_TARGET)
	@cat "$(NEWEST_MEDICAL)/summary.txt"

defect: .venv/.defect ## render parts, train a detector, evaluate it, pack a signed bundle
	@$(BUILD_KERNELS)
	.venv/bin/python -m kits.defect.train $(ARGS)
	@$(MAKE) --no-print-directory signing-key
	.venv/bin/python -m kits.defect.export run="$(NEWEST_DEFECT)"

# Without any bundle, a small run is trained, a key made and the bundle exported first.
serve: $(INSTALLED) ## serve the newest fraud bundle and print curl lines to try
	@$(BUILD_KERNELS)
	@ls runs/fraud/*/export/fraud.ebundle >/dev/null 2>&1 || $(MAKE) --no-print-directory first-bundle
	.venv/bin/python -m kits.fraud.serve $(ARGS)

monitor: $(INSTALLED) ## Prometheus with the alert rules, for a service on 127.0.0.1:8080
	.venv/bin/python -m core.serve.ops.monitor $(ARGS)

first-bundle: $(INSTALLED)
	.venv/bin/python -m kits.fraud.train trainer=smoke
	@$(MAKE) --no-print-directory signing-key
	.venv/bin/python -m kits.fraud.export run="$$(ls -d runs/fraud/* | tail -n 1)" target="$$(uname -m)"

signing-key:
	@ls "$${DEEPKITS_HOME:-$$HOME/.config/deepkits}"/keys/*.key >/dev/null 2>&1 || .venv/bin/python -m edge.keys new

test: .venv/.dev aarch64 ## the default tests
	@$(BUILD_KERNELS)
	.venv/bin/python -m pytest $(ARGS)

test-slow: .venv/.dev aarch64 ## the slow tests
	@$(BUILD_KERNELS)
	.venv/bin/python -m pytest -m slow --timeout=3600 $(ARGS)

lint: .venv/.dev ## format, lint, types, import contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/.dev ## the benchmarks; results go to benchmarks/results
	@$(BUILD_KERNELS)
	.venv/bin/python -m pytest benchmarks -m "" --timeout=0 $(ARGS)

zoo: .venv/.dev ## 40 models to every target: what took which, and why not
	.venv/bin/python -m benchmarks.zoo $(ARGS)

kernels: $(INSTALLED) ## compile the native kernels again if their sources changed
	@$(BUILD_KERNELS)

# An arm64 root and wheels for the tests under emulation.
aarch64: .venv/.dev
	@if command -v mmdebstrap >/dev/null; then .venv/bin/python tests/aarch64/prepare.py; \
	else echo "no mmdebstrap: the tests under emulation will be skipped; make system"; fi

system: ## Debian packages that some tests need
	$(SUDO) apt-get update
	$(SUDO) apt-get install --yes --no-install-recommends chromium curl dicom3tools \
	    fonts-droid-fallback libc6-arm64-cross mmdebstrap prometheus qemu-user

lock: .venv/.dev ## pin the newest releases that are a week old in requirements
	sh requirements/lock.sh

clean: ## remove what the other targets made, except the runs
	rm -rf .venv build kernels/_lib

# A stamp per set of packages: pip runs again only when the lock or the build settings changed.
.venv/.%: requirements/%.txt $(BUILD_SETTINGS) | .venv/bin/python
	$(PIP) install --require-hashes -r $<
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python 3.11 or newer; make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
