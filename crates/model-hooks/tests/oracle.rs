//! candle-transformers as an independent implementation: its logits at the last position.
//!
//! Where it computes something else than transformers, the model is changed until both mean the same, and the test says so.

mod common;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma, gemma2, gemma3, llama, mistral, olmo2, qwen2, qwen3};
use common::{Golden, Pieces, assert_close};
use model_hooks::{NoTap, Processing};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Compares the logits at the last position of a model's golden tokens. `oracle` is given the weights, and tokens `[batch, pos]`.
#[track_caller]
fn check(name: &str, pieces: &Pieces, oracle: impl FnOnce(VarBuilder, &Tensor) -> Result<Tensor>) {
    let tokens = Golden::open(name).tokens();
    let weights = VarBuilder::from_tensors(pieces.tensors.iter().cloned().collect(), DType::F32, &Device::Cpu);
    let expected = oracle(weights, &tokens.to_tensor(&Device::Cpu).unwrap()).unwrap().flatten_to(1).unwrap();
    let logits = pieces.load(Processing::None).unwrap().hooked().forward(&tokens, &mut NoTap).unwrap();
    let last = logits.narrow(1, tokens.pos() - 1, 1).unwrap().squeeze(1).unwrap();
    assert_close(name, &last, &expected, 1e-4);
}

/// candle-transformers' configuration: ours, with its own spelling of some keys.
fn config<C: DeserializeOwned>(pieces: &Pieces, spelling: Value) -> C {
    let mut config = pieces.config.clone();
    config["rope_theta"] = config["rope_parameters"]["rope_theta"].clone();
    config.as_object_mut().unwrap().extend(spelling.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

#[test]
fn llama_with_and_without_scaled_angles() {
    for name in ["llama", "llama3_rope"] {
        for tied in [false, true] {
            let pieces = Pieces::of(name).with("tie_word_embeddings", tied);
            let pieces = pieces.map(|n, x| (!tied || n != "lm_head.weight").then_some((n, x)));
            let rope = pieces.config["rope_parameters"].clone();
            let scaling = if rope["rope_type"] == "llama3" { rope } else { Value::Null };
            let config: llama::LlamaConfig = config(&pieces, json!({ "rope_scaling": scaling }));
            let config = config.into_config(false);
            check(name, &pieces, |weights, tokens| {
                let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu)?;
                llama::Llama::load(weights, &config)?.forward(tokens, 0, &mut cache)?.unsqueeze(1)
            });
        }
    }
}

#[test]
fn gemma_1() {
    let mut pieces = Pieces::of("gemma1");
    // It refuses the two spellings side by side, and takes `gelu` for the one by erf.
    pieces = pieces.without("hidden_activation");
    let config: gemma::Config = config(&pieces, json!({}));
    check("gemma1", &pieces, |weights, tokens| gemma::Model::new(false, &config, weights)?.forward(tokens, 0));
}

/// Its windows are one key wider than those of transformers, and every layer has one or none has. Scores are divided by the root of
/// `head_dim`, whatever `query_pre_attn_scalar` says; here both are 32.
#[test]
fn gemma_2_with_windows_everywhere_or_nowhere() {
    for (layers, theirs) in [("sliding_attention", json!(7)), ("full_attention", Value::Null)] {
        let pieces = Pieces::of("gemma2").with("layer_types", vec![layers; 4]);
        let config: gemma2::Config = config(&pieces, json!({ "sliding_window": theirs }));
        check("gemma2", &pieces, |weights, tokens| gemma2::Model::new(false, &config, weights)?.forward(tokens, 0));
    }
}

/// As Gemma 2; it knows the layers without a window by their distance alone.
#[test]
fn gemma_3() {
    let pieces = Pieces::of("gemma3");
    let spelling =
        json!({ "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 3, "sliding_window": 7 });
    let config: gemma3::Config = config(&pieces, spelling);
    check("gemma3", &pieces, |weights, tokens| gemma3::Model::new(false, &config, weights)?.forward(tokens, 0));
}

/// Windows as Gemma 2's.
#[test]
fn mistral_with_and_without_a_window() {
    for (name, theirs) in [("mistral", Value::Null), ("mistral_sliding", json!(7))] {
        let pieces = Pieces::of(name);
        let config: mistral::Config = config(&pieces, json!({ "sliding_window": theirs }));
        check(name, &pieces, |weights, tokens| mistral::Model::new(&config, weights)?.forward(tokens, 0));
    }
}

/// It has a window in every layer, whatever `use_sliding_window` and `max_window_layers` say.
#[test]
fn qwen_2_with_and_without_a_window() {
    for (ours, theirs) in [(Value::Null, 4096), (json!(8), 7)] {
        let pieces = Pieces::of("qwen2").without("layer_types").with("max_window_layers", 0);
        let pieces = pieces.with("use_sliding_window", !ours.is_null()).with("sliding_window", ours);
        let config: qwen2::Config = config(&pieces, json!({ "sliding_window": theirs }));
        check("qwen2", &pieces, |weights, tokens| qwen2::ModelForCausalLM::new(&config, weights)?.forward(tokens, 0));
    }
}

#[test]
fn qwen_3() {
    let pieces = Pieces::of("qwen3");
    let config: qwen3::Config = config(&pieces, json!({}));
    check("qwen3", &pieces, |weights, tokens| qwen3::ModelForCausalLM::new(&config, weights)?.forward(tokens, 0));
}

/// Also with keys and values that query heads share, of which the golden model has none.
#[test]
fn olmo_2_with_and_without_groups() {
    let grouped = Pieces::of("olmo2").with("num_key_value_heads", 2).map(|name, x| {
        let shared = ["k_proj.weight", "v_proj.weight", "k_norm.weight"].iter().any(|part| name.ends_with(part));
        Some((name, if shared { x.narrow(0, 0, 32).unwrap() } else { x }))
    });
    for pieces in [Pieces::of("olmo2"), grouped] {
        let config: olmo2::Config = config(&pieces, json!({}));
        check("olmo2", &pieces, |weights, tokens| olmo2::Model::new(&config, weights)?.forward(tokens, 0));
    }
}
