"""SAEs inside the small GPT-2: what SAELens' HookedSAETransformer computes with them.

    python tools/goldens/golden_splice.py --model crates/model-hooks/tests/golden/gpt2 --out crates/sae-hooks/tests/golden/splice

Writes OUT/saes/NAME/{cfg.json, sae_weights.safetensors} (four SAEs in SAELens' format), OUT/golden.safetensors and OUT/meta.json, see OUT/README.md.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, RAW, dump, versions

import sae_lens as S
import torch
from golden_models import TOKENS, VOCAB, hooked, open_model
from safetensors.torch import save_file
from sae_lens.saes.sae import SAEMetadata

torch.set_grad_enabled(False)
D_IN, D_SAE, SHOWN = 64, 96, 12
CONTEXT = TOKENS[:, :SHOWN]
EXCLUDED = [1, int(TOKENS[0, 7]), int(TOKENS[1, 3])]  # the first token of both prompts, and one inside each
CLAMP, STEER, MARGIN = 3.0, 2.0, 2e-3
SAES = dict(  # hook read, hook written
    standard=("blocks.1.hook_resid_pre",) * 2,
    topk=("blocks.1.hook_mlp_out",) * 2,
    jumprelu=("blocks.2.attn.hook_z",) * 2,
    transcoder=("blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out"),
)


def blank(name, hooks):
    metadata = SAEMetadata(model_name="gpt2-small-golden", hook_name=hooks[0], hook_head_index=None, context_size=24, prepend_bos=True)
    base = dict(d_in=D_IN, d_sae=D_SAE, metadata=metadata)
    match name:
        case "standard":
            return S.StandardSAE(S.StandardSAEConfig(**base))
        case "topk":
            return S.TopKSAE(S.TopKSAEConfig(**base, k=10))
        case "jumprelu":
            return S.JumpReLUSAE(S.JumpReLUSAEConfig(**base, reshape_activations="hook_z"))
        case "transcoder":
            metadata.hook_name_out = hooks[1]
            return S.Transcoder(S.TranscoderConfig(**base, d_out=D_IN, apply_b_dec_to_input=False))


def fit(sae, x, y, seed):
    """A random encoder with about a fifth of the features active, and the decoder that fits `y` best: reconstructions fair, not good."""
    rng = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=rng)
    sae.W_enc.data = normal(D_IN, D_SAE) / x.std() / D_IN**0.5
    sae.b_enc.data = normal(D_SAE) * 0.3 - 0.8
    sae.b_dec.data = y.mean(0)
    if hasattr(sae, "threshold"):
        sae.threshold.data = torch.rand(D_SAE, generator=rng) * 0.3
    reshaping = sae.cfg.reshape_activations == "hook_z"
    if reshaping:
        sae.turn_off_forward_pass_hook_z_reshaping()
    codes = sae.encode(x).double()
    ridge = codes.T @ codes + 0.05 * len(codes) * torch.eye(D_SAE, dtype=torch.float64) * codes.pow(2).mean()
    sae.W_dec.data = torch.linalg.solve(ridge, codes.T @ (y - sae.b_dec).double()).float().contiguous()
    sae.W_dec.data += 0.02 * normal(D_SAE, D_IN)  # no row is zero, also of a feature that never fired
    if reshaping:
        sae.turn_on_forward_pass_hook_z_reshaping()


def margin(sae, models):
    """How far the decisions of TopK and JumpReLU are from going the other way on the prompts, in every model."""
    least = float("inf")
    for model in models.values():
        hook = sae.cfg.metadata.hook_name_out or sae.cfg.metadata.hook_name
        pre = model.run_with_cache_with_saes(CONTEXT, saes=[sae])[1][f"{hook}.hook_sae_acts_pre"]
        if hasattr(sae, "threshold"):
            least = min(least, float((pre - sae.threshold).abs().min()))
        elif hasattr(sae.cfg, "k"):
            best = pre.sort(descending=True).values
            least = min(least, float((best[..., sae.cfg.k - 1] - best[..., sae.cfg.k]).min()))
    return least


def make_saes(models, folder):
    """Fitted on the processed model; the first seed whose decisions have room for other roundings."""
    shutil.rmtree(folder, ignore_errors=True)
    text = torch.randint(3, VOCAB, (64, 24), generator=torch.Generator().manual_seed(5))
    text[:, 0] = 1
    _, cache = models["proc"].run_with_cache(text)
    flat = lambda hook: cache[hook].reshape(-1, D_IN)
    margins = {}
    for at, (name, hooks) in enumerate(SAES.items()):
        for seed in range(300 + 100 * at, 400 + 100 * at):
            sae = blank(name, hooks)
            fit(sae, flat(hooks[0]), flat(hooks[1]), seed)
            margins[name] = margin(sae, models)
            if margins[name] > MARGIN:
                break
        else:
            raise AssertionError(f"{name}: no seed leaves a margin of {MARGIN}")
        sae.save_model(folder / name)
    return {name: S.SAE.load_from_disk(str(folder / name)) for name in SAES}, margins


def busy_feature(acts):
    """The feature active at the largest share of positions, the last of equals."""
    return int((acts.reshape(-1, D_SAE) != 0).sum(0).flip(0).argmax() * -1 + D_SAE - 1)


def edits(name, feature):
    point = f"{SAES[name][1]}.hook_sae_acts_post"

    def ablate(acts, hook):
        acts = acts.clone()
        acts[..., feature] = 0.0
        return acts

    def clamp(acts, hook):
        acts = acts.clone()
        acts[..., feature] = CLAMP
        return acts

    def steer(acts, hook):
        acts = acts.clone()
        acts[..., feature] += STEER
        return acts

    return dict(ablate=(point, ablate), clamp=(point, clamp), steer=(point, steer),
                recons_zero=(f"{SAES[name][1]}.hook_sae_recons", lambda recons, hook: torch.zeros_like(recons)))


class Recorder:
    def __init__(self, model, tag):
        self.model, self.tag, self.tensors, self.orders = model, tag, {}, {}

    def __call__(self, case, saes, hooks=(), error=False, exclude=False, cached=False):
        with self.model.saes(saes=list(saes), use_error_term=error, exclude_special_tokens=exclude):
            with self.model.hooks(fwd_hooks=list(hooks)):
                logits, cache = self.model.run_with_cache(CONTEXT)
        self.tensors[f"{self.tag}.{case}.logits"] = logits
        points = [n for n in cache.keys() if not n.endswith("mlp.hook_in") and not n.startswith("unembed.")]  # not TransformerLens' own
        self.orders[f"{self.tag}.{case}"] = points
        if cached:
            self.tensors |= {f"{self.tag}.{case}.{n}": cache[n] for n in points if ".hook_sae_" in n}
        return logits, cache


def record(tag, model, saes, features):
    run = Recorder(model, tag)
    plain, _ = run("plain", [])
    changed = {}
    for name, sae in saes.items():
        ways = edits(name, features[name])
        thin = tag == "raw"
        out, _ = run(f"{name}", [sae], cached=not thin)
        changed[name] = float((out - plain).abs().max())
        out, _ = run(f"{name}.error", [sae], error=True, cached=not thin)
        assert torch.allclose(out, plain, atol=1e-4), f"{name}: the error term does not restore the logits"
        if not thin:
            run(f"{name}.ablate", [sae], [ways["ablate"]])
            run(f"{name}.clamp", [sae], [ways["clamp"]])
            run(f"{name}.exclude", [sae], exclude=EXCLUDED, cached=True)
            run(f"{name}.exclude_ablate_error", [sae], [ways["ablate"]], error=True, exclude=EXCLUDED, cached=True)
        ablated, _ = run(f"{name}.ablate_error", [sae], [ways["ablate"]], error=True)
        run(f"{name}.clamp_error", [sae], [ways["clamp"]], error=True)
        assert (ablated - plain).abs().max() > 1e-2, f"{name}: ablating feature {features[name]} changes nothing"
    every = [edits(name, features[name])["ablate"] for name in saes]
    run("all", saes.values(), cached=tag == "proc")
    out, _ = run("all.error", saes.values(), error=True)
    assert torch.allclose(out, plain, atol=1e-4), "the error terms do not restore the logits"
    run("all.ablate_error", saes.values(), every, error=True)
    if tag == "proc":
        run("standard.steer", [saes["standard"]], [edits("standard", features["standard"])["steer"]])
        run("standard.recons_zero", [saes["standard"]], [edits("standard", features["standard"])["recons_zero"]])
        run("standard.recons_zero_error", [saes["standard"]], [edits("standard", features["standard"])["recons_zero"]], error=True)
    assert not any(".hook_sae_" in n for n in model.hook_dict), "something stayed on the model"
    return run, changed


def without_repeats(tensors):
    seen, kept, same_as = {}, {}, {}
    for name, tensor in tensors.items():
        key = (tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        if key in seen:
            same_as[name] = seen[key]
        else:
            seen[key] = name
            kept[name] = tensor.contiguous().clone()
    return kept, same_as


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    hf = open_model(args.model)
    models = {tag: hooked(args.model, hf, how, cls=S.HookedSAETransformer)[0] for tag, how in (("proc", PROCESSED), ("raw", RAW))}
    saes, margins = make_saes(models, args.out / "saes")
    _, cache = models["proc"].run_with_cache_with_saes(CONTEXT, saes=list(saes.values()), use_error_term=True)
    features = {name: busy_feature(cache[f"{SAES[name][1]}.hook_sae_acts_post"]) for name in saes}
    l0 = {name: float((cache[f"{SAES[name][1]}.hook_sae_acts_post"] != 0).float().sum(-1).mean()) for name in saes}
    tensors, orders, changed = {"tokens": CONTEXT}, {}, {}
    for tag, model in models.items():
        run, changed[tag] = record(tag, model, saes, features)
        tensors |= run.tensors
        orders |= run.orders
    kept, same_as = without_repeats(tensors)
    for name in [n for n in kept if n.endswith(".error.logits")]:  # checked above: those of the plain model
        same_as[name] = name.split(".")[0] + ".plain.logits"
        del kept[name]
    save_file(kept, args.out / "golden.safetensors")
    shown = {case: orders[case] for case in ("proc.plain", "proc.all", "proc.all.error", "proc.standard.error")}
    dump(args.out / "meta.json", dict(
        versions=versions(), saes={n: dict(hook_in=h[0], hook_out=h[1], feature=features[n], l0=l0[n], margin=margins[n] if margins[n] < 1e9 else None) for n, h in SAES.items()},
        excluded_tokens=EXCLUDED, clamp=CLAMP, steer=STEER, cache_order=shown, max_abs_logit_change=changed, same_as=same_as))
    for file in args.out.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    print(json.dumps(dict(features=features, l0=l0, changed=changed)), len(kept), "tensors", sum(f.stat().st_size for f in args.out.rglob("*")) // 1000, "kB")


if __name__ == "__main__":
    main()
