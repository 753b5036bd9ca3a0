"""Rust and Python in turn on the same files: the tables of benches/README.md.

    python benches/peers/compare.py run --root ROOT --raw RUNS.jsonl [--rounds 3] [--threads 2 1] [--cases f32 bf16 ...] [--before CMD]
    python benches/peers/compare.py table --raw RUNS.jsonl --peak PEAK.json [--write]

ROOT is the work folder of tools/README.md. `run` needs any Python (ROOT/venv's runs the peers) and adds a line to RUNS.jsonl for each run of
a program. In each round every program runs once, in turn, so that all see the same drift of a shared machine. The first two batches
of a run are warm-up; a run's figure is the median of the others, a table's the median over the runs. `--before` is put before each command
(to wait for a quiet machine, say). `table` prints the tables from all lines, and with --write puts them into benches/README.md. PEAK.json: what
`cargo bench -p tensor-kernels --bench peak -- --json` prints, the operations a second that the processor does from registers.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
AVX2 = dict(ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2", ONEDNN_MAX_CPU_ISA="AVX2")


def ours(what, precision, backend="best", batches=10, program="peer_times"):
    return dict(side="ours", program=program, words=[what, precision, backend, str(batches)], env={})


def torch(what, precision, *flags, batches=10, env=None):
    return dict(side="torch", script="torch_times.py", words=[what, "--precision", precision, "--batches", str(batches), *flags], env=env or {})


def notebook(dtype):
    return dict(side="torch", script="seed.py", words=["--variant", "faithful", "--dtype", dtype, "--batches", "8"], env={})


# Each case is what is compared with what, in the order in which they run.
CASES = {
    "f32": dict(ours=ours("census", "f32"), features=torch("census", "f32"), tokens=torch("census", "f32", "--topk", "tokens")),
    "f32fast": dict(ours=ours("census", "f32fast")),
    "bf16": dict(ours=ours("census", "bf16"), features=torch("census", "bf16"), tokens=torch("census", "bf16", "--topk", "tokens")),
    "compiled-f32": dict(features=torch("census", "f32", "--compile")),
    "compiled-bf16": dict(features=torch("census", "bf16", "--compile")),
    "avx2-f32": dict(ours=ours("census", "f32", "avx2"), features=torch("census", "f32", env=AVX2), tokens=torch("census", "f32", "--topk", "tokens", env=AVX2)),
    "avx2-bf16": dict(ours=ours("census", "bf16", "avx2"), features=torch("census", "bf16", env=AVX2)),
    "portable-f32": dict(ours=ours("census", "f32", "portable", 4)),
    "candle-f32": dict(ours=ours("census", "f32", "reference", 4)),
    "notebook-f32": dict(ours=dict(side="ours", program="loop_times", words=["all", "8", "f32"], env={}), notebook=notebook("f32")),
    "notebook-bf16": dict(ours=dict(side="ours", program="loop_times", words=["all", "8", "bf16"], env={}), notebook=notebook("bf16")),
    "chosen-f32": dict(ours=ours("chosen", "f32", batches=40), torch=torch("chosen", "f32", batches=40)),
    "chosen-bf16": dict(ours=ours("chosen", "bf16", batches=40), torch=torch("chosen", "bf16", batches=40)),
    "encode-f32": dict(ours=ours("encode", "f32", batches=12), torch=torch("encode", "f32", batches=12)),
    "lens-f32": dict(ours=ours("lens", "f32", batches=1), torch=torch("lens", "f32", batches=1)),
    "lens-bf16": dict(ours=ours("lens", "bf16", batches=1), torch=torch("lens", "bf16", batches=1)),
}


def programs(built):
    """The Rust programs, built if they are not: name -> file."""
    found = {}
    for name in ("peer_times", "loop_times"):
        if built:
            found[name] = str(max(built.glob(f"{name}-*[!.d]"), key=os.path.getmtime))
            continue
        command = ["cargo", "bench", "--workspace", "--bench", name, "--no-run", "--message-format", "json"]
        lines = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
        matches = [m["executable"] for m in map(json.loads, lines) if m.get("target", {}).get("name") == name and m.get("executable")]
        found[name] = matches[-1]
    return found


def run_one(case, label, program, threads, args, rust):
    root = args.root.resolve()
    env = dict(os.environ, SAESCOPE_GPT2_RANDOM=str(root / "models/gpt2-small-random"), SAESCOPE_GPT2_SAE=str(root / "sae/res-random"),
               SAESCOPE_GPT2_CORPUS=str(root / "corpus/corpus.jsonl"), RAYON_NUM_THREADS=str(threads), **program["env"])
    if program["side"] == "ours":
        command = [rust[program["program"]], *program["words"]]
    else:
        command = [str(root / "venv/bin/python"), str(HERE / program["script"]), *program["words"], "--root", str(root), "--threads", str(threads)]
    done = subprocess.run([*args.before, *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{case} {label} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return
    result = json.loads(done.stdout.strip().splitlines()[-1])
    line = dict(result, case=case, label=label, threads=threads, load=os.getloadavg()[0], when=time.strftime("%Y-%m-%d %H:%M"))
    with open(args.raw, "a") as raw:
        raw.write(json.dumps(line) + "\n")
    last = {step: round(middle(times), 1) for step, times in result["ms"].items()}
    print(f"{threads} threads, {case}, {label}: {last}, load {line['load']:.1f}", flush=True)


def run(args):
    rust = programs(args.built)
    for _ in range(args.rounds):
        for threads in args.threads:
            for case in args.cases or CASES:
                for label, program in CASES[case].items():
                    if not args.labels or label in args.labels:
                        run_one(case, label, program, threads, args, rust)


def middle(times):
    """The median of what comes after two batches of warm-up, where there is that much."""
    return statistics.median(times[2:] or times)


class Runs:
    """All lines of RUNS.jsonl."""

    def __init__(self, path):
        self.lines = [json.loads(line) for line in open(path)]

    def of(self, case, label, threads):
        return [line for line in self.lines if (line["case"], line["label"], line["threads"]) == (case, label, threads)]

    def ms(self, case, label, threads, step="iteration"):
        steps = [step] if isinstance(step, str) else step
        runs = [sum(middle(line["ms"][s]) for s in steps) for line in self.of(case, label, threads)]
        return statistics.median(runs) if runs else None

    def value(self, case, label, threads, key):
        values = [line[key] for line in self.of(case, label, threads) if line.get(key)]
        return statistics.median(values) if values else None


# Operations of one batch of 1,024 tokens (a multiplication and an addition are two; the masked half of attention counts).
FORWARD, ENCODE = 1024 * 101.8e6, 1024 * 37.7e6
LENS = 2 * 24576 * 768 * 50257


def cell(value, places=None):
    """A number, with a place behind the point where it is small."""
    return "–" if value is None else f"{value:,.{(1 if value < 10 else 0) if places is None else places}f}"


def ratio(theirs, ours):
    return None if theirs is None or ours is None else theirs / ours


def lines_of(header, rows):
    return ["| " + " | ".join(header) + " |", "|---" * len(header) + "|", *("| " + " | ".join(row) + " |" for row in rows)]


def detail(runs, threads, peak):
    """One line for each program that ran the loop."""
    rows = []
    for case, programs in CASES.items():
        for label, program in programs.items():
            if program["words"][0] != "census" or not runs.of(case, label, threads):
                continue
            line = runs.of(case, label, threads)[0]
            count = "count" if program["side"] == "ours" else "top"
            ms = {step: runs.ms(case, label, threads, step) for step in ("forward", "encode", count, "iteration")}
            kernel = line["backend"].split()[0]
            top = peak.get((kernel, line["precision"], threads))
            share = lambda work, time: "–" if not top else f"{100 * work / (time * 1e-3) / top:.0f} %"
            who = f"**saescope {line['precision']}**, {line['backend']}" if program["side"] == "ours" else f"{line['who']}, {line['precision']}, {kernel}"
            rows.append([who, cell(ms["forward"]), cell(ms["encode"]), cell(ms[count], 1), cell(ms["iteration"]), cell(1024e3 / ms["iteration"]),
                         share(FORWARD + ENCODE, ms["iteration"]), cell(runs.value(case, label, threads, "cpu_ms")),
                         cell(runs.value(case, label, threads, "peak_rss_bytes") / 1e6), str(len(runs.of(case, label, threads)))])
    header = [f"{threads} thread{'s' * (threads > 1)}, ms for 1,024 tokens", "7 blocks", "encode", "top-20 (ours: the census)", "all", "tokens/s",
              "share of peak", "CPU", "peak, MB", "runs"]
    return lines_of(header, rows) if rows else []


def targets(runs, threads):
    """What was aimed at and what came out."""
    ms = lambda case, label, step="iteration": runs.ms(case, label, threads, step)
    best = lambda case, step="iteration": min((t for t in (ms(case, "features", step), ms(case, "tokens", step)) if t), default=None)
    mean = lambda a, b: None if a is None or b is None else a / b
    dense = ["forward", "encode"]
    rows = []

    def row(what, target, theirs, mine, least=None, places=2):
        found = ratio(theirs, mine)
        met = "" if least is None or found is None else ("met" if found >= least else "**missed**")
        rows.append([what, target, cell(theirs), cell(mine), cell(found, places), met])

    row("loop with the census of all features, f32, against torch as one writes it first (top-k over tokens)", "1.5", ms("f32", "tokens"), ms("f32", "ours"), 1.5)
    row("the same against torch with the product transposed for its top-k", "–", ms("f32", "features"), ms("f32", "ours"))
    row("the same, bf16 against torch bf16 (top-k over tokens)", "–", ms("bf16", "tokens"), ms("bf16", "ours"))
    row("the same, bf16, transposed", "–", ms("bf16", "features"), ms("bf16", "ours"))
    row("7 blocks alone, f32", "0.9", best("f32", "forward"), ms("f32", "ours", "forward"), 0.9)
    row("7 blocks and encode, f32", "0.9", best("f32", dense), ms("f32", "ours", dense), 0.9)
    row("7 blocks alone, bf16", "–", best("bf16", "forward"), ms("bf16", "ours", "forward"))
    row("AVX2 on both sides: the loop, f32 (top-k over tokens)", "1.3", ms("avx2-f32", "tokens"), ms("avx2-f32", "ours"), 1.3)
    row("AVX2: 7 blocks and encode, f32", "0.8", best("avx2-f32", dense), ms("avx2-f32", "ours", dense), 0.8)
    row("the notebook as written, f32", "5 (AMX)", ms("notebook-f32", "notebook"), ms("notebook-f32", "ours"))
    row("the notebook as written, bf16", "6 (AMX)", ms("notebook-bf16", "notebook"), ms("notebook-bf16", "ours"))
    row("logit lens of all features, top 10 and bottom 10, f32", "4 (AMX)", ms("lens-f32", "torch", "top"), ms("lens-f32", "ours", "lens"))
    row("the same, bf16", "4 (AMX)", ms("lens-bf16", "torch", "top"), ms("lens-bf16", "ours", "lens"))
    whole = ms("f32", "ours", "encode")
    row("100 chosen features against all 24,576, both ours, f32", "100", whole, ms("chosen-f32", "ours", "encode"), 100, 0)
    row("100 chosen features, f32, against torch", "–", ms("chosen-f32", "torch", "encode"), ms("chosen-f32", "ours", "encode"))
    header = [f"{threads} thread{'s' * (threads > 1)}", "target", "theirs, ms", "ours, ms", "times faster", ""]
    return lines_of(header, [r for r in rows if r[4] != "–"])


def peaks(path):
    """(back end, precision, threads) -> operations a second from registers; bf16 that is widened has f32's."""
    lines = json.loads(path.read_text()) if path else []
    return {(line["backend"], line["precision"], line["threads"]): line["peak"] * 1e9 for line in lines if line["peak"]}


def tables(runs, peak):
    out = []
    for threads in sorted({line["threads"] for line in runs.lines}, reverse=True):
        out += targets(runs, threads) + [""] + detail(runs, threads, peak) + [""]
    loads = [line["load"] for line in runs.lines]
    days = sorted({line["when"] for line in runs.lines})
    out.append(f"{len(runs.lines)} runs from {days[0]} to {days[-1]}; machine load at their ends: median {statistics.median(loads):.1f}, from {min(loads):.1f} to "
               f"{max(loads):.1f}, {os.cpu_count()} cores. {'; '.join(same(runs))}")
    return "\n".join(out)


def same(runs):
    """Whether both sides counted the same."""
    for case in ("f32", "bf16"):
        of = lambda label: next((line for line in runs.lines if line["case"] == case and line["label"] == label and line["batches"] == 10), None)
        a, b = of("ours"), of("features")
        if a and b:
            found = a["found"]
            yield (f"{case}: tokens counted {found['tokens_counted']:,} and {b['tokens_counted']:,}, sum of all top-20 {found['top_sum']:,.2f} and "
                   f"{b['top_sum']:,.2f} (ours, torch)")


def write(text):
    readme = REPO / "benches/README.md"
    before, rest = readme.read_text().split("<!-- compare.py -->\n", 1)
    after = rest.split("<!-- /compare.py -->", 1)[1]
    readme.write_text(f"{before}<!-- compare.py -->\n{text}\n<!-- /compare.py -->{after}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("do", choices=["run", "table"])
parser.add_argument("--root", type=Path)
parser.add_argument("--raw", type=Path, required=True)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count()])
parser.add_argument("--cases", nargs="+", choices=list(CASES))
parser.add_argument("--labels", nargs="+")
parser.add_argument("--before", type=shlex.split, default=[])
parser.add_argument("--built", type=Path, help="a folder of built benchmarks (target/release/deps) instead of building them")
parser.add_argument("--peak", type=Path)
parser.add_argument("--write", action="store_true")
args = parser.parse_args()
if args.do == "run":
    run(args)
else:
    text = tables(Runs(args.raw), peaks(args.peak))
    print(text)
    if args.write:
        write(text)
