#!/usr/bin/env bash
# A picture of an HTML file, as a headless Chromium shows it. docs/tour.png was made by
#   cargo run --release --example tour -- --out target/tour && tools/checks/screenshot.sh target/tour/tour.html docs/tour.png 1200 1060 pca
#
#   tools/checks/screenshot.sh FILE.html OUT.png [WIDTH HEIGHT [SECTION]]
#
# With the id of a SECTION of a page it is shown alone. Needs chromium (or CHROMIUM=path of another one); asks no network for anything.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,7p' "$0"; exit 2; fi
page=$(realpath "$1") out=$(realpath -m "$2") width=${3:-1200} height=${4:-800} section=${5:-}
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
mkdir -p "$(dirname "$out")"
if [ -n "$section" ]; then
  { cat "$page"; echo "<style>main > :not(#$section) { display: none }</style>"; } > "$profile/section.html"
  page=$profile/section.html
fi
timeout 180 "${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
  --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars \
  --user-data-dir="$profile" --window-size="$width,$height" --virtual-time-budget=8000 --screenshot="$out" \
  "file://$page" 2>"$profile/log" || { tail -5 "$profile/log" >&2; exit 1; }
echo "$out"
