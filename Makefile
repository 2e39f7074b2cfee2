# Go 1.26, Python 3 with venv, make and git are all that is needed: everything else
# is pinned in go.mod, .ci/tools.mod, .ci/requirements.txt, .ci/requirements-kms.txt, .ci/phoenix.txt and
# examples/refunddesk/day/requirements.txt, and lands in .cache, .venv and .venv-phoenix.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
# Time of each fuzz target.
FUZZTIME ?= 10s
# Packages to test.
PACKAGES ?= ./...
# With ONCE=1, "make run" plays the day, stops everything and tells how it went.
ONCE ?=
# Flags of "make bench": bin/bench -help lists them.
BENCHFLAGS ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

TOOLS := $(CURDIR)/.cache/bin
VENV := .venv
KMS_VENV ?= .cache/kms
# Heavy, and for "make phoenix" alone.
PHOENIX := .venv-phoenix
BUF := $(CURDIR)/$(VENV)/bin/buf
# Envoy on the PATH, else the one from the venv.
ENVOY ?= $(shell command -v envoy || echo $(CURDIR)/$(VENV)/bin/envoy)
export ENVOY
export CGO_ENABLED := 0

DESK := examples/refunddesk
GO_BUILD := go build -trimpath
GO_TOOLS := protoc-gen-go protoc-gen-go-grpc staticcheck gofumpt
# gofumpt and staticcheck do not look at generated code; vet does.
GO_FILES = $(shell git ls-files --cached --others --exclude-standard '*.go' | grep -v '\.pb\.go$$')

.PHONY: all
all: test lint ## Test and lint (the default)

.PHONY: help
help: ## Tell what each target does
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# --- what the other targets need ---

$(VENV)/.ci: .ci/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(VENV)/.day: $(DESK)/day/requirements.txt $(VENV)/.ci
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The KMS has an environment of its own: only its tests need it.
$(KMS_VENV)/.stamp: .ci/requirements-kms.txt
	$(PYTHON) -m venv $(KMS_VENV)
	$(KMS_VENV)/bin/pip install --quiet --disable-pip-version-check -r $<

$(PHOENIX)/.stamp: .ci/phoenix.txt
	$(PYTHON) -m venv $(PHOENIX)
	$(PHOENIX)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

.cache/.tools: .ci/tools.mod .ci/tools.sum
	mkdir -p $(TOOLS)
	rm -f $(addprefix $(TOOLS)/,buf $(GO_TOOLS))
	go build -modfile=.ci/tools.mod -o $(TOOLS)/ $$(go list -modfile=.ci/tools.mod -f '{{.ImportPath}}' tool)
	touch $@

# Transparency tooling of others, which reads and cosigns the collector's log in tests.
.cache/.tlog: .ci/tlog.mod .ci/tlog.sum
	mkdir -p $(TOOLS)
	go build -modfile=.ci/tlog.mod -o $(TOOLS)/ $$(go list -modfile=.ci/tlog.mod -f '{{.ImportPath}}' tool)
	touch $@

# The stamp stands outside the directory that is a module of buf's workspace.
.cache/.protodeps: internal/protodeps/main.go go.mod go.sum
	rm -rf .cache/protodeps
	go run ./internal/protodeps .cache/protodeps
	touch $@

# Python's side of the API is generated where it is needed, and not checked in.
.cache/python/.stamp: $(VENV)/.day .cache/.protodeps $(wildcard proto/writ/v1/*.proto)
	rm -rf .cache/python
	mkdir -p .cache/python
	$(VENV)/bin/python -m grpc_tools.protoc -Iproto -I.cache/protodeps \
		--python_out=.cache/python --grpc_python_out=.cache/python \
		$$(cd proto && find writ -name '*.proto') buf/validate/validate.proto
	touch $@

.PHONY: envoy
envoy: # Have an Envoy: the PATH's, or the venv's.
	@if [[ "$(ENVOY)" == "$(CURDIR)/$(VENV)/bin/envoy" ]]; then $(MAKE) $(VENV)/.ci; fi
	@test -x "$(ENVOY)" || { echo "no Envoy at $(ENVOY)" >&2; exit 1; }

.PHONY: deps
deps: $(VENV)/.ci $(VENV)/.day .cache/.tools .cache/.tlog .cache/.protodeps .cache/python/.stamp ## Get Envoy, buf and the tools that are pinned

# --- build and run ---

.PHONY: build
build: ## Build bin/writ, its sandbox launcher and the programs of the refund desk
	mkdir -p bin $(DESK)/bundle/tools
	$(GO_BUILD) -ldflags '-s -w -X main.version=$(VERSION)' -o bin/writ ./cmd/writ
	$(GO_BUILD) -ldflags '-s -w' -o bin/writ-sandbox ./sandbox/launcher
	$(GO_BUILD) -ldflags '-s -w' -o bin/payments ./$(DESK)/payments
	$(GO_BUILD) -ldflags '-s -w' -o $(DESK)/bundle/tools/ ./$(DESK)/tools/...

.PHONY: run
run: envoy build .cache/python/.stamp ## Play a working day at the refund desk through a real Envoy (ONCE=1: then stop)
	$(VENV)/bin/python $(DESK)/day/desk.py $(if $(ONCE),--once)

# --- test ---

.PHONY: test
test: envoy $(VENV)/.ci .cache/.tlog ## Vet, and run the unit and end-to-end tests (under 10 minutes on 2 cores)
	go vet $(PACKAGES)
	.ci/gotest -timeout 9m $(PACKAGES)

.PHONY: e2e
e2e: envoy .cache/.tlog ## Run the tests that go through a real Envoy
	.ci/gotest -timeout 9m ./envoy/... ./internal/conformance/... ./cmd/writ/...

.PHONY: conformance
conformance: envoy ## Put one table of calls to every face and demand one verdict
	.ci/gotest -timeout 9m ./internal/conformance/...

.PHONY: test-parts
test-parts: race test-32 conformance kill kms phoenix fuzz ## What takes longer: race, 32 bit, kills, KMS, Phoenix, fuzzing, the working day
	$(MAKE) run ONCE=1

# What killtest runs are programs of their own, which are built without the detector; "kill"
# runs it.
.PHONY: race
race: envoy $(VENV)/.ci .cache/.tlog ## Run the tests under the race detector
	CGO_ENABLED=1 .ci/gotest -race -timeout 30m $$(go list $(PACKAGES) | grep -v /internal/killtest)

.PHONY: test-32
test-32: $(VENV)/.ci ## Decide in a 32-bit build, where the same cases must give the same bytes
	GOARCH=386 .ci/gotest -timeout 9m ./agent/policy/... ./proto/... ./tools/schemas/...

.PHONY: kill
kill: envoy $(VENV)/.ci ## Kill agent and collector under load, 20 times in every way, and a ledger's writer 200 times
	WRIT_KILLS=200 .ci/gotest -timeout 20m -run Kill9 ./ledger
	WRIT_KILLS=20 .ci/gotest -timeout 20m ./internal/killtest/...

.PHONY: kms
kms: $(KMS_VENV)/.stamp ## Keep keys under an AWS KMS (moto's, on loopback)
	MOTO_SERVER=$(abspath $(KMS_VENV))/bin/moto_server .ci/gotest -timeout 5m -run KMS ./ledger/vault/awskms/... ./cmd/writ/...

.PHONY: phoenix
phoenix: $(PHOENIX)/.stamp ## Send a run to a real Arize Phoenix by OTLP, and read its traces back
	go vet -tags phoenix ./internal/phoenixtest/...
	PHOENIX_PYTHON=$(CURDIR)/$(PHOENIX)/bin/python .ci/gotest -tags phoenix -timeout 9m ./internal/phoenixtest/...

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

.PHONY: eval
eval: ## Play the proof corpus and report what came of it
	@go run ./internal/eval testdata/eval/*

.PHONY: leasesim
leasesim: ## Simulate a thousand agents on one shared budget, and write docs/leases.svg and its table
	@go run ./internal/leasesim

.PHONY: bench
bench: envoy build ## Measure against servers that do nothing; JSON=file and DOC=file write the results there
	$(GO_BUILD) -o bin/bench ./internal/bench
	bin/bench $(if $(JSON),-json $(JSON)) $(if $(DOC),-doc $(DOC)) $(BENCHFLAGS)

.PHONY: bench-ledger
bench-ledger: build ## Measure the ledger against the least that does the same to a disk; JSON=file and DOC=file as in bench
	$(GO_BUILD) -o bin/bench ./internal/bench
	bin/bench ledger $(if $(JSON),-json $(JSON)) $(if $(DOC),-doc $(DOC)) $(BENCHFLAGS)

.PHONY: golden
golden: ## Rewrite the golden files; review the difference like code
	.ci/golden

# --- lint and generate ---

.PHONY: lint
lint: $(VENV)/.ci .cache/.tools .cache/.protodeps ## Check form: gofumpt, vet, staticcheck, house rules, buf lint and breaking
	.ci/house
	@unformatted=$$($(TOOLS)/gofumpt -l $(GO_FILES)); \
	if [[ -n "$$unformatted" ]]; then echo "gofumpt wants other formatting in:" >&2; echo "$$unformatted" >&2; exit 1; fi
	go vet ./...
	$(TOOLS)/staticcheck $$(go list ./... | grep -v /proto/writ/)
	$(BUF) lint
	BUF=$(BUF) .ci/breaking

.PHONY: generate
generate: $(VENV)/.ci .cache/.tools .cache/.protodeps ## Generate Go from the protos
	$(BUF) generate

.PHONY: checkgenerate
checkgenerate: $(VENV)/.ci .cache/.tools .cache/.protodeps ## Fail if generated code is not what "make generate" makes
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(BUF) generate -o "$$fresh"; \
	for file in $$(cd "$$fresh" && find . -name '*.pb.go' -printf '%P\n'); do \
		diff -u "$$file" "$$fresh/$$file" >&2 || { echo "$$file is stale: run \"make generate\"" >&2; exit 1; }; \
	done; \
	for file in $$(git ls-files '*.pb.go'); do \
		test -e "$$fresh/$$file" || { echo "$$file is generated from nothing: remove it" >&2; exit 1; }; \
	done

# --- clean ---

.PHONY: clean
clean: ## Remove what was built, recorded and downloaded here
	rm -rf bin run .cache $(VENV) $(PHOENIX) $(DESK)/bundle/tools
