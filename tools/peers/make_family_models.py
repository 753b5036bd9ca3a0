"""One model of every family at the shape of a small published one, with seeded random weights, for timings.

    python tools/peers/make_family_models.py --root ROOT [--only NAME ...]      (after setup_peers.sh)

Writes ROOT/models/families/<name>/{config.json, model.safetensors} in bf16: width, heads, MLP and window of the published model that the
name says, with 6 blocks (fewer of the widest) and a vocabulary of 32,768, so that all fit on a laptop. About 3.4 GB.
"""

import argparse
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--root", type=Path, required=True)
parser.add_argument("--only", nargs="*", default=[])
args = parser.parse_args()

import torch
import transformers as T

VOCAB, LAYERS = 32768, 6
torch.set_grad_enabled(False)


def rope(theta, **more):
    return dict(rope_parameters=dict(rope_type="default", rope_theta=theta, **more))


def dims(width, mlp, heads, kv_heads, layers=LAYERS, **more):
    return dict(vocab_size=VOCAB, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
                num_key_value_heads=kv_heads, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0, **more)


def gemma_kinds(period, layers):
    return ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(layers)]


GELU = dict(hidden_activation="gelu_pytorch_tanh")
MODELS = {
    "gpt2-small": lambda: T.GPT2Config(vocab_size=VOCAB, n_positions=1024, n_embd=768, n_layer=LAYERS, n_head=12, bos_token_id=1, eos_token_id=2),
    "gpt-neo-125m": lambda: T.GPTNeoConfig(vocab_size=VOCAB, hidden_size=768, num_layers=LAYERS, num_heads=12, window_size=256,
                                           attention_types=[[["global", "local"], LAYERS // 2]], max_position_embeddings=2048, bos_token_id=1, eos_token_id=2),
    "gptj-768": lambda: T.GPTJConfig(vocab_size=VOCAB, n_positions=2048, n_embd=768, n_layer=LAYERS, n_head=12, rotary_dim=32, bos_token_id=1, eos_token_id=2),
    "pythia-160m": lambda: T.GPTNeoXConfig(vocab_size=VOCAB, hidden_size=768, intermediate_size=3072, num_hidden_layers=LAYERS, num_attention_heads=12,
                                           max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, **rope(10000.0, partial_rotary_factor=0.25)),
    "smollm2-135m": lambda: T.LlamaConfig(**dims(576, 1536, 9, 3, tie_word_embeddings=True), **rope(100000.0)),
    "mistral-768": lambda: T.MistralConfig(**dims(768, 2688, 12, 4), sliding_window=1024, head_dim=64, **rope(10000.0)),
    "qwen2.5-0.5b": lambda: T.Qwen2Config(**dims(896, 4864, 14, 2, tie_word_embeddings=True), **rope(1e6)),
    "qwen3-0.6b": lambda: T.Qwen3Config(**dims(1024, 3072, 16, 8, tie_word_embeddings=True), head_dim=128, **rope(1e6)),
    "phi3-768": lambda: T.Phi3Config(**dims(768, 2048, 12, 12), sliding_window=2047, **rope(10000.0)),
    "olmo2-1b": lambda: T.Olmo2Config(**dims(2048, 8192, 16, 16, layers=4), **rope(500000.0)),
    "gemma-2b": lambda: T.GemmaConfig(**dims(2048, 16384, 8, 1, layers=2, tie_word_embeddings=True), head_dim=256, **GELU, **rope(10000.0)),
    "gemma-2-2b": lambda: T.Gemma2Config(**dims(2304, 9216, 8, 4, layers=2, tie_word_embeddings=True), head_dim=256, query_pre_attn_scalar=256,
                                         sliding_window=1024, layer_types=gemma_kinds(2, 2), **GELU, **rope(10000.0)),
    "gemma-3-270m": lambda: T.Gemma3TextConfig(
        **dims(640, 2048, 4, 1, tie_word_embeddings=True), head_dim=256, query_pre_attn_scalar=256, sliding_window=512, layer_types=gemma_kinds(6, LAYERS), **GELU,
        rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=1e6), sliding_attention=dict(rope_type="default", rope_theta=1e4))),
}

for seed, (name, config) in enumerate(MODELS.items()):
    folder = args.root / "models/families" / name
    if (args.only and name not in args.only) or (folder / "model.safetensors").is_file():
        continue
    torch.manual_seed(seed)
    model = T.AutoModelForCausalLM.from_config(config(), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    print(name, f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters", flush=True)
