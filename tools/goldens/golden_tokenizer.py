"""What transformers makes of some strings with a tokenizer: FOLDER/cases.json beside FOLDER/tokenizer.json, for each folder given.

    python tools/goldens/golden_tokenizer.py FOLDER ...
    SAESCOPE_TOKENIZERS=FOLDER:... cargo test --release --workspace --test tokenizer -- --ignored

The strings are those of crates/model-hooks/tests/golden/gpt2_tokenizer/cases.json. `pieces` are the ids decoded one by one.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer

strings = Path(__file__).resolve().parents[2] / "crates/model-hooks/tests/golden/gpt2_tokenizer/cases.json"
texts = [case["text"] for case in json.loads(strings.read_text("utf-8"))]
for folder in map(Path, sys.argv[1:]):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=False)
    cases = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append(dict(text=text, ids=ids, decoded=decode(ids), pieces=[decode([i]) for i in ids]))
    (folder / "cases.json").write_text(json.dumps(cases), "utf-8")
    print(folder, tokenizer.get_vocab_size(), sum(c["decoded"] == c["text"] for c in cases), "of", len(cases), "round-trip")
