//! Llama weights and configuration from GGUF: the same logits as the Hugging Face folder, and the wrong pairing of rotary dimensions
//! told apart from the right one.

mod gguf_support;

use gguf_support::{Gguf, golden};
use model_hooks::gguf::{GgufFile, Value};
use model_hooks::{LoadOptions, NoTap, Processing, TokenBatch, load};
use std::path::Path;
use tensor_files::SafetensorsFile;

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const NAMES: [(&str, &str); 9] = [
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

/// Row `half * n/2 + j` of each head goes to `2 j + half`, as llama.cpp's converter does.
fn permute(rows: &[Vec<f32>], heads: usize) -> Vec<Vec<f32>> {
    let n = rows.len() / heads;
    (0..rows.len()).map(|i| rows[i / n * n + i % 2 * (n / 2) + i % n / 2].clone()).collect()
}

/// The small golden model in `folder`, written as GGUF; with `permuted` rows of Q and K, or (wrongly) without.
fn from_folder(folder: &str, permuted: bool) -> Gguf {
    let file = SafetensorsFile::open(golden(folder).join("model.safetensors")).unwrap();
    let mut gguf = llama_keys();
    for name in file.names() {
        let tensor = file.load_f32(&name).unwrap();
        let heads =
            [("q_proj", HEADS), ("k_proj", KV_HEADS)].iter().find(|(part, _)| name.contains(part)).map(|(_, n)| *n);
        let values: Vec<f32> = match heads.filter(|_| permuted) {
            Some(heads) => permute(&tensor.to_vec2().unwrap(), heads).concat(),
            None => tensor.flatten_all().unwrap().to_vec1().unwrap(),
        };
        gguf = gguf.tensor(&stored_name(&name), tensor.dims(), &values);
    }
    gguf
}

fn stored_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => "token_embd.weight".into(),
        "model.norm.weight" => "output_norm.weight".into(),
        "lm_head.weight" => "output.weight".into(),
        _ => {
            let name = name.replace("model.layers.", "blk.");
            NAMES.iter().fold(name, |name, (hf, stored)| name.replace(hf, stored))
        }
    }
}

fn llama_keys() -> Gguf {
    let n = |n| Value::Unsigned(n);
    Gguf::default()
        .entry("general.architecture", Value::String("llama".into()))
        .entry("llama.block_count", n(3))
        .entry("llama.context_length", n(256))
        .entry("llama.embedding_length", n(64))
        .entry("llama.feed_forward_length", n(160))
        .entry("llama.attention.head_count", n(HEADS as u64))
        .entry("llama.attention.head_count_kv", n(KV_HEADS as u64))
        .entry("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .entry("llama.rope.dimension_count", n(16))
        .entry("llama.rope.freq_base", Value::F32(10_000.0))
        .entry("llama.vocab_size", n(384))
}

fn tokens(folder: &str) -> TokenBatch {
    let golden = SafetensorsFile::open(golden(folder).join("golden.safetensors")).unwrap();
    let rows: Vec<Vec<i64>> = golden.load("tokens").unwrap().to_vec2().unwrap();
    let rows: Vec<Vec<u32>> = rows.iter().map(|row| row.iter().map(|id| *id as u32).collect()).collect();
    TokenBatch::new(&rows).unwrap()
}

fn logits(path: &Path, tokens: &TokenBatch, processing: Processing) -> Vec<f32> {
    let model = load(path, &LoadOptions::new(processing)).unwrap();
    model.hooked().forward(tokens, &mut NoTap).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `max |a - b| / rms(b)`.
fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let rms = (b.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / b.len() as f64).sqrt();
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max) / rms
}

#[test]
fn same_logits_as_the_folder() {
    let tokens = tokens("llama");
    for processing in [Processing::None, Processing::TransformerLens] {
        let from_gguf = logits(&golden("gguf/llama.gguf"), &tokens, processing);
        let from_folder = logits(&golden("llama"), &tokens, processing);
        let found = error(&from_gguf, &from_folder);
        assert!(found < 1e-5, "{processing:?}: {found}");
    }
    let reference = SafetensorsFile::open(golden("llama/golden.safetensors")).unwrap().load_f32("hf.logits").unwrap();
    let reference: Vec<f32> = reference.flatten_all().unwrap().to_vec1().unwrap();
    let found = error(&logits(&golden("gguf/llama.gguf"), &tokens, Processing::None), &reference);
    assert!(found < 1e-4, "against transformers: {found}");
}

#[test]
fn rows_left_in_the_files_order_are_caught() {
    // A file whose rows were never permuted: un-permuting them pairs the wrong dimensions. Nothing breaks, but the logits move by
    // more than a tenth of their size, thousands of times the tolerance above.
    let tokens = tokens("llama");
    let (_dir, path) = from_folder("llama", false).write();
    let found = error(&logits(&path, &tokens, Processing::None), &logits(&golden("llama"), &tokens, Processing::None));
    assert!(found > 0.1, "{found}");
}

#[test]
fn the_writer_of_these_tests_agrees_with_the_python_one() {
    let (_dir, path) = from_folder("llama", true).write();
    let (ours, theirs) = (GgufFile::open(path).unwrap(), GgufFile::open(golden("gguf/llama.gguf")).unwrap());
    assert_eq!(ours.tensors().count(), theirs.tensors().count());
    for (name, _) in theirs.tensors() {
        let values = |file: &GgufFile| file.load_f32(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&ours), values(&theirs), "{name}");
    }
}

/// What llama.cpp's converter writes for Llama 3.1's scaling: the divisor of each pair's speed.
fn llama3_factors() -> Vec<f32> {
    let (base, factor, low, high, original, d_head) = (500_000f64, 8.0, 1.0, 4.0, 64.0, 16);
    let speeds = (0..d_head / 2).map(|i| base.powf(-2.0 * f64::from(i) / f64::from(d_head)));
    let wavelengths = speeds.map(|speed| std::f64::consts::TAU / speed);
    let divisor = |wavelength: f64| match wavelength {
        w if w < original / high => 1.0,
        w if w > original / low => factor,
        w => {
            let smooth = (original / w - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    wavelengths.map(|w| divisor(w) as f32).collect()
}

#[test]
fn llama3_scaling_comes_as_a_tensor_of_factors() {
    let tokens = tokens("llama3_rope");
    let expected = logits(&golden("llama3_rope"), &tokens, Processing::None);
    let base = from_folder("llama3_rope", true).entry("llama.rope.freq_base", Value::F32(500_000.0));
    let (_dir, path) = base.clone().tensor("rope_freqs.weight", &[8], &llama3_factors()).write();
    let found = error(&logits(&path, &tokens, Processing::None), &expected);
    assert!(found < 1e-5, "{found}");
    let (_dir, path) = base.clone().write();
    let without = error(&logits(&path, &tokens, Processing::None), &expected);
    assert!(without > 1e-2, "the factors must matter: {without}");
    refused(base.clone().tensor("rope_freqs.weight", &[8], &[0.0; 8]), "expected positive factors");
    refused(base.tensor("rope_freqs.weight", &[4], &[1.0; 4]), "`rope_freqs.weight` has shape [4], expected [8]");
}

#[test]
fn linear_scaling_under_both_its_keys() {
    let tokens = tokens("llama");
    let plain = from_folder("llama", true);
    let scaled = |gguf: Gguf| {
        let (_dir, path) = gguf.write();
        logits(&path, &tokens, Processing::None)
    };
    let new = plain.clone().entry("llama.rope.scaling.type", Value::String("linear".into()));
    let new = scaled(new.entry("llama.rope.scaling.factor", Value::F32(4.0)));
    let old = scaled(plain.clone().entry("llama.rope.scale_linear", Value::F32(4.0)));
    let factors = scaled(plain.clone().tensor("rope_freqs.weight", &[8], &[4.0; 8]));
    assert_eq!(new, old);
    assert!(error(&factors, &new) < 1e-5);
    assert!(error(&new, &scaled(plain)) > 1e-2);
}

#[test]
fn an_absent_output_matrix_is_the_embedding() {
    let mut tied = from_folder("llama", true);
    let embedding = GgufFile::open(golden("gguf/llama.gguf")).unwrap().load_f32("token_embd.weight").unwrap();
    tied.tensors.retain(|tensor| tensor.name != "output.weight");
    let (_dir, path) = tied.clone().write();
    let found = logits(&path, &tokens("llama"), Processing::None);
    let values: Vec<f32> = embedding.flatten_all().unwrap().to_vec1().unwrap();
    let (_dir, path) = tied.tensor("output.weight", &[384, 64], &values).write();
    assert!(error(&found, &logits(&path, &tokens("llama"), Processing::None)) < 1e-6);
}

#[test]
fn biases_of_q_and_k_are_put_back_in_order_too() {
    let mut folder_like = from_folder("llama", true);
    let bias: Vec<Vec<f32>> = (0..64).map(|i| vec![i as f32 / 64.0]).collect();
    for layer in 0..3 {
        let q = permute(&bias, HEADS).concat();
        folder_like = folder_like.tensor(&format!("blk.{layer}.attn_q.bias"), &[64], &q);
        folder_like =
            folder_like.tensor(&format!("blk.{layer}.attn_k.bias"), &[32], &permute(&bias[..32], KV_HEADS).concat());
        folder_like = folder_like.tensor(&format!("blk.{layer}.attn_v.bias"), &[32], &[0.25; 32]);
    }
    let (_dir, path) = folder_like.write();
    let model = load(&path, &LoadOptions::default()).unwrap();
    let mut capture = model_hooks::Capture::new(["blocks.0.attn.hook_q".parse().unwrap()]);
    let mut plain = capture.clone();
    let tokens = tokens("llama");
    model.hooked().forward(&tokens, &mut capture).unwrap();
    let without = load(&golden("llama"), &LoadOptions::default()).unwrap();
    without.hooked().forward(&tokens, &mut plain).unwrap();
    let at = "blocks.0.attn.hook_q".parse().unwrap();
    let added = (capture.get(at).unwrap() - plain.get(at).unwrap()).unwrap();
    let added: Vec<f32> =
        added.narrow(0, 0, 1).unwrap().narrow(1, 0, 1).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    for (i, added) in added.iter().enumerate() {
        assert!((added - i as f32 / 64.0).abs() < 1e-4, "bias {i} arrives as {added}");
    }
}

#[track_caller]
fn refused(gguf: Gguf, with: &str) {
    let (_dir, path) = gguf.write();
    let found = load(&path, &LoadOptions::default()).expect_err("it loaded").to_string();
    assert!(found.contains(with), "{found}");
}

#[test]
fn other_architectures_are_named() {
    let other = llama_keys().entry("general.architecture", Value::String("mamba".into()));
    refused(
        other,
        "unsupported architecture (general.architecture): mamba; supported: gemma, gemma2, gemma3, gpt2, gptneox, llama, phi3, qwen2, qwen3",
    );
    let experts = llama_keys().entry("general.architecture", Value::String("qwen3moe".into()));
    refused(experts, "qwen3moe; supported: gemma");
    refused(llama_keys().without("general.architecture"), "key `general.architecture` is missing");
}

#[test]
fn keys_that_would_change_the_model_are_named() {
    let with = |key: &str, value| from_folder("llama", true).entry(key, value);
    refused(with("llama.attention.sliding_window", Value::Unsigned(64)), "key `llama.attention.sliding_window` is");
    refused(with("llama.logit_scale", Value::F32(2.0)), "key `llama.logit_scale` is the f32 2, expected absent");
    refused(with("llama.expert_count", Value::Unsigned(8)), "expected 0: mixtures of experts");
    refused(with("llama.attention.causal", Value::Bool(false)), "expected true");
    refused(
        with("llama.rope.scaling.type", Value::String("longrope".into())),
        "key `llama.rope.scaling.type` is the string \"longrope\"",
    );
    refused(with("llama.rope.dimension_count", Value::Unsigned(8)), "expected the width of a head, 16");
    refused(with("llama.attention.value_length", Value::Unsigned(32)), "expected the width of a head, 16");
    refused(with("llama.vocab_size", Value::Unsigned(385)), "expected 384, the rows of token_embd.weight");
    refused(with("llama.attention.head_count_kv", Value::Unsigned(3)), "expected a divisor of the 4 heads");
    refused(
        with("llama.attention.head_count", Value::Unsigned(0)),
        "key `llama.attention.head_count` is the unsigned integer 0",
    );
    refused(with("llama.block_count", Value::Unsigned(100_000)), "at most 65535 layers");
    refused(with("llama.attention.layer_norm_rms_epsilon", Value::F32(0.0)), "expected a positive number");
    refused(from_folder("llama", true).without("llama.context_length"), "key `llama.context_length` is missing");
}

#[test]
fn tensors_too_many_or_too_few_are_named() {
    let mut missing = from_folder("llama", true);
    missing.tensors.retain(|tensor| tensor.name != "blk.1.ffn_up.weight");
    refused(missing, "tensor `blk.1.ffn_up.weight` is missing");
    let more = from_folder("llama", true).tensor("blk.0.attn_q_norm.weight", &[16], &[1.0; 16]);
    refused(more, "unexpected weight tensors: blk.0.attn_q_norm.weight");
    let fewer_layers = from_folder("llama", true).entry("llama.block_count", Value::Unsigned(2));
    refused(fewer_layers, "unexpected weight tensors: blk.2.attn_k.weight");
    let wide = from_folder("llama", true)
        .entry("llama.embedding_length", Value::Unsigned(128))
        .without("llama.rope.dimension_count");
    refused(wide, "tensor `token_embd.weight` has shape [384, 64], expected [0, 128]");
    let mut bare = llama_keys();
    bare.tensors.clear();
    refused(bare, "tensor `token_embd.weight` is missing");
}
