"""What torch computes with SmolLM2-135M-Instruct (f32 arithmetic), for the tests that need its weights.

    python tools/peers/fetch_smollm2.py FOLDER [--f32]
    python tools/goldens/golden_smollm2.py --hf FOLDER/hf-f32 --text assets/demo/text.jsonl --out crates/model-hooks/tests/golden/smollm2.json

Mean next-token losses in nats with the right pairing of rotary dimensions and with the wrong one (rows of Q and K left in the
GGUF's order), the last logits of a prompt, and greedy continuations.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import dump

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--hf", type=Path, required=True)
parser.add_argument("--text", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)
args = parser.parse_args()

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

torch.set_grad_enabled(False)
model = LlamaForCausalLM.from_pretrained(args.hf, dtype=torch.float32, attn_implementation="eager").eval()
tokenizer = Tokenizer.from_file(str(args.hf / "tokenizer.json"))
documents = [json.loads(line)["text"] for line in args.text.read_text().splitlines()]
PROMPTS = {"The capital of France is": 2, "The meeting was moved from Monday to": 12}
CONTEXT = 128


def encode(text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def loss(ids):
    ids = torch.tensor([ids])
    return model(ids, labels=ids).loss.item()


def continuation(prompt, steps):
    ids = encode(prompt)
    for _ in range(steps):
        ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
    return tokenizer.decode(ids, skip_special_tokens=False).removeprefix(prompt)


def permute(w, heads):
    return w.view(heads, 2, w.shape[0] // heads // 2, w.shape[1]).transpose(1, 2).reshape(w.shape)


texts = [encode(text)[:CONTEXT] for text in documents[:4]]
out = dict(texts=[dict(ids=ids, loss=loss(ids)) for ids in texts],
           continuations=[dict(prompt=p, text=continuation(p, n)) for p, n in PROMPTS.items()],
           last_logits=[dict(prompt=p, logits=[round(x, 4) for x in model(torch.tensor([encode(p)])).logits[0, -1, :512].tolist()]) for p in PROMPTS])
for layer in model.model.layers:
    q, k = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
    q.copy_(permute(q.clone(), model.config.num_attention_heads))
    k.copy_(permute(k.clone(), model.config.num_key_value_heads))
for text in out["texts"]:
    text["loss_wrong_pairing"] = loss(text["ids"])
dump(args.out, out, indent=None)
print([(len(t["ids"]), round(t["loss"], 4), round(t["loss_wrong_pairing"], 4)) for t in out["texts"]], out["continuations"])
