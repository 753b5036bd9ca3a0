"""Tiny SentencePiece models with what sentencepiece makes of nasty strings: OUT/NAME/tokenizer.model and OUT/NAME/cases.json.

    python tools/goldens/golden_sentencepiece.py crates/model-hooks/tests/golden/sentencepiece        (pip: sentencepiece)

Trained on the demo's text. `llama`: BPE as Llama and Mistral have it; `gemma`: BPE without a space put before texts, with user-defined runs of
spaces; `unigram`: unigram with rules of normalization of our own (the usual ones take 240 kB) and extra spaces removed; `bytes`: unigram with byte
fallback. The strings are those of golden/gpt2_tokenizer, less what transformers cuts out of a text before sentencepiece sees it.
"""

import io
import json
import sys
from pathlib import Path

import sentencepiece as spm

root = Path(__file__).resolve().parents[2]
strings = json.loads((root / "crates/model-hooks/tests/golden/gpt2_tokenizer/cases.json").read_text("utf-8"))
more = ["a▁b", " a", "a ", "  a  b  ", "ﬁne ＡＢＣ ① ｶﾞ", "\ta\nb", "☃☃ ☃x☃", "é\u0301", "a<start_of_turn> b", "The 12 cats, and the 1,234 dogs.", "a\u3000b"]
texts = [case["text"] for case in strings] + more
docs = [json.loads(line)["text"] for line in (root / "assets/demo/text.jsonl").read_text("utf-8").splitlines()[:60]]
sentences = [line for doc in docs for line in doc.splitlines() if line.strip()][:1500]
rules = {"ﬁ": "fi", "①": "1", "ｶﾞ": "ガ", "\t": " ", "\n": " ", "\r": " ", "\u3000": " ", "\u00a0": " ", "e\u0301": "é"}
rules.update({chr(0xFF21 + i): chr(0x41 + i) for i in range(26)})
tsv = "\n".join("\t".join(" ".join(f"{ord(c):X}" for c in side) for side in rule) for rule in rules.items()) + "\n"

KINDS = {
    "llama": dict(model_type="bpe", vocab_size=640, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                  split_digits=True, allow_whitespace_only_pieces=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1),
    "gemma": dict(model_type="bpe", vocab_size=640, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                  add_dummy_prefix=False, split_digits=True, allow_whitespace_only_pieces=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
                  user_defined_symbols=["▁▁", "▁▁▁", "\n\n", "<start_of_turn>"], control_symbols=["<ctrl>"]),
    "unigram": dict(model_type="unigram", vocab_size=420, unk_id=2, bos_id=0, eos_id=1, pad_id=-1),
    "bytes": dict(model_type="unigram", vocab_size=700, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False),
}
out = Path(sys.argv[1])
for name, options in KINDS.items():
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    if name == "unigram":
        (folder / "rules.tsv").write_text(tsv, "utf-8")
        options["normalization_rule_tsv"] = str(folder / "rules.tsv")
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_writer=model, character_coverage=0.9995, num_threads=1,
                                   minloglevel=2, hard_vocab_limit=False, **options)
    (folder / "rules.tsv").unlink(missing_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    sp = spm.SentencePieceProcessor(model_proto=model.getvalue())
    cases = []
    for text in texts:
        ids = sp.encode(text)
        cases.append(dict(text=text, ids=ids, decoded=sp.decode(ids)))
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (folder / "cases.json").write_text(f"[\n{lines}\n]\n", "utf-8")
    print(name, sp.get_piece_size(), "pieces,", len(model.getvalue()), "bytes,", len(cases), "strings")
