"""Rust and Python in turn on the same files: the table of benches/README.md.

    python benches/peers/compare.py --root ROOT [--rounds 5] [--batches 12]

ROOT is the work folder of tools/README.md; run it with any Python, ROOT/venv's runs the peers. Each round runs every program once, in
turn, so that all see the same drift of a shared machine. The first two batches of a run are warm-up. A step's figure is the
median over the rounds of each run's median; CPU is the mean of all batches and threads. On a machine that others use, prefer
`--threads 1` and the CPU columns: threads that wait for each other suffer from neighbours far more than one does.
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", type=Path, required=True)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--batches", type=int, default=12)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--out", type=Path, help="where to keep the raw figures as JSON")
args = parser.parse_args()
HERE = Path(__file__).resolve().parent
ROOT = args.root.resolve()
ENV = dict(os.environ, SAESCOPE_GPT2_RANDOM=str(ROOT / "models/gpt2-small-random"), SAESCOPE_GPT2_SAE=str(ROOT / "sae/res-random"),
           SAESCOPE_GPT2_CORPUS=str(ROOT / "corpus/corpus.jsonl"), RAYON_NUM_THREADS=str(args.threads))


def rust_program():
    command = ["cargo", "bench", "--workspace", "--bench", "loop_times", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=HERE.parents[1], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    found = [m["executable"] for m in map(json.loads, lines) if m.get("target", {}).get("name") == "loop_times" and m.get("executable")]
    return found[-1]


def run(command):
    load = os.getloadavg()[0]
    child = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    result = json.loads(output.strip().splitlines()[-1])
    result["median_ms"] = {step: statistics.median(times[2:]) for step, times in result.pop("ms").items()}
    return dict(result, load=load, peak_mb=usage.ru_maxrss / 1024)


rust, python = rust_program(), str(ROOT / "venv/bin/python")
peer = [python, str(HERE / "seed.py"), "--root", str(ROOT), "--batches", str(args.batches), "--threads", str(args.threads), "--variant"]
PROGRAMS = [[rust, "all", str(args.batches)], [*peer, "faithful"], [rust, "chosen", str(args.batches)], [*peer, "tuned"]]
runs = [[] for _ in PROGRAMS]
for i in range(args.rounds):
    for program, results in zip(PROGRAMS, runs):
        results.append(run(program))
        print(f"round {i + 1}: {results[-1]['who']}: {results[-1]['median_ms']['iteration']:.0f} ms, load {results[-1]['load']:.1f}", flush=True)
STEPS = ("tokens", "forward", "encode", "keep", "iteration")
print(f"\n{args.threads} threads\n\n| program | " + " | ".join(f"{s}, ms" for s in STEPS) + " | iterations/s | CPU, ms | peak, MB |")
print("|---" * (len(STEPS) + 4) + "|")
for results in runs:
    medians = [statistics.median(r["median_ms"][s] for r in results) for s in STEPS]
    cpu, peak = (statistics.median(r[key] for r in results) for key in ("cpu_ms", "peak_mb"))
    print(f"| {results[0]['who']} | " + " | ".join(f"{m:.0f}" if m >= 10 else f"{m:.1f}" for m in medians) + f" | {1e3 / medians[-1]:.2f} | {cpu:.0f} | {peak:.0f} |")
for a, b in ((0, 1), (2, 3)):
    time = lambda run: run["median_ms"]["iteration"]
    for what, of in (("wall time", time), ("CPU time", lambda run: run["cpu_ms"])):
        ratios = sorted(of(y) / of(x) for x, y in zip(runs[a], runs[b]))
        print(f"\n{runs[b][0]['who']} / {runs[a][0]['who']}, {what}: median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")
    print(f"kept rows {runs[b][0]['kept']} and {runs[a][0]['kept']}, sum of activations {runs[b][0]['acts_sum']:.3f} and {runs[a][0]['acts_sum']:.3f}")
loads = [r["load"] for results in runs for r in results]
print(f"\nmachine load during the runs: median {statistics.median(loads):.1f}, from {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} cores")
if args.out:
    args.out.write_text(json.dumps(runs, indent=1) + "\n")
