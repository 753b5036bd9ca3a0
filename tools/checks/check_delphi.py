"""Shows that delphi reads the cache that feature-analysis writes, would have written the same files, and that SAELens computes the activations in it.

    cargo run --release --example export -- --format delphi --out LATENTS --rows 64
    python tools/checks/check_delphi.py LATENTS --demo assets/demo

Needs eai-delphi beside SAELens and TransformerLens. delphi's modules for embeddings and language models are not
needed, so sentence_transformers and what else is listed below may be missing. Fails where a name, type, shape or location differs, or an activation by more than f16 rounds
(2^-11 of it, and 1e-4 for the sums of the model).
"""

import argparse
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

for module in ("sentence_transformers", "faiss", "blobfile", "orjson", "asyncer", "simple_parsing"):
    try:
        __import__(module)
    except ImportError:
        sys.modules[module] = MagicMock()

import torch
from delphi.latents.cache import InMemoryCache, LatentCache
from delphi.latents.loader import TensorBuffer
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, tl_from_local
from safetensors.numpy import load_file
from sae_lens import SAE, HookedSAETransformer
from transformers import AutoTokenizer

torch.set_grad_enabled(False)
torch.set_num_threads(1)
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("latents", type=Path)
parser.add_argument("--demo", type=Path, required=True)
args = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(str(args.demo / "lm"))
model = tl_from_local(args.demo / "lm", PROCESSED, tokenizer=tokenizer, cls=HookedSAETransformer)
sae = SAE.load_from_disk(str(args.demo / "sae"), device="cpu")
hook, width = sae.cfg.metadata.hook_name, sae.cfg.d_sae
(hookpoint,) = [p for p in args.latents.iterdir() if p.is_dir()]
ours = {p.name: p for p in hookpoint.glob("*.safetensors")}

# 1. delphi's loader.
dense, tokens, total = None, None, 0
for name, path in ours.items():
    buffer = TensorBuffer(str(path), hookpoint.name)
    locations, activations, tokens = buffer.load()
    if dense is None:
        dense = torch.zeros(*tokens.shape, width)
    dense[tuple(locations.T)] = activations.float()
    total += len(activations)
    assert sum(len(latent.activation_data.activations) for latent in buffer) == len(activations)
assert int((dense != 0).sum()) == total, "a location occurs twice"
print(f"delphi reads {total} activations of {tuple(tokens.shape)} tokens in {len(ours)} files")

# 2. delphi's writer, from the same activations.
cache = LatentCache.__new__(LatentCache)
cache.width, cache.cache = width, InMemoryCache(batch_size=len(tokens))
cache.cache.add(dense, tokens, 0, hookpoint.name)
cache.cache.save()
with tempfile.TemporaryDirectory() as folder:
    cache.save_splits(len(ours), Path(folder))
    theirs = {p.name: p for p in (Path(folder) / hookpoint.name).glob("*.safetensors")}
    assert theirs.keys() == ours.keys(), (sorted(theirs), sorted(ours))
    for name in ours:
        a, b = load_file(ours[name]), load_file(theirs[name])
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape and (a[key] == b[key]).all(), (name, key)
print("delphi writes the same names, types and values")

# 3. TransformerLens and SAELens, from the tokens.
worst, other, near = 0.0, 0, 0
for rows, found in zip(tokens.split(8), dense.split(8)):
    _, cached = model.run_with_cache(rows, names_filter=hook, stop_at_layer=int(hook.split(".")[1]) + 1)
    expected = sae.encode(cached[hook])
    both = (expected > 0) & (found > 0)
    allowed = expected.abs() / 2048 + 1e-4 * expected.pow(2).mean().sqrt().clamp(min=1.0)
    worst = max(worst, float(((found - expected).abs() / allowed)[both].max()))
    other += int(((expected > 0) != (found > 0)).sum())
print(f"SAELens: largest error {worst:.2f} of what is allowed, {other} of {total} fire in one alone")
sys.exit(worst > 1 or other > total / 10_000)
