# make test   what a contributor needs to trust a change; at most 10 minutes on 2 cores, from cold caches
# make ci     the longer layers: simulated seeds, planted bugs, kill -9, losses of power, fuzzing, benchmarks
# make soak   the same with the numbers of a release; hours
# make bench  figures of this machine beside its limits
# make build  bin/streamhouse
# make containers  tests with PostgreSQL, MinIO and the agent's image in Docker containers; starts a daemon if there is none
# make image  the container image streamhouse:local, from nothing
# make servers  what tests with real servers need: PostgreSQL installed, an S3 server built
# make generate  adapters/grpc/agentv1 anew, from the protocol in adapters/grpc/proto

SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help

GOLANGCI_VERSION := v2.15.0
GOLANGCI         := bin/golangci-lint-$(GOLANGCI_VERSION)

# Every layer appends a line "passed failed name" here; .ci/run sums them up.
TALLY := bin/tally

# Numbers of the longer layers. `make soak` and the command line raise them.
SEEDS     ?= 5000
KILLS     ?= 100
LINES     ?= 1000000
CRASHES   ?= 500
# Runs of each fuzz target. Not seconds: until Go 1.27 a fuzzing that its time ends may be called failed (go.dev/issue/75804).
FUZZRUNS  ?= 30000
# How long Postgres and the bucket fail, agents and all around them do, an agent is stopped, Postgres is away, nothing happens.
CHAOS     ?= 60s
AGENTS    ?= 30s
PAUSE     ?= 5s
OUTAGE    ?= 60s
IDLE      ?= 61s

# $(call gotest,NAME,ARGUMENTS): runs tests, shows what failed, counts. Results are not taken from the cache: it does
# not know that the black box builds the command.
gotest = go test -count=1 -json $(2) | bin/report -name $(1) -tally $(TALLY)
# $(call check,NAME,COMMAND): a check that is no Go test, counted as one.
check = if { $(2); }; then echo "1 0 $(1)" >> $(TALLY); echo "$(1): ok"; else echo "0 1 $(1)" >> $(TALLY); echo "$(1): FAILED"; exit 1; fi

.PHONY: help
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

.PHONY: test
test: fmt tidy vet lint servers unit

.PHONY: ci
ci: protocol mutants beside containers fuzz benchmarks elsewhere

# Much of what these do is waiting, so two run at a time.
.PHONY: beside
beside: bin/report servers
	@$(MAKE) --no-print-directory -j2 --output-sync=target -o servers -o bin/report remote chaos simulate blackbox agents powerloss

.PHONY: fmt
fmt: | bin
	@$(call check,gofmt,files="$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go'))"; echo -n "$$files"; [ -z "$$files" ])

.PHONY: tidy
tidy: | bin
	@$(call check,tidy,go mod tidy -diff && go mod verify > /dev/null)

.PHONY: vet
vet: | bin
	@$(call check,vet,go vet ./...)
	@$(call check,vet-mutants,go vet -tags mutants ./...)
	@$(call check,vet-containers,go vet -tags containers ./test/e2e/...)

.PHONY: lint
lint: $(GOLANGCI) | bin
	@$(call check,lint,$(GOLANGCI) run ./...)

# All tests with their defaults, the import rule and the seeds of every fuzz target among them.
.PHONY: unit
unit: bin/report
	@$(call gotest,unit,-race -timeout 14m ./...)
	@$(call gotest,unit-simulator,-timeout 5m ./test/sim) # again: under -race a seed does not decide everything

# What is built for other systems too; some tests are for Linux only.
PRODUCT := . ./domain/... ./ports/... ./app/... ./adapters/... ./cmd/...

.PHONY: elsewhere
elsewhere: | bin
	@$(call check,build-elsewhere,GOOS=darwin go build $(PRODUCT) && CGO_ENABLED=0 go build ./...)

# The protocol of the agents. What was published stays readable: PUBLISHED is what `make publish-protocol` kept of it, and
# the frames of a release, FRAMES, are played to every later client and agent.
BUF       := go tool -modfile=buf.mod buf
PUBLISHED := adapters/grpc/proto/published.binpb

.PHONY: generate
generate:
	@$(BUF) generate

.PHONY: protocol
protocol: | bin
	@$(call check,protocol-lint,$(BUF) lint)
	@$(call check,protocol-compatible,$(BUF) breaking --against $(PUBLISHED))
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(call check,protocol-generated,$(BUF) generate -o "$$folder" && diff -r "$$folder/adapters/grpc/agentv1" adapters/grpc/agentv1)

.PHONY: publish-protocol
publish-protocol:
	@$(BUF) build --exclude-source-info -o $(PUBLISHED)
	@go test -count=1 ./adapters/grpc -run TestFrames_OfTodayAreKept -keep-frames $(or $(FRAMES),$(error give FRAMES, the name of the release))

.PHONY: simulate
simulate: bin/report
	@$(call gotest,simulate,-timeout 20m ./test/sim -run TestSimulation -seeds $(SEEDS) -agentseeds $$(( ($(SEEDS) + 19) / 20 )))

# The packages with tests of planted bugs.
MUTATED = $(shell git grep -l --untracked '^//go:build mutants' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')
.PHONY: mutants
mutants: bin/report
	@$(call gotest,mutants,-tags mutants -timeout 20m $(MUTATED) -run 'Mutant|Planted|Kills')

.PHONY: blackbox
blackbox: bin/report
	@$(call gotest,blackbox,-timeout 20m ./test/e2e/blackbox -kills $(KILLS) -lines $(LINES))

.PHONY: powerloss
powerloss: bin/report
	@$(call gotest,powerloss,-timeout 20m ./test/e2e/powerloss -crashes $(CRASHES))

# Eight writers on Postgres and S3, both killed and cut off.
.PHONY: chaos
chaos: bin/report servers
	@$(call gotest,chaos,-timeout 40m ./test/e2e/chaos -run TestChaos -duration $(CHAOS))

# Groups of agents, the built binary: faults on every edge, kills, stops, restarts, upgrades, a steady load.
.PHONY: agents
agents: bin/report servers
	@$(call gotest,agents,-timeout 60m ./test/e2e/agents -duration $(AGENTS) -lines $(LINES) -pause $(PAUSE))

.PHONY: remote
remote: bin/report servers
	@$(call gotest,remote,-timeout 20m ./test/e2e/remote -outage $(OUTAGE) -idle $(IDLE))

# The same servers and the image of the agent in containers, by testcontainers. images.sh starts a Docker daemon and
# builds the images if it has to.
.PHONY: containers
containers: bin/report
	@$(call check,containers-images,test/e2e/containers/images.sh > bin/containers.env)
	@. bin/containers.env; trap 'test/e2e/containers/images.sh --clean' EXIT; \
	$(call gotest,containers,-tags containers -timeout 10m ./test/e2e/containers ./test/e2e/chaos ./test/e2e/image -run "Containers|Postgres_Answers|MinIO_Answers")

.PHONY: fuzz
fuzz: bin/report
	@git grep -o --untracked '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | sed 's/:func / /' | while read -r file target; do \
		$(call gotest,fuzz-$$target,-timeout 10m ./$$(dirname $$file) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZRUNS)x); \
	done

.PHONY: benchmarks
benchmarks: bin/report
	@$(call gotest,benchmarks,-timeout 10m -run '^$$' -bench . -benchtime 1x ./...)

# What tests with real servers need; quick when it is there. A test that misses it fails or, for the S3 server, builds it.
.PHONY: servers
servers: | bin
	@$(call check,servers,test/e2e/servers/install.sh)

.PHONY: soak
soak:
	@$(MAKE) --no-print-directory ci SEEDS=1000000 KILLS=1000 LINES=10000000 CRASHES=5000 FUZZRUNS=5000000 CHAOS=20m AGENTS=20m PAUSE=130s

.PHONY: bench
bench: build
	@folder=$$(mktemp -d ./bench.XXXXXX); trap 'rm -rf "$$folder"' EXIT; \
	bin/streamhouse bench produce --data "$$folder" --records 1000000 --record-size 1024 --partitions 16; \
	rm -rf "$$folder"/*; \
	bin/streamhouse bench produce --data "$$folder" --records 5000000 --record-size 100 --partitions 16; \
	bin/streamhouse bench consume --data "$$folder"; \
	bin/streamhouse bench latency --data "$$folder"

# What `streamhouse version` shows: Go itself stamps no worktree, and nothing with -buildvcs=false.
STAMP = -X main.stampedVersion=$$(git describe --tags --always) -X main.stampedRevision=$$(git rev-parse HEAD) \
	-X main.stampedTime=$$(TZ=UTC git show -s --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ HEAD) \
	-X main.stampedModified=$$(git diff --quiet HEAD && echo false || echo true)

.PHONY: build
build: | bin
	@go build -trimpath -ldflags="$(STAMP)" -o bin/streamhouse ./cmd/streamhouse

# Certificates of the authorities that the image trusts: those of this machine.
CERTIFICATES ?= /etc/ssl/certs/ca-certificates.crt

# The image of deploy/Dockerfile. Nothing is pulled.
.PHONY: image
image: | bin
	@CGO_ENABLED=0 go build -trimpath -ldflags="-s -w $(STAMP)" -o bin/streamhouse-static ./cmd/streamhouse
	@cp $(CERTIFICATES) bin/ca-certificates.crt || { echo "give CERTIFICATES=FILE, such as that of Debian's package ca-certificates"; exit 1; }
	@docker build -q -f deploy/Dockerfile -t streamhouse:local .

.PHONY: bin/report
bin/report: | bin
	@go build -o $@ ./test/report

bin:
	@mkdir -p bin

$(GOLANGCI): | bin
	GOBIN=$(CURDIR)/bin GOFLAGS=-mod=mod go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv bin/golangci-lint $@
