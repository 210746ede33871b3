#!/usr/bin/env bash
# Each fuzz target for so many seconds, one after the other, and what came of it.
#
#   fuzz/run.sh 600                  all of them
#   fuzz/run.sh 60 log_record        these
#
# A line for each target: executions, edges reached, findings. Ends with 1 if there is a finding; its input then lies in
# fuzz/artifacts/TARGET/. Built as `cargo fuzz` builds, with nightly Rust and AddressSanitizer, into a folder of its own.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"
seconds=${1:?how many seconds for each target?}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/jangbu/fuzz}
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing --cfg tokio_unstable \
-Cdebug-assertions -Coverflow-checks=on -Ccodegen-units=1 -Zsanitizer=address" \
    cargo +nightly build --release --locked --target "$host" --bins

status=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    log=$(mktemp)
    findings=0
    # Slow inputs and much memory are findings, too: a decoder is bounded by its input. The time is the wall's, so a busy machine needs room.
    # Parquet's library reserves what a footer says it needs and touches none of it (ops/src/export/pages.rs): there, what is filled counts.
    malloc_mb=256; [ "$target" != exported ] || malloc_mb=65536
    seeds=(); [ ! -d "seeds/$target" ] || seeds=("seeds/$target")
    "$CARGO_TARGET_DIR/$host/release/$target" "corpus/$target" "${seeds[@]}" -max_total_time="$seconds" -max_len=65536 -timeout=60 \
        -rss_limit_mb=1024 -malloc_limit_mb="$malloc_mb" -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"$log" 2>&1 || {
        findings=1
        status=1
        grep -m1 -E 'panicked at|ERROR|SUMMARY' "$log" >&2 || true
    }
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -d' ' -f2)
    printf '%-18s %12s executions %6s edges %d finding(s)\n' "$target" "${executions:-?}" "${edges:-?}" "$findings"
    rm -f "$log"
done
exit "$status"
