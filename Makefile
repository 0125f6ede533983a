# What people and CI run. `make test` is the one command: it installs what the tests need where it
# may, and ends with the test runner's count.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test

# One profile for everything, so that dependencies, C ones above all, are compiled once.
PROFILE := ci
CARGO := cargo

# Debian packages, each written as package:program, or package:/file for one without a program.
# The tests use the programs; none is optional.
TEST_PACKAGES := gcc:cc sqlite3:sqlite3 curl:curl wrk:wrk procps:/usr/bin/kill util-linux:losetup e2fsprogs:mkfs.ext4 openssl:openssl postgresql:pg_ctlcluster pgbouncer:pgbouncer sslscan:sslscan nghttp2-client:h2load pebble:pebble valgrind:valgrind
BENCH_PACKAGES := wrk:wrk nginx-light:nginx haproxy:haproxy nghttp2-client:h2load sqlite3:sqlite3 openssl:openssl postgresql:pg_ctlcluster valgrind:valgrind redis-server:redis-server libnginx-mod-http-lua:/usr/lib/nginx/modules/ngx_http_lua_module.so lua-nginx-redis:/usr/share/lua/5.1/nginx/redis.lua
SOAK_PACKAGES := testssl.sh:testssl
FUZZ_SECONDS ?= 60

# $(call install,PACKAGES) installs those whose program is missing; who may not install gets their names.
# A package of system programs may keep them out of a user's PATH.
define install
export PATH="$$PATH:/usr/sbin:/sbin"; \
missing=(); \
for entry in $(1); do \
	[[ -e "$${entry#*:}" && "$${entry#*:}" == /* ]] || command -v "$${entry#*:}" >/dev/null || missing+=("$${entry%%:*}"); \
done; \
if (( $${#missing[@]} )); then \
	if [[ $$(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then \
		echo "missing Debian packages: $${missing[*]}" >&2; \
		echo "install them with: sudo apt-get install $${missing[*]}" >&2; \
		exit 1; \
	fi; \
	echo "installing $${missing[*]}"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	for entry in $(1); do \
		[[ -e "$${entry#*:}" && "$${entry#*:}" == /* ]] || command -v "$${entry#*:}" >/dev/null || { echo "$${entry%%:*} brought no $${entry#*:}" >&2; exit 1; }; \
	done; \
fi
endef

.PHONY: test check packages format lint docs supply instructions run-tests bench bench-packages soak deny fuzz

# Budget on 2 cores from a clean clone: 11 minutes to build, 9 to run.
# The test runner goes last, for its closing line is the summary of the whole.
test: packages format lint docs supply instructions run-tests

check: test

packages:
	@$(call install,$(TEST_PACKAGES))

format: packages
	$(CARGO) fmt --all --check

lint: format
	$(CARGO) clippy --locked --profile $(PROFILE) --workspace --all-targets -- -D warnings

docs: lint
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --profile $(PROFILE) --workspace --no-deps --document-private-items --quiet

# Licences, bans and sources are also tests (proxy/tests/supply.rs); cargo-deny only adds to them.
supply: docs
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny --offline check bans licenses sources; \
	else \
		echo "cargo-deny is not installed: published faults of dependencies are not looked up (make deny)"; \
	fi

# Shown beside the last recorded ones, and no gate: make instructions RECORD=--record records them.
RECORD :=
instructions: supply
	@$(CARGO) bench --locked --quiet --profile $(PROFILE) --package holdfast --bench instructions -- $(RECORD) \
		|| echo "instructions of a click's steps could not be counted; no test has failed by that" >&2

# cargo test counts each test binary for itself; the sum is added for it.
run-tests: instructions
	@export PATH="$$PATH:/usr/sbin:/sbin"; \
	if command -v cargo-nextest >/dev/null; then \
		$(CARGO) test --locked --profile $(PROFILE) --workspace --doc --quiet; \
		$(CARGO) nextest run --locked --cargo-profile $(PROFILE) --profile ci --workspace; \
	else \
		echo "cargo-nextest is not installed: using cargo test"; \
		$(CARGO) test --locked --profile $(PROFILE) --workspace --no-fail-fast 2>&1 | tee /dev/stderr \
			| awk '/^test result:/ { passed += $$4; failed += $$6 } END { print passed + 0 " passed, " failed + 0 " failed" }'; \
	fi

# Everything is measured in one run and written to docs/performance/; the bench itself asks for bench-packages.
bench: bench-packages
	$(CARGO) bench --locked --package holdfast --bench instructions -- --record
	$(CARGO) bench --locked --profile $(PROFILE) --package holdfast --bench instructions -- --record
	$(CARGO) run --locked --release --package bench -- all

bench-packages:
	@$(call install,$(BENCH_PACKAGES))

# The same tests with many more seeds and rounds; each reads HOLDFAST_SOAK as a factor.
soak: packages
	@$(call install,$(SOAK_PACKAGES))
	@export PATH="$$PATH:/usr/sbin:/sbin"; \
	HOLDFAST_SOAK=$${HOLDFAST_SOAK:-20} $(CARGO) nextest run --locked --cargo-profile $(PROFILE) --profile soak --run-ignored all --workspace

deny:
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check bans licenses sources
	$(CARGO) deny check advisories

# Needs a nightly toolchain and cargo-fuzz.
fuzz:
	cd fuzz && for target in $$($(CARGO) +nightly fuzz list); do \
		$(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -max_len=65536; \
	done
