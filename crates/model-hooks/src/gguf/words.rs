//! The header of a GGUF file in the words of a Hugging Face `config.json`.

use super::arch::Architecture;
use super::{GgufFile, Value};
use crate::config::{Config, Origin, Origins};
use crate::{Error, Result};
use serde_json::{Map, Value as Json};

/// Sizes above this are refused: far above any model, and products of two stay inside 64 bits.
const MAX_SIZE: u32 = 1 << 28;

const EMBEDDING: &str = "token_embd.weight";
const UNEMBEDDING: &str = "output.weight";

/// Hugging Face's words for the sizes, which differ between families.
pub(super) struct SizeWords {
    pub width: &'static str,
    pub layers: &'static str,
    pub context: &'static str,
    pub heads: &'static str,
    /// `None`: as many as there are heads.
    pub kv_heads: Option<&'static str>,
    /// `None`: the heads share the width.
    pub head_width: Option<&'static str>,
    pub mlp: &'static str,
}

impl SizeWords {
    /// The words of most families.
    pub const USUAL: Self = Self {
        width: "hidden_size",
        layers: "num_hidden_layers",
        context: "max_position_embeddings",
        heads: "num_attention_heads",
        kv_heads: Some("num_key_value_heads"),
        head_width: Some("head_dim"),
        mlp: "intermediate_size",
    };
}

/// The sizes that the order of rows depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub d_model: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub d_head: usize,
}

/// A configuration as it grows. Keys are named without the architecture in front: `block_count` is `llama.block_count`.
pub(super) struct Words<'a> {
    file: &'a GgufFile,
    arch: &'static str,
    words: Map<String, Json>,
    origins: Origins,
}

impl<'a> Words<'a> {
    /// No word yet but `model_type`; keys that the architecture does not know are refused here.
    pub fn of(file: &'a GgufFile, arch: &'static Architecture) -> Result<Self> {
        let mut words = Self { file, arch: arch.name, words: Map::new(), origins: Origins::new() };
        words.refuse_unknown(arch)?;
        words.set("model_type", arch.model_type);
        Ok(words)
    }

    pub fn file(&self) -> &'a GgufFile {
        self.file
    }

    /// A word that the architecture means without saying it.
    pub fn set(&mut self, word: &str, value: impl Into<Json>) {
        self.words.insert(word.into(), value.into());
    }

    /// Sets a word from the value of `key`.
    pub fn say(&mut self, word: &str, value: impl Into<Json>, key: &str) {
        self.set(word, value);
        self.came_from(word, key);
    }

    /// Names `key` in errors about a word (`rope_parameters.factor`).
    pub fn came_from(&mut self, word: &str, key: &str) {
        let key = self.full(key);
        let found = self.file.get(&key).map(ToString::to_string);
        self.origins.insert(word.into(), Origin { key, found });
    }

    /// Names a tensor in errors about a word.
    pub fn came_from_tensor(&mut self, word: &str, tensor: &str, found: String) {
        self.origins.insert(word.into(), Origin { key: tensor.into(), found: Some(found) });
    }

    pub fn finish(self) -> Config {
        Config::from_words(self.file.path(), self.words, self.origins)
    }

    /// Whether the file has a tensor of this name, for features that no key announces.
    pub fn holds(&self, tensor: &str) -> bool {
        self.file.tensor(tensor).is_some()
    }

    pub fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    pub fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key, "a positive whole number"))
    }

    pub fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        match self.file.u32(&self.full(key))? {
            Some(0) | Some(MAX_SIZE..) => Err(self.bad(key, format!("a whole number from 1 to {}", MAX_SIZE - 1))),
            size => Ok(size.map(|n| n as usize)),
        }
    }

    /// A float as the shortest decimal that rounds to it: what the configuration said before it was stored in 32 bits.
    pub fn positive(&self, key: &str) -> Result<Option<f64>> {
        let key_in_full = self.full(key);
        match (self.file.f64(&key_in_full)?, self.file.get(&key_in_full)) {
            (Some(x), _) if x <= 0.0 => Err(self.bad(key, "a positive number")),
            (Some(x), Some(Value::F32(stored))) => Ok(Some(stored.to_string().parse().unwrap_or(x))),
            (x, _) => Ok(x),
        }
    }

    /// A positive number that must be there.
    pub fn say_positive(&mut self, word: &str, key: &str) -> Result<()> {
        let value = self.positive(key)?.ok_or_else(|| self.missing(key, "a positive number"))?;
        self.say(word, value, key);
        Ok(())
    }

    pub fn missing(&self, key: &str, expected: &str) -> Error {
        Error::MissingKey { path: self.file.path().into(), key: self.full(key), expected: expected.into() }
    }

    pub fn bad(&self, key: &str, expected: impl Into<String>) -> Error {
        let key = self.full(key);
        let found = self.file.get(&key).map_or("absent".into(), ToString::to_string);
        self.file.bad_key(&key, expected, found)
    }

    /// Width, layers, heads, context, vocabulary, and whether the unembedding is the embedding.
    pub fn say_sizes(&mut self, words: &SizeWords) -> Result<Sizes> {
        let (d_model, n_heads) = (self.size("embedding_length")?, self.size("attention.head_count")?);
        let n_kv_heads = self.optional_size("attention.head_count_kv")?.unwrap_or(n_heads);
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(self.bad("attention.head_count_kv", format!("a divisor of the {n_heads} heads")));
        }
        let d_head = self.d_head(d_model, n_heads)?;
        let n_layers = self.size("block_count")?;
        if n_layers > usize::from(u16::MAX) {
            return Err(self.bad("block_count", "at most 65535 layers"));
        }
        self.say(words.width, d_model, "embedding_length");
        self.say(words.layers, n_layers, "block_count");
        self.say(words.heads, n_heads, "attention.head_count");
        match words.kv_heads {
            Some(word) => self.say(word, n_kv_heads, "attention.head_count_kv"),
            None if n_kv_heads == n_heads => {}
            None => return Err(self.bad("attention.head_count_kv", format!("{n_heads}, as there are heads"))),
        }
        match words.head_width {
            Some(word) => self.say(word, d_head, "attention.key_length"),
            None if d_head * n_heads == d_model => {}
            None => return Err(self.bad("attention.key_length", format!("{}", d_model / n_heads))),
        }
        self.say(words.mlp, self.size("feed_forward_length")?, "feed_forward_length");
        self.say(words.context, self.size("context_length")?, "context_length");
        let d_vocab = self.d_vocab(d_model)?;
        self.say("vocab_size", d_vocab, "vocab_size");
        self.set("tie_word_embeddings", !(self.holds(EMBEDDING) && self.holds(UNEMBEDDING)));
        Ok(Sizes { d_model, n_layers, n_heads, n_kv_heads, d_head })
    }

    fn d_head(&self, d_model: usize, n_heads: usize) -> Result<usize> {
        let d_head = match self.optional_size("attention.key_length")? {
            Some(d_head) => d_head,
            None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
            None => return Err(self.bad("attention.head_count", format!("a divisor of embedding_length = {d_model}"))),
        };
        match self.optional_size("attention.value_length")? {
            Some(n) if n != d_head => Err(self.bad("attention.value_length", format!("the width of a head, {d_head}"))),
            _ => Ok(d_head),
        }
    }

    /// The rows of the embedding; `vocab_size`, where given, must agree, and the tokenizer's list must not be longer.
    fn d_vocab(&self, d_model: usize) -> Result<usize> {
        // Tied weights may be stored under either name.
        let name = if self.holds(EMBEDDING) || !self.holds(UNEMBEDDING) { EMBEDDING } else { UNEMBEDDING };
        let rows = match self.file.tensor(name).map(|tensor| tensor.shape.as_slice()) {
            Some([rows, width]) if *width == d_model => *rows,
            // Reading it gives the error of a missing tensor or of a wrong shape.
            _ => return self.file.load_f32_shaped(name, &[0, d_model]).map(|_| 0),
        };
        if self.optional_size("vocab_size")?.is_some_and(|stated| stated != rows) {
            return Err(self.bad("vocab_size", format!("{rows}, the rows of {name}")));
        }
        let tokens = self.file.strings(super::tokenizer::TOKENS)?.map_or(0, <[String]>::len);
        if tokens > rows {
            let expected = format!("at most {rows} tokens, the rows of {name}");
            return Err(self.file.bad_key(super::tokenizer::TOKENS, expected, tokens));
        }
        Ok(rows)
    }

    /// Refuses keys that the architecture does not know, and known ones whose value would make it another model.
    fn refuse_unknown(&self, arch: &Architecture) -> Result<()> {
        let mut keys: Vec<_> = self.file.metadata().collect();
        keys.sort_by_key(|(key, _)| *key);
        for (key, value) in keys {
            let Some(short) = key.strip_prefix(self.arch).and_then(|rest| rest.strip_prefix('.')) else { continue };
            if let Some(expected) = arch.objection(short, value) {
                return Err(self.file.bad_key(key, expected, value));
            }
        }
        Ok(())
    }
}
