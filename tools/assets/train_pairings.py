#!/usr/bin/env python3
"""Train the small SAEs of crates/pretrained/tests/pairings on the demo language model, one for each way in which published SAEs differ.

  python tools/assets/train_pairings.py --lm assets/demo/lm --corpus corpus.jsonl.zst --out crates/pretrained/tests/pairings [--only NAME ..]

Hook (residual stream of three depths, outputs of MLP and attention, hook_z whole and of one head, a transcoder), kind (standard, topk,
jumprelu from batchtopk, gated), processing of the model's weights, BOS and normalisation differ. Every SAE is written as a SAELens
folder (cfg.json, weights in f16, log10 firing frequencies), with its L0 and explained variance on held-out text in eval.json. The training is written
here in plain torch, so that a minute's run on one core is enough; the configuration files are SAELens' own format.
Needs: torch, transformers, transformer-lens 3.9.0, safetensors, and zstandard for a .zst corpus.
"""

import argparse
import json
import math
import os
import random
import time

import torch
from safetensors.torch import save_file
from train_demo_lm import almanac_paragraph, read_corpus
from train_demo_sae import PROCESSED, tl_from_local

RAW = {step: False for step in PROCESSED}
HELD_ROWS = 64

# name: processing, BOS, text, hook in, hook out, head, kind, k or L1 coefficient, normalisation, d_sae
SPECS = {
    "pre1-standard": dict(hook="blocks.1.hook_resid_pre", kind="standard", sparsity=0.12, norm="factor"),
    "pre2-topk-raw": dict(hook="blocks.2.hook_resid_pre", kind="topk", sparsity=16, norm="none", weights="raw"),
    "pre2-topk-unfolded": dict(hook="blocks.2.hook_resid_pre", kind="topk", sparsity=16, norm="unfolded"),
    "pre3-gated": dict(hook="blocks.3.hook_resid_pre", kind="gated", sparsity=0.2, norm="factor"),
    "post3-topk-layernorm": dict(hook="blocks.3.hook_resid_post", kind="topk", sparsity=16, norm="layer_norm", weights="raw"),
    "mlp1-jumprelu": dict(hook="blocks.1.hook_mlp_out", kind="jumprelu", sparsity=16, norm="factor"),
    "attn2-topk": dict(hook="blocks.2.hook_attn_out", kind="topk", sparsity=16, norm="factor"),
    "z2-jumprelu": dict(hook="blocks.2.attn.hook_z", kind="jumprelu", sparsity=16, norm="factor"),
    "z1-head3-standard": dict(hook="blocks.1.attn.hook_z", head=3, kind="standard", sparsity=0.08, norm="factor", d_sae=96),
    "transcoder2": dict(
        hook="blocks.2.ln2.hook_normalized", hook_out="blocks.2.hook_mlp_out", kind="standard", sparsity=0.008, norm="none"
    ),
    "pre2-standard-no-bos": dict(hook="blocks.2.hook_resid_pre", kind="standard", sparsity=0.12, norm="factor", bos=False),
    "pre3-topk-rescale": dict(hook="blocks.3.hook_resid_pre", kind="topk", sparsity=16, norm="constant_norm_rescale"),
    "pre2-jumprelu-almanac": dict(hook="blocks.2.hook_resid_pre", kind="jumprelu", sparsity=8, norm="factor", text="almanac"),
}


def rows_of(tok, texts, n, bos):
    """`n` rows of 128 tokens: documents one after another, cut; with BOS at the front of each row, or not."""
    width, ids, rows = 127 if bos else 128, [], []
    for text in texts:
        ids += tok.encode(text) + [tok.bos_token_id]
        while len(ids) >= width and len(rows) < n:
            rows.append(([tok.bos_token_id] if bos else []) + ids[:width])
            ids = ids[width:]
        if len(rows) == n:
            return torch.tensor(rows)
    raise SystemExit("too little text")


def capture(model, rows, names, bos_id):
    """f16 activations [tokens, d] at each hook, BOS tokens left out."""
    out = {name: [] for name in names}
    with torch.no_grad():
        for b in rows.split(32):
            _, cache = model.run_with_cache(b, names_filter=list(names))
            keep = (b != bos_id).flatten()
            for name in names:
                x = cache[name]
                x = x.flatten(2) if x.dim() == 4 else x
                out[name].append(x.flatten(0, 1)[keep].half())
    return {name: torch.cat(parts) for name, parts in out.items()}


class Coder:
    """Weights and forward of one kind, in SAELens' convention."""

    def __init__(self, spec, d_in, d_out, mean_in, mean_out, g):
        self.kind, self.s, d_sae = spec["kind"], spec["sparsity"], spec.get("d_sae", 192)
        self.transcoder = "hook_out" in spec
        w = torch.randn(d_sae, d_out, generator=g)
        self.p = dict(W_dec=w / w.norm(dim=1, keepdim=True), b_enc=torch.zeros(d_sae), b_dec=mean_out.clone())
        if d_in == d_out and not self.transcoder:
            self.p["W_enc"] = self.p["W_dec"].T.clone()
        else:
            w = torch.randn(d_in, d_sae, generator=g)
            self.p["W_enc"] = w / w.norm(dim=0, keepdim=True)
        if self.kind == "gated":
            self.p |= dict(b_gate=torch.zeros(d_sae), b_mag=torch.zeros(d_sae), r_mag=torch.zeros(d_sae))
            del self.p["b_enc"]
        self.p = {k: v.contiguous().requires_grad_() for k, v in self.p.items()}
        self.threshold = torch.zeros(d_sae)

    def shift(self, x):
        return x if self.transcoder else x - self.p["b_dec"]

    def encode(self, x, training=False):
        p, x = self.p, self.shift(x)
        if self.kind == "gated":
            pre = x @ p["W_enc"]
            gate = pre + p["b_gate"]
            return (gate > 0) * torch.relu(pre * p["r_mag"].exp() + p["b_mag"]), gate
        h = x @ p["W_enc"] + p["b_enc"]
        if self.kind == "topk":
            v, i = h.topk(int(self.s), dim=1)
            return torch.zeros_like(h).scatter(1, i, torch.relu(v)), None
        f = torch.relu(h)
        if self.kind == "jumprelu" and training:
            least = f.flatten().topk(int(self.s) * len(x)).values.min()
            return f * (f >= least), None
        return (f * (h > self.threshold) if self.kind == "jumprelu" else f), None

    def loss(self, x, y):
        p, (f, gate) = self.p, self.encode(x, training=True)
        loss = ((y - f @ p["W_dec"] - p["b_dec"]) ** 2).sum(1).mean()
        if self.kind == "standard":
            loss = loss + self.s * math.sqrt(y.shape[1]) * f.sum(1).mean()
        if self.kind == "gated":
            g = torch.relu(gate)
            aux = ((y - g @ p["W_dec"].detach() - p["b_dec"].detach()) ** 2).sum(1).mean()
            loss = loss + aux + self.s * math.sqrt(y.shape[1]) * g.sum(1).mean()
        return loss

    def unit_decoder(self):
        w = self.p["W_dec"].data
        w /= w.norm(dim=1, keepdim=True).clamp(min=1e-8)


def train(spec, x, y, steps, g):
    """x, y [tokens, d] normalised and in f16."""
    coder = Coder(spec, x.shape[1], y.shape[1], x[:20000].float().mean(0), y[:20000].float().mean(0), g)
    opt = torch.optim.Adam(coder.p.values(), lr=2e-3, betas=(0.9, 0.99))
    for step in range(steps):
        for group in opt.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50, 3 * (steps - step) / steps)
        i = torch.randint(len(x), (1024,), generator=g)
        xb, yb = x[i].float(), y[i].float()
        loss = coder.loss(xb, yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
        coder.unit_decoder()
    if coder.kind == "jumprelu":
        # One threshold for all: what lets k features of a token through on average, as BatchTopK's is made in SAELens.
        with torch.no_grad():
            xb = x[torch.randint(len(x), (8192,), generator=g)].float()
            h = coder.shift(xb) @ coder.p["W_enc"] + coder.p["b_enc"]
            coder.threshold = torch.full((h.shape[1],), h.flatten().topk(int(coder.s) * len(h)).values.min().item())
    return coder


def per_token(norm, x):
    """What a per-token normalisation makes of x, and how to undo it."""
    if norm == "layer_norm":
        mu = x.mean(1, keepdim=True)
        sd = x.std(1, keepdim=True)
        return (x - mu) / (sd + 1e-5), lambda y: y * sd + mu
    if norm == "constant_norm_rescale":
        c = math.sqrt(x.shape[1]) / x.norm(dim=1, keepdim=True)
        return x * c, lambda y: y / c
    return x, lambda y: y


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--lm", required=True)
    ap.add_argument("--corpus", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--rows", type=int, default=1800)
    ap.add_argument("--steps", type=int, default=1500)
    ap.add_argument("--only", nargs="*")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    from transformer_lens import HookedTransformer
    from transformers import PreTrainedTokenizerFast

    tok = PreTrainedTokenizerFast.from_pretrained(a.lm)
    specs = {k: v for k, v in SPECS.items() if not a.only or k in a.only}
    r = random.Random(a.seed)
    docs = [d["text"] for d in read_corpus(a.corpus)]
    r.shuffle(docs)
    held, docs = docs[:400], docs[400:]  # train_demo_lm.py's held-out documents, with its seed
    almanac = [almanac_paragraph(r) for _ in range(8000)]
    mixed = docs[: 8 * a.rows]
    for i in range(0, len(mixed), 8):
        mixed[i] = "\n".join(r.sample(almanac, 4))
    texts = dict(mixed=mixed, almanac=["\n".join(r.sample(almanac, 8)) for _ in range(8 * a.rows)])
    held_texts = dict(mixed=[" ".join(h.split(" ")[:250]) for h in held], almanac=[almanac_paragraph(r) for _ in range(600)])
    place = lambda spec: (spec.get("weights", "tl"), spec.get("bos", True), spec.get("text", "mixed"))
    for key in sorted({place(s) for s in specs.values()}, reverse=True):
        weights, bos, text = key
        here = {k: v for k, v in specs.items() if place(v) == key}
        t = time.time()
        model = tl_from_local(a.lm, PROCESSED if weights == "tl" else RAW, tokenizer=tok, cls=HookedTransformer)
        names = {s["hook"] for s in here.values()} | {s["hook_out"] for s in here.values() if "hook_out" in s}
        rows = rows_of(tok, texts[text], a.rows, bos)
        acts = capture(model, rows, names, tok.bos_token_id)
        held_acts = capture(model, rows_of(tok, held_texts[text], HELD_ROWS, bos), names, tok.bos_token_id)
        print(key, "captured in", round(time.time() - t), "s", flush=True)
        for name, spec in here.items():
            make(a, name, spec, key, acts, held_acts)


def make(a, name, spec, key, acts, held_acts):
    """Trains, folds, measures and writes one SAE."""
    t, g = time.time(), torch.Generator().manual_seed(a.seed)
    head = spec.get("head")

    def cut(x):
        return x[:, 32 * head : 32 * head + 32] if head is not None else x

    x, held = cut(acts[spec["hook"]]), cut(held_acts[spec["hook"]]).float()
    y, held_y = acts[spec.get("hook_out", spec["hook"])], held_acts[spec.get("hook_out", spec["hook"])].float()
    if "hook_out" not in spec:
        y, held_y = x, held
    norm, d_in = spec["norm"], x.shape[1]
    s = math.sqrt(d_in) / x.float().norm(dim=1).mean().item() if norm in ("factor", "unfolded") else 1.0
    xs = per_token(norm, x.float() * s)[0].half()
    ys = xs if "hook_out" not in spec else y
    coder = train(spec, xs, ys, a.steps, g)
    with torch.no_grad():
        z, undo = per_token(norm, held * s)
        f, _ = coder.encode(z)
        y_hat = undo(f @ coder.p["W_dec"] + coder.p["b_dec"]).double() / s
        v = held_y.double()
        ev = 1 - ((v - y_hat) ** 2).sum(1).mean() / ((v**2).sum(1).mean() - (v.mean(0) ** 2).sum())
        fired = torch.zeros(f.shape[1])
        for part in xs[:100000].split(8192):
            fired += (coder.encode(part.float())[0] > 0).float().sum(0)
        fired /= min(len(xs), 100000)
        w = {k: p.detach().clone() for k, p in coder.p.items()}
        w |= {"threshold": coder.threshold} if spec["kind"] == "jumprelu" else {}
        if norm == "factor":
            w["W_enc"] *= s
            w["W_dec"] /= s
            w["b_dec"] /= s
    weights, bos, text = key
    folder = os.path.join(a.out, name)
    os.makedirs(folder, exist_ok=True)
    save_file({k: p.half().contiguous() for k, p in w.items()}, os.path.join(folder, "sae_weights.safetensors"))
    save_file({"sparsity": fired.clamp(min=1e-10).log10()}, os.path.join(folder, "sparsity.safetensors"))
    transcoder = "hook_out" in spec
    steps = PROCESSED if weights == "tl" else RAW
    cfg = dict(
        architecture=("transcoder" if transcoder else spec["kind"]),
        d_in=d_in,
        d_sae=f.shape[1],
        dtype="float32",
        device="cpu",
        apply_b_dec_to_input=not transcoder,
        normalize_activations={"factor": "none", "unfolded": "expected_average_only_in"}.get(norm, norm),
        reshape_activations="hook_z" if spec["hook"].endswith("hook_z") and head is None else "none",
        metadata=dict(
            model_name="demo-lm",
            hook_name=spec["hook"],
            hook_head_index=head,
            context_size=128,
            prepend_bos=bos,
            exclude_special_tokens=True,
            sequence_separator_token="bos",
            model_from_pretrained_kwargs=steps,
            dataset_path="almanac" if text == "almanac" else "permissive text + generated almanac",
        ),
    )
    if spec["kind"] == "topk":
        cfg |= dict(k=int(spec["sparsity"]), rescale_acts_by_decoder_norm=False)
    if transcoder:
        cfg |= dict(d_out=held_y.shape[1])
        cfg["metadata"] |= dict(hook_name_out=spec["hook_out"])
    json.dump(cfg, open(os.path.join(folder, "cfg.json"), "w"), indent=1)
    l0 = (f > 0).float().sum(1).mean().item()
    out = dict(
        explained_variance=round(ev.item(), 4),
        l0=round(l0, 2),
        norm_scaling_factor=round(s, 6) if norm == "unfolded" else None,
        held_out_tokens=len(held),
    )
    json.dump(out, open(os.path.join(folder, "eval.json"), "w"), indent=1)
    print(name, out, "dead", round((fired == 0).float().mean().item(), 3), round(time.time() - t), "s", flush=True)


if __name__ == "__main__":
    main()
