# Targets that an operator or a developer calls; each installs what it lacks.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_BUILD = -trimpath -ldflags "-s -w -X main.release=$(VERSION)"
HOSTS ?= 3

.PHONY: build
build: ## every binary into bin/
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/ ./plugins/main/ovs-gre ./plugins/meta/route-sync
