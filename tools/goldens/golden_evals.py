"""Metrics of SAEs inside the small GPT-2: by SAELens' `run_evals`, and by an oracle of our own in f64.

    python tools/goldens/golden_evals.py --model crates/model-hooks/tests/golden/gpt2 --saes crates/sae-hooks/tests/golden/splice/saes \\
        --out crates/feature-analysis/tests/golden/evals

Writes OUT/{tokens.safetensors, expected.json, features.safetensors}, see OUT/README.md. Where both define a metric they are checked to agree.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, dump, versions

import sae_lens as S
import torch
from golden_models import SEQ, hooked, open_model
from safetensors.torch import save_file
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.training.activation_scaler import ActivationScaler

torch.set_grad_enabled(False)
PROMPTS, BATCH = 12, 4
BATCHES = PROMPTS // BATCH


def sampled_text(model):
    """Prompts the model itself wrote: then its loss is low, and ablating it costs something."""
    rng = torch.Generator().manual_seed(41)
    tokens = torch.ones(PROMPTS, 1, dtype=torch.long)
    while tokens.shape[1] < SEQ:
        chances = (model(tokens)[:, -1] / 0.8).softmax(-1)
        chances[:, :3] = 0.0
        tokens = torch.cat([tokens, torch.multinomial(chances, 1, generator=rng)], 1)
    return tokens


class Store:
    """What `run_evals` asks of an ActivationsStore: batches of tokens, over and over."""

    store_batch_size_prompts, context_size = BATCH, SEQ

    def __init__(self, tokens):
        self.tokens, self.at = tokens, 0

    def get_batch_tokens(self, prompts):
        batch = self.tokens[self.at : self.at + prompts]
        self.at = (self.at + prompts) % len(self.tokens)
        return batch

    def reset_input_dataset(self):
        self.at = 0


def by_saelens(model, sae, tokens, excluded):
    config = get_eval_everything_config(BATCH, n_eval_reconstruction_batches=BATCHES, n_eval_sparsity_variance_batches=BATCHES)
    return run_evals(sae, Store(tokens), model, ActivationScaler(), config, exclude_special_tokens=excluded or False)


class Oracle:
    """The formulas of OUT/README.md in f64. x is the activation that is replaced, y what the SAE or transcoder puts there."""

    def __init__(self, model, sae, tokens, excluded):
        self.model, self.sae, self.tokens = model, sae, tokens
        self.hook_in = sae.cfg.metadata.hook_name
        self.hook_out = sae.cfg.metadata.hook_name_out or self.hook_in
        self.kept = torch.ones_like(tokens, dtype=torch.bool)
        for token in excluded:
            self.kept &= tokens != token
        logits, cache = model.run_with_cache(tokens, names_filter=[self.hook_in, self.hook_out])
        self.logits, self.shape = logits, cache[self.hook_out].shape
        flat = lambda t: t.reshape(*tokens.shape, -1)
        self.x = flat(cache[self.hook_out])
        self.f = sae.encode(cache[self.hook_in])
        self.y = flat(sae.decode(self.f))

    def losses(self, replacement=None):
        """Loss per token and KL from the plain model per token."""
        logits = self.logits
        if replacement is not None:
            logits = self.model.run_with_hooks(self.tokens, fwd_hooks=[(self.hook_out, lambda t, hook: replacement.reshape(self.shape))])
        log_p, plain = logits.log_softmax(-1), self.logits.log_softmax(-1)
        loss = -log_p[:, :-1].gather(-1, self.tokens[:, 1:, None])[..., 0]
        return loss, (plain.exp() * (plain - log_p)).sum(-1)

    def behaviour(self):
        kept = self.kept
        mean = self.x[kept].mean(0)
        replacements = dict(without_sae=None, with_sae=torch.where(kept[..., None], self.y, self.x),
                            with_ablation=torch.zeros_like(self.x), with_mean_ablation=mean.expand_as(self.x))
        out, per_prompt = {}, {}
        average = lambda values, mask: (values * mask).sum(1) / mask.sum(1)
        for name, replacement in replacements.items():
            loss, kl = self.losses(replacement)
            out[f"ce_loss_{name}"] = loss[kept[:, :-1]].mean()
            per_prompt[f"ce_loss_{name}"] = average(loss, kept[:, :-1])
            if replacement is not None:
                out[f"kl_div_{name}"] = kl[kept].mean()
                per_prompt[f"kl_div_{name}"] = average(kl, kept)
        for kind, suffix in (("ablation", ""), ("mean_ablation", "_mean_ablation")):
            ablated = out[f"ce_loss_with_{kind}"]
            out[f"ce_loss_score{suffix}"] = (ablated - out["ce_loss_with_sae"]) / (ablated - out["ce_loss_without_sae"])
            out[f"kl_div_score{suffix}"] = (out[f"kl_div_with_{kind}"] - out["kl_div_with_sae"]) / out[f"kl_div_with_{kind}"]
        return out, per_prompt

    def reconstruction(self):
        batches = [slice(i, i + BATCH) for i in range(0, PROMPTS, BATCH)]
        pick = lambda t, rows=slice(None): t[rows][self.kept[rows]]
        x, y, f = pick(self.x), pick(self.y), pick(self.f)
        residual = (x - y).pow(2).sum(-1)
        variance = x.pow(2).sum(-1).mean() - x.mean(0).pow(2).sum()
        norm_in, norm_out = x.norm(dim=-1), y.norm(dim=-1)
        bias = lambda x, y: y.pow(2).sum(-1).mean() / (x * y).sum(-1).mean()
        legacy = lambda x, y: 1 - (x - y).pow(2).sum(-1) / (x - x.mean(0)).pow(2).sum(-1)
        fve = lambda x, y: 1 - (x - y).var(0).sum() / x.var(0).sum()
        fvu = lambda x, y: (x - y).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
        by_batch = lambda formula: torch.stack([formula(pick(self.x, b), pick(self.y, b)) for b in batches]).mean()
        density = (f != 0).double().mean(0)
        return dict(
            explained_variance=1 - residual.mean() / variance,
            explained_variance_legacy=torch.cat([legacy(pick(self.x, b), pick(self.y, b)) for b in batches]).mean(),
            mse=residual.mean(), cossim=((x * y).sum(-1) / norm_in / norm_out).mean(),
            l2_norm_in=norm_in.mean(), l2_norm_out=norm_out.mean(), l2_ratio=(norm_out / norm_in).mean(),
            relative_reconstruction_bias=by_batch(bias), relative_reconstruction_bias_pooled=bias(x, y),
            l0=(f != 0).sum(-1).double().mean(), l1=f.abs().sum(-1).mean(), dead_share=(density == 0).double().mean(),
            dictionary_learning_l2_loss=residual.sqrt().mean(), dictionary_learning_frac_variance_explained=fve(x, y),
            dictionary_learning_frac_variance_explained_by_batch=by_batch(fve), sparsify_fvu=fvu(x, y), sparsify_fvu_by_batch=by_batch(fvu),
            freq_over_1_percent=(density > 0.01).double().mean(), freq_over_10_percent=(density > 0.1).double().mean(),
            normalized_freq_over_1_percent=density[density > 0.01].sum() / density.sum(),
            normalized_freq_over_10_percent=density[density > 0.1].sum() / density.sum()), density

    def features(self, density):
        active = (self.f != 0) & self.kept[..., None]
        fired = active.any(1).sum(0)
        encoder, decoder = self.sae.W_enc.T, self.sae.W_dec
        unit = lambda w: w / w.norm(dim=-1, keepdim=True)
        out = dict(feature_density=density, consistent_activation_heuristic=active.sum((0, 1)).double() / fired,
                   encoder_bias=self.sae.b_enc, encoder_norm=encoder.norm(dim=-1))
        if encoder.shape == decoder.shape:
            out["encoder_decoder_cosine_sim"] = (unit(encoder) * unit(decoder)).sum(-1)
        closest = {}
        for side, rows in (("encoder", unit(encoder)), ("decoder", unit(decoder))):
            closest[f"average_max_{side}_cosine_sim"] = (rows @ rows.T).fill_diagonal_(-1.0).max(-1).values.mean()
        return out, closest


def flatten(groups):
    return {name: value for group in groups.values() for name, value in group.items()}


def check(name, theirs, ours):
    """SAELens in f32 against the oracle in f64."""
    shared = sorted(theirs.keys() & ours.keys())
    for metric in shared:
        a, b = torch.as_tensor(theirs[metric]).double(), torch.as_tensor(ours[metric]).double()
        assert torch.allclose(a, b, rtol=2e-4, atol=2e-6, equal_nan=True), f"{name}.{metric}: {theirs[metric]} and {ours[metric]}"
    return len(shared)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--model", "--saes", "--out"):
        parser.add_argument(option, type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    hf = open_model(args.model)
    model = hooked(args.model, hf, PROCESSED, cls=S.HookedSAETransformer)[0]
    exact = hooked(args.model, hf, PROCESSED)[0].double()
    exact.cfg.dtype = torch.float64
    tokens = sampled_text(model)
    often = int(tokens[:, 1:].flatten().mode().values)
    cases = dict(all=[], excluding=[1, often])
    expected = dict(versions=versions(), prompts_in_a_batch=BATCH, excluded_tokens=cases["excluding"], saelens={}, oracle={}, per_prompt={})
    features = {}
    for name in ("standard", "topk", "jumprelu", "transcoder"):
        load = lambda **more: S.SAE.load_from_disk(str(args.saes / name), **more)
        for case, excluded in cases.items():
            oracle = Oracle(exact, load(dtype="float64"), tokens, excluded)
            behaviour, per_prompt = oracle.behaviour()
            reconstruction, density = oracle.reconstruction()
            per_feature, closest = oracle.features(density)
            ours = {k: float(v) for k, v in (behaviour | reconstruction | closest).items()}
            assert all(math.isfinite(v) for v in ours.values()), ours
            expected["oracle"].setdefault(name, {})[case] = ours
            expected["per_prompt"].setdefault(name, {})[case] = {k: v.tolist() for k, v in per_prompt.items()}
            features |= {f"oracle.{name}.{case}.{k}": v for k, v in per_feature.items()}
            agreed = 0
            if name != "transcoder":  # SAELens would put the output where the input was
                groups, per_feature_theirs = by_saelens(model, load(), tokens, excluded)
                expected["saelens"].setdefault(name, {})[case] = groups
                features |= {f"saelens.{name}.{case}.{k}": torch.tensor(v) for k, v in per_feature_theirs.items()}
                agreed = check(f"{name}.{case}", flatten(groups), ours) + check(f"{name}.{case}", per_feature_theirs, per_feature)
            print(name, case, f"{agreed} metrics agree;", {k: round(ours[k], 4) for k in (
                "ce_loss_without_sae", "ce_loss_with_sae", "ce_loss_with_ablation", "ce_loss_with_mean_ablation", "ce_loss_score", "kl_div_score",
                "explained_variance", "explained_variance_legacy", "l0", "dead_share")})
    save_file({"tokens": tokens}, args.out / "tokens.safetensors")
    save_file({k: v.contiguous().clone() for k, v in features.items()}, args.out / "features.safetensors")
    dump(args.out / "expected.json", expected)
    for file in args.out.iterdir():
        file.chmod(0o644)
    print(sum(f.stat().st_size for f in args.out.iterdir()) // 1000, "kB")


if __name__ == "__main__":
    main()
