"""Small seeded random GPT-2 and Llama models in Hugging Face format, with every TransformerLens activation.

    python golden_small.py --out ../crates/model-hooks/tests/golden [--weights-like FOLDER]

Writes OUT/<name>/{config.json, model.safetensors, golden.safetensors, meta.json}, see OUT/README.md.
`--weights-like` compares the weights with those of an earlier run and stops where they differ.
"""

import argparse
import json
import shutil
from pathlib import Path

from golden_common import PROCESSED, RAW, dump, tl_from_local, versions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--weights-like", type=Path)
args = parser.parse_args()

import torch
import transformers as T
from safetensors.torch import load_file, save_file

torch.set_grad_enabled(False)
torch.set_num_threads(1)
VOCAB, D_MODEL, LAYERS, HEADS, KV_HEADS, SEQ = 384, 64, 3, 4, 2, 24
GPT2 = dict(vocab_size=VOCAB, n_positions=256, n_embd=D_MODEL, n_layer=LAYERS, n_head=HEADS, bos_token_id=1, eos_token_id=2)
LLAMA = dict(vocab_size=VOCAB, hidden_size=D_MODEL, intermediate_size=160, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
             num_key_value_heads=KV_HEADS, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
             tie_word_embeddings=False, rms_norm_eps=1e-5)
ROPE = dict(rope_type="default", rope_theta=10000.0)
ROPE_LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=64)
# name: (class, config, seed of the weights, prompts kept). The second of a family differs in one detail: one prompt is enough.
MODELS = dict(
    gpt2=(T.GPT2LMHeadModel, T.GPT2Config(**GPT2), 1000, 2),
    gpt2_scale_by_layer=(T.GPT2LMHeadModel, T.GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True), 1001, 1),
    llama=(T.LlamaForCausalLM, T.LlamaConfig(**LLAMA, rope_parameters=ROPE), 1004, 2),
    llama3_rope=(T.LlamaForCausalLM, T.LlamaConfig(**LLAMA, rope_parameters=ROPE_LLAMA3), 1005, 1),
)
BRIDGE_ONLY = ("unembed.hook_in", "unembed.hook_out")  # new in TransformerLens 3; the same tensors as the last two
tokens_rng = torch.Generator().manual_seed(99)
TOKENS = torch.cat([torch.ones(2, 1, dtype=torch.long), torch.randint(3, VOCAB, (2, SEQ - 1), generator=tokens_rng)], 1)


def fill(model, seed):
    """Weights large enough that attention, norms and biases all matter."""
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(model.named_parameters()):
        noise = torch.randn(tensor.shape, generator=rng)
        if tensor.ndim == 1 and name.endswith("weight"):
            tensor.copy_(1.0 + 0.2 * noise)
        elif name.endswith("bias"):
            tensor.copy_(0.1 * noise)
        elif "embed" in name or "wte" in name or "wpe" in name:
            tensor.copy_(noise * 0.3)
        else:
            tensor.copy_(noise * 1.6 / max(tensor.shape) ** 0.5)
    model.tie_weights()


def save_model(cls, cfg, seed, folder):
    shutil.rmtree(folder, ignore_errors=True)
    cfg._attn_implementation = "eager"
    model = cls(cfg).eval()
    fill(model, seed)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if cfg.model_type == "gpt2":  # TransformerLens reads the hub's own key
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "n_ctx": cfg.n_positions}, indent=2) + "\n")
    return T.AutoModelForCausalLM.from_pretrained(str(folder), attn_implementation="eager").eval()


def hugging_face(hf, tokens):
    """Residuals, final norm, logits and loss by forward hooks on the plain model."""
    base = hf.transformer if hasattr(hf, "transformer") else hf.model
    layers, norm = (base.h, base.ln_f) if hasattr(base, "h") else (base.layers, base.norm)
    out, handles = {}, []
    for i, layer in enumerate(layers):
        def hook(_, positional, named, result, i=i):
            if i == 0:
                out["hf.resid_pre.0"] = (positional[0] if positional else named["hidden_states"]).clone()
            out[f"hf.resid_post.{i}"] = (result[0] if isinstance(result, tuple) else result).clone()
        handles.append(layer.register_forward_hook(hook, with_kwargs=True))
    handles.append(norm.register_forward_hook(lambda _, a, r: out.update({"hf.final_norm": r.clone()})))
    logits = hf(tokens).logits
    for handle in handles:
        handle.remove()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return {**out, "hf.logits": logits, "hf.loss": loss.reshape(1)}


def transformer_lens(folder, hf, processing, tokens):
    """All cached activations, in cache order, with `hook_result` put where it fires; then logits and loss per token.

    `use_attn_result` changes the order of attention's last sum (by rounding), so it runs apart and gives only `hook_result`.
    """
    model = tl_from_local(folder, processing, hf_model=hf)
    logits, plain = model.run_with_cache(tokens)
    loss = model(tokens, return_type="loss", loss_per_token=True)
    model.set_use_attn_result(True)
    _, full = model.run_with_cache(tokens)
    order = list(full.keys())
    gated = sorted({name.split(".", 2)[-1] for name in set(model.hook_dict) - set(order)})
    values = {name: plain[name] if name in plain else full[name] for name in order}
    return order, gated, values, logits, loss


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


for name, (cls, cfg, seed, prompts) in MODELS.items():
    folder = args.out / name
    hf = save_model(cls, cfg, seed, folder)
    if args.weights_like:
        ours, theirs = load_file(folder / "model.safetensors"), load_file(args.weights_like / name / "model.safetensors")
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours), f"{name}: other weights"
    tokens = TOKENS[:prompts]
    tensors = {"tokens": tokens, **hugging_face(hf, tokens)}
    meta = dict(family=cfg.model_type, seed=seed, versions=versions(), bridge_only=list(BRIDGE_ONLY), max_abs_diff_vs_hf={})
    for tag, processing in (("raw", RAW), ("proc", PROCESSED)):
        order, gated, values, logits, loss = transformer_lens(folder, hf, processing, tokens)
        points = [n for n in order if n not in BRIDGE_ONLY]
        assert torch.equal(values["unembed.hook_in"], values["ln_final.hook_normalized"]) or tag == "raw"
        assert torch.equal(values["unembed.hook_out"], logits)
        assert meta.setdefault("cache_order", points) == points, "the processing changed the set of hook points"
        meta["flag_gated"] = gated
        tensors |= {f"{tag}.{n}": values[n] for n in points} | {f"{tag}.logits": logits, f"{tag}.loss_per_token": loss}
        resid = max(float((values[f"blocks.{i}.hook_resid_post"] - tensors[f"hf.resid_post.{i}"]).abs().max()) for i in range(LAYERS))
        log_probs = float((logits.log_softmax(-1) - tensors["hf.logits"].log_softmax(-1)).abs().max())
        meta["max_abs_diff_vs_hf"][tag] = dict(log_probs=log_probs, resid_post=resid)
    scores = tensors["raw.blocks.0.attn.hook_attn_scores"]
    assert torch.isneginf(scores).sum() == scores.shape[0] * HEADS * SEQ * (SEQ - 1) // 2, "masked scores are -inf"
    meta["masked_scores"] = "-inf"
    kept, meta["same_as"] = without_repeats(tensors)
    save_file(kept, folder / "golden.safetensors")
    for file in folder.iterdir():
        file.chmod(0o644)
    dump(folder / "meta.json", meta)
    print(name, json.dumps(meta["max_abs_diff_vs_hf"]), len(kept), "tensors,", len(meta["same_as"]), "repeats dropped")
