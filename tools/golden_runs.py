"""More runs of the small models: edits by TransformerLens, rows of several lengths and greedy generation by transformers.

    python golden_runs.py --models ../crates/model-hooks/tests/golden

Writes MODELS/edits/<name>.safetensors and MODELS/ragged/<name>.safetensors with .json beside them; see MODELS/README.md.
"""

import argparse
from pathlib import Path

from golden_common import RAW, dump, versions

import torch
from golden_models import D_MODEL, SEQ, TOKENS, VOCAB, hooked, open_model
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


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", type=Path, required=True)
args = parser.parse_args()
for name in ("gpt2", "llama"):
    edits(args.models, args.models / "edits", name)
for name in ("gpt2", "llama", "gemma2", "neox_parallel"):
    ragged(args.models, args.models / "ragged", name)
for part in ("edits", "ragged"):
    for file in (args.models / part).iterdir():
        file.chmod(0o644)
