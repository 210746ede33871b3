#!/usr/bin/env bash
# All checks and tests, as CI runs them: format, lints, every test in the release profile, what a transfer may cost, and a
# set of simulated seeds.
#
#   ops/test.sh            everything
#   ops/test.sh NAME…      only tests whose name contains one of the words (format and lints as well)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=ops/prepare.sh
. "$root/ops/prepare.sh"

prepare_build
# prometheus for promtool; where systemd runs, the package also starts a Prometheus of its own (localhost:9090).
install_packages valgrind prometheus
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

say "1/7 format"
cargo fmt --all --check

say "2/7 build (the first time takes about a quarter of an hour on two cores, nearly all of it RocksDB)"
cargo build --release --locked --workspace --all-targets

say "3/7 lints"
cargo clippy --release --locked --workspace --all-targets -- -D warnings
# The fuzz targets are a workspace of their own, made of files of this one: that they still fit. They bring no RocksDB.
cargo check --release --locked --manifest-path fuzz/Cargo.toml

say "4/7 tests"
report=$(mktemp)
trap 'rm -f "$report"' EXIT
status=0
# Documentation tests are left out: what stands indented in a file's head is a drawing, not Rust.
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --release --locked --workspace --no-fail-fast "$@" 2>&1 | tee "$report" || status=$?
else
    cargo test --release --locked --workspace --lib --bins --tests --no-fail-fast -- "$@" 2>&1 | tee "$report" || status=$?
fi

# From `Summary [ 1.2s] 10 tests run: 10 passed, 1 skipped` and `test result: ok. 10 passed; 0 failed; …`.
awk '
    /^ *Summary \[/ { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) passed += $i; if ($(i + 1) ~ /^failed/) failed += $i } }
    /^test result:/ { passed += $4; failed += $6 }
    END { printf "\n%d passed, %d failed\n", passed, failed }
' "$report"

if [ "$#" -eq 0 ]; then
    say "5/7 alerts: the rules, and what each fires on"
    promtool check rules ops/deploy/prometheus/alerts.yaml || status=$?
    promtool test rules ops/deploy/prometheus/alerts.test.yaml || status=$?
    say "6/7 budgets: instructions, allocations and bytes written for each transfer (under a minute)"
    "${CARGO_TARGET_DIR:-target}/release/jangbu-budget" || status=$?
    say "7/7 simulation, with the assertions of openraft (a build of two minutes and five minutes of seeds; more are for the night)"
    cargo build --release --locked --workspace --bin jangbu-sim --config simulation/gate.toml
    simulation="${CARGO_TARGET_DIR:-target}/release/jangbu-sim"
    "$simulation" run --scenario all --seeds 0..1 || status=$?
    "$simulation" run --seeds 0..400 --minutes 4.5 || status=$?
fi
exit "$status"
