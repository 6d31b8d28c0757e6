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
# With modules of its own: as a tool of go.mod it would raise a dozen of the product's.
CONTROLLER_GEN := go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0

# Packages that the tiers below the lab need; the lab installs its own.
PACKAGES := ca-certificates conntrack containernetworking-plugins debian-archive-keyring e2fsprogs ethtool gcc iproute2 iputils-ping libc6-dev \
	mmdebstrap nftables procps util-linux xz-utils

# JSON=1 makes go test print events, which e2e/stage counts.
TESTFLAGS := $(if $(JSON),-json)
# AGAIN is a pattern of tests that e2e/stage has run once more; a recipe's own -run comes after.
GOTEST := go test -count=1 $(TESTFLAGS) $(if $(AGAIN),-run '$(AGAIN)')

FUZZTIME ?= 20000x
# Of FuzzDecodeAndCompile, which does a hundred a second.
FUZZTIME_SLOW ?= 1000x
RESTART_PODS ?= 2000
LAB_UP ?=
# ZONE=global: one zone for all nodes, with plain TCP, as classic tools show it.
ifeq ($(ZONE),global)
LAB_UP := --zone global --insecure-databases
endif
# FAMILIES=dual: IPv4 and IPv6.
ifdef FAMILIES
LAB_UP += --families $(FAMILIES)
endif
# Faults that make test does: each daemon killed, databases lost, restarts; make
# test-full does all.
E2E ?= Matrix|Input|Soup|Fault(Kill|Data|Restart|Second|Node)|Multinet($$|Addresses|Broadcast|Others|Live|Edited)|Devices$$
# How long the suites of one lab may take.
E2E_TIMEOUT ?= 20m
HOURS ?= 1
MINUTES ?= 10
BENCH ?= -samples 120
BENCH_PODS ?= 10000

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

.PHONY: guest
guest: ## build bin/guest, the program that makes and runs virtual machines with other kernels
	cd e2e/lab && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../bin/guest ./cmd/guest

.PHONY: guest-kernel
guest-kernel: deps guest ## build Linux of our own configuration for guests, if the cache has none; 15 minutes, root
	bin/guest kernel

.PHONY: stage
stage:
	@CGO_ENABLED=0 go build -o bin/stage ./e2e/stage

.PHONY: generate
generate: ovn-root crds ## write the generated files anew, from the schemas of OVN and OVS and the API's Go types
	$(MODELGEN) -p nb -o pkg/ovsdb/nb $(PORTOLAN_OVN_ROOT)/usr/share/ovn/ovn-nb.ovsschema
	$(MODELGEN) -p sb -o pkg/ovsdb/sb $(PORTOLAN_OVN_ROOT)/usr/share/ovn/ovn-sb.ovsschema
	$(MODELGEN) -p vswitch -o pkg/ovsdb/vswitch $(PORTOLAN_OVN_ROOT)/usr/share/openvswitch/vswitch.ovsschema
	go run ./pkg/ovsdb/internal/schemagen -ovn $(PORTOLAN_OVN_ROOT)/usr/share/ovn -ovs $(PORTOLAN_OVN_ROOT)/usr/share/openvswitch

# _.yaml is what controller-gen makes of kinds that are read from files only.
.PHONY: crds
crds: ## write the CustomResourceDefinitions in deploy/ anew, from pkg/api
	$(CONTROLLER_GEN) crd paths=./pkg/api/... output:crd:dir=deploy/base/crds
	rm -f deploy/base/crds/_.yaml

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
	go vet -tags guest ./e2e/offload/...
	$(GOLANGCI) run ./...

.PHONY: policy
policy: ## the repository's own rules
	$(GOTEST) .

.PHONY: unit
unit: ## unit tests and scripts, with the race detector
	@failed=; set -x; \
	CGO_ENABLED=1 $(GOTEST) -race -timeout 10m $$(go list ./... | grep -vE '/portolan$$|/pkg/ovsdb(/ovsdbtest)?$$') || failed=1; \
	(cd e2e/lab && $(GOTEST) -timeout 5m $$(go list ./... | grep -vE '/lab/(kube|upstream|suite)$$')) || failed=1; \
	[ -z "$$failed" ]

SEEDS ?= 3000

.PHONY: soup
soup: ## a simulated cluster in random order: SEEDS (3000) lists of steps in each zone mode
	$(GOTEST) -timeout 2h ./e2e/soup -seeds $(SEEDS) -bugs -v

.PHONY: generated
generated: ## generated files are what the schemas give
	@before=$$(git status --porcelain -- pkg deploy; git diff -- pkg deploy | sha256sum); \
	$(MAKE) --no-print-directory generate; \
	after=$$(git status --porcelain -- pkg deploy; git diff -- pkg deploy | sha256sum); \
	[ "$$before" = "$$after" ] || { echo "make generate changes files:"; git status --short -- pkg deploy; exit 1; }

# A count, not a time: go test may fail a target whose time is over by "context
# deadline exceeded" (go.dev/issue/75804). Coverage guides the inputs where that does
# not mean to build client-go once more with counters in it, five minutes long;
# GUIDED=all has it everywhere.
.PHONY: fuzz
fuzz: ## each fuzz target FUZZTIME (20000x) times
	@grep -rlE '^func Fuzz' --include='*_test.go' pkg multus $(wildcard sriov offload) | sort | while read -r file; do \
		dir=./$$(dirname $$file); guided=$(GUIDED); \
		[ -n "$$guided" ] || go list -deps -test $$dir | grep -q '^k8s.io/client-go/' || guided=all; \
		[ -n "$$guided" ] || go test -c -o bin/fuzz.test $$dir; \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
			echo "fuzz $$dir $$f$${guided:+, guided}"; \
			times=$(FUZZTIME); [ $$f != FuzzDecodeAndCompile ] || times=$(FUZZTIME_SLOW); \
			if [ -n "$$guided" ]; then \
				go test $(TESTFLAGS) -run '^$$' -fuzz "^$$f$$" -fuzztime $$times $$dir; \
			else \
				(cd $$dir && $(if $(JSON),go tool test2json -p $$dir) $(CURDIR)/bin/fuzz.test $(if $(JSON),-test.v=test2json) \
					-test.run '^$$' -test.fuzz "^$$f$$" -test.fuzztime $$times -test.fuzzcachedir $$(go env GOCACHE)/fuzz/portolan/$$dir); \
			fi; \
		done; done

.PHONY: databases
databases: ovn-root ## the driver, and scripts, on real ovsdb-server and ovn-northd; packets traced
	@failed=; set -x; \
	CGO_ENABLED=1 $(GOTEST) -race -timeout 10m ./pkg/ovsdb ./pkg/ovsdb/ovsdbtest || failed=1; \
	$(GOTEST) -timeout 10m ./pkg/engine ./pkg/compile -run '$(or $(AGAIN),OnReal(Servers|Databases))' -real || failed=1; \
	$(GOTEST) -timeout 10m ./cmd/portolan -run '$(or $(AGAIN),OnRealDatabases)' -real || failed=1; \
	$(GOTEST) -timeout 10m ./e2e/restart -real -pods $(RESTART_PODS) -v || failed=1; \
	[ -z "$$failed" ]

.PHONY: apiserver
apiserver: lab ## a real kube-apiserver, alone: admission policies, rights, what kubectl shows; root
	$(GOTEST) -timeout 5m ./e2e/apiserver -kube "$$(bin/lab kube)"

.PHONY: kernel
kernel: deps ## links, routes, nftables, CNI calls and a loss of power in private namespaces; root
	$(GOTEST) -tags kernel -timeout 10m ./pkg/nstest ./pkg/durable ./pkg/host/... ./pkg/cni/... ./sriov/... ./cmd/portolan-node ./e2e/bench

# SUITE=multinet is that suite in every lab there is: zones, families, with and without
# Multus. SUITE=offload needs no lab: it is in virtual machines.
.PHONY: e2e
ifeq ($(SUITE),multinet)
e2e: e2e-multinet
else ifeq ($(SUITE),offload)
e2e: e2e-offload
else ifeq ($(SUITE),hardware)
e2e: e2e-hardware
else
e2e: lab ## the lab, once: up, the suites E2E (the matrix, bad input, faults, networks), down; SUITE=multinet: that suite in labs of every kind; SUITE=offload: virtual machines
	@trap 'bin/lab down' EXIT; \
	bin/lab up $(LAB_UP); \
	(cd e2e/lab && $(GOTEST) -timeout $(E2E_TIMEOUT) ./suite -run '$(or $(AGAIN),$(E2E))')
endif

# What differs between families: not who survives what.
FAMILIES_E2E := Multinet$$$$|Matrix($$$$|RouterAdvertisement|Martians|Connections|PodRecreated)

.PHONY: e2e-dual
e2e-dual: ## the lab with IPv4 and IPv6: every connection in both, advertisements, martians, conntrack
	@$(MAKE) --no-print-directory e2e LAB_UP='--families dual' E2E='$(FAMILIES_E2E)'

.PHONY: e2e-ipv6
e2e-ipv6: ## the lab with IPv6 alone: every suite
	@$(MAKE) --no-print-directory e2e LAB_UP='--families ipv6' E2E=. E2E_TIMEOUT=110m

.PHONY: e2e-global
e2e-global: ## the lab as one zone, over TLS: its layout, every connection, its central daemons killed
	@$(MAKE) --no-print-directory e2e LAB_UP='--zone global' E2E='Global|TestMatrix$$$$|AgentRestart|Multinet$$$$'

MULTUS ?= thick

.PHONY: e2e-multus
e2e-multus: ## the lab with Multus (MULTUS=thin|thick) as its CNI, which calls Portolan: networks of every topology, restarts, devices
	@$(MAKE) --no-print-directory e2e-kind KIND=node-ipv4-$(MULTUS) KIND_E2E='Multinet($$$$$$$$|Restarts)|Devices$$$$$$$$'

# A kind of lab is a zone mode, families, and Multus or none.
KIND ?= node-ipv4-thick
KIND_E2E ?= Multinet($$$$|Restarts)
kind = $(word $(1),$(subst -, ,$(KIND)))

.PHONY: e2e-kind
e2e-kind: ## the lab of one KIND (node-ipv4-thin, global-dual-none): networks of every topology, an agent replaced, a node booted anew
	@$(MAKE) --no-print-directory e2e SUITE= E2E='$(KIND_E2E)' \
		LAB_UP='--zone $(call kind,1) --families $(call kind,2) $(if $(filter-out none,$(call kind,3)),--multus $(call kind,3))'

# Broadcasts, sizes, what is left and whose an address is differ by zone alone. A lab that fails
# does not keep the others from being tried.
.PHONY: e2e-multinet
e2e-multinet: ## several networks in labs of every kind: zones × families × Multus; 2 hours and a half
	@failed=; for kind in {node,global}-{ipv4,ipv6,dual}-{none,thin,thick}; do \
		run='Multinet($$|Addresses|Restarts)'; [[ $$kind != *-ipv4-none ]] || run=Multinet; \
		echo "$$kind"; \
		$(MAKE) --no-print-directory e2e-kind KIND=$$kind KIND_E2E="$${run//\$$/\$$\$$\$$\$$}" E2E_TIMEOUT=60m || failed="$$failed $$kind"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

.PHONY: e2e-devices
e2e-devices: ## devices in labs of other kinds: thin and thick Multus, both families, one zone; 8 minutes
	@failed=; for kind in node-ipv4-{thin,thick} {node,global}-dual-none; do \
		echo "$$kind"; \
		$(MAKE) --no-print-directory e2e-kind KIND=$$kind KIND_E2E='Devices$$$$$$$$' || failed="$$failed $$kind"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

# What of the tests' names follows TestDebian or TestOwn.
ONLY ?=
SHORT ?=
OFFLOAD_TIMEOUT ?= 40m

.PHONY: e2e-offload
e2e-offload: deps guest ## SR-IOV and offload on other kernels, in virtual machines; the own kernel's part once make guest-kernel was run; ONLY=IGB/VLAN chooses, SHORT=1 leaves the long ones out; root
	bin/guest build
	$(GOTEST) $(if $(SHORT),-short) -timeout $(OFFLOAD_TIMEOUT) ./e2e/offload -guest "$(CURDIR)/bin/guest" -only '$(ONLY)'

.PHONY: e2e-hardware
e2e-hardware: build ovn-root ## on a machine with a real NIC: NIC=ens1f0 or its PCI address is put into switchdev mode, two functions are attached, a table says what it moves itself; then all is as before; FORCE=1: also a NIC in use; root
	@CGO_ENABLED=0 go build -trimpath -o bin/ ./e2e/hardware
	@bin/hardware -nic '$(NIC)' $(if $(FORCE),-force) -ovn-root $(PORTOLAN_OVN_ROOT) -bin bin

.PHONY: e2e-global-ha
e2e-global-ha: ## the lab as one zone with three database servers: followers, leaders and the controller killed
	@$(MAKE) --no-print-directory e2e LAB_UP='--zone global --databases 3' E2E='Global|TestMatrix$$$$'

.PHONY: soak
soak: lab ## random faults and churn for HOURS, packets counted, in the lab that is brought up for it; root
	@trap 'bin/lab down' EXIT; \
	bin/lab up $(LAB_UP); \
	(cd e2e/lab && PORTOLAN_SOAK_HOURS=$(HOURS) $(GOTEST) -v -timeout 0 ./suite -run 'TestSoak$$')

.PHONY: soak-addresses
soak-addresses: lab ## pods coming and going for MINUTES (10) on networks of few addresses, agents and managers killed: no address on two pods; root
	@trap 'bin/lab down' EXIT; \
	bin/lab up $(LAB_UP); \
	(cd e2e/lab && PORTOLAN_ADDRESS_SOAK=$(MINUTES)m $(GOTEST) -v -timeout 0 ./suite -run 'TestMultinetSoak$$')

.PHONY: soup-lab
soup-lab: lab ## random things done to the lab that is brought up for it, packets between: STEPS (400) of PORTOLAN_SEED; a list that fails is shrunk; root
	@trap 'bin/lab down' EXIT; \
	bin/lab up $(LAB_UP); \
	(cd e2e/lab && PORTOLAN_SOUP_STEPS=$(or $(STEPS),400) PORTOLAN_SOUP_SHRINK=2h $(GOTEST) -v -timeout 0 ./suite -run 'TestSoup$$')

# Of zones, families and Multus every pair, together with the stages lab, dual and global.
KINDS := node-ipv4-thin global-ipv4-thick global-ipv6-none node-ipv6-thin node-ipv6-thick global-dual-thin node-dual-thick

.PHONY: test
test: stage ## everything that CI runs; root
	@bin/stage -budget 75m \
		'prepare   10m $(MAKE) --no-print-directory build ovn-root' \
		'lint      10m $(MAKE) --no-print-directory lint' \
		'policy     1m $(MAKE) --no-print-directory policy JSON=1' \
		'unit      15m $(MAKE) --no-print-directory unit JSON=1' \
		'generated  3m $(MAKE) --no-print-directory generated' \
		'fuzz      12m $(MAKE) --no-print-directory fuzz JSON=1' \
		'databases 10m $(MAKE) --no-print-directory databases JSON=1' \
		'kernel     8m $(MAKE) --no-print-directory kernel JSON=1' \
		'offload   12m $(MAKE) --no-print-directory e2e SUITE=offload SHORT=1 OFFLOAD_TIMEOUT=11m JSON=1' \
		'lab       35m $(MAKE) --no-print-directory e2e JSON=1' \
		'apiserver  3m $(MAKE) --no-print-directory apiserver JSON=1' \
		'dual       8m $(MAKE) --no-print-directory e2e-dual JSON=1' \
		'global     8m $(MAKE) --no-print-directory e2e-global JSON=1' \
		$(foreach kind,$(KINDS),'$(kind) 12m $(MAKE) --no-print-directory e2e-kind KIND=$(kind) JSON=1')

.PHONY: test-full
test-full: stage ## test, then every suite of the lab and a long fuzz; hours
	@bin/stage \
		'own-kernel 1h $(MAKE) --no-print-directory guest-kernel' \
		'test      80m $(MAKE) --no-print-directory test' \
		'fuzz       1h $(MAKE) --no-print-directory fuzz GUIDED=all FUZZTIME=1000000x FUZZTIME_SLOW=50000x JSON=1' \
		'soup       1h $(MAKE) --no-print-directory soup JSON=1' \
		'lab        2h $(MAKE) --no-print-directory e2e E2E=. E2E_TIMEOUT=110m JSON=1' \
		'soup-lab   1h $(MAKE) --no-print-directory soup-lab JSON=1' \
		'ipv6       2h $(MAKE) --no-print-directory e2e-ipv6 JSON=1' \
		'multinet   3h $(MAKE) --no-print-directory e2e-multinet JSON=1' \
		'offload   40m $(MAKE) --no-print-directory e2e SUITE=offload OFFLOAD_TIMEOUT=39m JSON=1' \
		'devices   30m $(MAKE) --no-print-directory e2e-devices JSON=1' \
		'global-ha  1h $(MAKE) --no-print-directory e2e-global-ha JSON=1' \
		'upstream   1h $(MAKE) --no-print-directory conformance'

.PHONY: conformance
conformance: lab ## the lab, and upstream's network tests in it
	@trap 'bin/lab down' EXIT; bin/lab up $(LAB_UP); bin/lab conformance

.PHONY: bench
bench: build ovn-root lab ## every figure, written into docs/benchmarks.md; 20 minutes, root; BENCH='-samples 20 -pods 1000 -spell 5s' BENCH_PODS=1000 is a quick look
	go test -run '^$$' -bench . -benchmem ./pkg/engine ./pkg/compile ./pkg/ovsdb | tee bin/bench-engine.txt
	go test -count=1 ./pkg/compile -run PodCostOnRealDatabases -real
	go test -count=1 ./e2e/restart -real -pods $(BENCH_PODS) -v | tee bin/bench-restart.txt
	go test -run '^$$' -bench Resolve -benchmem ./sriov | tee bin/bench-resolve.txt
	@CGO_ENABLED=0 go build -o bin/bench ./e2e/bench
	bin/bench -multus "$$(bin/lab multus)" -doc docs/benchmarks.md -with 'The engine, 50,000 pods on 500 nodes in one zone=bin/bench-engine.txt' \
		-with 'What a pod writes=pkg/compile/testdata/pod-cost.txt' -with 'An agent restarted=bin/bench-restart.txt' \
		-with 'A device looked up, of 256=bin/bench-resolve.txt' $(BENCH)

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
