"""Logits of a small Phi-3 with LongRoPE by transformers (TransformerLens has no LongRoPE): texts below and above the original context.

    python tools/goldens/golden_longrope.py --models crates/model-hooks/tests/golden

The weights are those of MODELS/phi3_partial. Writes MODELS/phi3_longrope/{configs.json, golden.safetensors, generated.json}: for each case the keys of the
configuration that differ, and `<case>.logits` of the tokens of `phi3_partial`; the greedy ids of case `long` across its original context of 16 tokens.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import dump, versions

import torch
from golden_models import CTX, TOKENS, open_model
from safetensors.torch import save_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", type=Path, required=True)
args = parser.parse_args()

torch.set_grad_enabled(False)
PAIRS = 4  # half of each head of 16 is turned
rng = torch.Generator().manual_seed(5)
SHORT, LONG = ((1 + 3 * torch.rand(PAIRS, generator=rng)).tolist() for _ in range(2))
FACTORS = dict(short_factor=[round(x, 3) for x in SHORT], long_factor=[round(x, 3) for x in LONG])


def new(original, **more):
    rope = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.5, original_max_position_embeddings=original, **FACTORS, **more)
    return dict(rope_parameters=rope, original_max_position_embeddings=original)


def old(original):
    """As the published file of Phi-4-mini."""
    scaling = dict(type="longrope", **FACTORS)
    return dict(rope_parameters=None, rope_theta=10000.0, partial_rotary_factor=0.5, original_max_position_embeddings=original, rope_scaling=scaling)


CASES = dict(short=new(32), long=new(16), factor=new(16, attention_factor=1.3), stretch=new(16, factor=2.0), old=old(16))
folder = args.models / "phi3_partial"
configuration = json.loads((folder / "config.json").read_text())
tensors = {}
with tempfile.TemporaryDirectory() as temporary:
    temporary = Path(temporary)
    shutil.copy(folder / "model.safetensors", temporary)
    for case, keys in CASES.items():
        changed = {key: value for key, value in {**configuration, **keys}.items() if value is not None}
        (temporary / "config.json").write_text(json.dumps(changed))
        model = open_model(temporary)
        assert model.config.max_position_embeddings == CTX
        tensors[f"{case}.logits"] = model(TOKENS[:1]).logits.contiguous()
        if case == "long":
            prompt = TOKENS[:1, :12]
            ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False, pad_token_id=0, eos_token_id=None)
            generated = dict(prompt=prompt[0].tolist(), ids=ids[0, 12:].tolist())
assert torch.equal(tensors["long.logits"], tensors["old.logits"])
del tensors["old.logits"]
out = args.models / "phi3_longrope"
dump(out / "configs.json", dict(cases=CASES, versions=versions()))
save_file(tensors, out / "golden.safetensors")
dump(out / "generated.json", dict(generated, versions=versions()))
distance = {case: (value - tensors["long.logits"]).abs().max().item() for case, value in tensors.items()}
print("largest difference from `long`:", distance)
