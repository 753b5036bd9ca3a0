"""Tokens a second of every family, beside transformers (torch) on the same files, and what watching costs.

    python benches/peers/families.py run --root ROOT --raw RUNS.jsonl [--rounds 3] [--threads 2] [--only NAME ...] [--before CMD]
    python benches/peers/families.py table --raw RUNS.jsonl

ROOT is the work folder of tools/README.md, with the models of tools/peers/make_family_models.py; run it with ROOT/venv's Python, after
`cargo build --release --workspace --examples`. A forward pass of 4 sequences of 128 tokens to the logits of all positions; each run
is the median of its passes after the first, a figure the median of the runs, which take turns. torch: sdpa attention, no gradients.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BATCH, CONTEXT, PASSES = 4, 128, 2
PRECISIONS = ("f32", "bf16")


def torch_seconds(folder, precision, threads):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
    dtype = torch.float32 if precision == "f32" else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    ids = (torch.arange(BATCH * CONTEXT) * 7919 % model.config.vocab_size).reshape(BATCH, CONTEXT)
    seconds = []
    for _ in range(PASSES + 1):
        start = time.perf_counter()
        model(ids, use_cache=False)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def run(args):
    folders = sorted(p for p in (args.root / "models/families").iterdir() if not args.only or p.name in args.only)
    program = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / "release/examples/forward_times"
    with args.raw.open("a") as raw:
        for round_ in range(args.rounds):
            for folder in folders:
                for precision in PRECISIONS:
                    for side in ("ours", "torch"):
                        if side == "ours":
                            command = [program, folder, 65535, BATCH, CONTEXT, args.threads, PASSES, precision]
                        else:
                            command = [sys.executable, __file__, "one", folder, precision, args.threads]
                        done = subprocess.run([*shlex.split(args.before), *map(str, command)], capture_output=True, text=True)
                        if done.returncode != 0:
                            sys.exit(f"{folder.name} {side} {precision}: {done.stderr[-2000:]}")
                        found = re.search(r"median ([\d.]+) ms", done.stdout)
                        line = dict(model=folder.name, precision=precision, side=side, threads=args.threads, ms=float(found[1]), load=os.getloadavg()[0])
                        print(round_, line, flush=True)
                        raw.write(json.dumps(line) + "\n")
                        raw.flush()


def table(args):
    runs = {}
    for line in map(json.loads, args.raw.read_text().splitlines()):
        runs.setdefault((line["model"], line["precision"], line["side"]), []).append(line["ms"])
    per_s = lambda key: BATCH * CONTEXT / statistics.median(runs[key]) * 1e3
    print("| model | transformers f32 | ours f32 | ratio | transformers bf16 | ours bf16 | ratio |\n|---|--:|--:|--:|--:|--:|--:|")
    for model in sorted({key[0] for key in runs}):
        cells = []
        for precision in PRECISIONS:
            theirs, ours = per_s((model, precision, "torch")), per_s((model, precision, "ours"))
            cells += [f"{theirs:,.0f}", f"{ours:,.0f}", f"{ours / theirs:.2f}"]
        print("|", " | ".join([model, *cells]), "|")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["run", "table", "one"])
parser.add_argument("rest", nargs="*")
parser.add_argument("--root", type=Path)
parser.add_argument("--raw", type=Path)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--only", nargs="*", default=[])
parser.add_argument("--before", default="")
args = parser.parse_args()
if args.what == "one":
    print(f"median {torch_seconds(args.rest[0], args.rest[1], int(args.rest[2])) * 1e3:.3f} ms")
elif args.what == "run":
    run(args)
else:
    table(args)
