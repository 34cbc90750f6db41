# Targets that an operator or a developer calls. Each installs by apt what it lacks.

SHELL := bash
.SHELLFLAGS := -o pipefail -ec

VERSION ?= $(shell deploy/release/version)
LDFLAGS := -s -w -X main.release=$(VERSION)
HOSTS ?= 3

# What simulated hosts need: OVS, namespaces, captures.
LAB := openvswitch-switch iproute2 iputils-ping iputils-arping nftables iptables tcpdump ethtool procps util-linux kmod strace jq iperf3 busybox-static

.PHONY: help build demo test unit e2e drift recipes chains hostile conformance conformance-sample fuzz faults faults-sample test-kernel test-ipsec test-boots test-runtimes test-docker test-cri test-crio lint packages release test-release test-upgrade image manifests test-page test-rules test-manifests test-k8s test-k8s-conformance test-k8s-network test-k8s-scale test-networkpolicy test-multus test-packages bench bench-scale bench-datapath clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 18

build: ## every binary into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./plugins/main/ovs-gre ./plugins/meta/route-sync $(wildcard ./cmd/*)

demo: ## three hosts (HOSTS=n), one conflist, all pairs ping through GRE; FAN=1: it lists no hosts
	@./test/need $(LAB)
	@go run ./test/demo -hosts $(HOSTS) $(if $(FAN),-conflist conflist/fan.conflist)

# go test; make test has its own, which says how far all of it is (test/suite).
GOTEST = go test -count=1

test: ## everything but runtimes and the kernel datapath, on real OVS; conformance and faults by samples
	@go build -o bin/suite ./test/suite && bin/suite bin/test begin
	@code=0; make="$(MAKE) --no-print-directory -s"; run="GOTEST=bin/suite bin/test run -count=1"; \
		{ $$make unit "$$run" && $$make e2e "$$run" && $$make -j2 recipes drift chains hostile conformance-sample faults-sample "$$run"; } || code=1; \
		bin/suite bin/test sum || code=1; exit $$code

unit: ## packages, with the race detector
	@./test/need $(LAB) gcc libc6-dev
	$(GOTEST) -race ./pkg/... ./plugins/... ./deploy/... ./test/lint/... ./test/docs/... ./test/suite

e2e: ## the built plugins and ovs-grectl on simulated hosts
	@./test/need $(LAB)
	@if modprobe -nq openvswitch; then echo "datapath: the kernel's"; else echo "datapath: Open vSwitch's own in userspace: this kernel has none (make test-kernel runs one that has)"; fi
	$(GOTEST) -timeout 20m ./test/e2e ./test/field ./test/grectl ./test/agent ./test/bench

recipes: ## the two recipes this replaces, with a real Docker Engine; every conflist
	@./test/need $(LAB) docker.io
	$(GOTEST) -timeout 20m ./test/recipes

test-cri: ## containerd's CRI as kubelet calls it, and critest's network tests, with our chain
	@./test/need $(LAB) $(RUNTIME_PACKAGES)
	CI=true RUNTIMES=all go test -count=1 -timeout 20m -run 'TestCRI$$|TestCritest' -v ./test/runtimes | grep -vE '^=== '

test-crio: ## CRI-O as kubelet calls it, which calls CHECK and GC
	@./test/need $(LAB) $(RUNTIME_PACKAGES) gcc libc6-dev
	CI=true RUNTIMES=all go test -count=1 -timeout 20m -run 'TestCRIO' -v ./test/runtimes | grep -vE '^=== '

test-docker: ## Docker Engine 20.10 and today's, by iptables and by nftables, in the recipes' layouts
	@./test/need $(LAB) docker.io
	@upstream=$$(./test/upstream dockerd docker-proxy containerd); \
		CI=true OVSGRE_UPSTREAM=$$upstream go test -count=1 -timeout 20m -run TestEngines -v ./test/recipes | grep -vE '^=== '

chains: ## containernetworking's portmap, bandwidth, tuning, firewall, sbr behind ovs-gre
	@./test/need $(LAB)
	$(GOTEST) -timeout 10m ./test/chains

drift: ## each attribute of what a host has, changed by hand: CHECK tells, ADD and up mend
	@./test/need $(LAB)
	$(GOTEST) -timeout 20m ./test/drift

hostile: ## attacks by a container, a neighbour on a LAN, a stranger on the underlay; what they reach is printed
	@./test/need $(LAB)
	$(GOTEST) -timeout 20m -v ./test/hostile | grep -E '^(hostile:|--- |FAIL|ok|PASS|panic)|^ *--- FAIL|_test\.go:'
	CNITEST_PORTS=one $(GOTEST) -timeout 20m -v ./test/hostile -run 'Stranger|NoFlooding|NoFrame|NoBridged|NoLoops' | grep -E '^(hostile:|--- |FAIL|ok|PASS|panic)|^ *--- FAIL|_test\.go:'

CONFORMANCE = $(GOTEST) -timeout 40m -v -run Conformance ./test/conformance/...

conformance: ## clauses of the CNI specification, in every version of it, on our chains and on bridge
	@./test/need $(LAB)
	$(CONFORMANCE)

conformance-sample: ## the same in versions 0.4.0 and 1.1.0, on our chains alone
	@./test/need $(LAB)
	OVSGRE_CONFORMANCE=0.4.0,1.1.0 $(CONFORMANCE) -skip ConformanceBridge

fuzz: ## what strangers send: configurations, nodes, results, OVSDB's replies; FUZZTIME=20s for each
	@set -e; grep -ro '^func Fuzz[A-Za-z]*' --include=*_test.go pkg | while IFS=: read -r file func; do \
		go test ./$${file%/*} -run XXX -fuzz "^$${func#func }$$" -fuzztime $(or $(FUZZTIME),20s) -fuzzminimizetime 1s; done

FAULTS = $(GOTEST) -timeout 120m -v ./test/faults | grep -E '^(faults:|--- |FAIL|ok|PASS)|_test\.go:'

faults: ## failures and kill -9 at every system call, concurrency, a hostile OVS, a soak of 10,000
	@./test/need $(LAB)
	OVSGRE_FAULTS=full OVSGRE_SOAK=10000 $(FAULTS)

faults-sample: ## the same at a sample of the system calls
	@./test/need $(LAB)
	$(FAULTS)

test-kernel: ## the same on OVS's kernel datapath, in a VM where this kernel has none
	@./test/need $(LAB)
	./test/kernel/suite

test-ipsec: ## OVS's IPsec under GRE, with strongSwan, in a VM
	@./test/need $(LAB)
	./test/kernel/ipsec

test-boots: ## a hundred VMs, each with Open vSwitch started in its first ten seconds
	@./test/need $(LAB)
	./test/kernel/boots

# What test-runtimes runs of the distribution.
RUNTIME_PACKAGES := containerd runc docker.io containernetworking-plugins podman conmon

test-runtimes: ## with real container runtimes; RUNTIMES=all builds more of them
	@./test/need $(LAB) $(RUNTIME_PACKAGES)
	RUNTIMES=$(RUNTIMES) go test -count=1 -timeout 40m -v ./test/runtimes | grep -vE '^=== '

test-page: ## the agent's page and the picture of a mesh, in headless Chromium
	@./test/need chromium fonts-dejavu-core
	go test -count=1 ./test/page

test-rules: ## the alert rules on made-up series, by promtool
	@./test/need prometheus
	cd test/monitoring && promtool test rules rules.yaml

# A module of its own keeps the linter's dependencies out of ours.
GOLANGCI_LINT = go tool -modfile=test/lint/golangci-lint/go.mod golangci-lint

lint: ## gofmt, golangci-lint; the floors of the house are a test
	@test -z "$$(gofmt -l cmd deploy pkg plugins test)" || { gofmt -l cmd deploy pkg plugins test; exit 1; }
	$(GOLANGCI_LINT) run

packages: ## .deb and .rpm of ovs-gre and of its agent into bin/packages
	@rm -rf bin/packages
	@VERSION=$(VERSION) deploy/release/package $$(go env GOARCH) bin/packages

release: ## archives, packages, images, chart, SBOM and sums for amd64 and arm64 into bin/release
	@VERSION=$(VERSION) deploy/release/build bin/release

test-upgrade: ## containers attached, from the version before this one and back
	@./test/need $(LAB)
	go test -count=1 -v ./test/upgrade | grep -E '^(upgrade:|--- |FAIL|ok|PASS|panic)|_test\.go:'

test-release: ## make release twice, elsewhere: the same bytes, one version everywhere
	go test -count=1 -timeout 40m -v ./test/release

# The name that the chart has for the image.
IMAGE ?= localhost/ovs-gre:$(shell sed -n 's/^appVersion: //p' deploy/helm/ovs-gre/Chart.yaml)

image: ## bin/ovs-gre-image.tar: agent and plugins, for any runtime to load
	@rm -rf bin/image && mkdir -p bin/image/plugins bin/image/var && ln -s /run bin/image/var/run
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/image/ ./cmd/ovs-gre-agent
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/image/plugins/ ./plugins/main/ovs-gre ./plugins/meta/route-sync \
		$(addprefix github.com/containernetworking/plugins/plugins/,main/loopback meta/portmap meta/bandwidth)
	go run ./deploy/image -ref $(IMAGE)

# Helm is a module of its own, built as the agent is: they share most packages.
manifests: ## deploy/kubernetes from the Helm chart
	cd deploy/helm/render && CGO_ENABLED=0 go run -trimpath . ../ovs-gre ../../kubernetes

test-manifests: ## deploy/kubernetes is what the Helm chart renders to
	cd deploy/helm/render && CGO_ENABLED=0 go test -count=1 -trimpath .

# What a cluster consists of, and how its tests are run: $(1) names them, $(2) is how long they may take, $(3) is built beside.
CLUSTER := containerd crictl etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl
define on-cluster
	@./test/need $(LAB) containerd runc
	@upstream=$$(./test/upstream $(CLUSTER) $(3)); \
		CI=true OVSGRE_UPSTREAM=$$upstream go test -count=1 -timeout $(2) -run '$(1)' -v ./test/k8s 2>&1 | tee bin/$@.log | grep --line-buffered -E '^(k8s:|--- |FAIL|ok|PASS|panic)|^ *(--- FAIL|[a-z0-9_]*_test\.go:)' || \
		{ echo "everything that it said: bin/$@.log" >&2; exit 1; }
endef

test-k8s: image ## the manifests on a real cluster of simulated hosts (what it runs is built first: half an hour, once)
	$(call on-cluster,TestKubernetes|TestOpenVSwitch|TestWireGuard,60m,)

# What the pods of Kubernetes' own tests run, and the tests.
SUITE_PACKAGES := curl netcat-openbsd bind9-dnsutils wget
SUITE_PROGRAMS := agnhost e2e.test regression-issue-74839 coredns

test-k8s-conformance: image ## Kubernetes' own network conformance on that cluster, kube-proxy nftables and iptables
	@./test/need $(SUITE_PACKAGES)
	$(call on-cluster,TestConformance,180m,$(SUITE_PROGRAMS))

test-k8s-network: image ## Kubernetes' other network tests on that cluster
	@./test/need $(SUITE_PACKAGES)
	$(call on-cluster,TestNetwork$$,120m,$(SUITE_PROGRAMS))

test-k8s-scale: ## agents beside an API server with 5,000 Nodes (NODES=n), each of one tunnel port: memory, CPU, times, API load
	@mkdir -p bin
	$(call on-cluster,TestManyNodes,30m,)

test-networkpolicy: image ## kube-network-policies on that cluster, by Kubernetes' tests of NetworkPolicy
	@./test/need $(SUITE_PACKAGES)
	$(call on-cluster,TestNetworkPolicy,180m,$(SUITE_PROGRAMS) netpol)

test-multus: image ## Multus on that cluster, with a second network of ours
	$(call on-cluster,TestMultus,30m,multus)

test-packages: packages ## install and remove the .deb and the .rpm, as docs/install.md says
	@./test/need rpm
	go test -count=1 ./test/packages

bench: ## ADD, CHECK, DEL beside containernetworking's bridge, with 2, 500 and 5,000 peers
	@./test/need $(LAB)
	go run ./test/bench -together -nodes-file -ports peer,one -peers 2,500,5000

bench-scale: ## the CPU time of ovs-vswitchd an ADD, by peers and by containers of the host
	@./test/need $(LAB)
	go run ./test/bench -nodes-file -ports one -peers 2,5000 -local 1,100,1000 -n 10

bench-datapath: ## throughput of underlay, direct, our tunnels and the kernel's devices; KERNEL=1: on the kernel datapath
	@./test/need $(LAB) wireguard-tools
	$(if $(KERNEL),./test/kernel/bench,go run ./test/bench-datapath)

clean: ## what building left
	rm -rf bin .cache
