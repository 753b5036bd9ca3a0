"""Runs the examples `capture` and `encode` on a model and an SAE, and TransformerLens and SAELens on the same files, and compares.

    python tools/checks/check_peers.py --capture target/release/examples/capture --encode target/release/examples/encode \
        --model assets/demo/lm --sae assets/demo/sae

Prints, per kind of hook point, the largest error relative to the reference's root mean square. Exits 1 above the tolerance.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, RAW, tl_from_local

import torch
from safetensors.torch import load_file, save_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--capture", required=True)
parser.add_argument("--encode", required=True)
parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder of a GPT-2 or Llama model")
parser.add_argument("--saescope-model", type=Path, help="what `capture` loads, if not the same (a GGUF file of the same weights)")
parser.add_argument("--sae", type=Path, nargs="*", default=[], help="SAELens folders")
parser.add_argument("--rows", type=int, default=2)
parser.add_argument("--length", type=int, default=48)
parser.add_argument("--tolerance", type=float, default=1e-4)
parser.add_argument("--double", action="store_true", help="TransformerLens in f64: whose rounding is it?")
args = parser.parse_args()
torch.set_grad_enabled(False)
torch.set_num_threads(1)


def error(ours, reference):
    """max |a - b| / rms(reference) over the finite entries; infinite ones must agree in place and sign."""
    if ours.shape != reference.shape:
        return f"shape {list(ours.shape)} instead of {list(reference.shape)}"
    finite = reference.isfinite()
    if not torch.equal(ours[~finite], reference[~finite]):
        return "infinities in other places"
    a, b = ours[finite].double(), reference[finite].double()
    return float((a - b).abs().max() / b.pow(2).mean().sqrt().clamp(min=1e-30)) if len(a) else 0.0


def report(worst):
    bad = {k: v for k, v in worst.items() if isinstance(v, str) or v > args.tolerance}
    for name, value in worst.items():
        print(f"  {name:<32} {value if isinstance(value, str) else f'{value:.1e}'}{'   <-- above tolerance' if name in bad else ''}")
    return bool(bad)


failed = False
vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
tokens = torch.randint(0, vocab, (args.rows, args.length), generator=torch.Generator().manual_seed(5))
with tempfile.TemporaryDirectory() as tmp:
    tmp = Path(tmp)
    (tmp / "ids.json").write_text(json.dumps(tokens.tolist()))
    for flag, processing in (("none", RAW), ("tl", PROCESSED)):
        model = tl_from_local(args.model, processing, dtype=torch.float64 if args.double else None)
        model.set_use_attn_result(True)
        logits, cache = model.run_with_cache(tokens)
        reference = {k: v for k, v in cache.items() if not k.startswith("unembed.")} | {"logits": logits}
        subprocess.run([args.capture, "--model", args.saescope_model or args.model, "--hooks", "all", "--token-ids", tmp / "ids.json",
                        "--processing", flag, "--out", tmp / "acts.safetensors"], check=True, stdout=subprocess.DEVNULL)
        ours = load_file(tmp / "acts.safetensors")
        assert torch.equal(ours.pop("tokens"), tokens)
        print(f"{args.model}, processing {flag}: {len(ours)} hook points, {len(reference)} in TransformerLens")
        for name in sorted(set(ours) ^ set(reference)):
            print(f"  only in {'saescope' if name in ours else 'TransformerLens'}: {name}")
            failed = True
        worst = defaultdict(float)
        for name in reference:
            if name in ours:
                kind, e = re.sub(r"blocks\.\d+\.", "", name), error(ours[name], reference[name])
                worst[kind] = e if isinstance(e, str) or isinstance(worst[kind], str) else max(worst[kind], e)
        failed |= report(worst)
    for folder in args.sae:
        import sae_lens

        # In f32 whatever the file holds, as saescope computes: SAELens' own f16 and bf16 products round far more.
        sae = sae_lens.SAE.load_from_disk(str(folder), device="cpu", dtype="float32")
        x = reference.get(sae.cfg.metadata.hook_name)
        x = None if x is None else x.float()
        if x is None or x.flatten(2).shape[-1] != sae.cfg.d_in:
            x = torch.randn(args.rows, args.length, sae.cfg.d_in, generator=torch.Generator().manual_seed(6)) * 1.5
        if sae.cfg.reshape_activations == "hook_z" and x.dim() == 3:
            x = x.unflatten(-1, (4, -1))
        save_file({"x": x.contiguous()}, tmp / "x.safetensors")
        subprocess.run([args.encode, "--sae", folder, "--input", tmp / "x.safetensors", "--key", "x", "--out", tmp / "f.safetensors"],
                       check=True, stdout=subprocess.DEVNULL)
        ours, acts = load_file(tmp / "f.safetensors"), sae.encode(x)
        print(f"{folder}: {sae.cfg.architecture()}, L0 {float((acts != 0).float().sum(-1).mean()):.1f}")
        failed |= report({"feature_acts": error(ours["feature_acts"], acts), "sae_out": error(ours["sae_out"], sae(x))})
sys.exit(failed)
