# Everything that one does with this repository. 'make' alone lists it.

GOLANGCI_LINT_VERSION := v2.15.0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT := $(CURDIR)/bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION)

.PHONY: help build image run test test-all check static fmt lint bench experiments scale chaos fuzz mutants readme dist deploy-check clean

help: ## lists what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## builds bin/gofer
	CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/gofer ./cmd/gofer

image: ## builds the container image gofer with buildah, or with docker where there is none
	@mkdir -p bin/image
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/image/gofer ./cmd/gofer
	$$(command -v buildah >/dev/null && echo buildah build --format docker || echo docker build) -t gofer -f deploy/container/Containerfile \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) bin/image

run: build ## builds gofer, which takes minutes for the first time, and runs it in a playground with a dozen proxies
	bin/gofer playground

test: ## runs the quick tests; nothing has to be installed or running
	go test -short -p 4 ./...

# Tests that run programs from elsewhere are run again when another one is installed.
test-all: export PEERS = $(shell ls -lL $$(command -v squid tinyproxy microsocks node chromium promtool prometheus nats) 2>/dev/null | cksum)
test-all: ## runs every test with the race detector, those of rotation in full and the memory of a worker without it, chaos with few jobs, other programs
	go test -race -timeout 20m ./...
	go test -timeout 10m ./rotation/...
	go test -timeout 10m -run HalfAGibibyte ./cmd/gofer
	cd testenv/peers && go test ./...
	cd testenv/peers/kubernetes && go test ./...

check: static lint test ## is what a commit has to pass: format, vet, tidy, lint, imports, quick tests

static: ## checks format, vet and go.mod
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run 'make fmt'"; exit 1; }
	go vet ./...
	go mod tidy -diff
	cd testenv/peers && go vet ./... && go mod tidy -diff
	cd testenv/peers/kubernetes && go vet ./... && go mod tidy -diff

fmt: ## formats the code
	gofmt -w $$(git ls-files '*.go')

lint: $(LINT) ## runs the linters
	$(LINT) run ./...
	cd testenv/peers && $(LINT) run --config ../../.golangci.yml ./...
	cd testenv/peers/kubernetes && $(LINT) run --config ../../../.golangci.yml ./...

$(LINT):
	@mkdir -p bin/tools
	GOBIN=$(CURDIR)/bin/tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/tools/golangci-lint $@

bench: ## runs the benchmarks, those of other libraries beside them, last the whole program beside the fewest steps that do its work
	go test -run '^$$' -bench . -benchmem $$(go list ./... | grep -v testenv/bench)
	cd testenv/peers && go test -run '^$$' -bench Breaker .
	@mkdir -p bin
	cd testenv/peers && go test -run '^$$' -bench Asynq -benchtime 20000x .
	BENCH_CPU_PROFILE=$(CURDIR)/bin/gofer.prof go test -run '^$$' -bench Throughput -benchtime 20000x ./testenv/bench
	@echo "where gofer's time goes:" && go tool pprof -top -cum -nodecount 40 bin/gofer.prof

experiments: ## measures ten aims, each beside a baseline of the same run: what retries, breakers and the choice of proxies are worth
	EXPERIMENTS=full go test -count=1 -timeout 15m -run Experiments -v ./testenv/experiments
	cd testenv/peers && EXPERIMENTS=full go test -count=1 -timeout 30m -run 'DeadTargets|Silence' -v .

scale: ## measures 1 to 8 worker processes on one server and on three, a fleet of 1,000, a million jobs and results; twenty minutes on a machine of its own
	go run ./testenv/scale

chaos: ## kills, freezes, cuts and fills real processes under load, and counts what came of the jobs; about ten minutes
	go run ./testenv/chaos

fuzz: ## runs each fuzz target for 30 s
	@for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime 30s $$p || exit 1; done; done

mutants: ## breaks breaker, rotation and retry on purpose, one place at a time, and names the test that notices; about an hour on two cores
	go run ./testenv/mutants

readme: ## runs the commands of README.md and of the other documents as a newcomer would
	GOFER_DATA_DIR=$$(mktemp -d) go run ./testenv/readme $$(git ls-files "*.md")

deploy-check: ## runs what deploy ships: image, units, manifests, Compose, server versions, a release built twice; installs what is missing with apt-get; ten minutes
	.ci/deploy-check

dist: ## builds a release of the commit twice, shows that both are equal, and writes it to bin/dist; ten minutes
	.ci/dist

clean: ## removes what was built; the data of the embedded server stays
	rm -rf bin
