"""GGUF files of every architecture, written from the small models as llama.cpp's converter does, with logits and token ids.

    python tools/goldens/golden_gguf_families.py --models crates/model-hooks/tests/golden --text assets/demo/text.jsonl

Writes MODELS/gguf/families/{NAME.gguf, expected.safetensors, tokenizer_ids.json}, see the README there. What the converter does to the tensors:

| architecture | change |
|---|---|
| llama (`golden_gguf.py`) | rows of q and k permuted within each head |
| qwen2, qwen3 | none: rotation is by halves, as in the checkpoint |
| gemma, gemma2, gemma3 | 1 is added to every norm's gain (q's and k's too); the embedding is not scaled; no `output.weight` |
| gpt2 | matrices transposed to [out, in]; q, k, v stay fused; no `output.weight` |
| gptneox | the fused q, k, v go from head by head (q0 k0 v0 q1 k1 v1 ...) to all q, all k, all v |
| phi3 | none: q, k, v stay fused (`attn_qkv`), gate and up too (`ffn_up`) |

Vectors stay f32 whatever the type of the file. Logits are those of transformers with the weights that the file's blocks expand to.
"""

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import dump
from golden_gguf_vocab import Pieces, add_tokenizer, byte_level_bpe, finish, pre_tokenizer, texts, train
from golden_models import GEMMA, GEMMA3_ROPE, TOKENS, VOCAB, WINDOW, T, fill, open_model
from safetensors.torch import save_file

torch.set_grad_enabled(False)
ARCH = gguf.MODEL_ARCH
# file: (model, architecture, type of the matrices, tokenizer)
FILES = dict(
    gpt2=("gpt2", ARCH.GPT2, Q.F32, "gpt-2"),
    gptneox=("neox_parallel", ARCH.GPTNEOX, Q.F16, "olmo"),
    gptneox_serial=("neox_serial", ARCH.GPTNEOX, Q.F16, "olmo"),
    qwen2=("qwen2", ARCH.QWEN2, Q.F32, "qwen2"),
    qwen3=("qwen3", ARCH.QWEN3, Q.Q4_0, "qwen2"),
    phi3=("phi3", ARCH.PHI3, Q.F16, "pieces"),
    gemma=("gemma1", ARCH.GEMMA, Q.F16, "pieces_no_prefix"),
    gemma2=("gemma2", ARCH.GEMMA2, Q.Q8_0, "pieces_no_prefix"),
    gemma3=("seven_layers", ARCH.GEMMA3, Q.Q8_0, "pieces_no_prefix"),
)
FILE_TYPES = {Q.F32: gguf.LlamaFileType.ALL_F32, Q.F16: gguf.LlamaFileType.MOSTLY_F16, Q.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
              Q.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0}


def seven_layers():
    """A Gemma 3 with one global layer, the sixth: files of this architecture do not say which layers are, every sixth is."""
    config = T.Gemma3TextConfig(
        **{**GEMMA, "num_hidden_layers": 7, "num_key_value_heads": 1, "intermediate_size": 96}, sliding_window=WINDOW, query_pre_attn_scalar=32,
        layer_types=["sliding_attention"] * 5 + ["full_attention", "sliding_attention"], rope_parameters=GEMMA3_ROPE)
    config._attn_implementation = "eager"
    model = T.Gemma3ForCausalLM(config).eval()
    fill(model, 1020, True)
    return model


def describe(writer, arch, c):
    """The keys that the converter writes for the architecture."""
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_head_count(c.num_attention_heads)
    if arch in (ARCH.GPT2, ARCH.GPTNEOX):
        writer.add_feed_forward_length(c.intermediate_size if arch == ARCH.GPTNEOX else 4 * c.hidden_size)
        writer.add_layer_norm_eps(c.layer_norm_eps if arch == ARCH.GPTNEOX else c.layer_norm_epsilon)
        if arch == ARCH.GPTNEOX:  # no base: 10,000
            writer.add_rope_dimension_count(int(c.rope_parameters["partial_rotary_factor"] * c.hidden_size // c.num_attention_heads))
            writer.add_parallel_residual(c.use_parallel_residual)
        return
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    if arch in (ARCH.QWEN3, ARCH.GEMMA, ARCH.GEMMA2, ARCH.GEMMA3):
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if arch in (ARCH.QWEN2, ARCH.QWEN3, ARCH.PHI3):  # Gemma 1 and 2 have no base: 10,000
        writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    if arch == ARCH.PHI3:
        writer.add_rope_scaling_orig_ctx_len(c.original_max_position_embeddings)
        writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
        writer.add_sliding_window(c.sliding_window or 0)
    if arch == ARCH.GEMMA2:
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
        writer.add_sliding_window(c.sliding_window)
    if arch == ARCH.GEMMA3:
        writer.add_rope_freq_base(c.rope_parameters["full_attention"]["rope_theta"])
        writer.add_rope_freq_base_swa(c.rope_parameters["sliding_attention"]["rope_theta"])
        writer.add_sliding_window(c.sliding_window)


def heads_apart(w, heads):
    """[heads, 3, d_head, ...] rows to [3, heads, d_head, ...] rows."""
    return w.reshape(heads, 3, -1, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)


def converted(arch, c, name, w):
    if arch in (ARCH.GEMMA, ARCH.GEMMA2, ARCH.GEMMA3) and name.endswith("norm.weight"):
        return w + np.float32(1)
    if arch == ARCH.GPT2 and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return np.ascontiguousarray(w.T)
    if arch == ARCH.GPTNEOX and ".query_key_value." in name:
        return heads_apart(w, c.num_attention_heads)
    return w


def write_model(path, arch, hf, kind, tokenizer):
    """Writes the file; returns the state that transformers would have with the weights in it."""
    c = hf.config
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    describe(writer, arch, c)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    tokenizer(writer)
    names = gguf.get_tensor_name_map(arch, c.num_hidden_layers)
    effective = {}
    for name, tensor in sorted(hf.named_parameters()):  # a tied unembedding is not among them
        w = tensor.float().numpy()
        stored_kind = kind if w.ndim == 2 and "wpe" not in name else Q.F32
        stored = converted(arch, c, name, w)
        blocks = gguf.quants.quantize(stored, stored_kind)
        assert stored_kind == Q.F32 or arch != ARCH.GPT2, "the transposed matrices would have to be turned back below"
        base, dot, suffix = name.rpartition(".")
        writer.add_tensor(names.get_name(base) + dot + suffix, blocks, raw_dtype=stored_kind)
        # Blocks lie within rows, so the order of rows does not matter to what they expand to.
        effective[name] = torch.from_numpy(w if stored_kind == Q.F32 else gguf.quants.dequantize(gguf.quants.quantize(w, stored_kind), stored_kind))
    finish(writer)
    return effective


def opened_by_transformers(path, hf, effective):
    """Largest difference between the weights and those that transformers' own reader of the format finds; None where it has no such architecture."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    try:
        state = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=hf)["tensors"]
    except (ValueError, NotImplementedError, KeyError) as reason:
        print(f"  transformers does not read {path.name}: {str(reason)[:100]}")
        return None
    assert state.keys() == effective.keys(), state.keys() ^ effective.keys()
    return max(float((state[n] - effective[n]).abs().max()) for n in effective)


def tokenizers(lines):
    """{name: (what describes it in a file, its answers)}, each of VOCAB tokens."""
    def bpe(pre):
        made = byte_level_bpe(pre, *train(lines, pre_tokenizer(pre), VOCAB))
        assert made.get_vocab_size() == VOCAB
        return (lambda writer: add_tokenizer(writer, made, pre)), lambda cases: [dict(text=t, ids=made.encode(t, add_special_tokens=False).ids) for t in cases]

    def pieces(prefix):
        made = Pieces(lines, VOCAB, prefix, character_coverage=0.98)
        assert len(made.tokens) == VOCAB
        return made.describe, made.answers

    return {**{pre: bpe(pre) for pre in ("gpt-2", "olmo", "qwen2")}, "pieces": pieces(True), "pieces_no_prefix": pieces(False)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    args = parser.parse_args()
    out = args.models / "gguf/families"
    out.mkdir(exist_ok=True)
    lines, cases = texts(args.text)
    made = tokenizers(lines)
    tokens = TOKENS[:1]
    tensors, ids = {"tokens": tokens}, {}
    for name, (model, arch, kind, tokenizer) in FILES.items():
        hf = seven_layers() if model == "seven_layers" else open_model(args.models / model)
        plain = hf(tokens).logits
        path = out / f"{name}.gguf"
        effective = write_model(path, arch, hf, kind, made[tokenizer][0])
        for parameter, tensor in hf.named_parameters():
            tensor.data = effective[parameter]
        hf.tie_weights()
        tensors[f"{name}.logits"] = hf(tokens).logits
        ids[name] = tokenizer
        moved = float((tensors[f"{name}.logits"] - plain).abs().max())
        assert (moved == 0.0) == (kind == Q.F32)
        seen = opened_by_transformers(path, hf, effective)
        assert seen is None or seen < 1e-6
        print(f"{name}.gguf {kind.name} {path.stat().st_size // 1000} kB, quantising moves logits by {moved:.1e}, read by transformers with difference {seen}")
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out / "expected.safetensors")
    answers = {name: [dict(text=row["text"], ids=row["ids"]) for row in made[name][1](cases)] for name in made}
    dump(out / "tokenizer_ids.json", dict(tokenizer_of=ids, answers=answers), indent=None)
    for file in out.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
