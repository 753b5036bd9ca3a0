#!/usr/bin/env python3
"""Train the SAE of the embedded demo with SAELens itself, on the demo language model, and save it with SAELens' own writer.

  python3 tools/assets/train_demo_sae.py --lm demo-lm --corpus corpus.jsonl --out demo-sae --tokens 5000000

BatchTopK on blocks.2.hook_resid_pre (TransformerLens' default weight processing: centred residual stream), saved as JumpReLU:
cfg.json, sae_weights.safetensors, sparsity.safetensors, and eval.json (held-out explained variance, L0, dead share,
CE with SAE / zero ablation, and which features fire on the names of days and months). Needs: sae-lens 6.54.12, transformer-lens 3.9.0, torch, and zstandard for a .zst corpus.
"""

import argparse
import json
import os
import random
import shutil

from train_demo_lm import DAYS, MONTHS, almanac_paragraph, read_corpus

# TransformerLens' default weight processing, each step named.
PROCESSED = dict(fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True)


def tl_from_local(path, processing, tokenizer, cls):
    """What HookedTransformer.from_pretrained does, for a local folder (it resolves names against its hub list first)."""
    import torch
    from transformer_lens import loading_from_pretrained as loading
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    cfg = loading.get_pretrained_model_config(
        path, hf_cfg=hf.config.to_dict(), fold_ln=processing["fold_ln"], device="cpu", dtype=torch.float32
    )
    state = loading.get_pretrained_state_dict(path, cfg, hf, dtype=torch.float32)
    cfg.tokenizer_name = None  # else it tries to fetch one by name
    model = cls(cfg, tokenizer, move_to_device=False)
    model.load_and_process_state_dict(state, refactor_factored_attn_matrices=False, **processing)
    return model.eval()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--lm", required=True)
    ap.add_argument("--corpus", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--tokens", type=int, default=4_000_000)
    ap.add_argument("--d-sae", type=int, default=2048)
    ap.add_argument("--k", type=float, default=24)
    ap.add_argument("--hook", default="blocks.2.hook_resid_pre")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--lr", type=float, default=1e-3)
    a = ap.parse_args()
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from sae_lens import (
        BatchTopKTrainingSAEConfig,
        HookedSAETransformer,
        LanguageModelSAERunnerConfig,
        LoggingConfig,
        SAE,
    )
    from sae_lens.llm_sae_training_runner import LanguageModelSAETrainingRunner

    torch.set_num_threads(a.threads)
    tc = os.path.join(a.lm, "tokenizer_config.json")
    if not os.path.exists(tc):
        json.dump(
            dict(
                tokenizer_class="PreTrainedTokenizerFast",
                bos_token="<|endoftext|>",
                eos_token="<|endoftext|>",
                pad_token="<|endoftext|>",
                unk_token="<|endoftext|>",
                model_max_length=128,
                clean_up_tokenization_spaces=False,
            ),
            open(tc, "w"),
            indent=1,
        )
    tok = PreTrainedTokenizerFast.from_pretrained(a.lm)
    model = tl_from_local(a.lm, PROCESSED, tokenizer=tok, cls=HookedSAETransformer)
    r = random.Random(a.seed)
    docs = read_corpus(a.corpus)
    r.shuffle(docs)  # same seed, same split as train_demo_lm.py
    held, train = docs[:400], docs[400:]
    alm = [dict(text=almanac_paragraph(r), source="almanac") for _ in range(20000)]
    mix = [d["text"] for d in train[:9000]] + [d["text"] for d in alm]
    r.shuffle(mix)
    work = a.out + ".run"
    shutil.rmtree(work, ignore_errors=True)
    batch = 4096
    steps = a.tokens // batch
    cfg = LanguageModelSAERunnerConfig(
        sae=BatchTopKTrainingSAEConfig(
            d_in=model.cfg.d_model,
            d_sae=a.d_sae,
            k=a.k,
            apply_b_dec_to_input=True,
            normalize_activations="expected_average_only_in",
            rescale_acts_by_decoder_norm=True,
        ),
        model_name="demo-lm",
        hook_name=a.hook,
        dataset_path="demo-corpus",
        streaming=False,
        is_dataset_tokenized=False,
        context_size=128,
        prepend_bos=True,
        training_tokens=steps * batch,
        train_batch_size_tokens=batch,
        store_batch_size_prompts=32,
        n_batches_in_buffer=16 * 8,
        lr=a.lr,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps // 4,
        n_batches_for_norm_estimate=20,
        dead_feature_window=200,
        feature_sampling_window=500,
        exclude_special_tokens=True,
        n_checkpoints=0,
        checkpoint_path=None,
        output_path=work,
        logger=LoggingConfig(log_to_wandb=False),
        seed=a.seed,
        device="cpu",
        n_eval_batches=1,
    )
    LanguageModelSAETrainingRunner(cfg, override_dataset=Dataset.from_dict({"text": mix}), override_model=model).run()
    src = next(d for d, _, f in os.walk(work) if "sae_weights.safetensors" in f)
    os.makedirs(a.out, exist_ok=True)
    for f in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors"):
        if os.path.exists(os.path.join(src, f)):
            shutil.copy(os.path.join(src, f), a.out)
    # ---- held-out evaluation, on plain tensors
    sae = SAE.load_from_disk(a.out)
    sae.eval()
    print("saved as", sae.cfg.architecture())
    bos = tok.bos_token_id
    ids = []
    for d in held + [dict(text=almanac_paragraph(r)) for _ in range(200)]:
        t = tok.encode(d["text"])[:127]
        if len(t) == 127:
            ids.append([bos] + t)
    ids = torch.tensor(ids[:192])
    acts = []
    xs = []
    rec = []
    with torch.no_grad():
        for b in ids.split(16):
            _, c = model.run_with_cache(b, names_filter=[a.hook])
            x = c[a.hook][:, 1:]
            f = sae.encode(x)
            acts.append(f.flatten(0, 1))
            xs.append(x.flatten(0, 1))
            rec.append(sae.decode(f).flatten(0, 1))
        x, f, y = torch.cat(xs).double(), torch.cat(acts), torch.cat(rec).double()
        fired = (f > 0).float().mean(0)
        ev = 1 - ((x - y) ** 2).sum(1).mean() / ((x**2).sum(1).mean() - (x.mean(0) ** 2).sum())
        loss = lambda hooks: sum(
            model.run_with_hooks(b, return_type="loss", fwd_hooks=hooks).item() * len(b) for b in ids.split(16)
        ) / len(ids)

        def splice(t, hook):
            t = t.clone()
            t[:, 1:] = sae(t[:, 1:])
            return t

        ce, ce_sae, ce_zero = loss([]), loss([(a.hook, splice)]), loss([(a.hook, lambda t, hook: torch.zeros_like(t))])
        flat = ids[:, 1:].flatten()
        fam = {}
        for name, words in (("days", DAYS), ("months", MONTHS)):
            wid = [tok.encode(" " + w)[0] for w in words if len(tok.encode(" " + w)) == 1]
            on = torch.isin(flat, torch.tensor(wid))
            p = (f[on] > 0).float().mean(0)
            q = (f[~on] > 0).float().mean(0)
            best = torch.argsort(
                p * (p / (p * on.float().mean() + q * (1 - on.float().mean()) + 1e-9)) * on.float().mean(),
                descending=True,
            )[:12]
            fam[name] = [
                dict(
                    feature=int(i),
                    fires_on_family=round(p[i].item(), 3),
                    share_of_firings_on_family=round(
                        (p[i] * on.sum() / (p[i] * on.sum() + q[i] * (~on).sum() + 1e-9)).item(), 3
                    ),
                )
                for i in best
            ]
    out = dict(
        tokens=int(steps * batch),
        held_out_tokens=int(len(f)),
        explained_variance=round(ev.item(), 4),
        l0=round((f > 0).float().sum(1).mean().item(), 2),
        dead_share=round((fired == 0).float().mean().item(), 4),
        ce=round(ce, 4),
        ce_with_sae=round(ce_sae, 4),
        ce_zero_ablation=round(ce_zero, 4),
        ce_score=round((ce_zero - ce_sae) / (ce_zero - ce), 4),
        families=fam,
    )
    json.dump(out, open(os.path.join(a.out, "eval.json"), "w"), indent=1)
    print(json.dumps(out, indent=1))
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
