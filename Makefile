GO  ?= go
BIN := bin/gpulease

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# The race detector needs a C compiler; the product never does.
ifneq ($(shell command -v $${CC:-cc} 2>/dev/null),)
# The race detector is left out of SQLite's engine, which is translated C with its data in memory that the detector does not
# look at. Its object has no code of other packages (the target engine makes sure), so in the linked program all other functions
# are what they are without this. Of more than that one package it would not be sound: the rest has code of the standard library
# in it (generic types) that the linker takes for all. Unsafe pointers are not checked either: there is none of ours.
ENGINE    := modernc.org/sqlite/lib
TESTFLAGS := -race -gcflags=all=-d=checkptr=0 -gcflags=$(ENGINE)=-race=false
TESTENV   := CGO_ENABLED=1
else
TESTFLAGS :=
TESTENV   := CGO_ENABLED=0
endif

.PHONY: help
help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: build ## watch an agent lease a simulated GPU machine, test a project on it and give it back
	@$(BIN) demo

.PHONY: build
build: ## build bin/gpulease, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/gpulease

.PHONY: engine
engine:
ifneq ($(TESTFLAGS),)
	@object="$$($(TESTENV) $(GO) list $(TESTFLAGS) -export -f '{{.Export}}' $(ENGINE))" && \
	! $(GO) tool nm "$$object" | grep ' [Tt] ' | grep -v -e ' $(ENGINE)\.' -e ' type:\.eq\.' || \
	{ echo 'other code is compiled into $(ENGINE), so it cannot do without the race detector'; exit 1; }
endif

.PHONY: test
test: lint engine ## vet, lint and run all tests (with the race detector where there is a C compiler)
	@test -n "$(TESTFLAGS)" || echo 'left out: the race detector (no C compiler found)'
	@# That of the program is about real processes and their deadlines, so nothing runs beside it. lint has vetted all.
	$(TESTENV) $(GO) test $(TESTFLAGS) -vet=off -timeout 30m ./cmd/gpulease
	$(TESTENV) $(GO) test $(TESTFLAGS) -vet=off -timeout 45m $$($(GO) list ./... | grep -v '/cmd/gpulease$$')

.PHONY: crash
crash: ## kill -9 at every step of a lease, by server, keeper and command, and check what is left
	CGO_ENABLED=0 $(GO) test -count 1 -timeout 10m -v -run '^TestCrashMatrix|^TestProductDoesNotKnowTheTraps$$' ./cmd/gpulease

.PHONY: race
race: ## 16 processes try for 30 s to overspend a cap, on SQLite and on PostgreSQL (initdb and postgres)
	CGO_ENABLED=0 GPULEASE_RACE=30s LEDGER_RACE_TIME=30s $(GO) test -count 1 -timeout 10m -v -p 1 -run '^TestProcessesCannotOverspend$$|^TestProcessesRaceForACap$$' ./cmd/gpulease ./ledger

.PHONY: lint
lint: ## gofmt, go vet and staticcheck
	@out="$$(gofmt -l $$(git ls-files '*.go'))"; test -z "$$out" || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: model
model: ## the long form of the random sequences in virtual time: 10,000 of them (RUNS=, SEED=), and the planted defects
	GPULEASE_MODEL_RUNS=$(or $(RUNS),10000) GPULEASE_MODEL_SEED=$(or $(SEED),$$(date +%s)) GPULEASE_MODEL_WORKERS=$$(getconf _NPROCESSORS_ONLN) \
	GPULEASE_MODEL_PLANTED=1000 $(GO) test -count=1 -timeout 0 -v -run '^TestModel' ./lease

.PHONY: inspector
inspector: build ## drive the loop with the public MCP inspector (needs npm)
	test/inspector/run

.PHONY: hosts
hosts: build ## take the loop with Claude Code, Codex and the TypeScript client, models played by a stand-in (needs npm)
	test/hosts/run

.PHONY: conformance
conformance: build ## run the public MCP conformance suite against the server over HTTP (needs npm)
	test/conformance/run

.PHONY: fuzz
fuzz: ## random arguments to every tool; the simulated cloud is the witness (TIME=5m)
	CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz '^FuzzTools$$' -fuzztime $(or $(TIME),5m) ./cmd/gpulease

.PHONY: live-smoke
live-smoke: build ## the whole loop on the real cloud; costs money: GPULEASE_LIVE=1 LAMBDA_API_KEY=... LIMIT_USD=2 [TYPE=...]
	$(BIN) smoke --limit-usd $(LIMIT_USD) $(if $(TYPE),--type $(TYPE))

.PHONY: bench
bench: ## run the benchmarks
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench . -benchtime 1s ./...

.PHONY: tokens
tokens: build ## time from process start to tools/list, and its size in tokens
	$(GO) run ./bench/toolslist -bin $(BIN)

.PHONY: bench-mcp
bench-mcp: build ## measure calls, starts and idle sessions against bare mcp-go and public MCP servers (these need npm); FLAGS="-only calls"
	@rivals=$$(test/npm-install bench/mcp/rivals) || rivals=; CGO_ENABLED=0 $(GO) run ./bench/mcp -bin $(BIN) -rivals "$$rivals" $(FLAGS)

.PHONY: bench-transfer
bench-transfer: ## measure commands and transfers against ssh, scp and rsync (needs openssh and rsync); FLAGS="-size 500"
	CGO_ENABLED=0 $(GO) run ./bench/transfer $(FLAGS)
