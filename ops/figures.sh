#!/usr/bin/env bash
# Measures the figures that are reported of this ledger: failover, throughput, and what ten million transfers leave behind.
#
#   ops/figures.sh                all of them
#   ops/figures.sh failover       one of: failover, throughput, history
#
# A line per figure as it is measured, on standard error; all of them as JSON on standard output. Takes some minutes and
# about 10 GB of disk, and wants a machine that does nothing else. Nothing here passes or fails; tests/figures says what is
# measured, and how.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=ops/prepare.sh
. "$root/ops/prepare.sh"

prepare_build
cargo build --release --locked --workspace --bins
exec "$CARGO_TARGET_DIR/release/jangbu-figures" "$@"
