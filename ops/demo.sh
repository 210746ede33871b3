#!/usr/bin/env bash
# Three data centres on this machine: pay, kill the one that leads, go on paying, prove that nothing was lost.
#
#   ops/demo.sh                 builds what is missing, tells the story, cleans up
#   ops/demo.sh --data FILE     imports a real bank's transactions first (PKDD'99 Discovery Challenge, trans.asc)
#   ops/demo.sh --keep          leaves the cluster running and says what to type next
#
# Ends with 0 only if all of it was checked and is true. The story itself is `jangbu demo` (ops/src/demo.rs).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=ops/prepare.sh
. "$root/ops/prepare.sh"

prepare_build
say "building (the first time takes about a quarter of an hour on two cores, nearly all of it RocksDB)"
(cd "$root" && cargo build --release --locked --workspace --bins)

say "the story"
exec "$CARGO_TARGET_DIR/release/jangbu" demo "$@"
