//! YaRN and dynamic rotary scaling against transformers, in every family, in both spellings of a `config.json` and in GGUF's
//! (`tests/golden/rope_scaling`).

mod common;
mod gguf_support;

use candle_core::Tensor;
use common::{Golden, Pieces, assert_close, assert_same_bits, engines, folder, refused, tolerance};
use gguf_support::convert::{Config, Recipe};
use model_hooks::gguf::Value;
use model_hooks::{Engine, Error, LoadOptions, NoTap, Processing, TokenBatch, load};
use serde_json::{Value as Json, json};
use tensor_files::SafetensorsFile;

fn configs() -> Json {
    serde_json::from_slice(&std::fs::read(folder("rope_scaling").join("configs.json")).unwrap()).unwrap()
}

fn case(name: &str) -> Pieces {
    let case = configs()["cases"][name].clone();
    let changes = case["keys"].as_object().unwrap().clone();
    let pieces = Pieces::of(case["model"].as_str().unwrap());
    changes.into_iter().fold(pieces, |pieces, (key, value)| pieces.with(&key, value))
}

fn tokens() -> TokenBatch {
    let first = Golden::open("llama").tokens().rows().next().unwrap().to_vec();
    TokenBatch::new(&[first]).unwrap()
}

fn expected(name: &str) -> Tensor {
    let stored = configs()["same"][name].as_str().unwrap_or(name).to_owned();
    let golden = SafetensorsFile::open(folder("rope_scaling").join("golden.safetensors")).unwrap();
    golden.load(&format!("{stored}.logits")).unwrap()
}

/// The last positions, as many as the golden has.
fn last(logits: &Tensor, expected: &Tensor) -> Tensor {
    let (all, kept) = (logits.dim(1).unwrap(), expected.dim(1).unwrap());
    logits.narrow(1, all - kept, kept).unwrap().contiguous().unwrap()
}

#[test]
fn logits_equal_transformers_in_every_family_and_spelling() {
    let (cases, tokens) = (configs()["cases"].as_object().unwrap().clone(), tokens());
    assert!(cases.len() >= 34, "{}", cases.len());
    for name in cases.keys() {
        let (written, expected) = (case(name).write(), expected(name));
        for engine in engines() {
            let model = load(written.path(), &LoadOptions::new(Processing::None).engine(engine)).unwrap();
            let logits = last(&model.hooked().forward(&tokens, &mut NoTap).unwrap(), &expected);
            assert_close(&format!("{name} on {engine}"), &logits, &expected, tolerance(engine, 1e-4));
        }
    }
}

/// The fault as it was reported: Qwen 2 under YaRN, and the same through GGUF.
#[test]
fn gguf_says_yarn_and_dynamic_too() {
    let tokens = tokens();
    let check = |name: &str, arch: &str, entries: &[(&str, Value)]| {
        let pieces = case(name);
        let mut gguf = Recipe::of(arch).write_as(&Config(pieces.config.clone()), pieces.tensors.clone());
        for (key, value) in entries {
            gguf = gguf.entry(&format!("{arch}.{key}"), value.clone());
        }
        let (_dir, path) = gguf.write();
        let model = load(&path, &LoadOptions::new(Processing::None)).unwrap();
        let expected = expected(name);
        let logits = last(&model.hooked().forward(&tokens, &mut NoTap).unwrap(), &expected);
        assert_close(name, &logits, &expected, tolerance(Engine::default(), 1e-4));
    };
    let text = |word: &str| Value::String(word.into());
    let yarn = [
        ("rope.scaling.type", text("yarn")),
        ("rope.scaling.factor", Value::F32(4.0)),
        ("rope.scaling.original_context_length", Value::Unsigned(8)),
    ];
    check("yarn_qwen2", "qwen2", &yarn);
    check("yarn_qwen3", "qwen3", &yarn);
    check("yarn", "llama", &yarn);
    let betas = [("rope.scaling.yarn_beta_fast", Value::F32(4.0)), ("rope.scaling.yarn_beta_slow", Value::F32(0.25))];
    check("yarn_betas", "llama", &[&yarn[..], &betas].concat());
    // On top of what follows from the factor, 0.1 ln 4 + 1.
    let factor = 1.3 / (0.1 * 4f32.ln() + 1.0);
    check("yarn_attention_factor", "llama", &[&yarn[..], &[("rope.scaling.attn_factor", Value::F32(factor))]].concat());
    // mscale 1.4 over mscale_all_dim 0.7 as a factor on top of mscale 1 over 0.7.
    let m = |scale: f32| 0.1 * scale * 4f32.ln() + 1.0;
    let scales = [
        ("rope.scaling.yarn_log_multiplier", Value::F32(0.7)),
        ("rope.scaling.attn_factor", Value::F32(m(1.4) / m(1.0))),
    ];
    check("yarn_mscale", "llama", &[&yarn[..], &scales].concat());
    check("yarn", "llama", &[&yarn[..], &[("rope.scaling.yarn_log_multiplier", Value::F32(0.0))]].concat());
    check("yarn_neox_parallel", "gptneox", &yarn);
    let dynamic = [("rope.scaling.type", text("dynamic")), ("rope.scaling.factor", Value::F32(2.0))];
    check("dynamic_qwen2", "qwen2", &dynamic);
    check("dynamic", "llama", &dynamic);
}

#[test]
fn gguf_keys_without_a_meaning_are_refused() {
    let refuse = |entries: &[(&str, Value)], words: &str| {
        let pieces = case("yarn");
        let mut gguf = Recipe::of("llama").write_as(&Config(pieces.config.clone()), pieces.tensors.clone());
        for (key, value) in entries {
            gguf = gguf.entry(&format!("llama.{key}"), value.clone());
        }
        let (_dir, path) = gguf.write();
        let error = load(&path, &LoadOptions::new(Processing::None)).map(drop).unwrap_err().to_string();
        assert!(error.contains(words), "`{words}` is not in: {error}");
    };
    let yarn = [
        ("rope.scaling.type", Value::String("yarn".into())),
        ("rope.scaling.factor", Value::F32(4.0)),
        ("rope.scaling.original_context_length", Value::Unsigned(8)),
    ];
    let with = |key, value| [&yarn[..], &[(key, value)]].concat();
    refuse(&[("rope.scaling.attn_factor", Value::F32(1.5))], "llama.rope.scaling.attn_factor");
    refuse(&with("rope.scaling.yarn_ext_factor", Value::F32(0.5)), "llama.rope.scaling.yarn_ext_factor");
    refuse(&with("rope.scaling.yarn_beta_fast", Value::F32(0.5)), "llama.rope.scaling.yarn_beta_fast");
    refuse(&with("rope.scaling.yarn_attn_factor", Value::F32(0.5)), "llama.rope.scaling.yarn_attn_factor");
}

/// The angles of a text depend on its own length alone; transformers turns a short text by the longest one that ran before it.
#[test]
fn dynamic_scaling_does_not_depend_on_what_ran_before() {
    let model = case("dynamic").load(Processing::None).unwrap();
    assert_eq!(model.shape().n_ctx, 32, "twice the 16 of the configuration");
    let all = tokens().ids().to_vec();
    let run = |pos: usize| model.hooked().forward(&TokenBatch::new(&[&all[..pos]]).unwrap(), &mut NoTap).unwrap();
    let (short, long) = (run(20), run(24));
    assert!(common::error(&long.narrow(1, 0, 20).unwrap().contiguous().unwrap(), &short) > 1e-3);
    assert_same_bits("again", &run(20), &short);
    let plain = Pieces::of("llama").load(Processing::None).unwrap();
    let within = plain.hooked().forward(&TokenBatch::new(&[&all[..16]]).unwrap(), &mut NoTap).unwrap();
    assert_same_bits("within the original context", &run(16), &within);
    let beyond = TokenBatch::new(&[vec![5u32; 33]]).unwrap();
    assert!(matches!(model.hooked().forward(&beyond, &mut NoTap), Err(Error::ContextExceeded { pos: 33, n_ctx: 32 })));
}

/// What dynamic scaling does to a cache: `tests/lengths.rs`.
#[test]
fn a_cache_reaches_as_far_as_yarn() {
    let all = tokens().ids().to_vec();
    let part = |columns: std::ops::Range<usize>| TokenBatch::new(&[&all[columns]]).unwrap();
    // YaRN's angles are the same for every length.
    let model = case("yarn").load(Processing::None).unwrap();
    assert_eq!(model.shape().n_ctx, 32);
    let (generator, mut cache) = (model.generator().unwrap(), model.generator().unwrap().new_cache());
    generator.forward_cached(&part(0..6), &mut cache, &mut NoTap).unwrap();
    let found = generator.forward_cached(&part(6..24), &mut cache, &mut NoTap).unwrap();
    let whole = model.hooked().forward(&tokens(), &mut NoTap).unwrap();
    assert_same_bits("yarn in steps", &found, &whole.narrow(1, 6, 18).unwrap().contiguous().unwrap());
}

/// Configurations that name YaRN beside the context of the training, as the authors of Qwen 2.5 advise.
#[test]
fn the_context_reaches_as_far_as_the_scaling() {
    let rope = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8});
    let pieces = |context: usize| {
        let old = Pieces::of("llama").without("rope_parameters").with("rope_theta", 10_000.0);
        old.with("max_position_embeddings", context).with("rope_scaling", rope.clone())
    };
    for (context, reach) in [(8, 32), (32, 32), (64, 64)] {
        assert_eq!(pieces(context).load(Processing::None).unwrap().shape().n_ctx, reach);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let with = |name: &str, key: &str, value: Json| {
        let mut pieces = case(name);
        pieces.config["rope_parameters"][key] = value;
        pieces
    };
    refused(&with("yarn", "rope_type", json!("mrope")), &["rope_parameters.rope_type", "mrope", "yarn or dynamic"]);
    for (key, value) in [
        ("factor", json!(-1.0)),
        ("attention_factor", json!(0.0)),
        ("beta_fast", json!("x")),
        ("beta_slow", json!(64.0)),
        ("mscale", json!(-1.0)),
        ("truncate", json!(1)),
        ("original_max_position_embeddings", json!(0)),
    ] {
        let name = if key == "beta_slow" { "beta_fast" } else { key };
        refused(&with("yarn", key, value), &[&format!("rope_parameters.{name}")]);
    }
    refused(
        &with("yarn_outer_original", "original_max_position_embeddings", json!(16)),
        &["original_max_position_embeddings", "top level"],
    );
    refused(&with("yarn", "rope_theta", json!(1.0)), &["rope_theta"]);
    refused(&with("dynamic", "factor", json!(0.5)), &["rope_parameters.factor", "at least 1"]);
    refused(&with("dynamic", "factor", Json::Null), &["rope_parameters.factor", "missing"]);
}
