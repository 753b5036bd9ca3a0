"""The small GPT-Neo of the goldens as it would have been published before safetensors: pickles of `torch.save`, in half precision.

    python tools/goldens/golden_bin.py --root ROOT      (after setup_peers.sh; writes crates/model-hooks/tests/data/torch)

`whole/pytorch_model.bin`: the zip of torch 1.6 and later, of a module's own `state_dict` (which carries `_metadata`), with what old versions of
transformers kept in it: the tied `lm_head.weight` as a second name of one storage, masks as buffers.
`sharded`: the same weights in the format before torch 1.6, two shards and `pytorch_model.bin.index.json`; the second holds transposed views.
"""

import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", type=Path, required=True)
parser.parse_args()

import torch
from transformers import AutoModelForCausalLM

TESTS = Path(__file__).resolve().parents[2] / "crates/model-hooks/tests"
out = TESTS / "data/torch"

model = AutoModelForCausalLM.from_pretrained(TESTS / "golden/gpt_neo", dtype=torch.float32).half()
state = model.state_dict()
positions = model.config.max_position_embeddings
assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
for layer in range(model.config.num_layers):
    state[f"transformer.h.{layer}.attn.attention.bias"] = torch.ones(positions, positions, dtype=torch.bool).tril()[None, None]
    state[f"transformer.h.{layer}.attn.attention.masked_bias"] = torch.tensor(-1e9)
(out / "whole").mkdir(parents=True, exist_ok=True)
torch.save(state, out / "whole/pytorch_model.bin")

(out / "sharded").mkdir(exist_ok=True)
names = [name for name in state if not name.endswith(("attention.bias", "attention.masked_bias"))]
half = len(names) // 2
weight_map = {}
for shard, part in enumerate([names[:half], names[half:]]):
    file = f"pytorch_model-{shard + 1:05}-of-00002.bin"
    tensors = {name: state[name] for name in part if name != "lm_head.weight"}
    if shard == 1:
        tensors = {name: x.t().contiguous().t() if x.dim() == 2 else x for name, x in tensors.items()}
    torch.save(tensors, out / "sharded" / file, _use_new_zipfile_serialization=False)
    weight_map |= {name: file for name in tensors}
text = json.dumps({"metadata": {"total_size": sum(x.nbytes for x in state.values())}, "weight_map": weight_map}, indent=1)
(out / "sharded/pytorch_model.bin.index.json").write_text(text + "\n")
