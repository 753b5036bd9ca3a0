"""The notebook's loop in Python, with a clock on each step, as JSON on standard output: the peer of benches/loop_times.rs.

    python seed.py --root ROOT --variant faithful|tuned --batches 20

faithful  the notebook's cells as written: SAELens' store, pandas frames, all features encoded, stop at the hook's layer + 1
tuned     the same answers as a careful person would write them: pre-tokenised text, no pandas in the loop, only the chosen features
          encoded, stop at the hook's own layer, inference mode
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from common import PROCESSED, tl_from_local

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", type=Path, required=True)
parser.add_argument("--variant", choices=["faithful", "tuned"], default="faithful")
parser.add_argument("--batches", type=int, default=20)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
args = parser.parse_args()

import pandas as pd
import torch
from datasets import load_dataset
from sae_lens import SAE, ActivationsStore, HookedSAETransformer
from transformers import AutoTokenizer

torch.set_grad_enabled(False)
torch.set_num_threads(args.threads)
ROWS, CONTEXT = 8, 128
DTYPE = dict(f32=torch.float32, bf16=torch.bfloat16)[args.dtype]
corpus = str(args.root / "corpus/corpus.jsonl")
started = time.perf_counter()
tokenizer = AutoTokenizer.from_pretrained(str(args.root / "models/gpt2-small-random"))
model = tl_from_local(args.root / "models/gpt2-small-random", PROCESSED, dtype=DTYPE, tokenizer=tokenizer, cls=HookedSAETransformer)
sae = SAE.load_from_disk(str(args.root / "sae/res-random"), device="cpu", dtype=str(DTYPE).removeprefix("torch."))
load_s = time.perf_counter() - started
hook = sae.cfg.metadata.hook_name
layer = int(hook.split(".")[1])
features = torch.arange(100) * sae.cfg.d_sae // 100
ms = {step: [] for step in ("tokens", "forward", "encode", "keep", "iteration")}


def clocked(steps):
    """Runs the steps in order, each on the one before's value, and notes the milliseconds of each and of all."""
    value, first = None, time.perf_counter()
    for name, step in steps:
        start = time.perf_counter()
        value = step(value)
        ms[name].append((time.perf_counter() - start) * 1e3)
    ms["iteration"].append((time.perf_counter() - first) * 1e3)


def make_token_df(tokens, len_prefix=5, len_suffix=3):
    """Cell 19, verbatim but for the flattening of lists."""
    str_tokens = [model.to_str_tokens(t) for t in tokens]
    unique_token = [[f"{s}/{i}" for i, s in enumerate(str_tok)] for str_tok in str_tokens]
    context, prompt, pos, label = [], [], [], []
    for b in range(tokens.shape[0]):
        for p in range(tokens.shape[1]):
            prefix = "".join(str_tokens[b][max(0, p - len_prefix) : p])
            if p == tokens.shape[1] - 1:
                suffix = ""
            else:
                suffix = "".join(str_tokens[b][p + 1 : min(tokens.shape[1] - 1, p + 1 + len_suffix)])
            current = str_tokens[b][p]
            context.append(f"{prefix}|{current}|{suffix}")
            prompt.append(b)
            pos.append(p)
            label.append(f"{b}/{p}")
    flat = lambda lists: [x for y in lists for x in y]
    return pd.DataFrame(dict(str_tokens=flat(str_tokens), unique_token=flat(unique_token), context=context, prompt=prompt, pos=pos, label=label))


def faithful():
    dataset = load_dataset("json", data_files=corpus, split="train", streaming=True)
    store = ActivationsStore.from_sae(model=model, sae=sae, dataset=dataset, streaming=True, store_batch_size_prompts=ROWS,
                                      train_batch_size_tokens=4096, n_batches_in_buffer=32, device="cpu")
    frames, acts, recs, fired = [], [], [], []

    def tokens_and_frame(_):
        tokens = store.get_batch_tokens()
        return tokens, make_token_df(tokens)

    def forward(value):
        tokens, frame = value
        _, cache = model.run_with_cache(tokens, stop_at_layer=layer + 1, names_filter=[hook])
        return tokens, frame, cache[hook]

    def encode(value):
        tokens, frame, x = value
        return tokens, frame, sae.encode(x).squeeze()

    def keep(value):
        tokens, frame, codes = value
        codes = codes.flatten(0, 1)
        mask = codes[:, features].sum(dim=-1) > 0
        fired.append(model.to_str_tokens(tokens.flatten()[mask]))
        recs.append(codes[mask][:, features] @ sae.W_dec[features])
        frames.append(frame.iloc[mask.nonzero().flatten().numpy()])
        acts.append(codes[mask][:, features])

    for _ in range(args.batches):
        clocked([("tokens", tokens_and_frame), ("forward", forward), ("encode", encode), ("keep", keep)])
    return torch.cat(acts), torch.cat(recs)


def packed(rows):
    """SAELens' packing over texts tokenised in batched calls: BOS opens each row, BOS between documents."""
    bos, texts, out, row = tokenizer.bos_token_id, [json.loads(line)["text"] for line in open(corpus)], [], []
    for start in range(0, len(texts), 64):
        for ids in tokenizer(texts[start : start + 64])["input_ids"]:
            offset = 0
            while offset < len(ids):
                if ids[offset] != bos:
                    row.append(bos)
                take = max(CONTEXT - len(row), 0)
                row.extend(ids[offset : offset + take])
                offset += take
                if len(row) >= CONTEXT:
                    out.append(row[:CONTEXT])
                    row = []
        if len(out) >= rows:
            break
    return torch.tensor(out[:rows])


def tuned():
    start = time.perf_counter()
    tokens = packed(args.batches * ROWS)
    each = (time.perf_counter() - start) * 1e3 / args.batches
    w_enc, w_dec = sae.W_enc[:, features].contiguous(), sae.W_dec[features]
    bias = sae.b_enc[features] - sae.b_dec @ w_enc
    acts, where = [], []

    def keep(codes):
        rows = (codes.sum(-1) > 0).nonzero().flatten()
        acts.append(codes[rows])
        where.append(rows)

    for i in range(args.batches):
        clocked([("forward", lambda _: model(tokens[i * ROWS : (i + 1) * ROWS], stop_at_layer=layer).reshape(-1, sae.cfg.d_in)),
                 ("encode", lambda x: torch.relu(torch.addmm(bias, x, w_enc))), ("keep", keep)])
        ms["tokens"].append(each)
        ms["iteration"][-1] += each
    kept = torch.cat(acts)
    return kept, kept @ w_dec


cpu = time.process_time()
with torch.inference_mode():
    acts, recs = faithful() if args.variant == "faithful" else tuned()
cpu = (time.process_time() - cpu) * 1e3 / args.batches
print(json.dumps(dict(who=f"Python, {args.variant}", batches=args.batches, load_s=load_s, cpu_ms=cpu, kept=len(acts), acts_sum=float(acts.double().sum()),
                      reconstructions=list(recs.shape), ms=ms, precision=args.dtype, backend=torch.backends.cpu.get_cpu_capability().lower(), peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)))
