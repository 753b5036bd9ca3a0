"""Logits of small models under YaRN and dynamic rotary scaling by transformers, in every family but Phi-3, for which
transformers takes LongRoPE alone.

    python tools/goldens/golden_rope_scaling.py --models crates/model-hooks/tests/golden

The weights are those of MODELS/<name>. Writes MODELS/rope_scaling/{configs.json, golden.safetensors}: for each case the model, the keys of its
configuration that differ, and `<case>.logits` of the last position of the first 24 tokens of `llama`'s prompt (all positions for the cases of
`llama`). Each case is a model of its own: transformers' dynamic scaling remembers the longest text that it has seen.
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
from golden_models import TOKENS, open_model
from safetensors.torch import save_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", type=Path, required=True)
args = parser.parse_args()
torch.set_grad_enabled(False)


def configuration(name):
    return json.loads((args.models / name / "config.json").read_text())


def new(name, context, kind, **more):
    """`rope_parameters`, over what the model has there."""
    rope = configuration(name)["rope_parameters"]
    kept = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    return dict(model=name, keys=dict(max_position_embeddings=context, rope_parameters=dict(**kept, rope_type=kind, **more)))


def old(name, context, word, kind, **more):
    """`rope_theta` and `rope_scaling`, the type under `word`."""
    theta = configuration(name)["rope_parameters"]["rope_theta"]
    keys = dict(rope_parameters=None, rope_theta=theta, max_position_embeddings=context, rope_scaling={word: kind, **more})
    return dict(model=name, keys=keys)


def gemma3(**more):
    rope = dict(full_attention=dict(rope_theta=1000000.0, **more), sliding_attention=dict(rope_theta=10000.0, rope_type="default"))
    return dict(model="gemma3", keys=dict(max_position_embeddings=32, rope_parameters=rope))


YARN = dict(factor=4.0, original_max_position_embeddings=8)
RELATIVES = ["llama", "mistral", "qwen2", "qwen3", "gemma1", "gemma2", "olmo2", "neox_parallel", "neox_serial"]
CASES = dict(
    yarn=new("llama", 32, "yarn", **YARN),
    yarn_type=old("llama", 32, "type", "yarn", **YARN),
    yarn_rope_type=old("llama", 32, "rope_type", "yarn", **YARN),
    yarn_original_context=new("llama", 32, "yarn", factor=2.0),
    yarn_no_factor=new("llama", 32, "yarn", factor=None, original_max_position_embeddings=8),
    yarn_outer_original=dict(model="llama", keys=dict(original_max_position_embeddings=8, **new("llama", 32, "yarn", factor=4.0)["keys"])),
    yarn_attention_factor=new("llama", 32, "yarn", attention_factor=1.3, **YARN),
    yarn_betas=new("llama", 32, "yarn", beta_fast=4.0, beta_slow=0.25, **YARN),
    yarn_no_truncate=new("llama", 32, "yarn", beta_fast=4.0, beta_slow=0.25, truncate=False, **YARN),
    yarn_mscale=new("llama", 32, "yarn", mscale=1.4, mscale_all_dim=0.7, **YARN),
    yarn_one_mscale=new("llama", 32, "yarn", mscale=1.4, **YARN),
    yarn_zero_mscale=new("llama", 32, "yarn", mscale=1.4, mscale_all_dim=0, **YARN),
    yarn_factor_1=new("llama", 32, "yarn", factor=1.0, original_max_position_embeddings=32),
    dynamic=new("llama", 16, "dynamic", factor=2.0),
    dynamic_type=old("llama", 16, "type", "dynamic", factor=2.0),
    dynamic_below=new("llama", 32, "dynamic", factor=2.0),
    yarn_gemma3=gemma3(rope_type="yarn", **YARN),
    dynamic_gemma3=dict(model="gemma3", keys={**gemma3(rope_type="dynamic", factor=2.0)["keys"], "max_position_embeddings": 16}),
    **{f"yarn_{name}": new(name, 32, "yarn", **YARN) for name in RELATIVES[1:]},
    **{f"dynamic_{name}": new(name, 16, "dynamic", factor=2.0) for name in RELATIVES[1:]},
)
SAME = dict(yarn_type="yarn", yarn_rope_type="yarn", yarn_outer_original="yarn", yarn_no_factor="yarn", dynamic_type="dynamic")

tensors = {}
with tempfile.TemporaryDirectory() as temporary:
    temporary = Path(temporary)
    for case, what in CASES.items():
        shutil.copy(args.models / what["model"] / "model.safetensors", temporary)
        merged = {**configuration(what["model"]), **what["keys"]}
        optional = {key for key, value in what["keys"].items() if value is None}
        (temporary / "config.json").write_text(json.dumps({key: value for key, value in merged.items() if key not in optional}))
        logits = open_model(temporary)(TOKENS[:1]).logits
        tensors[f"{case}.logits"] = (logits if what["model"] == "llama" else logits[:, -1:]).contiguous()
for case, other in SAME.items():
    assert torch.equal(tensors[f"{case}.logits"], tensors[f"{other}.logits"]), case
    del tensors[f"{case}.logits"]
out = args.models / "rope_scaling"
dump(out / "configs.json", dict(cases=CASES, same=SAME, versions=versions()))
save_file(tensors, out / "golden.safetensors")
for kind in ["yarn", "dynamic"]:
    near = {case: (value - tensors[f"{kind}.logits"]).abs().max().item() for case, value in tensors.items() if case.startswith(kind) and len(value[0]) > 1}
    print(f"largest difference from `{kind}`:", near)
