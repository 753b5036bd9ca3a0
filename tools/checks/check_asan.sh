#!/usr/bin/env bash
# Runs the tests of tensor-kernels, the only crate with `unsafe`, under the address sanitizer: every back end that the machine has, and AMX's
# packing where its tiles run in software (check_amx.sh). What it last showed is in heavy_results.md.
#
#   bash tools/checks/check_asan.sh [arguments of cargo test]
#
# The sanitizer is a switch of nightly compilers; the stable one has it behind RUSTC_BOOTSTRAP=1, which is set here alone. The standard
# library stays as it is, without checks of its own. Assembly is not checked either: for that kernel/bounds_test.rs lays every operand
# against a page that may not be touched.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(rustc -vV | sed -n 's/^host: //p')
out=${CARGO_TARGET_DIR:-target}
mkdir -p "$out/asan"
out=$(cd "$out" && pwd)
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$out/asan

# The sanitizer must find what is there to be found: a vector load that begins inside a slice and ends outside.
cat > "$CARGO_TARGET_DIR/control.rs" <<'RUST'
use std::arch::x86_64::{_mm_loadu_ps, _mm_cvtss_f32};
fn main() {
    let x = vec![1f32; std::env::args().count() + 6];
    println!("{}", unsafe { _mm_cvtss_f32(_mm_loadu_ps(x.as_ptr().add(4))) });
}
RUST
rustc --edition 2024 -O -Zsanitizer=address --target "$target" -o "$CARGO_TARGET_DIR/control" "$CARGO_TARGET_DIR/control.rs"
if "$CARGO_TARGET_DIR/control" > /dev/null 2> "$CARGO_TARGET_DIR/control.log" || ! grep -q heap-buffer-overflow "$CARGO_TARGET_DIR/control.log"; then
    echo "The sanitizer did not find the fault that it was given."
    exit 1
fi
echo "The sanitizer finds the fault that it is given."

flags="$(grep -m1 ^flags /proc/cpuinfo) "
for feature in avx2 avx512f amx_bf16; do
    if [[ "$flags" == *" $feature "* ]]; then echo "This machine has $feature."; else echo "This machine has no $feature."; fi
done
emulator=$out/amx-emulator/libamx_emulator.so
if [[ "$flags" != *" amx_bf16 "* && "$flags" == *" avx512f "* && -f "$emulator" ]]; then
    echo "AMX runs in software."
    export RUSTC_WORKSPACE_WRAPPER=$PWD/tools/amx-emulator/rustc.sh CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="env LD_PRELOAD=$emulator"
fi
if [ $# = 0 ]; then set -- --lib --tests; fi
RUSTFLAGS=-Zsanitizer=address cargo test --release -p tensor-kernels --target "$target" "$@"
