"""First inputs for fuzzing, a few small sound files per target, into fuzz/corpus/TARGET.

python tools/hostile/fuzz_seeds.py [NAME ..]        all, or functions of this file by name; needs numpy, tokenizers, gguf, pyarrow, zstandard or the zstd program (tools/requirements.txt)
"""

import gzip
import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "fuzz/corpus"
GOLDEN = ROOT / "crates/model-hooks/tests/golden"
RNG = np.random.default_rng(0)


def put(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"first-{name}").write_bytes(data)


def tensors(arrays, metadata=None):
    """A safetensors file of (name, type, shape, bytes)."""
    header, body = ({"__metadata__": metadata} if metadata else {}), b""
    for name, dtype, shape, data in arrays:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + body


def f32(name, *shape):
    return name, "F32", shape, RNG.normal(size=shape).astype("<f4").tobytes()


def safetensors():
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "U32": 4, "U8": 1, "BOOL": 1, "I8": 1, "F8_E4M3": 1}
    put("safetensors", "types", tensors([(t.lower(), t, (2, 1), bytes(2 * n)) for t, n in sizes.items()], {"a": "b"}))
    put("safetensors", "empty", tensors([("zero", "F32", (0, 3), b""), ("scalar", "F32", (), bytes(4))]))
    put("safetensors", "none", tensors([]))


def families():
    """A model of width 8, one block, twelve tokens, of each family: shapes from the golden models' names."""
    small = {"hidden_size": 8, "n_embd": 8, "num_hidden_layers": 1, "n_layer": 1, "num_layers": 1, "num_attention_heads": 2, "n_head": 2,
             "num_heads": 2, "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 8, "n_inner": 8, "vocab_size": 12,
             "max_position_embeddings": 16, "n_positions": 16, "n_ctx": 16, "sliding_window": 4, "rotary_dim": 4, "window_size": 4}
    for folder in sorted(GOLDEN.iterdir()):
        if not (folder / "config.json").exists() or not (folder / "model.safetensors").exists():
            continue
        config = json.loads((folder / "config.json").read_text())
        if "text_config" in config:
            continue
        old = {key: config[key] for key in small if isinstance(config.get(key), int)}
        d_head = old.get("head_dim") or next(old[k] for k in ("hidden_size", "n_embd") if k in old) // next(old[k] for k in ("num_attention_heads", "n_head", "num_heads") if k in old)
        heads = next(old[k] for k in ("num_attention_heads", "n_head", "num_heads") if k in old)
        kv = old.get("num_key_value_heads", heads)
        width = next(old[k] for k in ("hidden_size", "n_embd") if k in old)
        mlp = old.get("intermediate_size") or old.get("n_inner") or 4 * width
        context = next((old[k] for k in ("max_position_embeddings", "n_positions") if k in old), 0)
        sizes = {old["vocab_size"]: 12, context: 16, (heads + 2 * kv) * d_head: 24, 3 * width: 24, 2 * mlp: 16, mlp: 8,
                 heads * d_head: 8, kv * d_head: 8, d_head: 4, width: 8}
        config |= {key: value for key, value in small.items() if key in old}
        for key in ("layer_types", "attention_layers"):
            if key in config:
                config[key] = config[key][:1]
        if "attention_types" in config:
            config["attention_types"] = [[["global"], 1]]
        raw = (folder / "model.safetensors").read_bytes()
        (n,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + n])
        first = lambda name: not any(f".{i}." in name for i in range(1, 9))
        for key in ("n_inner", "intermediate_size"):
            if key in config and config[key] is None:
                config[key] = 8

        def shape(name, dims):
            if "wpe" in name:
                return [16, 8]
            if ".k_proj." in name or ".v_proj." in name:
                return [8, 8][: len(dims)]
            return [sizes.get(d, d) for d in dims]

        weights = tensors([f32(name, *shape(name, at["shape"])) for name, at in header.items() if name != "__metadata__" and first(name)])
        text = json.dumps(config, separators=(",", ":")).encode()
        put("model_folder", folder.name, text + b"\0\0" + weights)
        if folder.name == "gpt2":
            names = [name for name in header if name != "__metadata__" and first(name)]
            index = json.dumps({"weight_map": {name: "a.safetensors" for name in names}}).encode()
            put("model_folder", "index", text + b"\0" + index + b"\0" + weights)


def gguf_files():
    base = lambda a: {f"{a}.embedding_length": 8, f"{a}.block_count": 1, f"{a}.attention.head_count": 2, f"{a}.feed_forward_length": 8, f"{a}.context_length": 16}
    blocks = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    for arch, kind in [("llama", "llama"), ("llama", "gpt2"), ("qwen2", "gpt2"), ("qwen3", "gpt2"), ("gemma", "llama"), ("gpt2", "gpt2")]:
        path = CORPUS / "gguf" / f"first-{arch}-{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        w = gguf.GGUFWriter(str(path), arch)
        for key, value in base(arch).items():
            w.add_uint32(key, value)
        w.add_float32(f"{arch}.attention.layer_norm_epsilon" if arch == "gpt2" else f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
        if arch in ("llama", "qwen2", "qwen3"):
            w.add_float32(f"{arch}.rope.freq_base", 10000.0)
        if arch in ("llama", "gemma"):
            w.add_uint32(f"{arch}.attention.key_length", 4)
        if kind == "llama":
            tokens = ["<unk>", "<s>", "</s>", "<0x41>", "a", "b", "ab", "\u2581", "\u2581a", "\u2581ab", "c", "d"]
            w.add_tokenizer_model("llama")
            w.add_token_list(tokens)
            w.add_token_scores([float(-i) for i in range(12)])
            w.add_token_types([2, 3, 3, 6] + [1] * 8)
            w.add_bos_token_id(1)
            w.add_eos_token_id(2)
            w.add_add_eos_token(True)
        else:
            w.add_tokenizer_model("gpt2")
            w.add_tokenizer_pre({"qwen2": "qwen2", "qwen3": "qwen2", "llama": "llama-bpe"}.get(arch, "gpt-2"))
            w.add_token_list(["a", "b", "ab", "\u0120", "\u0120a", "t", "h", "e", "th", "the", "<|x|>", "<|y|>"])
            w.add_token_types([1] * 10 + [3, 4])
            w.add_token_merges(["a b", "\u0120 a", "t h", "th e"])
            w.add_bos_token_id(10)
        add = lambda name, *shape: w.add_tensor(name, RNG.normal(size=shape).astype(np.float32))
        add("token_embd.weight", 12, 8)
        if arch == "gpt2":
            for name, shape in {"position_embd.weight": (16, 8), "output_norm.weight": (8,), "output_norm.bias": (8,), "blk.0.attn_norm.weight": (8,),
                                "blk.0.attn_norm.bias": (8,), "blk.0.ffn_norm.weight": (8,), "blk.0.ffn_norm.bias": (8,), "blk.0.attn_qkv.weight": (24, 8),
                                "blk.0.attn_qkv.bias": (24,), "blk.0.attn_output.weight": (8, 8), "blk.0.attn_output.bias": (8,), "blk.0.ffn_up.weight": (8, 8),
                                "blk.0.ffn_up.bias": (8,), "blk.0.ffn_down.weight": (8, 8), "blk.0.ffn_down.bias": (8,)}.items():
                add(name, *shape)
        else:
            add("output_norm.weight", 8)
            for name in ("attn_norm", "ffn_norm"):
                add(f"blk.0.{name}.weight", 8)
            for name in blocks:
                add(f"blk.0.{name}.weight", 8, 8)
            if arch == "qwen2":
                for name in blocks[:3]:
                    add(f"blk.0.{name}.bias", 8)
            if arch == "qwen3":
                for name in ("attn_q_norm", "attn_k_norm"):
                    add(f"blk.0.{name}.weight", 4)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
    for name in ("blocks", "crossing"):
        data = (GOLDEN / f"gguf/{name}.gguf").read_bytes()
        if len(data) < 20_000:
            put("gguf", name, data)


def tokenizers():
    byte_level = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    few = {c: i for i, c in enumerate("abcdeht")} | {"th": 7, "the": 8, "<s>": 9, "</s>": 10, "\u2581": 11, "<unk>": 12}
    merges = [("t", "h"), ("th", "e")]
    made = {}
    t = Tokenizer(models.BPE(vocab=few, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 9)])
    t.add_special_tokens(["<s>", "</s>"])
    made["sentencepiece"] = t
    t = Tokenizer(models.BPE(vocab={c: byte_level[c] for c in list(byte_level)[:40]}, merges=[]))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(__import__("tokenizers").Regex(r"\p{N}{1,3}| ?\p{L}+|\s+(?!\S)"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    made["bytes"] = t
    t = Tokenizer(models.WordPiece(vocab={"[UNK]": 0, "the": 1, "##s": 2, "cat": 3, "[CLS]": 4, "[SEP]": 5}, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.BertProcessing(("[SEP]", 5), ("[CLS]", 4))
    made["wordpiece"] = t
    t = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581", -1.0), ("the", -2.0), ("c", -3.0)], unk_id=0, byte_fallback=False))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    t.enable_truncation(8)
    t.enable_padding()
    made["unigram"] = t
    t = Tokenizer(models.WordLevel({"a": 0, "the": 1, "?": 2}, unk_token="?"))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(True)])
    t.decoder = decoders.CTC()
    made["words"] = t
    beside = [b'{"bos_token":"<s>","eos_token":{"content":"</s>"},"add_bos_token":true}', b'{"bos_token":"<s>","additional_special_tokens":["</s>"]}', b'{"bos_token_id":9,"eos_token_id":[10]}']
    for name, t in made.items():
        text = json.dumps(json.loads(t.to_str()), separators=(",", ":"), ensure_ascii=False).encode()
        put("tokenizer", name, text + (b"\0" + b"\0".join(beside) if name == "sentencepiece" else b""))


def rebuilt():
    for folder in sorted((GOLDEN / "sentencepiece").iterdir()):
        if folder.is_dir():
            put("sentencepiece", folder.name, (folder / "tokenizer.model").read_bytes())
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {"th": 256, "the": 257, "<|endoftext|>": 258}
    vocab = json.dumps(vocab, separators=(",", ":"), ensure_ascii=False).encode()
    added = {"added_tokens_decoder": {"259": {"content": "<|im_end|>", "special": True}}, "eos_token": "<|im_end|>"}
    for name, config in {"gpt2": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, "qwen2": {"tokenizer_class": "Qwen2Tokenizer"} | added}.items():
        put("vocab_merges", name, vocab + b"\0#version: 0.2\nt h\nth e\n\0" + json.dumps(config).encode())


def saelens():
    golden = ROOT / "crates/sae-core/tests/golden"
    for folder in sorted(golden.iterdir()):
        if not (folder / "cfg.json").exists():
            continue
        config = json.loads((folder / "cfg.json").read_text())
        sizes = {config["d_in"]: 4, config["d_sae"]: 6, config.get("d_out", config["d_in"]): 4}
        config |= {"d_in": 4, "d_sae": 6}
        if isinstance(config.get("k"), (int, float)):
            config["k"] = 2
        if "d_out" in config:
            config["d_out"] = 4
        raw = (folder / "sae_weights.safetensors").read_bytes()
        (n,) = struct.unpack("<Q", raw[:8])
        for key in ("n_inner", "intermediate_size"):
            if key in config and config[key] is None:
                config[key] = 8

        def shape(name, dims):
            if "wpe" in name:
                return [16, 8]
            if ".k_proj." in name or ".v_proj." in name:
                return [8, 8][: len(dims)]
            return [sizes.get(d, d) for d in dims]

        weights = tensors([f32(name, *shape(name, at["shape"])) for name, at in json.loads(raw[8 : 8 + n]).items() if name != "__metadata__"])
        sparsity = tensors([f32("sparsity", 6)]) if folder.name == "standard" else b""
        put("saelens", folder.name, json.dumps(config).encode() + b"\0" + struct.pack(">H", len(sparsity)) + sparsity + weights)


def documents():
    text = "One two.\n\nThree \u00e9\u4f60, four\n \nfive".encode()
    lines = b'{"text":"one \\u00e9 two","n":[1,{"a":null}]}\n{"id":1,"text":"a longer line than sixteen bytes"}\n'
    ids = b'{"tokens":[1,2,3,4,5,6,7,8,9,10,11]}\n{"tokens":[]}\n'
    pressed = lambda data: subprocess.run(["zstd", "-c", "-q"], input=data, stdout=subprocess.PIPE, check=True).stdout
    for kind, data in enumerate([text, lines, ids, gzip.compress(text, mtime=0), gzip.compress(lines, mtime=0), pressed(text), pressed(lines), text]):
        for flags in (0, 8, 16):
            put("documents", f"{kind}-{flags}", bytes([kind + flags]) + data)


def parquet():
    tables = {"text": pa.table({"id": [1, 2, 3], "text": ["one", "two two two two", "three"]}),
              "tokens": pa.table({"input_ids": pa.array([[1, 2, 3], [4], [5, 6, 7, 8]], pa.list_(pa.int32()))}),
              "large": pa.table({"text": pa.array(["a", "b", None], pa.large_string())}),
              "wide": pa.table({"tokens": pa.array([[1, 2], [3, 4]], pa.list_(pa.uint64(), 2))})}
    for name, table in tables.items():
        for codec, version in (("none", "1.0"), ("zstd", "2.0"), ("snappy", "1.0")):
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression=codec, data_page_version=version, store_schema=False, use_dictionary=name == "text")
            put("parquet", f"{name}-{codec}", sink.getvalue().to_pybytes())


def interventions():
    list_ = {"version": 1, "tensors": "t", "interventions": [
        {"point": "blocks.4.attn.hook_z", "op": "zero", "heads": [3, 5]},
        {"point": "blocks.2.hook_resid_pre", "op": "add", "vector": "v", "factor": 4.0, "positions": {"from": 1, "to": 4}},
        {"point": "blocks.3.hook_mlp_out", "op": "project_out", "vector": [0.1, -0.2, 0.3], "rows": [0]},
        {"point": "hook_embed", "op": "mean", "vector": "m"}, {"point": "hook_embed", "op": "patch", "vector": "m"}, {"point": "blocks.0.hook_q", "op": "scale", "factor": 2}]}
    put("interventions", "all", json.dumps(list_).encode() + b"\0" + tensors([f32("v", 3), f32("m", 2, 3)]))


DIALECTS = ROOT / "crates/sae-core/tests/golden/dialects"


def archives():
    """numpy's and torch's files: the hostile ones, and those of published formats. They lie in the repository already: none goes into fuzz/seeds."""
    hostile = ROOT / "crates/tensor-files/tests/hostile"
    for target, folder, ends in (("npz", "npz", (".npz",)), ("torch", "pt", (".pt", ".pth"))):
        for path in [*(hostile / folder).iterdir(), *DIALECTS.rglob("*")]:
            if path.suffix in ends and path.stat().st_size <= 16384:
                name = path.stem if hostile in path.parents else path.relative_to(DIALECTS).parts[0]
                (CORPUS / target).mkdir(parents=True, exist_ok=True)
                (CORPUS / target / name).write_bytes(path.read_bytes())


def dialects():
    """Each file of each fixture as it is; one edit of it; and the names. See crates/sae-core/tests/fuzz/dialects.rs."""
    source = (ROOT / "crates/sae-core/tests/fuzz/dialects.rs").read_text()
    names = source.split("FIXTURES: &[&str] = &[")[1].split("]")[0].replace('"', "").replace(",", "").split()
    for i, name in enumerate(names):
        root = DIALECTS / name / "files"
        files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
        for j, file in enumerate(files):
            data = (root / file).read_bytes()
            if len(data) < 16000:
                (CORPUS / "dialects").mkdir(parents=True, exist_ok=True)
                (CORPUS / "dialects" / f"{name}-{j}").write_bytes(bytes([i, j]) + data)
            put("dialects", f"edit-{name}-{j}", bytes([i, j | 128]) + struct.pack(">HB", 9, data[9]))
            put("dialects", f"found-{name}-{j}", bytes([i, j | 192]))
        meta = json.loads((DIALECTS / name / "meta.json").read_text())
        put("dialects", f"names-{name}", bytes([i, len(files)]) + b"\0".join(
            part.encode() for part in (meta.get("repo_id", "a/b"), meta["path"], json.dumps(meta.get("overrides", {})))))


def registry():
    table = gzip.decompress((ROOT / "crates/pretrained/data/releases.tsv.gz").read_bytes()).decode().split("\n")
    head, starts = table[:3], [i for i, line in enumerate(table) if line.startswith(">\t")] + [len(table)]
    small = sorted(zip(starts, starts[1:]), key=lambda at: sum(map(len, table[at[0] : at[1]])))
    for i, (a, b) in enumerate(small[:120:8]):
        text = "\n".join([*head, *table[a:b]]).strip() + "\n"
        if len(text) < 4096:
            put("registry", f"{i}", text.encode())
            put("registry", f"{i}-gz", gzip.compress(text.encode(), mtime=0))
    put("registry", "two", ("\n".join([head[0], "# a comment", *table[small[0][0] : small[0][1]], "", *table[small[1][0] : small[1][1]]]) + "\n").replace("\n", "\r\n").encode())


def hub():
    """What a server answers, in turn: see crates/pretrained/tests/fuzz/hub.rs."""
    commit = "0123456789abcdef0123456789abcdef01234567"

    def answer(status, headers, body=b""):
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def listed(*files, sha=commit):
        body = json.dumps({"id": "me/x", "sha": sha, "siblings": [{"rfilename": file} for file in files]}).encode()
        return answer(200, {"Content-Type": "application/json", "Content-Length": len(body)}, body)

    def small(body):
        etag = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        return [answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Content-Length": len(body)}), answer(200, {"Content-Length": len(body)}, body)]

    def large(body):
        sha = hashlib.sha256(body).hexdigest()
        moved = {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": len(body), "Location": f"https://cdn/{sha}".replace("https", "http"), "X-Repo-Commit": commit, "Content-Length": 0}
        return [answer(302, moved), answer(302, moved), answer(200, {"Content-Length": len(body)}, body)]

    folder = ROOT / "fuzz/seeds/saelens/first-standard"
    config, rest = folder.read_bytes().split(b"\0", 1)
    weights = tensors([f32("W_enc", 4, 6), f32("b_enc", 6), f32("W_dec", 6, 4), f32("b_dec", 4)]).replace(b"\x1e", b"\x1f")
    sae = listed("a/cfg.json", "a/sae_weights.safetensors", "README.md")
    put("hub", "sae", b"\0" + b"\x1e".join([sae, *small(config), *large(weights)]))
    put("hub", "sae-small", b"\0" + b"\x1e".join([sae, *small(config), *small(weights)]))
    cut = large(weights)
    half = len(weights) // 2
    cut[2] = cut[2][: -(len(weights) - half)]
    part = answer(206, {"Content-Range": f"bytes {half}-{len(weights) - 1}/{len(weights)}", "Content-Length": len(weights) - half}, weights[half:])
    put("hub", "sae-cut", b"\0" + b"\x1e".join([sae, *small(config), *cut, cut[1], part]))
    again = answer(429, {"Retry-After": 1, "Content-Length": 0})
    put("hub", "sae-patience", b"\0" + b"\x1e".join([again, sae, again, *small(config), *small(weights)]))
    missing = [answer(404, {"X-Error-Code": code, "Content-Length": 0}) for code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo")]
    for i, one in enumerate(missing):
        put("hub", f"missing-{i}", bytes([i % 3]) + one)
        put("hub", f"missing-file-{i}", b"\0" + sae + b"\x1e" + one)
    chunked = answer(200, {"Transfer-Encoding": "chunked"}, b"2\r\nab\r\n0\r\n\r\n")
    put("hub", "chunked", b"\0" + chunked)
    model = json.dumps({"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}).encode()
    lists = listed("config.json", "model.safetensors.index.json", "x.safetensors", "y.safetensors", "tokenizer.json")
    put("hub", "model", b"\1" + b"\x1e".join([lists, *small(model), *small(b"{}"), *small(weights), *small(weights + b"1"), *small(b"{}")]))
    put("hub", "model-one", b"\1" + b"\x1e".join([listed("config.json", "model.safetensors"), *small(b"{}"), *large(weights)]))
    put("hub", "dataset", b"\2" + b"\x1e".join([listed("train.jsonl", "test.jsonl", "README.md"), *small(b'{"text":"a"}\n'), *small(b'{"text":"b"}\n')]))
    put("hub", "dataset-converted", b"\2" + b"\x1e".join([listed("script.py"), listed("default/train/0000.parquet"), *large(b"PAR1")]))


ALL = (safetensors, families, gguf_files, tokenizers, rebuilt, saelens, documents, parquet, interventions, archives, dialects, registry, hub)

if __name__ == "__main__":
    for make in ALL:
        if len(sys.argv) < 2 or make.__name__ in sys.argv[1:]:
            make()
