"""GGUF fixtures with the answers of the Python `gguf`, `tokenizers` and `sentencepiece` packages.

    python tools/goldens/golden_gguf.py --out crates/model-hooks/tests/golden/gguf --llama crates/model-hooks/tests/golden/llama \\
        --text assets/demo/text.jsonl

See OUT/README.md for what each file holds. Everything is seeded; nothing reaches the network.
"""

import argparse
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import dump
from golden_gguf_vocab import NASTY, Pieces, add_tokenizer, byte_level_bpe, finish, pre_tokenizer, texts, train
from safetensors.numpy import load_file, save_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--llama", type=Path, required=True)
parser.add_argument("--text", type=Path, required=True)
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(20)

# ---- blocks: random bytes in every supported type, and what they expand to ----
# Scales as f16 bit patterns: zeros of both signs, smallest and largest subnormal, smallest and largest normal, ordinary ones.
ODD_HALVES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0x1234, 0xA9F1, 0x2E66], np.uint16)
SCALES_AT = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}


def random_blocks(kind, rows, blocks):
    size = gguf.GGML_QUANT_SIZES[kind][1]
    raw = rng.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for at in SCALES_AT[kind]:
        halves = rng.choice(ODD_HALVES, (rows, blocks, 1))
        raw[:, :, at : at + 2] = halves.view(np.uint8).reshape(rows, blocks, 2)
    return raw.reshape(rows, blocks * size)


def finite_words(count, dtype, exponent):
    words = rng.integers(0, np.iinfo(dtype).max, count, dtype=dtype, endpoint=True)
    words[: count // 4] &= dtype(~exponent & np.iinfo(dtype).max)  # a quarter are zeros and subnormals
    words[:3] = 0, np.iinfo(dtype).max // 2 + 1, 1  # both zeros and the smallest subnormal
    return np.where((words & exponent) == exponent, words ^ exponent, words)


def write_blocks():
    writer = gguf.GGUFWriter(args.out / "blocks.gguf", "blocks")
    expected = {}
    for kind in SCALES_AT:
        raw = random_blocks(kind, 3, 4 if gguf.GGML_QUANT_SIZES[kind][0] == 32 else 2)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        expected[kind.name] = gguf.quants.dequantize(raw, kind)
    f32 = finite_words(96, np.uint32, np.uint32(0x7F800000)).view(np.float32).reshape(2, 3, 16)
    f16 = finite_words(96, np.uint16, np.uint16(0x7C00)).view(np.float16).reshape(4, 24)
    bf16 = finite_words(96, np.uint16, np.uint16(0x7F80)).reshape(4, 24).view(np.uint8)
    writer.add_tensor("F32", f32)
    writer.add_tensor("F16", f16)
    writer.add_tensor("BF16", bf16, raw_dtype=Q.BF16)
    expected |= {"F32": f32, "F16": f16.astype(np.float32), "BF16": gguf.quants.dequantize(bf16, Q.BF16)}
    finish(writer)
    for name, values in expected.items():
        assert values.dtype == np.float32 and np.isfinite(values).all(), name
    save_file({k: np.ascontiguousarray(v) for k, v in expected.items()}, args.out / "blocks.safetensors")


# ---- the small llama, its Q and K rows permuted as llama.cpp's converter does ----
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def permute(w, heads):
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def write_llama(tokenizer):
    config = json.loads((args.llama / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(args.out / "llama.gguf", "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, tokenizer, "smollm")
    for name, w in sorted(load_file(args.llama / "model.safetensors").items()):
        if name in OUTER:
            writer.add_tensor(OUTER[name], w)
            continue
        layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
        if part == "self_attn.q_proj":
            w = permute(w, heads)
        elif part == "self_attn.k_proj":
            w = permute(w, kv_heads)
        writer.add_tensor(f"blk.{layer}.{NAMES[part]}.weight", np.ascontiguousarray(w))
    finish(writer)


# ---- SentencePiece BPE with byte fallback, as Llama 1 and 2 ----
def write_sentencepiece(lines, cases):
    pieces = Pieces(lines, 640, character_coverage=0.995)
    writer = gguf.GGUFWriter(args.out / "sentencepiece.gguf", "llama")
    pieces.describe(writer)
    finish(writer)
    return pieces.answers(cases)


lines, cases = texts(args.text)
write_blocks()
trained = train(lines, pre_tokenizer("smollm"), 384)
tokenizer = byte_level_bpe("smollm", *trained)
assert tokenizer.get_vocab_size() == 384
tokenizer.save(str(args.out / "tokenizer.json"), pretty=False)
write_llama(tokenizer)
answers = {"llama.gguf": [dict(text=t, ids=tokenizer.encode(t, add_special_tokens=False).ids) for t in cases]}

from tokenizers.pre_tokenizers import ByteLevel

crossing = train([t[:200] for t in lines] + NASTY * 8, ByteLevel(add_prefix_space=False, use_regex=False), 1500)
writer = gguf.GGUFWriter(args.out / "crossing.gguf", "llama")
add_tokenizer(writer, byte_level_bpe("gpt-2", *crossing), "gpt-2")
finish(writer)
for pre in ("gpt-2", "smollm", "starcoder", "llama-bpe", "qwen2"):
    tokenizer = byte_level_bpe(pre, *crossing)
    answers[pre] = [dict(text=t, ids=tokenizer.encode(t, add_special_tokens=False).ids) for t in cases]
answers["sentencepiece"] = write_sentencepiece(lines, cases)
dump(args.out / "tokenizer_ids.json", answers, indent=None)
print({name: sum(len(r["ids"]) for r in rows) for name, rows in answers.items()})
