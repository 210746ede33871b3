#!/usr/bin/env bash
# A flame graph of three nodes at work, as SVG on standard output: where their CPU time goes, in the kernel too.
#
#   ops/profile.sh > flame.svg            16 clients, one transfer a request
#   ops/profile.sh 4 8189 > flame.svg     4 clients, full requests
#
# Wants a machine that does nothing else, and leave to use perf (root, or kernel.perf_event_paranoid at most 1). Takes a
# quarter of a minute when everything is built. One sample in 5 ms of CPU; width is time, order means nothing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=ops/prepare.sh
. "$root/ops/prepare.sh"
clients=${1:-16} batch=${2:-1}

prepare_build
install_packages linux-perf
(cd "$root" && cargo build --release --locked --workspace --bins >&2)
jangbu=$CARGO_TARGET_DIR/release/jangbu
work=$(mktemp -d)
cd "$work"
trap '"$jangbu" dev stop --remove >&2; rm -rf "$work"' EXIT

"$jangbu" dev start --plain >&2
"$jangbu" load --clients "$clients" --batch "$batch" --duration 8s >&2 &
sleep 2
nodes=$(pgrep -d, -f "jangbud --config $(pwd -P)/jangbu-dev/")
perf record -q -F 199 --call-graph dwarf,8192 -o "$work/perf.data" -p "$nodes" -- sleep 5 >&2
wait $!

# One line per stack, outermost frame first; without what every thread and task of tokio begins with.
perf script -i "$work/perf.data" --no-inline -F comm,tid,ip,sym,dso 2>/dev/null | awk '
    NF == 0 { stack = comm; for (i = n; i > 0; i--) stack = stack ";" frame[i]; if (comm != "") print stack; comm = ""; next }
    comm == "" { comm = $1; n = 0; outer = 0; next }
    outer || /\[unknown\]|Harness<T,S>::poll|Core<T,S>::poll|thread_start|start_thread|clone3|__rust_begin_short_backtrace|FnOnce::call_once/ { next }
    /worker::Context::run_task|pool::Inner::run/ { outer = 1; next }
    {
        owner = /kernel.kallsyms/ ? "kernel" : /rocksdb|lz4|LZ4/ ? "RocksDB" : /jangbu_/ ? "jangbu" : /openraft/ ? "openraft" : \
            /h2::|hyper|tonic|tower|prost|axum|http/ ? "gRPC" : /tokio|mio::/ ? "tokio" : "other"
        $1 = ""; sub(/ \([^()]*\)$/, ""); gsub(/;/, ":"); sub(/^ +/, "")
        frame[++n] = owner "|" $0
    }' | LC_ALL=C sort > "$work/stacks"

# Frames that neighbouring stacks have in common become one box. What is narrower than two pixels is left out.
awk -v title="CPU time of three nodes under $clients clients with requests of $batch" '
    function close_to(depth_kept,   d, x, width, label) {
        for (d = depth; d > depth_kept; d--) {
            x = start[d] * scale; width = (NR_done - start[d]) * scale
            if (width < 2) continue
            split(open[d], part, "|"); label = substr(part[2] == "" ? part[1] : part[2], 1, 90)
            gsub(/&/, "\\&amp;", label); gsub(/</, "\\&lt;", label); gsub(/>/, "\\&gt;", label)
            printf "<g><title>%s: %.1f %%</title><rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"14\" fill=\"%s\"/>", \
                label, 100 * width / 1180, x + 10, height - 40 - d * 15, width, colour[part[1]] ? colour[part[1]] : "#ccc"
            if (width > 60) printf "<text x=\"%.1f\" y=\"%d\">%s</text>", x + 12, height - 29 - d * 15, shortened(part[2] == "" ? part[1] : part[2], width / 6.2)
            print "</g>"
        }
        depth = depth_kept
    }
    function shortened(name, room,   text) {
        text = length(name) > room ? substr(name, 1, room - 2) ".." : name
        gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
        return text
    }
    BEGIN {
        colour["jangbu"] = "#7fc8a9"; colour["openraft"] = "#8fb4e3"; colour["gRPC"] = "#e8b36a"; colour["tokio"] = "#e9d98b"
        colour["RocksDB"] = "#c9a0dc"; colour["kernel"] = "#e58f8f"
    }
    NR == FNR { n = split($0, f, ";"); if (n > deepest) deepest = n; total++; next }
    FNR == 1 {
        if (deepest > 60) deepest = 60
        scale = 1180 / total; height = 90 + deepest * 15
        printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1200 %d\" font-family=\"sans-serif\" font-size=\"11\">\n", height
        printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/><text x=\"10\" y=\"20\">%s; %d samples</text>\n", title, total
        x = 10
        for (owner in colour) { printf "<rect x=\"%d\" y=\"30\" width=\"11\" height=\"11\" fill=\"%s\"/><text x=\"%d\" y=\"40\">%s</text>\n", x, colour[owner], x + 15, owner; x += 90 }
    }
    {
        NR_done = FNR - 1
        n = split($0, f, ";"); if (n > deepest) n = deepest
        same = 0
        while (same < depth && same < n && open[same + 1] == f[same + 1]) same++
        close_to(same)
        for (depth = same; depth < n; ) { depth++; open[depth] = f[depth]; start[depth] = NR_done }
    }
    END { NR_done = total; close_to(0); print "</svg>" }' "$work/stacks" "$work/stacks"
