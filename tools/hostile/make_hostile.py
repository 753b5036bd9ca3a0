"""Files that lie: .pt and .npz files made to break a reader, and a few odd ones that it must read.

    python tools/hostile/make_hostile.py --out crates/tensor-files/tests/hostile

Writes OUT/pt/*.pt, OUT/npz/*.npz and OUT/index.json: for each file whether it must be refused or read, why, and what it holds.
The pickles are put together byte by byte by hostile_pt.py and are never loaded, here or anywhere: some would run a command.
"""

import argparse
import json
import shutil
from pathlib import Path

import hostile_npz
import hostile_pt


class Shelf:
    """Where the files go, and the index of what each is."""

    def __init__(self, out):
        self.out, self.index = out, {}

    def put(self, name, data, verdict, why, **more):
        assert name not in self.index and verdict in ("refuse", "read", "either"), name
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.index[name] = dict(verdict=verdict, why=why, **more)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    for kind in ("pt", "npz"):
        shutil.rmtree(out / kind, ignore_errors=True)
    shelf = Shelf(out)
    hostile_pt.fill(shelf)
    hostile_npz.fill(shelf)
    lines = (f" {json.dumps(name)}: {json.dumps(about)}" for name, about in sorted(shelf.index.items()))
    (out / "index.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(shelf.index)} files, {sum(f.stat().st_size for f in out.rglob('*.*'))} bytes in {out}")


if __name__ == "__main__":
    main()
