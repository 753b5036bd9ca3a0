//! What a GGUF file of the Llama architecture says about the model, in the terms of [`families::llama`](crate::families).

use super::{GgufFile, Value};
use crate::families::Decoder;
use crate::families::llama::{Layout, Llama, LlamaConfig};
use crate::families::rope::{Rope, RopeScaling};
use crate::folder::shorten;
use crate::ops::Activation;
use crate::weights::TensorSource;
use crate::{Error, ModelShape, ProcessingSteps, Result};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tensor_kernels::{Engine, RopePairs};

const ARCHITECTURE: &str = "general.architecture";
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Sizes above this are refused: far above any model, and products of two stay inside 64 bits.
const MAX_SIZE: u32 = 1 << 28;

/// Keys below `llama.` that are read, or that change nothing here. Any other might change the arithmetic, so it is an error.
const KNOWN: [&str; 23] = [
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "tensor_data_layout",
    "use_parallel_residual",
    "vocab_size",
];

/// Reads configuration and weights, and builds the model.
///
/// # Errors
/// [`Error::GgufUnsupported`] for another architecture; [`Error::MissingKey`], [`Error::BadKey`] and
/// [`Error::UnexpectedTensors`] where the file is not a Llama that is known here to the last detail.
pub(crate) fn load_llama(file: &GgufFile, processing: ProcessingSteps, engine: Engine) -> Result<Decoder<Llama>> {
    let config = read_config(file)?;
    let source = GgufSource { file, shape: config.shape.clone(), taken: Mutex::default() };
    let holds = |name: &str| file.tensor(name).is_some();
    let layout = Layout {
        attention_bias: holds("blk.0.attn_q.bias"),
        mlp_bias: holds("blk.0.ffn_gate.bias"),
        tied: !holds("output.weight"),
    };
    Decoder::load(Llama::new(config, layout), &source, processing, engine)
}

fn read_config(file: &GgufFile) -> Result<LlamaConfig> {
    match file.require(ARCHITECTURE, GgufFile::string)? {
        "llama" => {}
        other => return Err(file.unsupported("architecture (general.architecture)", other, "llama")),
    }
    refuse_unknown(file)?;
    let keys = Keys { file };
    let (d_model, n_heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
    let n_kv_heads = keys.optional_size("attention.head_count_kv")?.unwrap_or(n_heads);
    if n_heads % n_kv_heads != 0 {
        return Err(keys.bad("attention.head_count_kv", format!("a divisor of the {n_heads} heads")));
    }
    let d_head = match keys.optional_size("attention.key_length")? {
        Some(d_head) => d_head,
        None if d_model % n_heads == 0 => d_model / n_heads,
        None => return Err(keys.bad("attention.head_count", format!("a divisor of embedding_length = {d_model}"))),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if keys.optional_size(key)?.is_some_and(|n| n != d_head) || d_head % 2 != 0 {
            return Err(keys.bad(key, format!("the width of a head, {d_head}, an even number")));
        }
    }
    let n_layers = keys.size("block_count")?;
    if n_layers > usize::from(u16::MAX) {
        return Err(keys.bad("block_count", "at most 65535 layers"));
    }
    let mut shape = ModelShape::new(d_model, n_layers, d_vocab(file, d_model)?, keys.size("context_length")?);
    (shape.n_heads, shape.n_kv_heads, shape.d_head) = (n_heads, n_kv_heads, d_head);
    shape.d_mlp = keys.size("feed_forward_length")?;
    let eps = keys.positive("attention.layer_norm_rms_epsilon")?;
    let eps = eps.ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon", "a positive number"))?;
    Ok(LlamaConfig { shape, eps, activation: Activation::Silu, rope: read_rope(&keys, d_head)? })
}

/// Refuses keys below `llama.` that are not known, and known ones whose value would make it another model.
fn refuse_unknown(file: &GgufFile) -> Result<()> {
    let mut keys: Vec<_> = file.metadata().collect();
    keys.sort_by_key(|(key, _)| *key);
    for (key, value) in keys {
        let Some(short) = key.strip_prefix("llama.") else { continue };
        let expected = match (short, value) {
            ("attention.causal", Value::Bool(true)) | ("use_parallel_residual", Value::Bool(false)) => continue,
            ("attention.causal", _) => "true",
            ("use_parallel_residual", _) => "false",
            ("expert_count" | "expert_used_count", Value::Unsigned(0)) => continue,
            ("expert_count" | "expert_used_count", _) => "0: mixtures of experts are not supported",
            ("rope.scaling.attn_factor", Value::F32(1.0)) => continue,
            ("rope.scaling.attn_factor", _) => "1",
            _ if KNOWN.contains(&short) => continue,
            _ => "absent: its effect on the model is not known here",
        };
        return Err(file.bad_key(key, expected, value));
    }
    Ok(())
}

/// The rows of the embedding; `llama.vocab_size`, where given, must agree, and the tokenizer's list must not be longer.
fn d_vocab(file: &GgufFile, d_model: usize) -> Result<usize> {
    let rows = match file.tensor("token_embd.weight").map(|tensor| tensor.shape.as_slice()) {
        Some([rows, width]) if *width == d_model => *rows,
        // Reading it gives the error of a missing tensor or of a wrong shape.
        _ => return file.load_f32_shaped("token_embd.weight", &[0, d_model]).map(|_| 0),
    };
    let stated = file.u32("llama.vocab_size")?.map(|n| n as usize);
    if let Some(stated) = stated.filter(|stated| *stated != rows) {
        return Err(file.bad_key("llama.vocab_size", format!("{rows}, the rows of token_embd.weight"), stated));
    }
    let tokens = file.strings(super::tokenizer::TOKENS)?.map_or(0, <[String]>::len);
    if tokens > rows {
        let expected = format!("at most {rows} tokens, the rows of token_embd.weight");
        return Err(file.bad_key(super::tokenizer::TOKENS, expected, tokens));
    }
    Ok(rows)
}

fn read_rope(keys: &Keys<'_>, d_head: usize) -> Result<Rope> {
    let theta = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let old_factor = keys.positive("rope.scale_linear")?;
    let scaling = match keys.file.string(&keys.full("rope.scaling.type"))? {
        Some("linear") | None => keys.positive("rope.scaling.factor")?.or(old_factor),
        Some("none") => None,
        Some(_) => return Err(keys.bad("rope.scaling.type", "none or linear")),
    };
    let scaling =
        scaling.filter(|factor| *factor != 1.0).map_or(RopeScaling::Default, |factor| RopeScaling::Linear { factor });
    let plain = Rope { theta, scaling, d_rotary: d_head, pairs: RopePairs::Halves };
    if keys.file.tensor(ROPE_FACTORS).is_none() {
        return Ok(plain);
    }
    if plain.scaling != RopeScaling::Default {
        return Err(keys.bad("rope.scaling.factor", format!("absent beside the tensor {ROPE_FACTORS}")));
    }
    let factors = keys.file.load_f32_shaped(ROPE_FACTORS, &[d_head / 2])?.to_vec1::<f32>()?;
    match factors.iter().find(|factor| **factor <= 0.0) {
        Some(bad) => Err(keys.file.bad_key(ROPE_FACTORS, "positive factors", bad)),
        None => Ok(Rope { scaling: RopeScaling::PerPair { factors }, ..plain }),
    }
}

/// The keys below `llama.`.
struct Keys<'a> {
    file: &'a GgufFile,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("llama.{key}")
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key, "a positive whole number"))
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        match self.file.u32(&self.full(key))? {
            Some(0) | Some(MAX_SIZE..) => Err(self.bad(key, format!("a whole number from 1 to {}", MAX_SIZE - 1))),
            size => Ok(size.map(|n| n as usize)),
        }
    }

    fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.file.f64(&self.full(key))? {
            Some(x) if x <= 0.0 => Err(self.bad(key, "a positive number")),
            x => Ok(x),
        }
    }

    fn missing(&self, key: &str, expected: &str) -> Error {
        Error::MissingKey { path: self.file.path().into(), key: self.full(key), expected: expected.into() }
    }

    fn bad(&self, key: &str, expected: impl Into<String>) -> Error {
        let key = self.full(key);
        let found = self.file.get(&key).map_or("absent".into(), ToString::to_string);
        self.file.bad_key(&key, expected, found)
    }
}

/// The tensors of a GGUF file under Hugging Face's names and in Hugging Face's order of rows.
struct GgufSource<'a> {
    file: &'a GgufFile,
    shape: ModelShape,
    taken: Mutex<BTreeSet<String>>,
}

impl TensorSource for GgufSource<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let stored = stored_name(name);
        let values = self.file.read_f32(&stored, shape)?;
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(stored);
        let ModelShape { n_heads, n_kv_heads, .. } = self.shape;
        let columns = shape[1..].iter().product();
        Ok(match name {
            _ if name.contains(".q_proj.") => unpermute(&values, n_heads, columns),
            _ if name.contains(".k_proj.") => unpermute(&values, n_kv_heads, columns),
            _ => values,
        })
    }

    /// Biases are not announced by any key: they are there or not. One that only some blocks have is left over, or missed here.
    fn vector_if(&self, exists: bool, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        // Models with biases on Q, K and V alone exist in this format; the folder's one flag means all four.
        let exists = exists && !(name.ends_with("o_proj.bias") && self.file.tensor(&stored_name(name)).is_none());
        if exists { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    fn holds(&self, name: &str) -> bool {
        self.file.tensor(&stored_name(name)).is_some()
    }

    fn finish(&self, _: &dyn Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left =
            self.file.tensors().map(|(name, _)| name).filter(|name| *name != ROPE_FACTORS && !taken.contains(*name));
        let mut names: Vec<String> = left.map(str::to_owned).collect();
        if names.is_empty() {
            return Ok(());
        }
        shorten(&mut names);
        Err(Error::UnexpectedTensors { path: self.file.path().into(), names })
    }
}

/// `layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`.
fn stored_name(name: &str) -> String {
    const PARTS: [(&str, &str); 9] = [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    let outer = match name {
        "embed_tokens.weight" => "token_embd.weight",
        "norm.weight" => "output_norm.weight",
        "lm_head.weight" => "output.weight",
        _ => name,
    };
    PARTS.iter().fold(outer.replace("layers.", "blk."), |name, (ours, theirs)| name.replace(ours, theirs))
}

/// Puts the rows of a Q or K projection back into Hugging Face's order.
///
/// llama.cpp rotates neighbours `(2 j, 2 j + 1)`, so its converter moved row `half * d_head/2 + j` of each head to `2 j + half`.
/// This crate rotates `(j, d_head/2 + j)`, as the original checkpoint does. Without this step the model does not look broken,
/// only worse.
fn unpermute(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let half = values.len() / columns / heads / 2;
    let row = |head: usize, j: usize, side: usize| &values[((head * half + j) * 2 + side) * columns..][..columns];
    let order = (0..heads).flat_map(|head| (0..2).flat_map(move |side| (0..half).map(move |j| (head, j, side))));
    let mut out = Vec::with_capacity(values.len());
    order.for_each(|(head, j, side)| out.extend_from_slice(row(head, j, side)));
    out
}
