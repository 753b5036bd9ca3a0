//! Every architecture of GGUF: the small golden models, written as llama.cpp's converter writes them, are the same models as their folders,
//! to the last bit of every hook point.

mod common;
mod gguf_support;

use common::{Golden, Pieces, assert_same_bits, engines, folder};
use gguf_support::Gguf;
use gguf_support::convert::{Config, Recipe};
use model_hooks::gguf::{Array, Value};
use model_hooks::{Capture, Engine, LanguageModel, LoadOptions, NoTap, Processing, load};
use serde_json::Value as Json;
use std::path::Path;

/// Architectures and golden folders.
const MODELS: [(&str, &str); 11] = [
    ("gemma", "gemma1"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3"),
    ("gpt2", "gpt2"),
    ("gptneox", "neox_parallel"),
    ("gptneox", "neox_serial"),
    ("llama", "llama"),
    ("phi3", "phi3"),
    ("phi3", "phi3_partial"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
];

fn open(path: &Path, processing: Processing, engine: Engine) -> LanguageModel {
    load(path, &LoadOptions::new(processing).engine(engine)).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn assert_same_model(what: &str, a: &LanguageModel, b: &LanguageModel, golden: &str) {
    let tokens = Golden::open(golden).tokens();
    let (mut ours, mut theirs) = (Capture::all(), Capture::all());
    let logits = [(a, &mut ours), (b, &mut theirs)].map(|(model, tap)| model.hooked().forward(&tokens, tap).unwrap());
    assert_eq!(a.hooked().hook_points(), b.hooked().hook_points(), "{what}");
    assert_eq!(ours.iter().len(), theirs.iter().len(), "{what}");
    for (point, value) in ours.iter() {
        assert_same_bits(&format!("{what} {point}"), value, theirs.get(point).unwrap());
    }
    assert_same_bits(what, &logits[0], &logits[1]);
}

#[test]
fn a_file_is_the_folder_to_the_last_bit() {
    for (arch, name) in MODELS {
        let (_dir, path) = Recipe::of(arch).write(name).write();
        for processing in [Processing::None, Processing::TransformerLens] {
            for engine in engines() {
                let what = format!("{name} {processing:?} {engine:?}");
                let (file, same) = (open(&path, processing, engine), open(&folder(name), processing, engine));
                assert_same_model(&what, &file, &same, name);
            }
        }
    }
}

/// How far the logits of a file are from the folder's, in parts of their rms.
fn distance(gguf: &Gguf, golden: &str) -> f64 {
    let (_dir, path) = gguf.write();
    let tokens = Golden::open(golden).tokens();
    let [found, expected] = [path.as_path(), folder(golden).as_path()]
        .map(|path| open(path, Processing::None, Engine::default()).hooked().forward(&tokens, &mut NoTap).unwrap());
    common::error(&found, &expected)
}

#[track_caller]
fn refused(gguf: &Gguf, with: &str) {
    let (_dir, path) = gguf.write();
    let found = load(&path, &LoadOptions::default()).expect_err("it loaded").to_string();
    assert!(found.contains(with), "{found}");
}

#[test]
fn what_is_not_undone_would_show() {
    // The same tensors with the converter's step left out: shapes fit, the model is another one.
    for (arch, name) in [("gptneox", "neox_parallel"), ("gemma", "gemma1"), ("gemma2", "gemma2"), ("gemma3", "gemma3")]
    {
        let raw = Recipe { change: |_, _, rows| rows, ..*Recipe::of(arch) };
        let found = distance(&raw.write(name), name);
        assert!(found > 0.1, "{arch}: {found}");
    }
    // And with a step too many: only Llama's rows are permuted.
    for (arch, name) in [("qwen2", "qwen2"), ("qwen3", "qwen3")] {
        let permuted = Recipe { change: Recipe::of("llama").change, ..*Recipe::of(arch) };
        let found = distance(&permuted.write(name), name);
        assert!(found > 0.05, "{arch}: {found}");
    }
}

/// That a value under a key moves the logits of a model.
#[track_caller]
fn matters(arch: &str, name: &str, changes: &[(&str, Value)]) {
    let gguf = Recipe::of(arch).write(name);
    for (key, value) in changes {
        let found = distance(&gguf.clone().entry(&format!("{arch}.{key}"), value.clone()), name);
        assert!(found > 1e-3, "{arch}.{key} = {value}: {found}");
    }
}

#[test]
fn keys_decide_what_the_tensors_mean() {
    let (n, x) = (Value::Unsigned, Value::F32);
    let neox = [
        ("use_parallel_residual", Value::Bool(false)),
        ("rope.dimension_count", n(16)),
        ("rope.freq_base", x(100.0)),
        ("rope.scale_linear", x(4.0)),
        ("attention.layer_norm_epsilon", x(0.5)),
    ];
    matters("gptneox", "neox_parallel", &neox);
    matters("gpt2", "gpt2", &[("attention.layer_norm_epsilon", x(0.5))]);
    for arch in ["qwen2", "qwen3"] {
        matters(arch, arch, &[("rope.freq_base", x(100.0)), ("attention.layer_norm_rms_epsilon", x(0.5))]);
    }
    matters("gemma", "gemma1", &[("rope.freq_base", x(100.0)), ("rope.scaling.factor", x(4.0))]);
    let gemma2 = [
        ("attention.sliding_window", n(4)),
        ("attention.sliding_window_pattern", n(1)),
        ("attn_logit_softcapping", x(0.5)),
        ("final_logit_softcapping", x(0.5)),
        ("rope.freq_base", x(100.0)),
    ];
    matters("gemma2", "gemma2", &gemma2);
    let gemma3 = [
        ("attention.sliding_window", n(4)),
        ("attention.sliding_window_pattern", n(2)),
        ("rope.freq_base", x(100.0)),
        ("rope.freq_base_swa", x(100.0)),
        ("rope.scaling.factor", x(8.0)),
    ];
    matters("gemma3", "gemma3", &gemma3);
    matters("phi3", "phi3", &[("attention.sliding_window", n(0)), ("rope.freq_base", x(100.0))]);
    matters("phi3", "phi3_partial", &[("attention.sliding_window", n(8)), ("rope.dimension_count", n(16))]);
}

#[test]
fn patterns_of_windows_come_as_a_period_or_a_list() {
    let list = |slides: &[bool]| Value::Array(Array::Bool(slides.to_vec()));
    let gemma3 = Recipe::of("gemma3").write("gemma3");
    let with = |value| gemma3.clone().entry("gemma3.attention.sliding_window_pattern", value);
    assert_eq!(distance(&with(list(&[true, true, false, true])), "gemma3"), 0.0);
    assert!(distance(&with(list(&[true, false, true, true])), "gemma3") > 1e-3);
    // Without the key the period is 6: all four layers have a window.
    let silent = gemma3.clone().without("gemma3.attention.sliding_window_pattern");
    let all = distance(&silent, "gemma3");
    assert_eq!(all, distance(&with(list(&[true; 4])), "gemma3"));
    assert!(all > 1e-3);
    // Gemma 2 alternates, whether or not the file says so.
    let gemma2 = Recipe::of("gemma2").write("gemma2");
    let spelled = list(&[true, false, true, false]);
    for value in [Value::Unsigned(2), spelled] {
        assert_eq!(distance(&gemma2.clone().entry("gemma2.attention.sliding_window_pattern", value), "gemma2"), 0.0);
    }
    refused(&with(list(&[true; 3])), "an array of 3 bool, expected true or false for each of 4 layers");
    refused(&with(Value::Unsigned(0)), "key `gemma3.attention.sliding_window_pattern` is the unsigned integer 0");
    refused(&with(Value::String("2".into())), "expected an integer from 0");
}

#[test]
fn an_output_matrix_beside_gpt2s_embedding_is_the_unembedding() {
    let gguf = Recipe::of("gpt2").write("gpt2");
    let embedding = common::Pieces::of("gpt2").tensors.into_iter().find(|(name, _)| name.contains("wte")).unwrap().1;
    let again = gguf.clone().tensor("output.weight", &[384, 64], &common::values(&embedding));
    assert!(distance(&again, "gpt2") < 1e-6);
    let other = gguf.tensor("output.weight", &[384, 64], &vec![0.25; 384 * 64]);
    assert!(distance(&other, "gpt2") > 0.1);
}

#[test]
fn longrope_comes_as_two_tensors_and_a_factor() {
    let configs = std::fs::read(folder("phi3_longrope").join("configs.json")).unwrap();
    let configs: Json = serde_json::from_slice(&configs).unwrap();
    let tokens = Golden::open("phi3_partial").tokens();
    let logits =
        |path: &Path| open(path, Processing::None, Engine::default()).hooked().forward(&tokens, &mut NoTap).unwrap();
    let plain = Recipe::of("phi3").write("phi3_partial");
    for name in ["short", "long", "factor"] {
        let case = configs["cases"][name].as_object().unwrap().clone();
        let rope = case["rope_parameters"].clone();
        let original = rope["original_max_position_embeddings"].as_f64().unwrap();
        // What the converter writes: the context is 256.
        let stretched = (1.0 + (256.0 / original).ln() / original.ln()).sqrt();
        let factor = rope["attention_factor"].as_f64().unwrap_or(stretched) as f32;
        let list = |key: &str| -> Vec<f32> {
            rope[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
        };
        let gguf = plain
            .clone()
            .entry("phi3.rope.scaling.original_context_length", Value::Unsigned(original as u64))
            .entry("phi3.rope.scaling.attn_factor", Value::F32(factor))
            .tensor("rope_factors_long.weight", &[4], &list("long_factor"))
            .tensor("rope_factors_short.weight", &[4], &list("short_factor"));
        let (_dir, path) = gguf.write();
        let pieces = case.into_iter().fold(Pieces::of("phi3_partial"), |pieces, (key, value)| pieces.with(&key, value));
        let same = pieces.write();
        assert_same_bits(name, &logits(&path), &logits(same.path()));
        if name == "long" {
            let mut half = gguf.clone();
            half.tensors.retain(|tensor| tensor.name != "rope_factors_short.weight");
            refused(&half, "`rope_factors_short.weight` is missing");
            refused(&gguf.without("phi3.rope.scaling.original_context_length"), "original_max_position_embeddings");
        }
    }
    let alone = plain.entry("phi3.rope.scaling.attn_factor", Value::F32(1.5));
    refused(&alone, "key `phi3.rope.scaling.attn_factor` is the f32 1.5, expected 1");
}

/// A golden model with its layers repeated.
fn deep(name: &str, layers: usize) -> Pieces {
    let kind =
        |layer: usize, period: usize| if layer % period < period - 1 { "sliding_attention" } else { "full_attention" };
    let mut pieces = Pieces::of(name);
    let held = pieces.config["num_hidden_layers"].as_u64().unwrap() as usize;
    let period = if name == "gemma2" { 2 } else { 6 };
    pieces.config["num_hidden_layers"] = layers.into();
    pieces.config["layer_types"] = (0..layers).map(|layer| kind(layer, period)).collect();
    for layer in held..layers {
        let from = format!("layers.{}.", layer % held);
        let copies: Vec<_> = pieces.tensors.iter().filter(|(name, _)| name.contains(&from)).cloned().collect();
        let renamed = copies.into_iter().map(|(name, x)| (name.replace(&from, &format!("layers.{layer}.")), x));
        pieces.tensors.extend(renamed);
    }
    pieces
}

#[test]
fn the_largest_gemmas_divide_scores_by_another_number() {
    for (arch, layers) in [("gemma2", 46), ("gemma3", 62)] {
        let pieces = deep(arch, layers);
        let (_dir, path) = Recipe::of(arch).write_as(&Config(pieces.config.clone()), pieces.tensors.clone()).write();
        let tokens = Golden::open(arch).tokens();
        let logits = |path: &Path| {
            open(path, Processing::None, Engine::default()).hooked().forward(&tokens, &mut NoTap).unwrap()
        };
        let found = logits(&path);
        // d_model / n_heads is 16, a head is 32 wide.
        let [largest, other] =
            [16, 32].map(|n| logits(deep(arch, layers).with("query_pre_attn_scalar", n).write().path()));
        assert_same_bits(arch, &found, &largest);
        assert!(common::error(&found, &other) > 1e-3);
    }
}

#[test]
fn keys_of_other_architectures_and_missing_ones_are_named() {
    let gguf = |arch: &str, name: &str| Recipe::of(arch).write(name);
    let absent = "expected absent: its effect on the model is not known here";
    refused(&gguf("gemma", "gemma1").entry("gemma.attention.sliding_window", Value::Unsigned(8)), absent);
    refused(&gguf("qwen2", "qwen2").entry("qwen2.attention.sliding_window", Value::Unsigned(8)), absent);
    refused(&gguf("gpt2", "gpt2").entry("gpt2.rope.freq_base", Value::F32(1e4)), absent);
    refused(&gguf("gemma3", "gemma3").without("gemma3.rope.freq_base"), "the rotary base of layers without a window");
    refused(
        &gguf("gptneox", "neox_serial").without("gptneox.use_parallel_residual"),
        "use_parallel_residual` is missing",
    );
    refused(
        &gguf("gpt2", "gpt2").entry("gpt2.attention.head_count_kv", Value::Unsigned(2)),
        "expected 4, as there are heads",
    );
    refused(&gguf("gpt2", "gpt2").entry("gpt2.attention.key_length", Value::Unsigned(32)), "expected 16");
    let capped = gguf("gemma3", "gemma3").entry("gemma3.final_logit_softcapping", Value::F32(30.0));
    refused(&capped, "key `gemma3.final_logit_softcapping` is the f32 30");
    let longrope = gguf("qwen3", "qwen3").entry("qwen3.rope.scaling.type", Value::String("longrope".into()));
    refused(&longrope, "expected none, linear, yarn or dynamic");
}

#[test]
fn parts_of_a_split_model_are_named() {
    let part = Recipe::of("qwen2").write("qwen2").entry("split.count", Value::Unsigned(3));
    refused(
        &part.clone().entry("split.no", Value::Unsigned(1)),
        "split file (split.count): part 2 of 3; supported: whole",
    );
    // All but the first part of a model have these keys alone.
    let later = part.entry("split.no", Value::Unsigned(2)).without("general.architecture");
    refused(&later, "part 3 of 3");
    let whole = Recipe::of("qwen2").write("qwen2").entry("split.count", Value::Unsigned(1));
    assert_eq!(distance(&whole.entry("split.no", Value::Unsigned(0)), "qwen2"), 0.0);
}
