# Everything that is done with this repository, by name. CI runs these targets and nothing else.
GO      ?= go
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo dev)
BIN     := bin/kuryrctl
SOURCES := $(shell git ls-files '*.go' 'templates/**' 'nodeagent/**' 2>/dev/null) go.mod go.sum

.PHONY: help build test fmt vet staticcheck unit kernel bench soak e2e e2e-full reliability conformance lab reference fuzz bundle clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(BIN) ## bin/kuryrctl with the programs of nodes in it; static: it also runs as the first process of the lab cloud

# The programs of nodes, which kuryrctl embeds: bootstrap/payload.
DEFINITIONS := bootstrap/payload/dist/gateway-api.yaml.gz
PAYLOADS := $(foreach arch,amd64 arm64,bootstrap/payload/dist/kuryr-linux-$(arch).tar.gz bootstrap/payload/dist/kuryr-demo-linux-$(arch).gz) \
	$(DEFINITIONS)

bootstrap/payload/dist/kuryr-demo-linux-%.gz: $(SOURCES)
	mkdir -p bin
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -ldflags "-s -w" -o bin/kuryr-demo-$* ./cmd/kuryr-demo
	gzip -n <bin/kuryr-demo-$* >$@ && rm bin/kuryr-demo-$*

bootstrap/payload/dist/kuryr-linux-%.tar.gz: $(SOURCES)
	rm -rf bin/payload-$* && mkdir -p bin/payload-$*/usr/local/bin bin/payload-$*/opt/cni/bin
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/payload-$*/usr/local/bin ./cmd/kuryr-node
	CGO_ENABLED=0 GOOS=linux GOARCH=$* $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/payload-$*/opt/cni/bin ./cmd/kuryr-cni
	cd bin/payload-$* && tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -c usr/local/bin/kuryr-node opt/cni/bin/kuryr-cni | gzip -n >../payload-$*.tar.gz
	mv bin/payload-$*.tar.gz $@ && rm -rf bin/payload-$*

# The Gateway API of the version that the router is built with; its admission policy, in the same directory, is not ours to install.
$(DEFINITIONS): bootstrap/bundle/router/go.mod
	mkdir -p bin
	dir=$$(cd bootstrap/bundle/router && $(GO) mod download sigs.k8s.io/gateway-api && $(GO) list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api) && \
	grep -l '^kind: CustomResourceDefinition' $$dir/config/crd/standard/*.yaml | xargs awk 'FNR == 1 { print "---" } { print }' >bin/gateway-api.yaml
	gzip -n <bin/gateway-api.yaml >$@ && rm bin/gateway-api.yaml

$(BIN): $(SOURCES) $(PAYLOADS)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/kuryrctl

test: fmt vet staticcheck unit ## everything that needs neither root nor a cloud

fmt: ## fail when gofmt would change a file
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "gofmt -w $$out"; exit 1; }

vet: ## go vet, also of the tests behind build tags
	$(GO) vet ./... && $(GO) vet -tags e2e,e2e_full,reliability,kernel ./...

staticcheck: ## staticcheck, at the version of go.mod
	$(GO) tool staticcheck -tags e2e,e2e_full,reliability,kernel ./...

unit: $(DEFINITIONS) ## all hermetic tests, with the race detector
	$(GO) test -race -timeout 20m ./...

kernel: ## the tests of pods' interfaces, in a kernel of their own: the lab's (needs root, and the lab's cache)
	CGO_ENABLED=0 $(GO) test -tags kernel -count=1 -p 1 $(if $(RUN),-v -run '$(RUN)') ./nodeagent/link ./nodeagent/passage ./nodeagent/cni ./internal/hostporttest

bench: ## what pods cost on a node and in the controller, the plugin in a kernel of its own, and what stacks cost in requests
	$(GO) test -run '^$$' -bench . -timeout 30m ./cmd/kuryr-cni ./cmd/kuryr-node
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./stack -waterfall $(CURDIR)/docs/pictures/requests.svg
	CGO_ENABLED=0 $(GO) test -tags kernel -run '^$$' -bench . -count=1 -timeout 30m ./nodeagent/cni

soak: ## stacks made, scaled and removed on fake clouds that fail in every way, by the dice (FOR=10m, SEED=n)
	cd stack && $(GO) test -count=1 -timeout 0 -parallel 4 -run '^(TestSoak|TestEveryMishapAtEveryCall)$$' -args -soak $(or $(FOR),10m) -seed $(or $(SEED),$$(date +%s))

e2e: build bundle ## the tests on the lab cloud, which is brought up if it is not (needs root)
	$(BIN) cloud up --install
	$(GO) test -tags e2e -count=1 -p 1 -v -timeout 60m ./internal/e2e ./bootstrap/cloud ./internal/openstack ./internal/openstacktest -run '$(or $(RUN),.)'
	$(if $(RUN),,$(MAKE) kernel)

e2e-full: build bundle ## the other topologies on the lab cloud: two masters, and three of which one is lost
	$(BIN) cloud up --install
	$(GO) test -tags e2e,e2e_full -count=1 -v -timeout 60m ./internal/e2e -run '$(or $(RUN),Masters)'

reliability: build bundle ## a quarter of an hour of random kills on a cluster of the lab cloud that is at work (FOR=15m, SEED=1)
	$(BIN) cloud up --install
	$(GO) test -tags e2e,reliability -count=1 -v -timeout 60m ./internal/e2e -run TestReliability -args -trouble $(or $(FOR),15m) -seed $(or $(SEED),1)

conformance: build bundle ## Kubernetes' own tests of the network on a cluster of the lab cloud, which stays when one fails (RUN=regexp, ALL=1)
	$(BIN) cloud up --install
	$(BIN) --cloud lab stack conformance -f examples/minimal.yaml --bundle bin/bundle.tar
	$(GO) run ./internal/conformance -stack conformance $(if $(ALL),-all) $(if $(RUN),-focus '$(RUN)')
	$(BIN) --cloud lab unstack conformance --yes

lab: build bundle ## from nothing to a cluster on a real OpenStack on this machine, and the deployment example on it (needs root)
	$(BIN) cloud up --install
	$(BIN) --cloud lab stack demo -f examples/lab.yaml --bundle bin/bundle.tar --timings --timings-svg bin/lab.svg
	$(BIN) --cloud lab demo demo

bundle: ## bin/bundle.tar, the nodes' software from the Go module proxy and Debian (ARCH=arm64 for another architecture)
	$(GO) run ./internal/makebundle -o bin/bundle.tar $(if $(ARCH),-arch $(ARCH))

reference: ## write docs/reference anew from the commands
	$(GO) test ./cmd/kuryrctl -run Reference -update

fuzz: ## each fuzz target for half a minute
	$(GO) test ./stack -run '^$$' -fuzz FuzzDecode -fuzztime 30s
	$(GO) test ./stack -run '^$$' -fuzz FuzzNetworks -fuzztime 30s
	$(GO) test ./internal/openstack -run '^$$' -fuzz FuzzClouds -fuzztime 30s
	$(GO) test ./internal/redact -run '^$$' -fuzz FuzzKnown -fuzztime 30s
	$(GO) test ./bootstrap/ssh -run '^$$' -fuzz FuzzLoadPins -fuzztime 30s
	$(GO) test ./bootstrap/ssh -run '^$$' -fuzz FuzzHostKey -fuzztime 30s
	$(GO) test ./nodeagent/cni -run '^$$' -fuzz FuzzConf -fuzztime 30s
	$(GO) test ./nodeagent/cni -run '^$$' -fuzz FuzzArgs -fuzztime 30s
	$(GO) test ./nodeagent/daemon -run '^$$' -fuzz FuzzJournal -fuzztime 30s
	$(GO) test ./nodeagent/controller -run '^$$' -fuzz FuzzAnnotations -fuzztime 30s

clean: ## remove what was built here; the lab cloud is removed with `kuryrctl cloud destroy`
	rm -rf bin bootstrap/payload/dist/*.gz
