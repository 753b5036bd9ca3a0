"""Small files of text as other programs write them: crates/activation-store/tests/golden/text/.

    python tools/goldens/golden_text_files.py        (pip: pyarrow zstandard)

`CODEC.parquet`: 40 rows in groups of 16, pages of the second version, every seventh row null, one row empty. Their column `text` is a
string, `large` a large string, `category` a dictionary, `ids` a list of integers. Row i is `row i of 40`, repeated (i % 5) + 1 times.
`pages1.parquet`: the same with pages of the first version, gzip. `windows.jsonl.zst`: three frames with windows of 2 GiB, 128 MiB and
one segment, a skippable frame before each; 40 lines in all, of the same text.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard as zs

OUT = Path(__file__).resolve().parents[2] / "crates/activation-store/tests/golden/text"
OUT.mkdir(parents=True, exist_ok=True)
ROWS = 40


def text(i):
    if i % 7 == 3:
        return None
    return "" if i == 5 else " ".join([f"row {i} of {ROWS}"] * (i % 5 + 1))


rows = [text(i) for i in range(ROWS)]
table = pa.table({
    "text": pa.array(rows),
    "large": pa.array(rows, pa.large_string()),
    "category": pa.array(rows).dictionary_encode(),
    "ids": pa.array([None if r is None else list(range(len(r.split()))) for r in rows], pa.list_(pa.int64())),
})
for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"]:
    pq.write_table(table, OUT / f"{codec}.parquet", compression=codec, row_group_size=16, data_page_version="2.0")
pq.write_table(table, OUT / "pages1.parquet", compression="gzip", row_group_size=16, data_page_version="1.0")

lines = [(json.dumps({"text": r}) + "\n").encode() for r in rows]
skippable = bytes([0x52, 0x2A, 0x4D, 0x18]) + (5).to_bytes(4, "little") + b"notes"


def frame(part, window_log):
    parameters = zs.ZstdCompressionParameters.from_level(3, window_log=window_log)
    compressor = zs.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(b"".join(part)) + compressor.flush()


whole = zs.ZstdCompressor(level=3, write_content_size=True).compress(b"".join(lines[30:]))
with open(OUT / "windows.jsonl.zst", "wb") as f:
    for part in [frame(lines[:15], 31), frame(lines[15:30], 27), whole]:
        f.write(skippable + part)
for path in sorted(OUT.iterdir()):
    print(path.name, path.stat().st_size)
