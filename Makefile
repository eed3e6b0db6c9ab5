# Each target does its own set-up. Nothing is installed outside .venv and build, except that `make test` adds
# Java, Maven, gcc, spin, faketime, Redis, PostgreSQL, Prometheus and Chromium by apt-get where that needs no password.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test soak fuzz mutants lint demo demo-console demo-enrich bench bench-peers bench-caches bench-scale bench-sinks bench-enrich bench-dead-letters bench-replays docs dist wheelhouse image test-image test-cluster test-keda lock clean kafka-jars registry packages engine chart-tools

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
UV := build/uv/bin/uv

KAFKA ?=
DATABASE ?=
REDIS ?=
TESTS ?=
PEERS ?=
CACHES ?=
ENRICH ?=
# Processes that run tests side by side: each starts servers of its own.
JOBS ?= 2
# How many times larger the tests are, and how long the load and each fuzz target run.
SOAK ?= 20
SOAK_S ?= 1800
FUZZ_S ?= 300
# What the image begins with, the Python that it has, and who builds it: docker, podman, or what has the same command line.
BASE ?=
IMAGE_PYTHON ?= 3.13
IMAGE_MACHINE ?= $(shell uname -m)
ENGINE ?= docker
# A cluster that is there, whose current context is named by I_OWN_THIS_CLUSTER; without it one is started.
GIVEN_KUBECONFIG := $(or $(STREAMWORKER_TEST_KUBECONFIG),$(KUBECONFIG))
# Memory of a changed engine: some changes make a loop that has no end.
MUTANT_KIB ?= 6000000

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(INSTALLED) ## the environment in .venv, from requirements/dev.txt

test: setup kafka-jars registry packages chart-tools ## all tests, JOBS=2 files at once; TESTS=tests/unit for some of them
	$(PYTHON) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(TESTS)

soak: setup kafka-jars registry packages ## hours of load with faults, and all tests SOAK=20 times larger; SOAK_S=1800
	STREAMWORKER_SOAK_S=$(SOAK_S) $(PYTHON) -m pytest -s -o timeout=0 -o faulthandler_timeout=0 tests/soak
	STREAMWORKER_SOAK=$(SOAK) $(PYTHON) -m pytest -o timeout=0 -o faulthandler_timeout=0
	$(PYTHON) -m pytest -o timeout=0 -o faulthandler_timeout=0 tests/scenarios/test_simulation.py --seeds 10000

test-cluster: setup kafka-jars chart-tools ## the chart on a real API server with simulated nodes, built once in minutes; KUBECONFIG=… I_OWN_THIS_CLUSTER=context
	.ci/ensure prometheus 'prometheus --version' $(if $(GIVEN_KUBECONFIG),,etcd-server 'etcd --version' openssl 'openssl version')
	tests/cluster/build_control_plane.sh $(if $(GIVEN_KUBECONFIG),given,cluster)
	$(if $(GIVEN_KUBECONFIG),STREAMWORKER_TEST_KUBECONFIG='$(GIVEN_KUBECONFIG)') CI=true $(PYTHON) -m pytest -rP -o timeout=600 -o faulthandler_timeout=0 tests/cluster --ignore tests/cluster/test_keda_scaling.py

test-keda: setup kafka-jars chart-tools ## the chart scaled by KEDA: lag on a real Kafka, a Prometheus, simulated pods; built once in minutes
	.ci/ensure etcd-server 'etcd --version' openssl 'openssl version' prometheus 'prometheus --version'
	tests/cluster/build_control_plane.sh cluster keda
	CI=true $(PYTHON) -m pytest -rP -o timeout=600 -o faulthandler_timeout=0 tests/cluster/test_keda_scaling.py

fuzz: setup ## search each fuzz target for FUZZ_S=300 seconds
	cd tests && ../$(PYTHON) -m fuzz --seconds $(FUZZ_S)

mutants: setup build/mutants/bin/mutmut ## change the engine's decisions, one at a time, and list what no test notices
	ulimit -v $(MUTANT_KIB); CI=true build/mutants/bin/mutmut run --max-children $(JOBS)
	build/mutants/bin/mutmut results

lint: setup ## style, types and the architecture
	@$(BIN)/ruff check . || { echo "→ some are mended by: $(BIN)/ruff check --fix ."; exit 1; }
	@$(BIN)/ruff format --check . || { echo "→ mended by: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/mypy --strict
	@$(BIN)/mypy --strict tests/api/typed_examples.py
	@cd examples/flights && ../../$(BIN)/mypy --strict .
	@cd examples/enrich && ../../$(BIN)/mypy --strict .
	@cd examples/orders && ../../$(BIN)/mypy --strict .
	@$(BIN)/hadolint deploy/Dockerfile examples/orders/Dockerfile
	@$(BIN)/lint-imports || { echo "→ the tiers and the doors are in .importlinter"; exit 1; }

demo: setup ## a worker to watch, on a mock cluster or KAFKA=host:port
	$(PYTHON) examples/flights/demo.py $(if $(KAFKA),--kafka $(KAFKA))

demo-console: setup ## the same, then a console over its dead letters, until Ctrl-C; KAFKA=host:port
	$(PYTHON) examples/flights/demo.py --console $(if $(KAFKA),--kafka $(KAFKA))

demo-enrich: setup ## caches and sinks, past a kill; KAFKA=host:port DATABASE=postgresql://… REDIS=redis://…
	$(PYTHON) examples/enrich/demo.py $(if $(KAFKA),--kafka $(KAFKA)) $(if $(DATABASE),--database $(DATABASE)) $(if $(REDIS),--redis $(REDIS))

bench: setup kafka-jars bench-caches bench-sinks ## throughput beside the bare client, on a Kafka of its own or KAFKA=host:port; caches, sinks
	$(if $(KAFKA),STREAMWORKER_TEST_KAFKA=$(KAFKA)) $(PYTHON) -m benchmarks

bench-peers: setup kafka-jars ## the same work in other frameworks; PEERS="--only arroyo --rounds 1"
	$(if $(KAFKA),STREAMWORKER_TEST_KAFKA=$(KAFKA)) $(PYTHON) -m benchmarks.peers $(PEERS)

bench-caches: setup ## the cache in memory beside libraries: hit ratios, time and memory; CACHES="--requests 50000"
	$(PYTHON) -m benchmarks.caches $(CACHES)

bench-scale: setup ## what a record costs the loop, against partitions, topics, lanes and keys
	$(PYTHON) -m benchmarks.scale

bench-sinks: setup packages ## what it costs that each record has its effect once in PostgreSQL
	$(PYTHON) -m benchmarks.sinks

bench-dead-letters: setup kafka-jars ## a view of a million dead letters: how fast it is built, answers, and its memory
	$(if $(KAFKA),STREAMWORKER_TEST_KAFKA=$(KAFKA)) $(PYTHON) -m benchmarks.dead_letters $(LETTERS)

bench-replays: setup kafka-jars ## how fast dead letters are sent again, beside a loop that writes the same records
	$(if $(KAFKA),STREAMWORKER_TEST_KAFKA=$(KAFKA)) $(PYTHON) -m benchmarks.replays $(REPLAYS)

bench-enrich: setup kafka-jars packages ## lookups, caches and a sink, on a Kafka, a PostgreSQL and a Redis of its own; ENRICH="--rounds 1"
	$(if $(KAFKA),STREAMWORKER_TEST_KAFKA=$(KAFKA)) $(PYTHON) -m benchmarks.enrich $(ENRICH)

docs: setup ## the documentation, into site
	$(PYTHON) tools/generate_docs.py --check
	$(PYTHON) tools/draw_autoscaling.py --check
	$(BIN)/mkdocs build --strict

dist: setup ## sdist and wheel into dist, and a try of the wheel in an environment of its own
	rm -rf dist build/dist-venv
	$(PYTHON) -m build --no-isolation
	$(PYTHON) -m venv build/dist-venv
	build/dist-venv/bin/pip install --quiet dist/*.whl
	cd build && dist-venv/bin/streamworker --version

wheelhouse: setup ## the wheels that the image is made of, into build/wheelhouse; IMAGE_PYTHON=3.13
	rm -rf build/wheelhouse
	$(BIN)/pip download --quiet --require-hashes --no-deps --only-binary :all: --implementation cp --python-version $(IMAGE_PYTHON) \
	    $(foreach tag,manylinux_2_28 manylinux_2_17 manylinux2014,--platform $(tag)_$(IMAGE_MACHINE)) \
	    --dest build/wheelhouse --requirement requirements/image.txt
	$(PYTHON) -m build --no-isolation --wheel --outdir build/wheelhouse

image: wheelhouse ## the image streamworker:VERSION; ENGINE=podman BASE=python@sha256:…
	version=$$($(PYTHON) -c 'import streamworker; print(streamworker.__version__)'); \
	BUILDAH_FORMAT=docker $(ENGINE) build --file deploy/Dockerfile --tag "streamworker:$$version" $(if $(BASE),--build-arg BASE=$(BASE)) \
	    --build-arg VERSION="$$version" --build-arg REVISION="$$(git rev-parse HEAD)" --build-arg CREATED="$$(date -u +%FT%TZ)" .

test-image: wheelhouse kafka-jars packages engine ## the image on a Debian of its own, built and run confined; needs root
	CI=true $(PYTHON) -m pytest -s -o timeout=0 -o faulthandler_timeout=0 tests/containers

.PHONY: audit sbom
audit: build/audit/bin/pip-audit ## what is known against the packages of the lock; asks the index
	build/audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements/dev.txt

sbom: build/audit/bin/pip-audit ## what the image has, as CycloneDX, into build/sbom
	mkdir -p build/sbom
	build/audit/bin/cyclonedx-py requirements requirements/image.txt --pyproject pyproject.toml --output-reproducible \
	    --output-format JSON --output-file build/sbom/streamworker.cdx.json

lock: $(UV) ## pin the newest versions that pyproject.toml and requirements/dev.in allow
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --extra registry --extra uvloop --extra redis --extra postgres --extra http --extra console --extra oidc --extra autoscale \
	    --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	    --output-file requirements/dev.txt pyproject.toml requirements/dev.in
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --extra registry --extra uvloop --extra redis --extra postgres --extra http --extra console --extra oidc \
	    --constraint requirements/dev.txt --no-annotate \
	    --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	    --output-file requirements/image.txt pyproject.toml
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --constraint requirements/dev.txt \
	    --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	    --output-file requirements/mutants.txt requirements/mutants.in
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate \
	    --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	    --output-file requirements/audit.txt requirements/audit.in
	for one in benchmarks/cache_requirements/*.in; do \
	    $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate \
	        --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --output-file $${one%.in}.txt $$one; \
	done
	@! grep -n '://' requirements/*.txt benchmarks/cache_requirements/*.txt || { echo "→ an address has no place in the lock"; exit 1; }

clean: ## all that was made here
	rm -rf $(VENV) build dist site mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The jars of the tests' Kafka. Without them its tests are skipped, with the reason, or fail if CI=true.
kafka-jars: setup
	@[[ -n "$${STREAMWORKER_TEST_KAFKA:-}" ]] || { \
	    .ci/ensure openjdk-17-jre-headless 'java -version' || .ci/ensure default-jre-headless 'java -version'; \
	    .ci/ensure maven 'mvn --version'; \
	    $(PYTHON) tests/servers/kafka_jars.py; \
	} || echo "going on without them"

# The program of the tests' schema registry. Without it its tests are skipped, with the reason, or fail if CI=true.
registry: setup
	@[[ -n "$${STREAMWORKER_TEST_REGISTRY:-}" ]] || { \
	    .ci/ensure openjdk-17-jre-headless 'java -version' || .ci/ensure default-jre-headless 'java -version'; \
	    .ci/ensure maven 'mvn --version'; \
	    PYTHONPATH=tests $(PYTHON) -m servers.registry; \
	} || echo "going on without it"

# What the tests of clocks, of the formal model, of outages, of the console and of alerts need. Without it they are skipped, with the reason, or fail if CI=true.
packages:
	@.ci/ensure faketime 'ls /usr/lib/*/faketime/libfaketimeMT.so.1' spin 'spin -V' gcc 'gcc --version' libc6-dev 'echo "#include <stdio.h>" | gcc -E -x c -' \
	    redis-server 'redis-server --version' chromium 'chromium --version' postgresql 'ls /usr/lib/postgresql/*/bin/postgres || postgres --version' \
	    prometheus 'promtool --version' prometheus-alertmanager 'prometheus-alertmanager --version' \
	    || echo "going on without them"

# What checks the chart. The first time takes two minutes. Without it its tests are skipped, with the reason, or fail if CI=true.
chart-tools: setup
	@PYTHONPATH=tests $(PYTHON) -m servers.chart_tools || echo "going on without them"

# What builds and runs images without a daemon.
engine:
	.ci/ensure buildah 'buildah --version' podman 'podman --version' runc 'runc --version' debootstrap 'debootstrap --version'

# Oldest first: what runs on it runs on the others.
$(PYTHON):
	@for python in python3.11 python3.12 python3.13 python3; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    .ci/ensure "$$($$python -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" "$$python -m ensurepip --version"; \
	    echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); \
	done; \
	echo "streamworker needs Python 3.11 or later; $$(python3 --version 2>&1 || true) is what python3 is here"; exit 1

$(LOCKED): requirements/dev.txt | $(PYTHON)
	$(BIN)/pip install --quiet --require-hashes --requirement $<
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

build/mutants/bin/mutmut: requirements/dev.txt requirements/mutants.txt | $(PYTHON)
	$(PYTHON) -m venv build/mutants
	build/mutants/bin/pip install --quiet --require-hashes --requirement requirements/dev.txt --requirement requirements/mutants.txt
	@touch $@

build/audit/bin/pip-audit: requirements/audit.txt | $(PYTHON)
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --require-hashes --requirement requirements/audit.txt
	@touch $@

$(UV): | $(PYTHON)
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv
