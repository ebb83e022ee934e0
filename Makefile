# `make` alone prints this list. Two targets do everything on a fresh machine: `make run` and `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
PYTHON_FOLDERS := python tests benches examples docs crates
# The profile that `build` uses: `release` is what we ship and measure.
PROFILE ?= release
# What tests run on: the profile that `cargo test` has built most of already, with checks of overflow.
export TEST_PROFILE ?= dev

.PHONY: help setup system build dev run test test-rust test-python lint fmt check wheel bench docs ecosystem autobahn judges loom fuzz fuzz-short soak long asan tsan clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.ready: tests/requirements.txt
	@command -v cargo >/dev/null || { echo "Hipflask needs Rust 1.88 or newer: install it from https://rustup.rs and try again."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

setup: $(VENV)/.ready ## Make the virtual environment with what development needs

# Debian's packages that the tests use: Python's library to link the binary with, a browser for the end-to-end test.
system:
	@if ! $(PYTHON) -c 'from sysconfig import get_config_var as get; import os; \
	    raise SystemExit(bool(get("Py_ENABLE_SHARED")) and not os.path.exists(os.path.join(get("LIBDIR"), get("LDLIBRARY"))))'; then \
	  if command -v apt-get >/dev/null; then \
	    SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo; \
	    $$SUDO apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq python3-dev >/dev/null; \
	  else echo "Python's shared library has no name to link with: the tests of the binary will fail"; fi; fi
	@if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then \
	  if command -v apt-get >/dev/null; then \
	    SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo; \
	    $$SUDO apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq chromium chromium-driver >/dev/null; \
	  else echo "chromium and chromedriver are not installed: the browser test will fail"; fi; fi

build: setup ## Build the native module (release) into the virtual environment
	@echo "Building the native module ($(PROFILE) profile)"
	@mkdir -p target
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --quiet --profile $(PROFILE) >target/build.log 2>&1 \
	  || { cat target/build.log; exit 1; }

dev: ## The same, quicker to build and slower to run
	@$(MAKE) --no-print-directory build PROFILE=dev

run: build ## Serve the example application on port 8000
	$(BIN)/hipflask --app examples/hello/app.py run --port $(PORT)

test: system setup ## Run every Rust and Python test
	cargo test --workspace --quiet
	@$(MAKE) --no-print-directory build PROFILE=$(TEST_PROFILE)
	$(BIN)/python -m pytest -q

test-rust: ## Run the Rust tests alone
	cargo test --workspace --quiet

test-python: ## Run the Python tests alone, with the native module as it is
	$(BIN)/python -m pytest -q

lint: setup ## Formatting, lints, types, stubs
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check $(PYTHON_FOLDERS)
	$(BIN)/ruff check $(PYTHON_FOLDERS)
	$(BIN)/mypy
	$(BIN)/pyright
	@$(MAKE) --no-print-directory build PROFILE=$(TEST_PROFILE)
	$(BIN)/python -m mypy.stubtest hipflask._core --allowlist tests/stubtest-allowlist.txt

fmt: setup ## Format everything
	cargo fmt --all
	$(BIN)/ruff format $(PYTHON_FOLDERS)
	$(BIN)/ruff check --fix --quiet $(PYTHON_FOLDERS)

check: lint test ## What continuous integration runs

wheel: setup ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/maturin build --release --interpreter $(BIN)/python --out dist
	$(BIN)/maturin sdist --out dist

bench: build ## Measure Hipflask beside its peers; writes benches/RESULTS.md
	$(BIN)/python benches/run.py

ecosystem: build ## Run the test suites of Flask's extensions on Flask and on Hipflask
	$(BIN)/python tests/ecosystem/run --write $(EXTENSIONS)

autobahn: build ## Run all cases of the Autobahn testsuite against the WebSockets
	$(BIN)/python tests/autobahn/run --write

judges: build ## Have sslscan, testssl.sh, httpwg, h2load, nghttp and curl look at TLS and HTTP/2
	$(BIN)/python tests/judges/run --long

docs: setup ## Write the reference from the docstrings, and run what the pages show
	$(BIN)/python docs/build_reference.py
	$(BIN)/python -m pytest -q tests/test_docs.py

loom: ## Try every interleaving of the scheduler's ownership word
	RUSTFLAGS="--cfg loom" cargo test --quiet -p hipflask-server --lib --target-dir target/loom model

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(sort $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))))
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# What libFuzzer needs to see where its input leads: what cargo-fuzz sets too, without which this works as well.
FUZZ_FLAGS := --cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares

fuzz: ## Fuzz every parser and the HTTP/2 server for a minute each (FUZZ_SECONDS, FUZZ_TARGETS)
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target-dir target/fuzz \
	  --target $(FUZZ_HOST) $(FUZZ_TARGETS:%=--bin %)
	$(PYTHON) fuzz/seeds.py unpack target/fuzz/seeds
	@for target in $(FUZZ_TARGETS); do echo "== $$target"; mkdir -p target/fuzz/corpus/$$target target/fuzz/seeds/$$target; \
	  target/fuzz/$(FUZZ_HOST)/release/$$target target/fuzz/corpus/$$target target/fuzz/seeds/$$target -timeout=20 \
	    -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=target/fuzz/ >target/fuzz/$$target.log 2>&1 \
	    || { tail -60 target/fuzz/$$target.log; exit 1; }; \
	  grep -E 'DONE|executed_units|peak_rss' target/fuzz/$$target.log; done

fuzz-short: ## Fuzz them for a minute altogether
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=4

SOAK_REQUESTS ?= 1000000

soak: build ## Serve a million requests of every kind, and compare memory with that after ten thousand
	$(BIN)/python benches/soak.py --requests $(SOAK_REQUESTS)

long: dev ## Tests that take minutes: ten gibibytes up and down
	HIPFLASK_LONG_TESTS=1 $(BIN)/python -m pytest -q tests/test_exhaustion.py

# Builds the core with a sanitizer, and puts it beside a copy of the package: (sanitizer, folder).
define sanitized
RUSTFLAGS=-Zsanitizer=$(1) cargo +nightly build -Zbuild-std --target x86_64-unknown-linux-gnu -p hipflask-py \
  --quiet --target-dir $(2)
rm -rf $(2)/python
mkdir -p $(2)/python
cp -r python/hipflask $(2)/python/
rm -f $(2)/python/hipflask/_core*.so
cp $(2)/x86_64-unknown-linux-gnu/debug/lib_core.so $(2)/python/hipflask/_core.abi3.so
endef

# Left out: what measures memory or time, which AddressSanitizer multiplies, and what runs compilers, browsers or `curl`,
# which would get its library too. Needs the nightly toolchain with rust-src, and GCC's runtime library.
ASAN_LEFT_OUT := test_costly_input.py test_soak.py test_bundle.py test_binary.py \
  test_exhaustion.py::test_endless_bodies_take_no_memory test_formparser.py::test_costly_bodies_take_little_time \
  test_http.py::test_costly_fields_take_time_in_proportion test_http2.py::test_curl_agrees \
  test_datastructures.py::test_many_headers_of_one_name_are_replaced_quickly \
  test_disconnects.py::test_ten_thousand_clients_that_go_leave_nothing \
  test_peers_flaws.py::test_an_upload_is_not_held_in_memory_several_times
ASAN_TESTS ?= tests --ignore=tests/e2e $(ASAN_LEFT_OUT:%=--deselect tests/%)
asan: setup ## Build the core with AddressSanitizer, and run the Python tests on it (ASAN_TESTS)
	$(call sanitized,address,target/asan)
	LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=0 \
	  PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR)/target/asan/python $(BIN)/python -m pytest -q -p no:cacheprovider $(ASAN_TESTS)

# `curl` and `h2load` would get its library too. What is forked goes on without being watched.
TSAN_TESTS ?= $(addprefix tests/test_,$(addsuffix .py,hello channel async async_bodies websocket http2_websocket sse \
  streaming_live disconnects background slow_clients limits metrics access_log static compression early_hints serving \
  http2 load)) --deselect tests/test_http2.py::test_curl_agrees --deselect tests/test_http2.py::test_h2load_agrees \
  --deselect tests/test_streaming_live.py::test_ten_thousand_disconnects_leave_nothing_behind
tsan: setup ## The same with ThreadSanitizer (TSAN_TESTS)
	$(call sanitized,thread,target/tsan)
	gcc -shared -fPIC -fno-builtin -O1 -o target/tsan/memory.so tests/sanitizers/tsan_memory.c
	LD_PRELOAD="$$(gcc -print-file-name=libtsan.so) $(CURDIR)/target/tsan/memory.so" \
	  TSAN_OPTIONS=suppressions=$(CURDIR)/tests/sanitizers/tsan.supp:report_signal_unsafe=0:exitcode=66:die_after_fork=0 \
	  PYTHONPATH=$(CURDIR)/target/tsan/python $(BIN)/python -m pytest -q -p no:cacheprovider $(TSAN_TESTS)

clean: ## Remove what was built
	rm -rf target $(VENV) dist .cache benches/.envs
