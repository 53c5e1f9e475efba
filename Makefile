# Everything a person does with this repository. `make run` and `make test` install what they need.

SHELL := /bin/bash
SWIFT_FLAGS := -c release -Xswiftc -cross-module-optimization -Xswiftc -enforce-exclusivity=unchecked --static-swift-stdlib
SECONDS_TO_FUZZ ?= 600
ROUNDS ?= 3
TIME ?= 45m

.PHONY: help setup build full kit run test fuzz soak simulate bench bench-storage bench-device bench-media bench-jobs bench-index bench-map bench-cluster bench-cores clean

help:
	@echo "make run          build, then start a node on 127.0.0.1:3000 (Ctrl-C stops it): apus-full if librocksdb can be installed"
	@echo "make test         every check; the last line is 'N passed, N failed, N skipped'"
	@echo "make build        .build/release/apus"
	@echo "make full         .build-full/release/apus-full: with the storage plugins under Plugins/"
	@echo "make kit          the conformance kit against every plugin (KIT_OPTIONS=\"--seed 7\")"
	@echo "make bench        the benchmark against a bare echo and redis-server (ROUNDS=3)"
	@echo "make bench-index  the index against dependent random reads"
	@echo "make bench-map    what a view costs in computing, at 3 to 256 nodes"
	@echo "make bench-cluster how long a cluster takes to agree after kills, pauses, cuts and planned changes (ROUNDS=10)"
	@echo "make bench-storage RocksDB through the server against a bare loop, the hop, neighbours in memory (ROUNDS=3); then bench-device"
	@echo "make bench-device the device log against fio, 12 GiB in /tmp and half an hour (DEVICE_OPTIONS=\"--quick --directory /data\")"
	@echo "make bench-media  CPU and memory per record of every medium, seconds to restart (MEDIA_OPTIONS=\"--quick\")"
	@echo "make bench-jobs   point reads beside scans, expiry and compaction; what a scan costs (ROUNDS=3)"
	@echo "make bench-cores  throughput with one reactor per processor"
	@echo "make fuzz         fuzz the parsers (SECONDS_TO_FUZZ=600 each)"
	@echo "make soak         random histories and fuzzers for longer (SECONDS_TO_FUZZ=600 each)"
	@echo "make simulate     simulated clusters for TIME=45m, [SEED=7] the first seed; adds a line to docs/SIMULATION.md"
	@echo "make clean        remove what was built"

setup:
	@scripts/setup build

build: setup
	swift build --product apus $(SWIFT_FLAGS)

full: setup
	scripts/plugins build

kit: setup
	scripts/plugins kit $(KIT_OPTIONS)

run: setup
	@scripts/run

test:
	@scripts/test

fuzz:
	@scripts/setup build
	scripts/fuzz $(SECONDS_TO_FUZZ)

soak:
	@scripts/setup test
	scripts/soak $(SECONDS_TO_FUZZ)

simulate:
	@scripts/setup build
	scripts/simulate --time $(TIME) $(if $(SEED),--from $(SEED)) --append docs/SIMULATION.md

bench: build
	@scripts/setup bench
	scripts/bench --rounds $(ROUNDS)

bench-cores: build
	@scripts/setup bench
	scripts/bench --rounds $(ROUNDS) --cores

bench-storage: build
	@scripts/setup bench
	scripts/plugins build
	scripts/bench-storage --rounds $(ROUNDS)
	@$(MAKE) --no-print-directory bench-device

bench-device: build
	@scripts/setup bench
	swift build --product DeviceBench $(SWIFT_FLAGS)
	scripts/bench-device $(DEVICE_OPTIONS)

bench-media: build
	@scripts/setup bench
	scripts/bench-media $(MEDIA_OPTIONS)

bench-jobs: build
	@scripts/setup bench
	scripts/bench-jobs --rounds $(ROUNDS)

bench-index:
	@scripts/setup build
	scripts/bench-index

bench-map:
	@scripts/setup build
	scripts/bench-map

bench-cluster: ROUNDS = 10
bench-cluster: build
	@scripts/setup test
	scripts/bench-cluster --rounds $(ROUNDS)

clean:
	rm -rf .build .build-*
