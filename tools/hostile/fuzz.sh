#!/usr/bin/env bash
# Fuzzes the readers of files from outside.
#
#   tools/hostile/fuzz.sh SECONDS [TARGET..]   each target (all unless told) for so long, one after the other; a line for each at the end
#   tools/hostile/fuzz.sh keep [TARGET..]      puts a sample (150) of the smallest set of inputs that reaches all that was reached into fuzz/seeds
#
# Needs a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz`). FUZZ_TARGET_DIR says where to build (fuzz/target).
# With the address sanitizer; SANITIZER=none where that does not work. Inputs gather in fuzz/corpus, findings in fuzz/artifacts;
# a finding goes, with a name that says what it is, into fuzz/findings/TARGET, where `cargo test --test fuzz_corpus` reads it.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=${1:?"tools/hostile/fuzz.sh SECONDS|keep [TARGET..]"}
shift
target_dir=${FUZZ_TARGET_DIR:-fuzz/target}
sanitizer=${SANITIZER:-address}
# The versions that the workspace is built with.
[ -e fuzz/Cargo.lock ] || cp Cargo.lock fuzz/Cargo.lock
cargo +nightly fuzz build -O --sanitizer "$sanitizer" --target-dir "$target_dir"
built=$target_dir/x86_64-unknown-linux-gnu/release
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
export ASAN_OPTIONS=detect_leaks=0
for target in "$@"; do
  corpus=fuzz/corpus/$target seeds=fuzz/seeds/$target findings=fuzz/findings/$target artifacts=fuzz/artifacts/$target
  mkdir -p "$corpus" "$seeds" "$artifacts"
  if [ "$what" = keep ]; then
    kept=$(mktemp -d)
    "$built/$target" -set_cover_merge=1 -timeout=10 "$kept" "$seeds" "$corpus" 2>/dev/null
    find "$seeds" -type f -not -name 'first-*' -delete
    # Names are hashes, so the first of them are a random sample.
    find "$kept" -type f -size -8k | sort | head -n 150 | xargs -r cp -t "$seeds"
    rm -r "$kept"
    echo "$target: $(find "$seeds" -type f | wc -l) inputs, $(du -sb "$seeds" | cut -f1) bytes"
    continue
  fi
  before=$(find "$artifacts" -type f | wc -l)
  [ ! -d "$findings" ] || cp -n "$findings"/* "$corpus"/
  nice -n 10 "$built/$target" "$corpus" "$seeds" -artifact_prefix="$artifacts/" -max_total_time="$what" -timeout=10 \
    -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=16384 -fork=1 -ignore_crashes=1 -ignore_ooms=1 -ignore_timeouts=1 \
    >"fuzz/artifacts/$target.log" 2>&1 || true
  last=$(grep -E '^#[0-9]+: cov' "fuzz/artifacts/$target.log" | tail -n 1)
  echo "$target $(date +%F) $what s: ${last:-nothing} findings: $(($(find "$artifacts" -type f | wc -l) - before))"
done
