"""Vocabularies of the GGUF fixtures: texts, byte-level BPE and what a GGUF file says about it. A part of the golden_gguf scripts."""

import json
import tempfile

from gguf import TokenType

NASTY = ["", " ", "  ", "\n", "\n\n", " \n", "\r\n", "\t\tx", "Hello world", " Hello  world  ", "don't we'll they've I'M you'RE", "a'b 's 'S ’s",
         "1234567890", "3.14159e-10", "x²+y³=½ Ⅷ ٣٤٥", "foo_bar::baz->qux()", "naïve café façade", "e\u0301 \u00e9", "日本語のテキスト", "한국어 텍스트",
         "👩‍👩‍👧 👍🏽 ✨", "مرحبا بالعالم", "नमस्ते", "a\u00a0b\u3000c\u200bd", "\x00\x01\x7f", "\ufeffBOM", "<|bos|>Hi<|endoftext|>", "<|bos|",
         "call<tool>now", "<s>x</s>", "<0x41>", "▁under▁score", "  if x:\n    return\n\n\n", "ÀÉÎÕÜ ſtraße İı", "word\u2028line", "\U0001F1E9\U0001F1EA",
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "!?!?...---", "I'd've", "\u0301combining first", "tab\tand\x0bvt\x0cff"]


def texts(file):
    lines = [json.loads(line)["text"] for line in file.read_text().splitlines()[:400]]
    return lines, NASTY + [t[:200] for t in lines[::20]]


# ---- byte-level BPE: 384 tokens, to go with the small llama; and 1,500 that cross every border a pre-tokenizer can draw ----
SPECIAL = ["<|pad|>", "<|bos|>", "<|endoftext|>"]
# Regexes as in the tokenizer.json of Llama 3 and of Qwen 2 (transformers' Qwen2Tokenizer has the second).
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def pre_tokenizer(pre):
    from tokenizers import Regex, pre_tokenizers as P

    match pre:
        case "gpt-2" | "olmo":
            return P.ByteLevel(add_prefix_space=False)
        case "smollm" | "starcoder":
            return P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)])
        case "llama-bpe" | "qwen2":
            split = P.Split(Regex(LLAMA3 if pre == "llama-bpe" else QWEN2), "isolated")
            return P.Sequence([split, P.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(lines, split, size):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size - 1, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]]


def byte_level_bpe(pre, vocab, merges):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe"))
    if pre in ("qwen2", "olmo"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return tokenizer


def add_tokenizer(writer, tokenizer, pre):
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    kinds = [TokenType.CONTROL if i < 3 else TokenType.USER_DEFINED if t == "<tool>" else TokenType.NORMAL for i, t in enumerate(tokens)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(m) for m in model["merges"]])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


class Pieces:
    """A SentencePiece BPE vocabulary with byte fallback: the package itself, what a file says about it, and its tokenizer.json form.

    `prefix`: a "▁" is put in front of every text (Llama 1 and 2, Phi 3), or not (Gemma).
    """

    def __init__(self, lines, size, prefix=True, **options):
        import sentencepiece as spm

        with tempfile.TemporaryDirectory() as tmp:
            spm.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_prefix=f"{tmp}/m", model_type="bpe", vocab_size=size, byte_fallback=True,
                normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, add_dummy_prefix=prefix,
                user_defined_symbols=["<tool>"], minloglevel=2, **options)
            self.sp = sp = spm.SentencePieceProcessor(model_file=f"{tmp}/m.model")
        self.prefix = prefix
        self.tokens = [sp.id_to_piece(i) for i in range(sp.get_piece_size())]
        self.scores = [sp.get_score(i) for i in range(len(self.tokens))]
        self.kinds = [TokenType.UNKNOWN if sp.is_unknown(i) else TokenType.CONTROL if sp.is_control(i) else TokenType.BYTE if sp.is_byte(i)
                      else TokenType.USER_DEFINED if t == "<tool>" else TokenType.NORMAL for i, t in enumerate(self.tokens)]

    def describe(self, writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(self.tokens)
        writer.add_token_scores(self.scores)
        writer.add_token_types(self.kinds)
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        if not self.prefix:
            writer.add_add_space_prefix(False)

    def tokenizer_json(self):
        """Spaces become "▁" (and one stands in front), merges come from the vocabulary, bytes stand for the rest."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
        from transformers.convert_slow_tokenizer import generate_merges

        vocab = {t: i for i, t in enumerate(self.tokens)}
        skip = [t for t, k in zip(self.tokens, self.kinds) if k != TokenType.NORMAL]
        merges = generate_merges(vocab, dict(zip(self.tokens, self.scores)), skip)
        hf = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        space = normalizers.Replace(" ", "▁")
        hf.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space]) if self.prefix else space
        strip = [decoders.Strip(" ", 1, 0)] if self.prefix else []
        hf.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
        hf.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in self.tokens[:3]])
        hf.add_tokens([AddedToken("<tool>", normalized=False, special=False)])
        return hf

    def answers(self, cases):
        """Ids by the tokenizer.json form, checked against SentencePiece, which itself reads no special tokens from text and treats what follows a user
        symbol differently."""
        hf = self.tokenizer_json()
        rows = [dict(text=text, ids=hf.encode(text, add_special_tokens=False).ids) for text in cases]
        for row in rows:
            if "<" not in row["text"] and row["text"]:
                row["sentencepiece"] = self.sp.encode(row["text"])
                assert row["sentencepiece"] == row["ids"], f"SentencePiece itself and the tokenizer.json form differ on {row['text']!r}"
        return rows


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
