#!/usr/bin/env bash
# Builds the sample workers from source: build.sh [out-dir]   (default: out/ beside this script)
# Needs rustup's target wasm32-wasip2, or on Debian the packages rustc-web and rust-web-src; and Node.js for hello-js.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="${1:-$here/out}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
cd "$here"
# Workers have a target folder of their own, or the caller's for workers.
export CARGO_TARGET_DIR="${WHARFAGE_GUESTS_TARGET:-$here/target}"

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

# Replaces a file only by a complete one: others may be reading it.
put() {
    cp "$1" "$2.part"
    mv "$2.part" "$2"
}

debian_compiler() {
    [ -d /usr/lib/rustlib/src/rust/library ] && [ -x /usr/bin/rustc ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq -y --no-install-recommends rustc-web rust-web-src >/dev/null && return
    fi
    fail "no compiler for workers. Run: rustup target add wasm32-wasip2" \
        "(or on Debian, as root: apt-get install rustc-web rust-web-src)"
}

build_rust() {
    if [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-wasip2" ]; then
        cargo build --release --locked --quiet --target wasm32-wasip2
        built="$CARGO_TARGET_DIR/wasm32-wasip2/release"
    else
        debian_compiler
        local sysroot host bin
        sysroot="$(rustc --print sysroot)"
        host="$(rustc -vV | sed -n 's/^host: //p')"
        bin="$sysroot/lib/rustlib/$host/bin"
        [ -x "$bin/wasm-component-ld" ] || fail "no wasm-component-ld in $bin: run rustup target add wasm32-wasip2"
        # Debian's compiler with its own library sources; the linker is the one that rustup's toolchain brings.
        RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 PATH="$PATH:$bin" RUSTFLAGS= \
            CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$bin/wasm-component-ld" \
            cargo build --release --locked --quiet -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown
        built="$CARGO_TARGET_DIR/wasm32-unknown-unknown/release"
    fi
    for name in hello fetch; do
        put "$built/$name.wasm" "$out/$name.wasm"
    done
}

build_js() {
    command -v npm >/dev/null || fail "no npm: install Node.js 20 or later"
    cd "$here/hello-js"
    # Not `npm ci`: it insists on every platform's optional packages.
    [ -d node_modules/@bytecodealliance/componentize-js ] || npm install --no-save --silent --no-audit --no-fund
    # Takes seconds and the result depends on these files alone.
    if [ "$out/hello-js.wasm" -nt build.mjs ] && [ "$out/hello-js.wasm" -nt worker.js ]; then
        return
    fi
    node build.mjs "$out/hello-js.wasm.part"
    mv "$out/hello-js.wasm.part" "$out/hello-js.wasm"
}

build_rust
build_js
ls -l "$out" | awk 'NR > 1 { printf "%9d  %s\n", $5, $NF }'
