"""Runs TransformerLens' tokenize_and_concatenate, of 3.9 and of 2.16, on sentences of the demo text, and keeps what comes out.

    pip download --no-deps transformer-lens==2.16.1
    python tools/goldens/golden_concatenate.py --tl2 transformer_lens-2.16.1-py3-none-any.whl

3.9 is the one installed (tools/requirements.txt). Of 2.16 only this one function is taken out of the wheel and run.
Writes crates/activation-store/tests/golden/concatenate.json: per case its settings, the number of rows, an FNV-1a hash over all ids, and the
first and last rows. The sentences are made by the same rule in the test: see `sentences`.
"""

import argparse
import ast
import json
import os
import zipfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import einops
import numpy as np
import transformer_lens.utilities.tokenize_utils as tl3
from transformer_lens.utilities.hf_utils import keep_single_column
from transformers import PreTrainedTokenizerFast

REPO = Path(__file__).resolve().parents[2]
DEMO = REPO / "assets/demo"
END = "<|endoftext|>"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tl2", type=Path, required=True, help="wheel of transformer-lens 2.16.1")
args = parser.parse_args()
datasets.disable_progress_bars()


def sentences():
    """The demo text's lines cut at '. '; every 50th is emptied, every 70th gets an end-of-text token spelt out in its middle."""
    lines = [json.loads(line)["text"] for line in (DEMO / "text.jsonl").read_text("utf-8").splitlines()]
    found = [part for line in lines for part in line.split(". ")]
    for i in range(0, len(found), 50):
        found[i] = ""
    for i in range(7, len(found), 70):
        found[i] = f"{found[i]}{END}{found[i]}"
    return found


def of_2_16():
    source = zipfile.ZipFile(args.tl2).read("transformer_lens/utils.py").decode()
    function = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "tokenize_and_concatenate"
    )
    names = dict(np=np, einops=einops, keep_single_column=keep_single_column)
    names.update(Dataset=datasets.Dataset, PreTrainedTokenizerBase=object)
    exec("from __future__ import annotations\n" + ast.unparse(function), names)  # our own wheel, named on the command line
    return names["tokenize_and_concatenate"]


def tokenizer(pad):
    named = dict(bos_token=END, eos_token=END, unk_token=END)
    return PreTrainedTokenizerFast(
        tokenizer_file=str(DEMO / "lm/tokenizer.json"), clean_up_tokenization_spaces=False, **named, **({"pad_token": pad} if pad else {})
    )


def fnv(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        for b in int(i).to_bytes(4, "little"):
            h = ((h ^ b) * 0x100000001B3) % 2**64
    return f"{h:016x}"


TEXT = sentences()
RUN = {"2.16": of_2_16(), "3.9": tl3.tokenize_and_concatenate}


def case(version, first, count, max_length, add_bos, pad):
    texts = TEXT[first : first + count]
    out = RUN[version](
        datasets.Dataset.from_dict({"text": texts}),
        tokenizer(pad),
        max_length=max_length,
        add_bos_token=add_bos,
        num_proc=None,
    )
    rows = [list(map(int, row)) for row in out["tokens"]]
    settings = dict(version=version, first=first, count=count, max_length=max_length, add_bos=add_bos, pad=pad)
    return dict(
        settings, rows=len(rows), hash=fnv(i for row in rows for i in row), head=rows[:2], tail=rows[-2:]
    )


cases = []
for version in RUN:
    for pad in (None, END, "!"):
        cases.append(case(version, 0, 300, 32, True, pad))
    cases.append(case(version, 0, 1100, 128, True, END))  # two groups of rows: 1000 and 100
    cases.append(case(version, 17, 250, 33, False, END))
    cases.append(case(version, 3, 1, 512, True, "!"))  # shorter than a row: padded
    cases.append(case(version, 3, 2, 512, True, END))
    if version == "3.9":  # 2.16 makes no row of it, and its caller then fails
        cases.append(case(version, 50, 1, 16, True, END))  # an empty document alone

golden = dict(
    made_by="tools/goldens/golden_concatenate.py with transformer-lens 3.9 and 2.16.1 (one function)",
    cases=cases,
)
path = REPO / "crates/activation-store/tests/golden/concatenate.json"
path.parent.mkdir(parents=True, exist_ok=True)
lines = ",\n".join(json.dumps(case) for case in cases)
path.write_text(f'{{"made_by": {json.dumps(golden["made_by"])}, "cases": [\n{lines}\n]}}\n')
print(f"{len(cases)} cases, {path.stat().st_size} bytes")
