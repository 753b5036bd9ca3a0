"""SAELens' packing of the demo text with GPT-2's tokenizer: crates/activation-store/tests/golden/packing.json.

    python tools/goldens/golden_packing.py

Per case its settings, the number of rows, an FNV-1a hash over all ids (64 bits, each id as 4 little-endian bytes), and the first rows.
"""

import json
from pathlib import Path

import torch
from sae_lens.tokenization_and_batching import concat_and_batch_sequences
from tokenizers import Tokenizer

REPO = Path(__file__).resolve().parents[2]
BOS = 50256
tokenizer = Tokenizer.from_file(str(REPO / "crates/model-hooks/tests/golden/gpt2_tokenizer/tokenizer.json"))
lines = (REPO / "assets/demo/text.jsonl").read_text("utf-8").splitlines()
documents = [torch.tensor(tokenizer.encode(json.loads(line)["text"]).ids) for line in lines]


def fnv(rows):
    value = 0xCBF29CE484222325
    for row in rows:
        for token in row:
            for byte in token.to_bytes(4, "little"):
                value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


settings = [
    dict(context_size=128, begin_batch=BOS, begin_sequence=None, separator=BOS, disable_concat=False),
    dict(context_size=64, begin_batch=None, begin_sequence=BOS, separator=198, disable_concat=False),
    dict(context_size=256, begin_batch=BOS, begin_sequence=None, separator=None, disable_concat=True),
]
cases = []
for s in settings:
    rows = concat_and_batch_sequences(
        tokens_iterator=iter(documents),
        context_size=s["context_size"],
        begin_batch_token_id=s["begin_batch"],
        begin_sequence_token_id=s["begin_sequence"],
        sequence_separator_token_id=s["separator"],
        disable_concat_sequences=s["disable_concat"],
    )
    rows = [row.tolist() for row in rows]
    cases.append(dict(settings=s, rows=len(rows), fnv=f"{fnv(rows):016x}", first=rows[:3]))
    print(s, len(rows))
out = REPO / "crates/activation-store/tests/golden/packing.json"
out.write_text(json.dumps(cases, separators=(",", ":")) + "\n", "utf-8")
