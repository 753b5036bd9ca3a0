#!/usr/bin/env python3
"""Train the small GPT-2-architecture language model of the embedded demo, and write it in Hugging Face format.

  python3 tools/assets/train_demo_lm.py --corpus corpus.jsonl --out demo-lm [--minutes 60] [--threads 2]

Needs: torch, tokenizers, numpy, and zstandard for a .zst corpus. Data: public-domain / permissive English text, plus a few
MB of generated almanac sentences (dates, days of the week, months), because dated text is rare in it. The almanac is
consistent with the real calendar. Output: config.json, model.safetensors (f16), tokenizer.json, training.json
(held-out loss per source, data mix, seeds, versions), sample.jsonl (held-out documents for the demo to read).
"""

import argparse
import datetime
import io
import json
import math
import os
import random
import struct
import time

import numpy as np

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()


def ordinal(n):
    """1st, 2nd, 3rd, 4th, ..."""
    return f"{n}{'th' if 10 <= n % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


NAMES = "Mary John Anna Peter Ruth Henry Clara Thomas Ellen George Alice Samuel Emma Robert Helen Walter".split()
PLACES = "London Paris Boston Dublin Vienna Chicago Edinburgh Rome Albany Oxford".split()
ACTS = [
    "the committee met",
    "the train left",
    "the letter arrived",
    "it rained all day",
    "the market opened early",
    "we went to church",
    "the court heard the case",
    "school was closed",
    "the ship sailed",
    "they signed the treaty",
    "the shop was shut",
    "the play began",
]


def almanac_paragraph(r):
    """One paragraph of dated sentences; weekdays agree with the calendar."""
    d = datetime.date(r.randint(1850, 1999), r.randint(1, 12), 1) + datetime.timedelta(days=r.randint(0, 27))
    day = lambda k=0: DAYS[(d.weekday() + k) % 7]
    mon = lambda k=0: MONTHS[(d.month - 1 + k) % 12]
    dm = lambda x: f"{MONTHS[x.month - 1]} {x.day}, {x.year}"
    n, m = r.sample(NAMES, 2)
    a, b = r.sample(ACTS, 2)
    p = r.choice(PLACES)
    forms = [
        lambda: f"{day()}, {dm(d)}. On {day()} {a}, and on {day(1)} {b}.",
        lambda: f"The day after {day()} is {day(1)}, and the day before {day()} is {day(-1)}.",
        lambda: f"{n} came to {p} on {day()} and stayed until {day(r.randint(1, 5))}.",
        lambda: f"From {day()} to {day(3)} {a}; by {day(4)} {b}.",
        lambda: f"It was {r.choice(['late', 'early'])} on a {day()} {r.choice(['morning', 'evening', 'afternoon', 'night'])} in {mon()} when {a}.",
        lambda: f"{day()} morning {a}. {day(1)} morning {b}. {day(2)} we rested.",
        lambda: f"{mon()} comes before {mon(1)} and after {mon(-1)}.",
        lambda: f"In {mon()} of {d.year} {a}, and in {mon(1)} {b}.",
        lambda: f"The {ordinal(d.day)} of {mon()} fell on a {day()} that year, so the {ordinal(d.day + 1)} was a {day(1)}.",
        lambda: f'"Shall we meet on {day()}?" asked {n}. "No, {day(r.randint(1, 6))} is better," said {m}.',
        lambda: f"The week has seven days: {', '.join(day(k) for k in range(6))} and {day(6)}.",
        lambda: f"{n} wrote to {m} every {day()}, and {m} answered every {day(2)}.",
    ]
    return " ".join(f() for f in r.sample(forms, r.randint(2, 5)))


def read_corpus(path):
    """Documents of a .jsonl or .jsonl.zst file: one {"text": ..., "source": ...} a line."""
    raw = open(path, "rb").read()
    if path.endswith(".zst"):
        import zstandard

        raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read()
    return [json.loads(l) for l in raw.decode("utf-8").split("\n") if l]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--corpus", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--minutes", type=float, default=60)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--vocab", type=int, default=6144)
    ap.add_argument("--d", type=int, default=256)
    ap.add_argument("--layers", type=int, default=4)
    ap.add_argument("--heads", type=int, default=8)
    ap.add_argument("--ctx", type=int, default=128)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--almanac-mb", type=float, default=5.0)
    a = ap.parse_args()
    import torch, torch.nn as nn, torch.nn.functional as F
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    r = random.Random(a.seed)
    os.makedirs(a.out, exist_ok=True)
    docs = read_corpus(a.corpus)
    r.shuffle(docs)
    alm, size = [], 0
    while size < a.almanac_mb * 1e6:
        t = almanac_paragraph(r)
        alm.append(dict(text=t, source="almanac"))
        size += len(t)
    held = docs[:400] + alm[:60]
    train = docs[400:] + alm[60:]
    r.shuffle(train)
    tp = os.path.join(a.out, "tokenizer.json")
    if os.path.exists(tp):
        tok = Tokenizer.from_file(tp)
    else:
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tok.decoder = decoders.ByteLevel()
        tok.train_from_iterator(
            (d["text"] for d in train),
            trainers.BpeTrainer(
                vocab_size=a.vocab,
                special_tokens=["<|endoftext|>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        tok.save(tp)
    eos = tok.token_to_id("<|endoftext|>")
    pack = lambda ds: np.concatenate(
        [
            np.array([eos] + e.ids, np.uint16)
            for i in range(0, len(ds), 2000)
            for e in tok.encode_batch([d["text"] for d in ds[i : i + 2000]])
        ]
    )
    data = torch.from_numpy(pack(train).astype(np.int64))
    print(
        "tokens",
        len(data),
        "single-token days",
        sum(len(tok.encode(" " + d).ids) == 1 for d in DAYS),
        "months",
        sum(len(tok.encode(" " + m).ids) == 1 for m in MONTHS),
        flush=True,
    )

    D, H, L, C, V = a.d, a.heads, a.layers, a.ctx, tok.get_vocab_size()

    class Block(nn.Module):
        def __init__(s):
            super().__init__()
            s.ln_1, s.ln_2 = nn.LayerNorm(D), nn.LayerNorm(D)
            s.c_attn, s.c_proj, s.c_fc, s.c_out = (
                nn.Linear(D, 3 * D),
                nn.Linear(D, D),
                nn.Linear(D, 4 * D),
                nn.Linear(4 * D, D),
            )

        def forward(s, x):
            B, T, _ = x.shape
            q, k, v = (t.view(B, T, H, D // H).transpose(1, 2) for t in s.c_attn(s.ln_1(x)).split(D, 2))
            x = x + s.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D))
            return x + s.c_out(F.gelu(s.c_fc(s.ln_2(x)), approximate="tanh"))

    class LM(nn.Module):
        def __init__(s):
            super().__init__()
            s.wte, s.wpe, s.h, s.ln_f = (
                nn.Embedding(V, D),
                nn.Embedding(C, D),
                nn.ModuleList(Block() for _ in range(L)),
                nn.LayerNorm(D),
            )
            for n, p in s.named_parameters():
                if p.dim() == 2:
                    nn.init.normal_(
                        p, 0, 0.02 / (math.sqrt(2 * L) if n.endswith(("c_proj.weight", "c_out.weight")) else 1)
                    )
                elif n.endswith("bias"):
                    nn.init.zeros_(p)

        def forward(s, i, y=None):
            x = s.wte(i) + s.wpe.weight[: i.shape[1]]
            for b in s.h:
                x = b(x)
            z = s.ln_f(x) @ s.wte.weight.T
            return z if y is None else F.cross_entropy(z.float().view(-1, V), y.reshape(-1))

    m = LM()
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    m.to(dev)
    decay = [p for p in m.parameters() if p.dim() == 2]
    rest = [p for p in m.parameters() if p.dim() != 2]
    opt = torch.optim.AdamW(
        [dict(params=decay, weight_decay=0.1), dict(params=rest, weight_decay=0.0)],
        lr=a.lr,
        betas=(0.9, 0.95),
        fused=(dev == "cuda"),
    )
    g = torch.Generator().manual_seed(a.seed)
    t0 = time.time()
    step = 0
    ema = None
    while (
        frac := (time.time() - t0) / (a.minutes * 60)
    ) < 1:  # a schedule over wall time: uses the minutes it is given
        lr = a.lr * min(1, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * frac)))
        for gr in opt.param_groups:
            gr["lr"] = lr
        o = torch.randint(0, len(data) - C - 1, (a.batch,), generator=g)
        w = torch.stack([data[j : j + C + 1] for j in o]).to(dev)
        with torch.autocast(dev, torch.bfloat16):
            loss = m(w[:, :-1], w[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        ema = loss.item() if ema is None else 0.98 * ema + 0.02 * loss.item()
        step += 1
        if step % 100 == 0:
            print(
                f"step {step} loss {ema:.3f} tok/s {step * a.batch * C / (time.time() - t0):.0f} done {frac:.0%}",
                flush=True,
            )
    m.eval()
    by = {}
    with torch.no_grad():
        for d in held:
            ids = torch.tensor([eos] + tok.encode(d["text"]).ids[:C])[None].to(dev)
            if ids.shape[1] > 8:
                by.setdefault(d["source"], []).append(m(ids[:, :-1], ids[:, 1:]).item())
    held_loss = {k: round(sum(v) / len(v), 3) for k, v in sorted(by.items())}
    print("held-out nats/token", held_loss)
    sd, out = m.state_dict(), {}
    for k, v in sd.items():
        v = v.detach().float().cpu()
        if k.startswith("h."):
            _, i, n, w = k.split(".")
            n = {"c_attn": "attn.c_attn", "c_proj": "attn.c_proj", "c_fc": "mlp.c_fc", "c_out": "mlp.c_proj"}.get(n, n)
            if w == "weight" and v.dim() == 2:
                v = v.T  # GPT-2 checkpoints store Conv1D weights as [in, out]
            k = f"h.{i}.{n}.{w}"
        out[f"transformer.{k}"] = v.contiguous().to(torch.float16).numpy()
    hdr, off = {"__metadata__": {"format": "pt"}}, 0
    for k, v in out.items():
        hdr[k] = dict(dtype="F16", shape=list(v.shape), data_offsets=[off, off + v.nbytes])
        off += v.nbytes
    hb = json.dumps(hdr).encode()
    hb += b" " * (-len(hb) % 8)
    with open(os.path.join(a.out, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(hb)))
        f.write(hb)
        [f.write(v.tobytes()) for v in out.values()]
    json.dump(
        dict(
            architectures=["GPT2LMHeadModel"],
            model_type="gpt2",
            vocab_size=V,
            n_positions=C,
            n_ctx=C,
            n_embd=D,
            n_layer=L,
            n_head=H,
            n_inner=None,
            activation_function="gelu_new",
            layer_norm_epsilon=1e-5,
            bos_token_id=eos,
            eos_token_id=eos,
            tie_word_embeddings=True,
            torch_dtype="float16",
        ),
        open(os.path.join(a.out, "config.json"), "w"),
        indent=1,
    )
    json.dump(
        dict(
            steps=step,
            tokens=step * a.batch * C,
            train_tokens=len(data),
            minutes=a.minutes,
            seed=a.seed,
            device=dev,
            torch=torch.__version__,
            args=vars(a),
            held_out_nats_per_token=held_loss,
        ),
        open(os.path.join(a.out, "training.json"), "w"),
        indent=1,
    )
    with open(os.path.join(a.out, "sample.jsonl"), "w") as f:
        for d in held:
            f.write(json.dumps(d, ensure_ascii=False) + "\n")
    ids = torch.tensor([tok.encode("The meeting was on Monday, and on Tuesday").ids]).to(dev)
    for _ in range(24):
        ids = torch.cat([ids, m(ids[:, -C:])[:, -1].argmax(-1, keepdim=True)], 1)
    print(repr(tok.decode(ids[0].tolist())))


if __name__ == "__main__":
    main()
