"""What one more token costs behind a cache: saescope and transformers, in turn, on the same weights.

    python generation.py make --model DIR
    python generation.py run --model DIR --ours BINARY --raw RUNS.jsonl --rounds 3
    python generation.py table --raw RUNS.jsonl

make    a Llama with random weights: 8 layers, d_model 512, 8 heads on 4 of keys, d_mlp 1,536, 32,000 tokens, tied, 8,192 positions
run     in each round every precision of both, one process after the other; BINARY is the benchmark `generation_times` as cargo built it
table   the medians over rounds, as Markdown

On a machine that does other work, compare the processor's time with `--threads 1`: threads that wait for each other lose most there.

transformers runs with its DynamicCache, `logits_to_keep=1` and scaled-dot-product attention, in inference mode.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["make", "run", "theirs", "table"])
parser.add_argument("--model")
parser.add_argument("--ours")
parser.add_argument("--raw")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=32)
parser.add_argument("--precision", default="f32")
parser.add_argument("--threads", type=int, default=os.cpu_count())
args = parser.parse_args()
PLACES = [128, 1024, 4096, 8000]
CHUNK = 512


def make():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32000, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
                         max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config)
    # Weights that bf16 holds exactly, so that both round the same things.
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    model.save_pretrained(args.model)


def theirs():
    import torch
    from transformers import DynamicCache, LlamaForCausalLM

    torch.set_num_threads(args.threads)
    dtype = dict(f32=torch.float32, bf16=torch.bfloat16)[args.precision]
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa").eval()
    cache, columns, found = DynamicCache(config=model.config), 0, []
    with torch.inference_mode():

        def run(ids):
            nonlocal columns
            columns += len(ids)
            logits = model(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            return int(logits[0, -1].argmax())

        for place in PLACES:
            started, first = time.perf_counter(), columns
            while columns < place:
                token = run([(i * 7919 + 13) % 32000 for i in range(columns, min(place, columns + CHUNK))])
            prompt = (time.perf_counter() - started) * 1e3 / max(place - first, 1)
            times, ids, cpu = [], [], time.process_time()
            for _ in range(args.steps):
                started = time.perf_counter()
                token = run([token])
                times.append((time.perf_counter() - started) * 1e3)
                ids.append(token)
            cpu = (time.process_time() - cpu) * 1e3 / args.steps
            times.sort()
            found.append(dict(place=place, ms_per_token=times[len(times) // 2], cpu_ms_per_token=cpu, ms_per_prompt_token=prompt, ids=ids))
    print(json.dumps(dict(who="transformers", found=found)))


def run():
    environment = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}
    for turn in range(args.rounds):
        for precision in ["f32", "bf16"]:
            ours = [args.ours, args.model, precision, str(args.steps), *map(str, PLACES)]
            peer = [sys.executable, __file__, "theirs", "--model", args.model, "--precision", precision, "--steps", str(args.steps), "--threads", str(args.threads)]
            for command in [ours, peer]:
                before = os.getloadavg()[0]
                answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
                report = json.loads(answer.strip().splitlines()[-1])
                with open(args.raw, "a") as raw:
                    raw.write(json.dumps(dict(round=turn, precision=precision, load=before, **report)) + "\n")
                print(report["who"], precision, [round(x["ms_per_token"], 2) for x in report["found"]], f"load {before:.1f}", file=sys.stderr)


def table():
    with open(args.raw) as raw:
        runs = [json.loads(line) for line in raw]
    rounds = len({x["round"] for x in runs})
    print(f"| {rounds} rounds | tokens before | theirs, ms | ours, ms | times faster |\n|---|---|---|---|---|")
    for what, key in [("a token", "ms_per_token"), ("a token, processor's time", "cpu_ms_per_token"), ("a prompt's token", "ms_per_prompt_token")]:
        for precision in ["f32", "bf16"]:
            for i, place in enumerate(PLACES):
                of = lambda who: statistics.median(x["found"][i][key] for x in runs if x["who"] == who and x["precision"] == precision)
                ours, peer = of("saescope"), of("transformers")
                print(f"| {what}, {precision} | {place:,} | {peer:.2f} | {ours:.2f} | {peer / ours:.2f} |")


dict(make=make, run=run, theirs=theirs, table=table)[args.what]()
