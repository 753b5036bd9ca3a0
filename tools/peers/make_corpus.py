"""A text corpus from the Debian packages that setup_peers.sh unpacks -> ROOT/corpus/corpus.jsonl, {"text", "source"} a line.

    python tools/peers/make_corpus.py --root ROOT
"""

import argparse
import gzip
import json
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import dump, sha256

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", type=Path, required=True)
args = parser.parse_args()

# The goldens were made from these versions' text: jargon-text 4.4.7-4.1, debian-faq 11.1, fortunes 1:1.99.1-7.3.
EXPECTED = "eee1774ad921cca88283b760c19a8d3a5373fb4a33b4c38de312f2387ffe395f"
share = args.root / "deb/x/usr/share"
rng = random.Random(20)
docs = []


def group(parts, source, low=600, high=7000):
    """Joins consecutive parts into documents of varied length, as web text has."""
    current, want = "", rng.randint(low, high)
    for part in filter(None, map(str.strip, parts)):
        current += ("\n\n" if current else "") + part
        if len(current) >= want:
            docs.append(dict(text=current, source=source))
            current, want = "", rng.randint(low, high)
    if len(current) > 200:
        docs.append(dict(text=current, source=source))


def unzipped(path):
    return gzip.decompress((share / path).read_bytes()).decode("utf-8", "replace")


group(re.split(r"\n\s*\n", unzipped("doc/jargon-text/jargon.txt.gz")), "jargon")
group(re.split(r"\n\s*\n", unzipped("doc/debian/FAQ/debian-faq.en.txt.gz")), "debian-faq")
for file in sorted((share / "games/fortunes").iterdir()):
    if file.is_file() and not file.is_symlink() and file.suffix not in (".dat", ".u8"):
        group(re.split(r"\n%\n", file.read_text("utf-8", "replace")), "fortunes/" + file.name)
rng.shuffle(docs)
out = args.root / "corpus/corpus.jsonl"
out.parent.mkdir(parents=True, exist_ok=True)
with open(out, "w") as f:
    for doc in docs:
        f.write(json.dumps(doc, ensure_ascii=False) + "\n")
info = dict(docs=len(docs), chars=sum(len(d["text"]) for d in docs), bytes=out.stat().st_size, sha256=sha256(out))
dump(args.root / "corpus/info.json", info)
print(info)
if info["sha256"] != EXPECTED:
    print("this is not the text of the goldens: other package versions give other documents")
