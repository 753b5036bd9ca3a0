"""What TransformerLens' ActivationCache makes of the small GPT-2, processed: parts of the stream, and what they add to logit differences.

    python tools/goldens/golden_cache.py --models crates/model-hooks/tests/golden

Writes MODELS/cache/gpt2.safetensors: `tokens` [2, 24], `heads` (stack_head_results at the last position [12, 2, 64]), `full` (get_full_resid_decomposition
without neurons at the last position), `attrs` (logit_attrs of `full`, token 11 against 7), `normed` (apply_ln_to_stack of `full`), and
cache/gpt2.json with the labels.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, dump, versions

import torch
from golden_models import TOKENS, hooked, open_model
from safetensors.torch import save_file

torch.set_grad_enabled(False)
args = argparse.ArgumentParser()
args.add_argument("--models", type=Path, required=True)
models = args.parse_args().models
model = hooked(models / "gpt2", open_model(models / "gpt2"), PROCESSED)[0]
_, cache = model.run_with_cache(TOKENS)
heads = cache.stack_head_results(pos_slice=-1)
full, labels = cache.get_full_resid_decomposition(expand_neurons=False, pos_slice=-1, return_labels=True)
attrs = cache.logit_attrs(full, tokens=11, incorrect_tokens=7, pos_slice=-1)
normed = cache.apply_ln_to_stack(full, pos_slice=-1)
out = models / "cache"
out.mkdir(exist_ok=True)
tensors = dict(tokens=TOKENS, heads=heads, full=full, attrs=attrs, normed=normed)
save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out / "gpt2.safetensors")
dump(out / "gpt2.json", dict(versions=versions(), labels=labels))
