//! The small golden models written as llama.cpp's converter writes them: names, transforms and keys of each architecture, stated here
//! a second time and forwards.

use super::{Gguf, golden};
use candle_core::Tensor;
use model_hooks::gguf::Value;
use serde_json::Value as Json;
use tensor_files::SafetensorsFile;

/// How an architecture is written.
pub struct Recipe {
    pub arch: &'static str,
    /// Removed from Hugging Face's names.
    pub prefix: &'static str,
    /// Parts of names, the first that fits; Hugging Face's and the file's.
    pub names: &'static [(&'static str, &'static str)],
    /// Rows of the tensor of this name, or its values, as the converter leaves them.
    pub change: fn(&Config, &str, Rows) -> Rows,
    pub keys: fn(&Config) -> Vec<(&'static str, Value)>,
}

/// `config.json`.
pub struct Config(pub Json);

impl Config {
    pub fn size(&self, key: &str) -> usize {
        self.0[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize
    }

    pub fn n(&self, key: &str) -> Value {
        Value::Unsigned(self.size(key) as u64)
    }

    pub fn x(&self, key: &str) -> Value {
        Value::F32(self.0[key].as_f64().unwrap_or_else(|| panic!("{key}")) as f32)
    }

    pub fn rope(&self, key: &str) -> f32 {
        self.0["rope_parameters"][key].as_f64().unwrap_or_else(|| panic!("{key}")) as f32
    }
}

/// A tensor in rows; a vector has rows of one.
#[derive(Clone)]
pub struct Rows {
    pub shape: Vec<usize>,
    pub rows: Vec<Vec<f32>>,
}

impl Rows {
    /// Row `i` of what comes out is row `from(i)`.
    fn ordered(self, from: impl Fn(usize) -> usize) -> Self {
        Self { rows: (0..self.rows.len()).map(|i| self.rows[from(i)].clone()).collect(), ..self }
    }

    fn transposed(self) -> Self {
        let [n, k] = self.shape[..] else { return self };
        let rows = (0..k).map(|j| (0..n).map(|i| self.rows[i][j]).collect()).collect();
        Self { shape: vec![k, n], rows }
    }

    fn plus(mut self, x: f32) -> Self {
        self.rows.iter_mut().flatten().for_each(|value| *value += x);
        self
    }
}

const NEOX: &[(&str, &str)] = &[
    ("embed_in", "token_embd"),
    ("final_layer_norm", "output_norm"),
    ("embed_out", "output"),
    ("attention.query_key_value", "attn_qkv"),
    ("attention.dense", "attn_output"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.dense_4h_to_h", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

const GPT2: &[(&str, &str)] = &[
    ("wte", "token_embd"),
    ("wpe", "position_embd"),
    ("ln_f", "output_norm"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("ln_1", "attn_norm"),
    ("ln_2", "ffn_norm"),
];

const PHI3: &[(&str, &str)] = &[
    ("embed_tokens", "token_embd"),
    ("lm_head", "output"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("norm", "output_norm"),
];

const GEMMA2: &[(&str, &str)] = &[
    ("embed_tokens", "token_embd"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("norm", "output_norm"),
];

const LLAMA: &[(&str, &str)] = &[
    ("embed_tokens", "token_embd"),
    ("lm_head", "output"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("norm", "output_norm"),
];

/// Row `half * n/2 + j` of each head goes to `2 j + half`.
fn pairs(rows: Rows, heads: usize) -> Rows {
    let n = rows.rows.len() / heads;
    rows.ordered(|i| i / n * n + i % 2 * (n / 2) + i % n / 2)
}

fn sizes(c: &Config) -> Vec<(&'static str, Value)> {
    let mut keys = vec![
        ("block_count", c.n("num_hidden_layers")),
        ("context_length", c.n("max_position_embeddings")),
        ("embedding_length", c.n("hidden_size")),
        ("feed_forward_length", c.n("intermediate_size")),
        ("attention.head_count", c.n("num_attention_heads")),
    ];
    if !c.0["num_key_value_heads"].is_null() {
        keys.push(("attention.head_count_kv", c.n("num_key_value_heads")));
    }
    if !c.0["head_dim"].is_null() {
        keys.push(("attention.key_length", c.n("head_dim")));
        keys.push(("attention.value_length", c.n("head_dim")));
    }
    if !c.0["rms_norm_eps"].is_null() {
        keys.push(("attention.layer_norm_rms_epsilon", c.x("rms_norm_eps")));
    }
    keys
}

fn with_rope(c: &Config) -> Vec<(&'static str, Value)> {
    let mut keys = sizes(c);
    keys.push(("rope.freq_base", Value::F32(c.rope("rope_theta"))));
    keys
}

pub static RECIPES: &[Recipe] = &[
    Recipe {
        arch: "gpt2",
        prefix: "transformer.",
        names: GPT2,
        change: |_, name, rows| {
            let conv1d = ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|part| name.ends_with(part));
            if conv1d { rows.transposed() } else { rows }
        },
        keys: |c| {
            vec![
                ("block_count", c.n("n_layer")),
                ("context_length", c.n("n_ctx")),
                ("embedding_length", c.n("n_embd")),
                ("feed_forward_length", Value::Unsigned(4 * c.size("n_embd") as u64)),
                ("attention.head_count", c.n("n_head")),
                ("attention.layer_norm_epsilon", c.x("layer_norm_epsilon")),
            ]
        },
    },
    Recipe {
        arch: "gptneox",
        prefix: "gpt_neox.",
        names: NEOX,
        change: |c, name, rows| {
            let (heads, width) = (c.size("num_attention_heads"), c.size("hidden_size"));
            let d_head = width / heads;
            // [head, 3, d_head] becomes [3, head, d_head].
            let from = |i: usize| (i % width / d_head * 3 + i / width) * d_head + i % d_head;
            if name.contains("query_key_value") { rows.ordered(from) } else { rows }
        },
        keys: |c| {
            let d_head = c.size("hidden_size") / c.size("num_attention_heads");
            let turned = (c.rope("partial_rotary_factor") * d_head as f32) as u64;
            let parallel = c.0["use_parallel_residual"].as_bool().unwrap();
            let mut keys = sizes(c);
            keys.push(("attention.layer_norm_epsilon", c.x("layer_norm_eps")));
            keys.push(("rope.dimension_count", Value::Unsigned(turned)));
            keys.push(("use_parallel_residual", Value::Bool(parallel)));
            keys
        },
    },
    Recipe {
        arch: "llama",
        prefix: "model.",
        names: LLAMA,
        change: |c, name, rows| match name {
            _ if name.contains("q_proj") => pairs(rows, c.size("num_attention_heads")),
            _ if name.contains("k_proj") => pairs(rows, c.size("num_key_value_heads")),
            _ => rows,
        },
        keys: |c| {
            let mut keys = with_rope(c);
            keys.push(("rope.dimension_count", c.n("head_dim")));
            keys.push(("vocab_size", c.n("vocab_size")));
            keys
        },
    },
    Recipe { arch: "qwen2", prefix: "model.", names: LLAMA, change: |_, _, rows| rows, keys: with_rope },
    Recipe { arch: "qwen3", prefix: "model.", names: LLAMA, change: |_, _, rows| rows, keys: with_rope },
    Recipe { arch: "gemma", prefix: "model.", names: LLAMA, change: whole_gains, keys: sizes },
    Recipe {
        arch: "gemma2",
        prefix: "model.",
        names: GEMMA2,
        change: whole_gains,
        keys: |c| {
            let mut keys = sizes(c);
            keys.push(("attn_logit_softcapping", c.x("attn_logit_softcapping")));
            keys.push(("final_logit_softcapping", c.x("final_logit_softcapping")));
            keys.push(("attention.sliding_window", c.n("sliding_window")));
            keys
        },
    },
    Recipe {
        arch: "gemma3",
        prefix: "model.",
        names: GEMMA2,
        change: whole_gains,
        keys: |c| {
            let theta = c.0["rope_parameters"]["full_attention"]["rope_theta"].as_f64().unwrap();
            let mut keys = sizes(c);
            // The small model's pattern is shorter than the one that files of this kind mean without saying it.
            let types = c.0["layer_types"].as_array().unwrap();
            let period = 1 + types.iter().position(|kind| kind == "full_attention").unwrap();
            keys.push(("rope.freq_base", Value::F32(theta as f32)));
            keys.push(("attention.sliding_window", c.n("sliding_window")));
            keys.push(("attention.sliding_window_pattern", Value::Unsigned(period as u64)));
            keys
        },
    },
    Recipe {
        arch: "phi3",
        prefix: "model.",
        names: PHI3,
        change: |_, _, rows| rows,
        keys: |c| {
            let d_head = c.size("hidden_size") / c.size("num_attention_heads");
            let turned = (c.rope("partial_rotary_factor") * d_head as f32) as u64;
            let mut keys = with_rope(c);
            keys.push(("rope.dimension_count", Value::Unsigned(turned)));
            keys.push(("rope.scaling.original_context_length", c.n("original_max_position_embeddings")));
            let window = c.0["sliding_window"].as_u64().unwrap_or(0);
            keys.push(("attention.sliding_window", Value::Unsigned(window)));
            keys
        },
    },
];

fn whole_gains(_: &Config, name: &str, rows: Rows) -> Rows {
    if name.ends_with("norm.weight") { rows.plus(1.0) } else { rows }
}

impl Recipe {
    pub fn of(arch: &str) -> &'static Self {
        RECIPES.iter().find(|recipe| recipe.arch == arch).unwrap()
    }

    fn stored(&self, name: &str) -> String {
        let name = name.strip_prefix(self.prefix).unwrap_or(name);
        let (place, kind) = name.rsplit_once('.').unwrap();
        let layer = place.split('.').nth(1).filter(|layer| layer.parse::<u32>().is_ok());
        let part = match layer {
            Some(layer) => place.split_once(&format!(".{layer}.")).unwrap().1,
            None => place,
        };
        let stored = self.names.iter().find(|(hf, _)| *hf == part).unwrap_or_else(|| panic!("{part}")).1;
        layer.map_or_else(|| format!("{stored}.{kind}"), |layer| format!("blk.{layer}.{stored}.{kind}"))
    }

    /// The golden model in `folder` as a file of this architecture.
    pub fn write(&self, folder: &str) -> Gguf {
        let config = std::fs::read(golden(folder).join("config.json")).unwrap();
        let file = SafetensorsFile::open(golden(folder).join("model.safetensors")).unwrap();
        let tensors = file.names().into_iter().map(|name| (name.clone(), file.load_f32(&name).unwrap()));
        self.write_as(&Config(serde_json::from_slice(&config).unwrap()), tensors)
    }

    /// A configuration and tensors of the caller's.
    pub fn write_as(&self, config: &Config, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Gguf {
        let mut gguf = Gguf::default().entry("general.architecture", Value::String(self.arch.into()));
        for (key, value) in (self.keys)(config) {
            gguf = gguf.entry(&format!("{}.{key}", self.arch), value);
        }
        for (name, tensor) in tensors {
            let (shape, values) = (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            let columns = if shape.len() == 1 { 1 } else { shape[1] };
            let rows = values.chunks_exact(columns).map(<[f32]>::to_vec).collect();
            let Rows { shape, rows } = (self.change)(config, &name, Rows { shape, rows });
            gguf = gguf.tensor(&self.stored(&name), &shape, &rows.concat());
        }
        gguf
    }
}
