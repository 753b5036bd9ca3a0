"""Small seeded random models of every family in Hugging Face format, with every TransformerLens activation.

    python tools/goldens/golden_small.py --out crates/model-hooks/tests/golden [--only NAME,NAME] [--weights-like FOLDER]

Writes OUT/<name>/{config.json, model.safetensors, golden.safetensors, meta.json}, see OUT/README.md. The models are in `golden_models.py`.
`--weights-like` compares the weights with those of an earlier run and stops where they differ; where that folder has a `golden.safetensors`, the
tensors of the same name are compared too.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, RAW, dump, versions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--only", default="")
parser.add_argument("--weights-like", type=Path)
args = parser.parse_args()

import torch
from golden_models import HEADS, MODELS, SEQ, TOKENS, WINDOW, base_of, hooked, hugging_face, save_model
from safetensors.torch import load_file, save_file

BRIDGE_ONLY = ("unembed.hook_in", "unembed.hook_out")  # new in TransformerLens 3; the same tensors as the last two
KEPT_LAYER = 1  # of hook_result, where the model is not complete
NEAR = 2e-5  # of the rms: what folding and splitting a sum change by rounding


def with_heads(name, value, cfg):
    """The per-head norms of TransformerLens see [b * p * h, d]; here they have the shape of what they normalise."""
    if cfg.use_qk_norm and (".q_norm." in name or ".k_norm." in name):
        heads = cfg.n_heads if ".q_norm." in name else cfg.n_key_value_heads or cfg.n_heads
        return value.reshape(-1, SEQ, heads, value.shape[-1])
    return value


def transformer_lens(folder, hf, processing, tokens):
    """All cached activations, in cache order, with `hook_result` put where it fires; then logits and loss per token.

    `use_attn_result` changes the order of attention's last sum (by rounding), so it runs apart and gives only `hook_result`.
    """
    model, processing = hooked(folder, hf, processing)
    logits, plain = model.run_with_cache(tokens)
    loss = model(tokens, return_type="loss", loss_per_token=True)
    model.set_use_attn_result(True)
    _, full = model.run_with_cache(tokens)
    order = list(full.keys())
    gated = sorted({name.split(".", 2)[-1] for name in set(model.hook_dict) - set(order)})
    values = {name: with_heads(name, plain[name] if name in plain else full[name], model.cfg) for name in order}
    assert torch.equal(values["unembed.hook_in"], values["ln_final.hook_normalized"]) or not processing["fold_ln"]
    assert torch.equal(values["unembed.hook_out"], logits) or model.cfg.output_logits_soft_cap > 0
    return order, gated, values, logits, loss


def our_name(name, family):
    """OLMo 2 normalises what a sub-layer writes, which TransformerLens does under the names of the norms in front of it."""
    return name.replace(".ln1.", ".ln1_post.").replace(".ln2.", ".ln2_post.") if family == "olmo2" else name


def without_repeats(tensors):
    """Drops tensors equal bit for bit to an earlier one; returns the rest and {dropped: kept}."""
    seen, kept, same_as = {}, {}, {}
    for name, tensor in tensors.items():
        key = (tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        if key in seen:
            same_as[name] = seen[key]
        else:
            seen[key] = name
            kept[name] = tensor.contiguous().clone()
    return kept, same_as


def relative(a, b):
    """Largest difference over the finite entries, in units of b's rms; infinite where other entries are finite."""
    if a.shape != b.shape or a.dtype != b.dtype or not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    a, b = (x[x.isfinite()].double() for x in (a, b))
    return float((a - b).abs().max() / b.pow(2).mean().sqrt().clamp(min=1e-30))


def without_near(kept, same_as):
    """Drops processed tensors that processing changes by rounding alone; returns the largest relative difference."""
    worst = 0.0
    for name in [n for n in kept if n.startswith("proc.")]:
        raw = "raw." + name.removeprefix("proc.")
        twin = same_as.get(raw, raw)
        if twin in kept and (difference := relative(kept[name], kept[twin])) <= NEAR:
            worst = max(worst, difference)
            del kept[name]
            same_as[name] = twin
            same_as.update({other: twin for other, target in same_as.items() if target == name})
    return worst


def check_masks(tensors, small, layers):
    """Masked scores are -inf: everything in the future, and what lies before the window of a local layer."""
    prompts = TOKENS[: small.prompts].shape[0]
    for layer in range(layers):
        hidden = SEQ * (SEQ - 1) // 2 + (sum(range(SEQ - WINDOW + 1)) if layer in small.local else 0)
        scores = tensors[f"raw.blocks.{layer}.attn.hook_attn_scores"]
        assert torch.isneginf(scores).sum() == prompts * HEADS * hidden, f"layer {layer}: {torch.isneginf(scores).sum()} masked scores"


def compare(name, tensors, earlier):
    """Weights must be equal; tensors of the same name nearly so. Raw and processed activations may be another batch's: the first prompts count."""
    ours, theirs = load_file(args.out / name / "model.safetensors"), load_file(earlier / "model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours), f"{name}: other weights"
    if not (earlier / "golden.safetensors").exists():
        return
    theirs, worst, seen = load_file(earlier / "golden.safetensors"), 0.0, 0
    for key in (tensors.keys() & theirs.keys()) - {"hf.loss"}:
        worst, seen = max(worst, relative(tensors[key], theirs[key][: len(tensors[key])])), seen + 1
    print(f"{name}: weights equal, {seen} tensors within {worst:.1e} of the rms")
    assert worst < 1e-4 and seen > 10


def make(name):
    small, folder = MODELS[name], args.out / name
    hf = save_model(name, folder)
    tokens, layers = TOKENS[: small.prompts], len(base_of(hf)[0])
    tensors = {"tokens": tokens, **hugging_face(hf, tokens)}
    family = small.config.model_type
    meta = dict(family=family, seed=small.seed, versions=versions(), bridge_only=list(BRIDGE_ONLY), max_abs_diff_vs_hf={})
    for tag, processing in (("raw", RAW), ("proc", PROCESSED)):
        order, gated, values, logits, loss = transformer_lens(folder, hf, processing, tokens)
        points = [n for n in order if n not in BRIDGE_ONLY]
        named = [our_name(n, family) for n in points]
        assert meta.setdefault("cache_order", named) == named, "the processing changed the set of hook points"
        meta["flag_gated"] = gated
        if named != points:
            meta["renamed"] = {n: o for n, o in zip(points, named) if n != o}
        tensors |= {f"{tag}.{n}": values[n] for n in points} | {f"{tag}.logits": logits, f"{tag}.loss_per_token": loss}
        resid = max(float((values[f"blocks.{i}.hook_resid_post"] - tensors[f"hf.resid_post.{i}"]).abs().max()) for i in range(layers))
        log_probs = float((logits.log_softmax(-1) - tensors["hf.logits"].log_softmax(-1)).abs().max())
        assert log_probs < 2e-5, f"{name}: TransformerLens computes another model ({log_probs})"
        meta["max_abs_diff_vs_hf"][tag] = dict(log_probs=log_probs, resid_post=resid)
    check_masks(tensors, small, layers)
    meta["masked_scores"] = "-inf"
    if args.weights_like and (args.weights_like / name).exists():
        compare(name, tensors, args.weights_like / name)
    if not small.complete:
        meta["kept_layers_of"] = {"attn.hook_result": [KEPT_LAYER]}
        tensors = {n: t for n, t in tensors.items() if not n.endswith("hook_result") or f".{KEPT_LAYER}." in n}
    kept, meta["same_as"] = without_repeats(tensors)
    if not small.complete:
        meta["same_as_within_rms"] = without_near(kept, meta["same_as"])
    save_file(kept, folder / "golden.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)
    dump(folder / "meta.json", meta)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(name, json.dumps(meta["max_abs_diff_vs_hf"]), len(kept), "tensors,", len(meta["same_as"]), "repeats dropped,", size // 1000, "kB", flush=True)


for name in args.only.split(",") if args.only else MODELS:
    make(name)
