"""More runs of the small models: edits by TransformerLens, rows of several lengths and greedy generation by transformers; a multimodal Gemma 3.

    python tools/goldens/golden_runs.py --models crates/model-hooks/tests/golden

Writes MODELS/edits/<name>.safetensors and MODELS/ragged/<name>.safetensors with .json beside them, and the folder
MODELS/gemma3_multimodal; see MODELS/README.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import RAW, dump, versions

import torch
from golden_models import D_MODEL, GEMMA, GEMMA3_ROPE, SEQ, TOKENS, VOCAB, WINDOW, T, fill, hooked, open_model, rope
from safetensors.torch import save_file

torch.set_grad_enabled(False)
LAYER, POSITION, LENGTHS, NEW_TOKENS, MARGIN = 1, 5, (24, 17, 9, 1), 12, 2e-3
DIRECTION = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(77)) * 0.8
PROMPT, OTHER = TOKENS[:1], TOKENS[1:]


def add(head):
    """Adds DIRECTION to one head's copy of a [b, p, h, d] activation at every position, or to all of a [b, p, d] one."""
    def hook(value, hook):
        value = value.clone()
        value[(..., head, slice(None)) if head is not None else ...] += DIRECTION
        return value

    return hook


def zero_head(value, hook):
    value = value.clone()
    value[:, :, 1] = 0.0
    return value


def project_out(value, hook):
    unit = DIRECTION / DIRECTION.norm()
    return value - (value @ unit)[..., None] * unit


def edit_cases(model):
    """{name: (flags to switch on, [(hook, edit)])}; the names are those of the file."""
    at = f"blocks.{LAYER}."
    _, other = model.run_with_cache(OTHER)

    def patch(value, hook):
        value = value.clone()
        value[:, POSITION] = other[hook.name][:, POSITION]
        return value

    split = dict(hook_q_input=1, hook_k_input=0, hook_v_input=1)
    cases = {point: (["split_qkv_input"], [(at + point, add(head))]) for point, head in split.items()}
    cases["qkv_inputs"] = (["split_qkv_input"], [(at + point, add(head)) for point, head in split.items()])
    cases["hook_mlp_in"] = (["hook_mlp_in"], [(at + "hook_mlp_in", add(None))])
    cases["attn.hook_result"] = (["attn_result"], [(at + "attn.hook_result", add(2))])
    if model.cfg.n_key_value_heads is None:
        cases["hook_attn_in"] = (["attn_in"], [(at + "hook_attn_in", add(2))])
    cases["zero_z"] = ([], [(at + "attn.hook_z", zero_head)])
    cases["project_out"] = ([], [(at + "hook_resid_mid", project_out)])
    cases["patch_resid"] = ([], [(at + "hook_resid_pre", patch)])
    cases["patch_pattern"] = ([], [(at + "attn.hook_pattern", lambda value, hook: other[hook.name])])
    cases["two_layers"] = ([], [("blocks.0.attn.hook_z", zero_head), ("blocks.2.hook_resid_mid", project_out)])
    return cases


def edits(folder, out, name):
    model = hooked(folder / name, open_model(folder / name), RAW)[0]
    plain = model(PROMPT)
    tensors, change = {"tokens": PROMPT, "other_tokens": OTHER, "direction": DIRECTION}, {}
    for case, (flags, hooks) in edit_cases(model).items():
        for flag in flags:
            getattr(model, f"set_use_{flag}")(True)
        logits = model.run_with_hooks(PROMPT, fwd_hooks=hooks)
        for flag in flags:
            getattr(model, f"set_use_{flag}")(False)
        tensors[f"logits.{case}"] = logits
        change[case] = float((logits - plain).abs().max())
        assert change[case] > 0.05, f"{name}: {case} changes the logits by {change[case]}"
    out.mkdir(exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out / f"{name}.safetensors")
    dump(out / f"{name}.json", dict(versions=versions(), layer=LAYER, position=POSITION, max_abs_logit_change=change))
    print(name, "edits", {k: round(v, 2) for k, v in change.items()})


def rows(seed):
    rng = torch.Generator().manual_seed(seed)
    return [TOKENS[0]] + [torch.cat([torch.ones(1, dtype=torch.long), torch.randint(3, VOCAB, (n - 1,), generator=rng)]) for n in LENGTHS[1:]]


def greedy(hf, row):
    """The tokens that follow, the logits of the last step, and the least distance between the first and the second choice."""
    hf.generation_config.eos_token_id = None  # never stops early
    out = hf.generate(row[None], attention_mask=torch.ones_like(row[None]), do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0,
                      return_dict_in_generate=True, output_logits=True)
    logits = torch.cat(out.logits)
    best = logits.topk(2, -1).values
    ids = out.sequences[0, len(row):]
    full = hf(out.sequences[:, :-1]).logits[0, len(row) - 1 :]
    assert torch.equal(full.argmax(-1), ids) and (full - logits).abs().max() < 1e-3, "cached and uncached generation differ"
    return ids, logits[-1], float((best[:, 0] - best[:, 1]).min())


def ragged(folder, out, name):
    hf = open_model(folder / name)
    for seed in range(200, 300):
        texts = rows(seed)
        generated = [greedy(hf, row) for row in texts]
        if min(g[2] for g in generated) > MARGIN:
            break
    else:
        raise AssertionError(f"{name}: every seed has a near tie")
    tensors = {}
    for i, (row, (ids, last, _)) in enumerate(zip(texts, generated)):
        assert len(row) == LENGTHS[i] <= SEQ and len(ids) == NEW_TOKENS
        tensors |= {f"row{i}.tokens": row, f"row{i}.logits": hf(row[None]).logits[0], f"row{i}.generated": ids, f"row{i}.last_logits": last}
    out.mkdir(exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out / f"{name}.safetensors")
    margins = [g[2] for g in generated]
    dump(out / f"{name}.json", dict(versions=versions(), seed=seed, least_margin_of_a_choice=margins))
    print(name, "ragged, seed", seed, [round(m, 4) for m in margins], generated[0][0].tolist())


def multimodal(folder):
    """Gemma 3 with a picture encoder, as the sizes from 4B up are published: names, nesting of the configuration, linear scaling in global layers."""
    text = {**GEMMA, "num_hidden_layers": 2, "num_key_value_heads": 1, "intermediate_size": 96}
    del text["tie_word_embeddings"]
    scaled = {**GEMMA3_ROPE, "full_attention": rope(1000000.0, "linear", factor=8.0)}
    config = T.Gemma3Config(
        text_config=dict(**text, sliding_window=WINDOW, query_pre_attn_scalar=32, layer_types=["sliding_attention", "full_attention"], rope_parameters=scaled),
        vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14),
        mm_tokens_per_image=4, image_token_index=383, boi_token_index=381, eoi_token_index=382, tie_word_embeddings=True)
    config._attn_implementation = "eager"
    model = T.Gemma3ForConditionalGeneration(config).eval()
    fill(model, 1021, True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = torch.where(PROMPT >= 381, 5, PROMPT)  # none that stands for a picture
    out = model(tokens, output_hidden_states=True)
    tensors = {"tokens": tokens, "hf.resid_pre.0": out.hidden_states[0], "hf.resid_post.0": out.hidden_states[1], "hf.final_norm": out.hidden_states[2], "hf.logits": out.logits}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / "golden.safetensors")
    dump(folder / "meta.json", dict(family="gemma3", seed=1021, versions=versions(), hf_only=True))
    print("gemma3_multimodal", sum(f.stat().st_size for f in folder.iterdir()) // 1000, "kB, logits sd", float(out.logits.std()))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", type=Path, required=True)
args = parser.parse_args()
for name in ("gpt2", "llama"):
    edits(args.models, args.models / "edits", name)
for name in ("gpt2", "llama", "gemma2", "neox_parallel"):
    ragged(args.models, args.models / "ragged", name)
multimodal(args.models / "gemma3_multimodal")
for part in ("edits", "ragged", "gemma3_multimodal"):
    for file in (args.models / part).iterdir():
        file.chmod(0o644)
