#!/usr/bin/env bash
# Tests the AMX kernels: on the processor's own tiles where it has them, else with their instructions run in software by the library in
# amx-emulator/, which needs x86-64 Linux, AVX-512 and a C compiler.
#
#   bash tools/checks/check_amx.sh            the tests of tensor-kernels
#   bash tools/checks/check_amx.sh --all      every test of the workspace, on AMX by default
#   ... [arguments of cargo test]      for instance --test product
set -euo pipefail
cd "$(dirname "$0")/../.."

which=(-p tensor-kernels)
if [ "${1:-}" = --all ]; then which=(--workspace); shift; fi
out=${CARGO_TARGET_DIR:-target}/amx-emulator
mkdir -p "$out"
out=$(cd "$out" && pwd)
cc -std=gnu11 -Wall -Wextra -O1 -ffp-contract=off -o "$out/amx_test" tools/amx-emulator/amx_test.c -lm -lpthread

flags=$(grep -m1 ^flags /proc/cpuinfo)
if [[ "$flags" == *" amx_bf16"* && "$flags" == *" amx_tile"* ]]; then
    echo "This machine has AMX: the tests run on it."
    "$out/amx_test"
    cargo test --release "${which[@]}" "$@"
    exit
fi
for feature in avx512f avx512bw avx512dq avx512vl avx2 fma; do
    if [[ "$flags " != *" $feature "* ]]; then
        echo "This machine has neither AMX nor $feature, which the AMX kernels use beside their tiles: nothing was tested."
        exit 1
    fi
done

echo "This machine has no AMX: its instructions run in software."
cc -std=gnu11 -Wall -Wextra -O3 -mavx2 -mfma -fPIC -shared -o "$out/libamx_emulator.so" tools/amx-emulator/amx_emulator.c
LD_PRELOAD="$out/libamx_emulator.so" "$out/amx_test"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
RUSTC_WORKSPACE_WRAPPER=$PWD/tools/amx-emulator/rustc.sh \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="env LD_PRELOAD=$out/libamx_emulator.so AMX_EMULATOR_REPORT=1" \
    cargo test --release "${which[@]}" "$@" 2>&1 | tee "$log"

# Every process that used a tile has said so. None at all would mean that the kernels were not run.
echo
echo "Instructions in all:"
grep ^amx_emulator: "$log" | awk '{ for (i = 2; i < NF; i += 2) n[$i] += $(i + 1) } END { for (i in n) print "  " i, n[i]; exit n["tdpbf16ps"] == 0 }'
