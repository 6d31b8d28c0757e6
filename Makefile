# Portolan. `make help` lists the targets; docs/testing.md says what each tier of
# tests is for. Nothing here needs more than Go, make, and root on Debian or
# Ubuntu: `deps` installs the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export GOTOOLCHAIN := local

# What is slow to make is kept here, in entries named by the hash of what they
# are made from. It may be removed at any time.
export PORTOLAN_CACHE ?= /var/cache/portolan-lab
export PORTOLAN_OVN_ROOT ?= $(PORTOLAN_CACHE)/ovn-root

# A checkout that belongs to somebody else still gives its revision to the build.
export GIT_CONFIG_COUNT := 1
export GIT_CONFIG_KEY_0 := safe.directory
export GIT_CONFIG_VALUE_0 := $(CURDIR)

# go run keeps what it has built in Go's build cache: 100 s the first time, 1 s after.
GOLANGCI ?= CGO_ENABLED=0 go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
MODELGEN := go run github.com/ovn-kubernetes/libovsdb/cmd/modelgen

# Packages that the tiers below the lab need; the lab installs its own.
PACKAGES := ca-certificates conntrack debian-archive-keyring ethtool gcc iproute2 iputils-ping libc6-dev \
	mmdebstrap nftables procps util-linux

# JSON=1 makes go test print events, which e2e/stage counts.
TESTFLAGS := $(if $(JSON),-json)
GOTEST := go test -count=1 $(TESTFLAGS)

FUZZTIME ?= 5s
LAB_UP ?=
E2E ?= Matrix
BENCH ?= -samples 200

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##--- building

.PHONY: build
build: ## build every program of cmd/ into bin/, static
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

.PHONY: lab
lab: ## build bin/lab, the program that runs a cluster on this machine
	cd e2e/lab && CGO_ENABLED=0 go build -trimpath -o ../../bin/lab ./cmd/lab

.PHONY: stage
stage:
	@CGO_ENABLED=0 go build -o bin/stage ./e2e/stage

.PHONY: generate
generate: ovn-root ## write the generated files anew, from the schemas of OVN and OVS
	$(MODELGEN) -p nb -o pkg/ovsdb/nb $(PORTOLAN_OVN_ROOT)/usr/share/ovn/ovn-nb.ovsschema
	$(MODELGEN) -p sb -o pkg/ovsdb/sb $(PORTOLAN_OVN_ROOT)/usr/share/ovn/ovn-sb.ovsschema
	$(MODELGEN) -p vswitch -o pkg/ovsdb/vswitch $(PORTOLAN_OVN_ROOT)/usr/share/openvswitch/vswitch.ovsschema
	go run ./pkg/ovsdb/internal/schemagen -ovn $(PORTOLAN_OVN_ROOT)/usr/share/ovn -ovs $(PORTOLAN_OVN_ROOT)/usr/share/openvswitch

.PHONY: clean
clean: ## remove bin/; the cache in PORTOLAN_CACHE stays
	rm -rf bin

##--- what the tests need

.PHONY: deps
deps: ## install the distribution's packages that are missing
	@missing=$$(for p in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	[ -z "$$missing" ] && exit 0; \
	[ $$(id -u) = 0 ] || { echo "missing packages; as root: apt-get install" $$missing; exit 1; }; \
	echo "installing" $$missing; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -q && apt-get install -qy --no-install-recommends $$missing

.PHONY: ovn-root
ovn-root: deps lab ## make the directory tree with OVN and OVS that tests run daemons from
	@if [ "$(PORTOLAN_OVN_ROOT)" = "$(PORTOLAN_CACHE)/ovn-root" ] && \
		{ [ $$(id -u) = 0 ] || [ ! -x $(PORTOLAN_OVN_ROOT)/usr/sbin/ovsdb-server ]; }; then bin/lab ovn-root; fi

##--- tests

.PHONY: check
check: lint policy unit generated fuzz ## what a developer runs: format, lint, policy, unit tests and scripts with -race, generated files, short fuzz

.PHONY: lint
lint: ## gofmt, go vet, golangci-lint
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	[ -z "$$unformatted" ] || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go vet -tags kernel ./...
	$(GOLANGCI) run ./...

.PHONY: policy
policy: ## the repository's own rules
	$(GOTEST) .

.PHONY: unit
unit: ## unit tests and scripts, with the race detector
	CGO_ENABLED=1 $(GOTEST) -race -timeout 10m $$(go list ./... | grep -vE '/portolan$$|/pkg/ovsdb(/ovsdbtest)?$$')
	cd e2e/lab && $(GOTEST) -timeout 5m $$(go list ./... | grep -vE '/lab/(kube|upstream|suite)$$')

.PHONY: generated
generated: ## generated files are what the schemas give
	@before=$$(git status --porcelain -- pkg deploy; git diff -- pkg deploy | sha256sum); \
	$(MAKE) --no-print-directory generate; \
	after=$$(git status --porcelain -- pkg deploy; git diff -- pkg deploy | sha256sum); \
	[ "$$before" = "$$after" ] || { echo "make generate changes files:"; git status --short -- pkg deploy; exit 1; }

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (5s)
	@grep -rlE '^func Fuzz' --include='*_test.go' pkg | sort | while read -r file; do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
			echo "fuzz $$(dirname $$file) $$f"; \
			go test $(TESTFLAGS) -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file); \
		done; done

.PHONY: databases
databases: ovn-root ## the driver, and scripts, on real ovsdb-server and ovn-northd; packets traced
	CGO_ENABLED=1 $(GOTEST) -race -timeout 10m ./pkg/ovsdb ./pkg/ovsdb/ovsdbtest
	$(GOTEST) -timeout 10m ./pkg/engine ./pkg/compile -run 'OnReal(Servers|Databases)' -real

.PHONY: kernel
kernel: deps ## links, routes, nftables and CNI calls in private namespaces; root
	$(GOTEST) -tags kernel -timeout 10m ./pkg/host/... ./pkg/cni/... ./cmd/portolan-node

.PHONY: e2e
e2e: lab ## the lab, once: up, the suite E2E (Matrix), down
	@trap 'bin/lab down' EXIT; \
	bin/lab up $(LAB_UP); \
	(cd e2e/lab && $(GOTEST) -timeout 20m ./suite -run '$(E2E)')

.PHONY: test
test: stage ## everything that CI runs: at most 60 minutes from an empty cache; root
	@bin/stage -budget 60m \
		'prepare   10m $(MAKE) --no-print-directory build ovn-root' \
		'lint      10m $(MAKE) --no-print-directory lint' \
		'policy     1m $(MAKE) --no-print-directory policy JSON=1' \
		'unit      15m $(MAKE) --no-print-directory unit JSON=1' \
		'generated  3m $(MAKE) --no-print-directory generated' \
		'fuzz       8m $(MAKE) --no-print-directory fuzz JSON=1' \
		'databases 10m $(MAKE) --no-print-directory databases JSON=1' \
		'kernel     5m $(MAKE) --no-print-directory kernel JSON=1' \
		'lab       35m $(MAKE) --no-print-directory e2e JSON=1'

.PHONY: test-full
test-full: stage ## test, then every suite of the lab and a long fuzz; hours
	@bin/stage \
		'test       1h $(MAKE) --no-print-directory test' \
		'fuzz       1h $(MAKE) --no-print-directory fuzz FUZZTIME=2m JSON=1' \
		'lab        2h $(MAKE) --no-print-directory e2e E2E=. JSON=1' \
		'upstream   1h $(MAKE) --no-print-directory conformance'

.PHONY: conformance
conformance: lab ## the lab, and upstream's network tests in it
	@trap 'bin/lab down' EXIT; bin/lab up $(LAB_UP); bin/lab conformance

.PHONY: bench
bench: build ovn-root ## engine figures, writes a pod, CNI ADD and DEL beside ptp and OVN's floor (docs/benchmarks.md); root
	go test -run '^$$' -bench . -benchmem ./pkg/engine ./pkg/compile ./pkg/ovsdb
	go test -count=1 ./pkg/compile -run PodCostOnRealDatabases -real
	@cat pkg/compile/testdata/pod-cost.txt
	@CGO_ENABLED=0 go build -o bin/bench ./e2e/bench
	bin/bench $(BENCH)

##--- a cluster to look at

.PHONY: up
up: lab ## a cluster of three nodes with Portolan on this machine; root
	bin/lab up $(LAB_UP)

.PHONY: down
down: ## end the cluster and remove everything of it but its logs
	@[ -x bin/lab ] || $(MAKE) --no-print-directory lab
	bin/lab down

.PHONY: demo
demo: up ## up, then a tour of the cluster: every command with its output, every claim with packets; root
	cd e2e/lab && CGO_ENABLED=0 go build -trimpath -o ../../bin/tour ./cmd/tour
	@bin/tour
