"""What torch needs for the work of `benches/peer_times.rs`, as JSON on standard output: plain blocks in inference mode, no framework between.

    python torch_times.py census --root ROOT --precision f32|bf16 --batches 12 [--topk tokens|features] [--compile] [--tops F.npz]
    python torch_times.py blocks|encode|chosen|lens --root ROOT --precision f32|bf16

census   8 rows of 128 tokens at a time through seven blocks to `blocks.7.hook_resid_pre`, the SAE's encoder, and for each of its
         features the 20 strongest activations so far with their addresses. How the 20 are found:
           tokens    torch.topk of [tokens, d_sae] over the tokens, merged with what was kept: as one writes it first
           features  the same with the encoder's product transposed, [d_sae, tokens], so that topk reads along memory: several times faster
blocks   the forward pass alone; encode: the encoder alone; chosen: the encoder of 100 features; lens: the 10 largest and smallest of
         W_dec W_U of every feature, in blocks of 1,024 features

Everything that depends on the weights alone is done before the clock starts. Text is tokenised before, too. BOS is left out, as in the census.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["census", "blocks", "encode", "chosen", "lens"])
parser.add_argument("--root", type=Path, required=True)
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
parser.add_argument("--topk", choices=["tokens", "features"], default="features")
parser.add_argument("--compile", action="store_true", help="the blocks under torch.compile")
parser.add_argument("--batches", type=int, default=12)
parser.add_argument("--rows", type=int, default=8)
parser.add_argument("--top", type=int, default=20)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--tops", type=Path, help="where the 20 strongest of every feature are written")
args = parser.parse_args()

import torch
import torch.nn.functional as F
from safetensors import safe_open
from tokenizers import Tokenizer

torch.set_num_threads(args.threads)
torch.set_grad_enabled(False)
DTYPE = dict(f32=torch.float32, bf16=torch.bfloat16)[args.precision]
CONTEXT, LAYERS, HEADS, EPS, BOS = 128, 7, 12, 1e-5, 50256
MODEL = args.root / "models/gpt2-small-random"
MODEL_FILE = safe_open(MODEL / "model.safetensors", "pt")
SAE_FILE = safe_open(args.root / "sae/res-random/sae_weights.safetensors", "pt")
D_SAE, D_IN = SAE_FILE.get_slice("W_dec").get_shape()


def weight(name, dtype=DTYPE):
    """A tensor of the model, read when it is asked for: nothing is held twice."""
    return MODEL_FILE.get_tensor(f"transformer.{name}").to(dtype)


def sae(name):
    return SAE_FILE.get_tensor(name).to(DTYPE)


def linear(name):
    """Weight as F.linear reads it fastest (output by input), and bias."""
    return weight(f"{name}.weight").t().contiguous(), weight(f"{name}.bias")


def norm(name):
    return weight(f"{name}.weight"), weight(f"{name}.bias")


def blocks():
    return [dict(ln_1=norm(f"h.{i}.ln_1"), qkv=linear(f"h.{i}.attn.c_attn"), o=linear(f"h.{i}.attn.c_proj"), ln_2=norm(f"h.{i}.ln_2"),
                 fc=linear(f"h.{i}.mlp.c_fc"), out=linear(f"h.{i}.mlp.c_proj")) for i in range(LAYERS)]


def forward(tokens, blocks, embed, positions):
    """Seven blocks; then the mean of each row is taken off, which is what TransformerLens' centred writing weights come to."""
    batch, pos = tokens.shape
    x = embed[tokens] + positions[:pos]
    for w in blocks:
        qkv = F.linear(F.layer_norm(x, (D_IN,), *w["ln_1"], EPS), *w["qkv"]).view(batch, pos, 3, HEADS, D_IN // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, pos, D_IN)
        x = x + F.linear(z, *w["o"])
        hidden = F.gelu(F.linear(F.layer_norm(x, (D_IN,), *w["ln_2"], EPS), *w["fc"]), approximate="tanh")
        x = x + F.linear(hidden, *w["out"])
    return x - x.mean(-1, keepdim=True)


def packed(rows):
    """SAELens' packing: BOS opens each row, BOS between documents."""
    tokenizer, out, row = Tokenizer.from_file(str(MODEL / "tokenizer.json")), [], []
    for line in open(args.root / "corpus/corpus.jsonl"):
        ids, offset = tokenizer.encode(json.loads(line)["text"], add_special_tokens=False).ids, 0
        while offset < len(ids):
            if ids[offset] != BOS:
                row.append(BOS)
            take = max(CONTEXT - len(row), 0)
            row.extend(ids[offset : offset + take])
            offset += take
            if len(row) >= CONTEXT:
                out.append(row[:CONTEXT])
                row = []
        if len(out) >= rows:
            return torch.tensor(out[:rows])
    raise SystemExit(f"the corpus fills {len(out)} rows, {rows} were asked for")


class Tops:
    """For each feature its strongest activations so far and where: [d_sae, top], or [top, d_sae] where topk runs over tokens."""

    def __init__(self, axis):
        shape = (D_SAE, args.top) if axis else (args.top, D_SAE)
        self.axis, self.value, self.at = axis, torch.zeros(shape, dtype=DTYPE), torch.full(shape, -1)

    def merge(self, acts, at):
        """A batch's own strongest, merged with those kept."""
        value, index = acts.topk(min(args.top, len(at)), self.axis)
        value, where = torch.cat([self.value, value], self.axis), torch.cat([self.at, at[index]], self.axis)
        self.value, index = value.topk(args.top, self.axis)
        self.at = where.gather(self.axis, index)


ms = {step: [] for step in ("forward", "encode", "top", "iteration")}


def clocked(**steps):
    """Runs the steps in order, each on the value of the one before, and notes their milliseconds and those of all."""
    value, first = None, time.perf_counter()
    for name, step in steps.items():
        start = time.perf_counter()
        value = step(value)
        ms[name].append((time.perf_counter() - start) * 1e3)
    ms["iteration"].append((time.perf_counter() - first) * 1e3)
    return value


def stages():
    """Model, SAE and text, ready: a forward pass of rows i, and the rows of it that are not BOS with their addresses."""
    layers, embed, positions = blocks(), weight("wte.weight"), weight("wpe.weight")
    tokens = packed(args.batches * args.rows)
    run = torch.compile(forward, dynamic=False) if args.compile else forward
    batch = lambda i: tokens[i * args.rows : (i + 1) * args.rows]

    def kept(i):
        flat = (batch(i) != BOS).flatten().nonzero().flatten()
        return flat, flat + i * args.rows * CONTEXT

    return lambda i: run(batch(i), layers, embed, positions).flatten(0, 1), kept


def census():
    forward, kept = stages()
    over_features = args.topk != "tokens"
    w_rows, bias, shift = sae("W_enc").t().contiguous(), sae("b_enc"), sae("b_dec")
    tops, fired = Tops(int(over_features)), 0

    def encode(x, rows):
        x = x[rows] - shift
        return torch.addmm(bias[:, None], w_rows, x.t()).relu_() if over_features else F.linear(x, w_rows, bias).relu_()

    for i in range(args.batches):
        rows, at = kept(i)
        clocked(forward=lambda _: forward(i), encode=lambda x: encode(x, rows), top=lambda acts: tops.merge(acts, at))
    if args.tops:
        import numpy

        value, at = (tops.value, tops.at) if over_features else (tops.value.t(), tops.at.t())
        numpy.savez(args.tops, value=value.float().numpy(), row=at.numpy() // CONTEXT, pos=at.numpy() % CONTEXT)
    return dict(top_sum=float(tops.value.double().sum()), tokens_counted=sum(len(kept(i)[0]) for i in range(args.batches)))


def parts(what):
    """The forward pass alone, or the encoder alone on what it gives."""
    forward, _ = stages()
    x = None
    features = torch.arange(100) * D_SAE // 100 if what == "chosen" else torch.arange(D_SAE)
    w_rows, bias, shift = sae("W_enc").t()[features].contiguous(), sae("b_enc")[features], sae("b_dec")
    for i in range(args.batches):
        if what == "blocks":
            clocked(forward=lambda _: forward(i))
            continue
        x = forward(0) if x is None else x
        clocked(encode=lambda _: F.linear(x - shift, w_rows, bias).relu_())
    return {}


def lens():
    """Rows of W_dec W_U, with W_U as TransformerLens' processing leaves it: gain folded in, centred both ways."""
    w_u = weight("wte.weight", torch.float32).t() * weight("ln_f.weight", torch.float32)[:, None]
    w_u = w_u - w_u.mean(0, keepdim=True)
    w_u = (w_u - w_u.mean(1, keepdim=True)).to(DTYPE).contiguous()
    rows = sae("W_dec")
    found = []

    def search(_):
        for block in rows.split(1024):
            logits = block @ w_u
            found.append((logits.topk(10, 1).indices, logits.topk(10, 1, largest=False).indices))

    for _ in range(args.batches):
        found.clear()
        clocked(top=search)
    if args.tops:
        import numpy

        numpy.savez(args.tops, top=torch.cat([t for t, _ in found]).numpy(), bottom=torch.cat([b for _, b in found]).numpy())
    return {}


run = dict(census=census, lens=lens).get(args.what, lambda: parts(args.what))
cpu = time.process_time()
with torch.inference_mode():
    found = run()
cpu = (time.process_time() - cpu) * 1e3 / args.batches
who = "torch" + (f", top-k over {args.topk}" if args.what == "census" else "") + (", compiled" if args.compile else "")
print(json.dumps(dict(who=who, what=args.what, precision=args.precision, backend=torch.backends.cpu.get_cpu_capability().lower(), threads=args.threads,
                      batches=args.batches, tokens_per_batch=args.rows * CONTEXT, cpu_ms=cpu, ms={k: v for k, v in ms.items() if v},
                      peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, **found)))
