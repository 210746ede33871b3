#!/usr/bin/env bash
# The same work on this ledger, PostgreSQL and etcd, three replicas each, in one run on this machine.
#
#   ops/bench.sh                          every row, three rounds: about 40 minutes
#   ops/bench.sh --rounds 1 --seconds 1   a first look: 6 minutes
#   ops/bench.sh --help                   which rows, which systems, a chart, JSON
#
# Wants a machine that does nothing else, and up to 20 GB of disk. PostgreSQL and etcd come from the distribution's packages;
# the clusters that the packages start by themselves are not touched. What is measured, and how: `jangbu bench` (ops/src/bench).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=ops/prepare.sh
. "$root/ops/prepare.sh"

prepare_build
install_packages postgresql etcd-server
(cd "$root" && cargo build --release --locked --workspace --bins)

# In a folder that the user `postgres` can get to: it refuses to run as root.
exec "$CARGO_TARGET_DIR/release/jangbu" bench --dir "${TMPDIR:-/tmp}/jangbu-bench-$$" "$@"
