"""Goldens of the GPT-2-small-shaped random model of make_gpt2.py, with and without weight processing.

    python tools/goldens/golden_gpt2.py --root ROOT      -> ROOT/golden/gpt2-small-random, see tools/README.md
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, RAW, dump, sha256, tl_from_local, versions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", type=Path, required=True)
parser.add_argument("--batches", type=int, default=20, help="batches of each of the notebook's two loops")
args = parser.parse_args()

import numpy as np
import torch
from datasets import load_dataset
from safetensors.torch import save_file
from sae_lens import SAE, ActivationsStore, HookedSAETransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from notebook import edge_rows, pca3, seed_loop, token_frame

torch.set_grad_enabled(False)
torch.set_num_threads(2)
LENGTH, MARGIN = 64, 1e-4
HOOK = "blocks.7.hook_resid_pre"
HOOKS = ["blocks.0.hook_resid_pre", HOOK, "blocks.11.hook_resid_pre", "blocks.3.attn.hook_pattern", "blocks.5.hook_mlp_out",
         "blocks.5.hook_attn_out", "blocks.11.hook_resid_post", "ln_final.hook_normalized", "ln_final.hook_scale"]
POSITIONS = [0, 1, 9, 18, 27, 36, 45, 63]
DAYS = [2592, 4445, 4663, 4733, 6531, 8179, 9566, 20927, 24185]
PROMPTS = [
    "On Monday, the 14th of March 1994, three hackers met at MIT's AI Lab; by Tuesday they'd rewritten the parser (in Lisp, of course) "
    "and by Friday evening it printed \"Hello, world!\" twice -- once in ASCII, once in café-friendly UTF-8: naïve façade, 日本語, 🙂. "
    "Nobody could explain why it worked.",
    "In the beginning was the command line.\n\n    $ make install\n    cc -O2 -o foo foo.c\n\n\tError 127: it's not found...\n\n"
    "The days of the week are Sunday, Monday, Tuesday, Wednesday, Thursday, Friday and Saturday. January has 31 days, February has 28 or 29; "
    "we'll see what they've done about that, won't we?",
]
STRINGS = ["", " ", "  ", "\n", "\n\n", " \n", "\t\tx", "Hello world", " Hello world", "Hello  world", "hello   world  ",
           "don't we'll they've I'M you'RE", "a'b 's 'S", "1234567890", "3.14159e-10", "foo_bar::baz->qux()", "naïve café façade",
           "日本語のテキスト", "🙂👍🏽👨‍👩‍👧‍👦", "\u200b zero\u00a0width", "ＡＢＣ", "é é", "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ",
           "<|endoftext|", "\r\n\r\n", "x\u0000y", "Ωμέγα Привет мир שלום مرحبا", "!!!???...", "    indented\n        more", "ÃƒÂ©",
           "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "the" * 50, "ﬁ ligature", "e\u0301", "\ufeffBOM", "tab\tsep\tvals", "A" * 200] + PROMPTS

model_dir, sae_dir, out = args.root / "models/gpt2-small-random", args.root / "sae/res-random", args.root / "golden/gpt2-small-random"
out.mkdir(parents=True, exist_ok=True)
tokenizer = AutoTokenizer.from_pretrained(str(model_dir))
prompt_ids = [[tokenizer.bos_token_id] + tokenizer.encode(text)[: LENGTH - 1] for text in PROMPTS]
tokens = torch.tensor(prompt_ids)
sae = SAE.load_from_disk(str(sae_dir), device="cpu")
features100 = torch.randperm(sae.cfg.d_sae, generator=torch.Generator().manual_seed(3))[:100]
meta = dict(versions=versions(), prompts=PROMPTS, model_sha256=sha256(model_dir / "model.safetensors"),
            sae_sha256=sha256(sae_dir / "sae_weights.safetensors"), hooks=HOOKS, logit_positions=POSITIONS, checks={}, features100=features100.tolist(),
            lens_tokens={}, str_tokens=[[tokenizer.decode([i]) for i in row] for row in prompt_ids])


def save(path, tensors):
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def model_outputs(model):
    logits, cache = model.run_with_cache(tokens, names_filter=HOOKS)
    values, ids = logits.topk(20, -1)
    return cache, logits, {
        "tokens": tokens, **{h: cache[h] for h in HOOKS}, "logits_at_positions": logits[:, POSITIONS],
        "logsumexp": torch.logsumexp(logits.double(), -1).float(), "logits_mean": logits.double().mean(-1).float(),
        "top20_values": values, "top20_ids": ids, "loss_per_token": model(tokens, return_type="loss", loss_per_token=True),
        "loss": model(tokens, return_type="loss").reshape(1),
    }


def sae_outputs(model, x):
    codes = sae.encode(x)
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    lens_values, lens_ids = (sae.W_dec[features100[:20]] @ model.W_U).topk(10, dim=1)
    flat = codes.flatten(0, 1)[:, features100]
    mask = flat.sum(-1) > 0
    rows = flat[mask] @ sae.W_dec[features100]
    pca, embedding = pca3(rows)
    named = {f"pca.{k}": torch.tensor(np.ascontiguousarray(getattr(pca, k)))
             for k in ("components_", "mean_", "explained_variance_", "explained_variance_ratio_", "singular_values_")}
    model.add_sae(sae)
    spliced = model(tokens, return_type="loss").reshape(1)
    model.reset_saes()
    return codes, pre, {
        "sae.acts_index": (codes > 0).nonzero().int(), "sae.acts_value": codes[codes > 0], "sae.pre_features100": pre[..., features100],
        "sae.decode": sae.decode(codes), "lens.values": lens_values, "lens.ids": lens_ids, "pca.rows": mask.nonzero().flatten().int(),
        "pca.input": rows, "pca.embedding": torch.tensor(np.ascontiguousarray(embedding)), "spliced_loss": spliced, **named,
    }


def seed_run(model):
    """The notebook's cells 18 to 27: the store's packing, 100 features, then nine others on the following batches."""
    dataset = load_dataset("json", data_files=str(args.root / "corpus/corpus.jsonl"), split="train", streaming=True)
    store = ActivationsStore.from_sae(model=model, sae=sae, dataset=dataset, streaming=True, store_batch_size_prompts=8,
                                      train_batch_size_tokens=4096, n_batches_in_buffer=32, device="cpu")
    batches = [store.get_batch_tokens() for _ in range(2 * args.batches)]
    save(out / "store_batches.safetensors", {"batches": torch.stack(batches[:3]).int()})
    frame = token_frame(model, batches[0][:2], 0).drop(columns=["context_whole", "batch"])
    dump(out / "token_df_batch0_prompts01.json", frame.to_dict("records"))

    torch.manual_seed(0)
    features = torch.randperm(sae.cfg.d_sae)[:100]
    first, second = batches[: args.batches], batches[args.batches :]
    frame, acts, recs, kept = seed_loop(model, sae, first, features)
    total = sum(b.numel() for b in first)
    top = torch.argsort(-acts[:, 0], stable=True)[:10]
    table = frame.iloc[top.numpy()].drop(columns=["label", "context_whole"])
    lens_ids = (sae.W_dec[features[:1]] @ model.W_U).topk(10, dim=1).indices[0]
    days = torch.tensor(DAYS)
    _, day_acts, day_recs, day_kept = seed_loop(model, sae, second, days)
    pca, _ = pca3(day_recs)
    answers = dict(fired_tokens=len(kept), fired_share=round(len(kept) / total, 5), acts_sum=float(acts.double().sum()), rec_sumsq=float(recs.double().pow(2).sum()),
                   prop_positive_feature0=100 * float((acts[:, 0] > 0).sum()) / total, top10_values=acts[top, 0].tolist(),
                   top10_rows=json.loads(table.to_json(orient="records")), projection_shape=[sae.cfg.d_sae, model.W_U.shape[1]],
                   logit_lens_feature0=[tokenizer.decode([i]) for i in lens_ids.tolist()], days_fired=len(day_kept),
                   pca_explained=[round(float(v), 6) for v in pca.explained_variance_ratio_])
    dump(out / "seed_run.json", dict(note=f"the first {args.batches} batches (cells 20 to 24), the next {args.batches} (cells 26, 27)",
                                     features=features.tolist(), days=DAYS, batches=args.batches, batch=8, ctx=128, answers=answers))
    save(out / "seed_run_rows.safetensors", {
        "kept": kept.int(), "near_edge": edge_rows(model, sae, first, features, MARGIN).int(), "feature_sums": acts.double().sum(0).float(),
        "days.kept": day_kept.int(), "days.near_edge": edge_rows(model, sae, second, days, MARGIN).int(), "days.feature_sums": day_acts.double().sum(0).float()})


hf = AutoModelForCausalLM.from_pretrained(str(model_dir), attn_implementation="eager").eval()
hf_logits = hf(tokens).logits
hf_loss = float(torch.nn.functional.cross_entropy(hf_logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
for name, processing in (("processed", PROCESSED), ("no_processing", RAW)):
    model = tl_from_local(model_dir, processing, tokenizer=tokenizer, cls=HookedSAETransformer)
    cache, logits, tensors = model_outputs(model)
    codes, pre, sae_tensors = sae_outputs(model, cache[HOOK])
    meta["lens_tokens"][name] = [[tokenizer.decode([i]) for i in row] for row in sae_tensors["lens.ids"].tolist()]
    # How near features are to the ReLU's edge: a checker may leave those out.
    meta["checks"][name] = dict(
        l0_mean=float((codes > 0).float().sum(-1).mean()), fired_with_value_below_1e_4=int(((codes > 0) & (codes < 1e-4)).sum()),
        pre_between_minus1e_4_and_0=int(((pre <= 0) & (pre > -1e-4)).sum()), loss=float(tensors["loss"]), hf_loss=hf_loss,
        max_abs_logprob_diff_vs_hf=float((logits.log_softmax(-1) - hf_logits.log_softmax(-1)).abs().max()))
    save(out / f"{name}.safetensors", tensors | sae_tensors)
    if name == "processed":
        weights = {k: v for k, v in model.state_dict().items() if v.is_floating_point() and "mask" not in k and "IGNORE" not in k}
        dump(out / "processed_weights_stats.json",
             {k: dict(shape=list(v.shape), sum=float(v.double().sum()), sumsq=float(v.double().pow(2).sum())) for k, v in weights.items()})
        seed_run(model)
    del model
dump(out / "meta.json", meta)
cases = [(text, tokenizer.encode(text)) for text in STRINGS]
dump(out / "tokenizer_cases.json", [dict(text=text, ids=ids, decoded=tokenizer.decode(ids), pieces=[tokenizer.decode([i]) for i in ids]) for text, ids in cases])
print(json.dumps(meta["checks"], indent=1))
