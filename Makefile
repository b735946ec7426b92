# Headway: everything a newcomer needs, from a fresh Debian 12 machine with the Swift 6.3 toolchain.
#   make demo    a photograph becomes a 3-D model, with live progress      (KEEP=1 leaves the page up)
#   make test    every test
# `make help` lists the rest.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

HEADWAY := .build/debug/headway
VENV := .venv
PYTHON := $(VENV)/bin/python3
KEEP ?=

.PHONY: help setup build debug demo test test-swift test-python test-browser bench plots soak lint clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 16

setup: ## install what the build and the tests need (Debian packages, a Python environment in .venv)
	@scripts/setup.sh

debug: setup ## build for demo and tests
	swift build --build-tests

build: setup ## build the release binary at .build/release/headway
	swift build -c release --static-swift-stdlib --product headway

demo: debug ## run the main job on a real photograph to its end (KEEP=1 leaves the page up)
	@KEEP=$(KEEP) scripts/demo.sh

test: setup ## every test, with the time of each suite
	@scripts/test.sh

soak: debug ## jobs through workers that are killed, frozen and cut off, for SECONDS (600); SEED repeats a schedule
	SOAK_SECONDS=$(or $(SECONDS),600) $(if $(SEED),SOAK_SEED=$(SEED)) swift test --skip-build --filter SoakTests

bench: build ## figures of docs/performance.md
	@scripts/bench.sh

plots: debug ## docs/plots from the recorded jobs in Tests/Fixtures/traces (TRACES="FILE…" for others)
	scripts/plots.py $(HEADWAY) docs/plots $(or $(TRACES),Tests/Fixtures/traces/comfy.jsonl Tests/Fixtures/traces/real_torch.jsonl)

test-browser: setup ## the page in a real Chromium
	@scripts/test-browser.sh

lint: ## formatting, and imports against the manifest
	swift format lint --strict --recursive Sources Tests Package.swift
	scripts/check-imports.py

clean: ## remove build products
	rm -rf .build $(VENV)
