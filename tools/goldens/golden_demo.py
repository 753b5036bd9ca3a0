"""The notebook on the embedded demo, by SAELens and TransformerLens.

    python tools/goldens/golden_demo.py --demo assets/demo --out tests/golden/demo

Writes OUT/answers.json and OUT/answers.safetensors, see OUT/README.md.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, dump, sha256, tl_from_local, versions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--demo", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--batches", type=int, default=20, help="batches of the first loop, from the text's beginning")
parser.add_argument("--last", type=int, default=40, help="batches of the loop over the features of days, up to the text's end, where the almanac is")
args = parser.parse_args()

import numpy as np
import torch
from datasets import load_dataset
from safetensors.torch import save_file
from sae_lens import SAE, ActivationsStore, HookedSAETransformer
from transformers import AutoTokenizer

from notebook import edge_rows, pca3, seed_loop

torch.set_grad_enabled(False)
torch.set_num_threads(1)
DAYS = [767, 1890, 199, 905, 1506, 1350, 813, 818, 1245]
MARGIN = 1e-3
PROMPTS = ["The meeting was on Monday, and on", "In the beginning God created the heaven and the", "The capital of France is"]
BATCH, CONTEXT = 8, 128



def tokens_sha256(batches):
    """Of the ids as little-endian i32, in order."""
    return hashlib.sha256(torch.stack(batches).int().numpy().astype("<i4").tobytes()).hexdigest()


tokenizer = AutoTokenizer.from_pretrained(str(args.demo / "lm"))
model = tl_from_local(args.demo / "lm", PROCESSED, tokenizer=tokenizer, cls=HookedSAETransformer)
sae = SAE.load_from_disk(str(args.demo / "sae"), device="cpu")
hook = sae.cfg.metadata.hook_name
threshold = sae.threshold
bos = tokenizer.bos_token_id
features = torch.randperm(sae.cfg.d_sae, generator=torch.Generator().manual_seed(0))[:100]

dataset = load_dataset("json", data_files=str(args.demo / "text.jsonl"), split="train", streaming=True)
store = ActivationsStore.from_sae(model=model, sae=sae, dataset=dataset, streaming=True, store_batch_size_prompts=BATCH,
                                  train_batch_size_tokens=4096, n_batches_in_buffer=32, device="cpu")
batches = []
try:
    while True:
        batches.append(store.get_batch_tokens(raise_at_epoch_end=True))
except StopIteration:
    pass  # the batch in hand at the end of the text is dropped
first, last = batches[: args.batches], batches[-args.last :]
out = {"batches": torch.stack(batches[:3]).int()}

# Cells 20 to 23.
frame, acts, recs, where = seed_loop(model, sae, first, features)
special = torch.stack(first).flatten()[where] == bos
most = int((acts > 0).sum(0).argmax())
total = args.batches * BATCH * CONTEXT
order = torch.argsort(-acts[:, most], stable=True)[:10]
top10 = [dict(frame.iloc[int(i)].to_dict(), value=float(acts[i, most])) for i in order]
for row in top10:
    row.update({k: int(row[k]) for k in ("prompt", "pos", "batch")})
without = acts[~special]
out |= {"features": features.int(), "kept": where.int(), "feature_counts": (acts > 0).sum(0).int(), "feature_sums": acts.double().sum(0).float(),
        "feature_max": acts.max(0).values, "near_edge": edge_rows(model, sae, first, features, MARGIN, threshold).int()}
answers = dict(
    versions=versions(), model_sha256=sha256(args.demo / "lm/model.safetensors"), sae_sha256=sha256(args.demo / "sae/sae_weights.safetensors"),
    text_sha256=sha256(args.demo / "text.jsonl"), hook=hook, all_batches=len(batches), batches=args.batches, batch_prompts=BATCH, context=CONTEXT, near_edge_margin=MARGIN,
    tokens_sha256=tokens_sha256(first), all_tokens_sha256=tokens_sha256(batches),
    kept_rows=len(where), kept_rows_special=int(special.sum()), acts_sum=float(acts.double().sum()), recon_sumsq=float(recs.double().pow(2).sum()),
    acts_sum_without_special=float(without.double().sum()),
    busiest=dict(feature=int(features[most]), column=most, positives=int((acts[:, most] > 0).sum()),
                 percent_positive=100 * float((acts[:, most] > 0).sum()) / total,
                 positives_without_special=int((without[:, most] > 0).sum()), top10=top10),
)

# Cell 24, for 20 features.
lens = sae.W_dec[features[:20]] @ model.W_U
out["lens.values"], ids = lens.topk(10, dim=1)
out["lens.ids"] = ids.int()
answers["lens_tokens_feature0"] = [tokenizer.decode([i]) for i in ids[0].tolist()]

# Cells 26 and 27, on the last batches; `days.kept` counts from the first of them.
days = torch.tensor(DAYS)
frame, acts, recs, where = seed_loop(model, sae, last, days)
pca, embedding = pca3(recs)
out |= {"days.kept": where.int(), "days.near_edge": edge_rows(model, sae, last, days, MARGIN, threshold).int(),
        "days.components": torch.tensor(np.ascontiguousarray(pca.components_)), "days.embedding": torch.tensor(np.ascontiguousarray(embedding))}
commonest = frame["str_tokens"].value_counts().head(15)
answers["days"] = dict(features=DAYS, first_batch=len(batches) - len(last), batches=len(last), kept_rows=len(where), acts_sum=float(acts.double().sum()), recon_sumsq=float(recs.double().pow(2).sum()),
                       explained_variance=pca.explained_variance_.tolist(), explained_variance_ratio=pca.explained_variance_ratio_.tolist(),
                       commonest_tokens={k: int(v) for k, v in commonest.items()})

# Activations, loss, sparsity and predictions.
tokens = first[0]
_, cache = model.run_with_cache(tokens, names_filter=[hook])
codes = sae.encode(cache[hook])
out["resid"] = cache[hook][0, :32].clone()
out["codes"] = codes[0, :8].clone()
out["sae_out"] = sae.decode(codes)[0, :32].clone()
loss = model(tokens, return_type="loss", loss_per_token=True)
l0 = (codes > 0).sum(-1).float()
answers |= dict(loss=float(loss.mean()), loss_per_row=loss.mean(-1).tolist(), l0=float(l0.mean()), l0_without_special=float(l0[tokens != bos].mean()))
answers["prompts"] = []
for prompt in PROMPTS:
    ids = model.to_tokens(prompt)
    logits = model(ids)[0, -1]
    value, index = logits.topk(5)
    probs = logits.softmax(-1)[index]
    answers["prompts"].append(dict(prompt=prompt, ids=ids[0].tolist(), top5_ids=index.tolist(), top5_tokens=[tokenizer.decode([i]) for i in index.tolist()],
                                   top5_logits=value.tolist(), top5_probs=probs.tolist()))

args.out.mkdir(parents=True, exist_ok=True)
save_file({k: v.contiguous().clone() for k, v in out.items()}, args.out / "answers.safetensors")
(args.out / "answers.safetensors").chmod(0o644)
dump(args.out / "answers.json", answers)
print(json.dumps({k: v for k, v in answers.items() if k != "versions"}, indent=1, ensure_ascii=False))
