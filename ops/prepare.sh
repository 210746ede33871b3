# What demo.sh and test.sh need before they can build. Sourced, not run.
#
# Builds go to one place outside the clone, with one profile (release): RocksDB's C++, which takes most of the time, is
# compiled once for the demo, the tests and CI. RUSTFLAGS is left alone, as it would replace .cargo/config.toml's flags
# and build everything again.

say() { printf '\n== %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf '  -> %s\n' "$2" >&2; exit 1; }

# apt packages, where they are missing and apt is there.
install_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "these packages are missing: ${missing[*]}" "install them as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -q || true # an old list of packages is often good enough
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# A C++ compiler for RocksDB, and libclang for its bindings.
prepare_build() {
    command -v dpkg-query >/dev/null ||
        fail "this is no Debian or Ubuntu" "install a C++ compiler and libclang by hand, and comment this line out"
    install_packages build-essential libclang-dev
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null || fail "there is no cargo" \
        "get Rust from https://rustup.rs (curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh), open a new shell, and run this again"
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/jangbu/target}"
}
