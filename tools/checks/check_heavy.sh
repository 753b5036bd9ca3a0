#!/usr/bin/env bash
# Runs tests/heavy on the files of setup_peers.sh, make_corpus.py, make_gpt2.py and golden_gpt2.py, and prints every error measured.
# usage: bash tools/checks/check_heavy.sh ROOT [GOLDENS]      GOLDENS defaults to ROOT/golden/gpt2-small-random
set -euo pipefail
ROOT=$(cd "${1:?usage: check_heavy.sh ROOT [GOLDENS]}" && pwd)
export SAESCOPE_GPT2_RANDOM=$ROOT/models/gpt2-small-random
export SAESCOPE_GPT2_SAE=$ROOT/sae/res-random
export SAESCOPE_GPT2_CORPUS=$ROOT/corpus/corpus.jsonl
export SAESCOPE_GOLDENS=${2:-$ROOT/golden/gpt2-small-random}
cd "$(dirname "$0")/../.."
# Only tools/goldens/golden_gpt2.py writes the list of kept rows.
SKIP=()
[ -f "$SAESCOPE_GOLDENS/seed_run_rows.safetensors" ] || SKIP=(--skip the_same_rows)
# One at a time: the model is 0.5 GB, and each test loads its own.
# (`--workspace`: the same build as the README's command.)
cargo test --release --workspace --test heavy -- --ignored --nocapture --test-threads 1 "${SKIP[@]}"
