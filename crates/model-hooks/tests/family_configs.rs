//! Configurations and checkpoints of GPT-NeoX, GPT-J, GPT-Neo and Phi-3: spellings that mean the same model, and what must be refused.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Golden, Pieces, assert_same_bits, refused};
use model_hooks::{Error, NoTap, Processing};
use serde_json::{Value, json};

fn logits(pieces: &Pieces, name: &str) -> Tensor {
    pieces.load(Processing::None).unwrap().hooked().forward(&Golden::open(name).tokens(), &mut NoTap).unwrap()
}

#[track_caller]
fn same(name: &str, pieces: &Pieces) {
    assert_same_bits(name, &logits(pieces, name), &logits(&Pieces::of(name), name));
}

#[track_caller]
fn other(name: &str, pieces: &Pieces) {
    assert!(common::error(&logits(pieces, name), &logits(&Pieces::of(name), name)) > 1e-3, "{name}: the same logits");
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()
}

/// The model with the tensor of one name under another, or gone.
fn renamed(name: &str, from: &str, to: Option<&str>) -> Pieces {
    Pieces::of(name).map(|n, x| if n == from { to.map(|to| (to.to_string(), x)) } else { Some((n, x)) })
}

#[test]
fn sizes_that_cannot_be() {
    let llama_like =
        ["hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings", "vocab_size"];
    for (name, keys) in [
        ("neox_parallel", llama_like),
        ("phi3", llama_like),
        ("gptj", ["n_embd", "n_head", "n_layer", "n_positions", "vocab_size"]),
        ("gpt_neo", ["hidden_size", "num_heads", "num_layers", "max_position_embeddings", "vocab_size"]),
    ] {
        for key in keys {
            refused(&Pieces::of(name).without(key), &["config.json", key, "missing"]);
            for value in [json!(0), json!(-1), json!(1.5), json!("64"), json!(1u64 << 29), json!(u64::MAX)] {
                refused(&Pieces::of(name).with(key, value.clone()), &["config.json", key, &value.to_string()]);
            }
        }
        refused(&Pieces::of(name).with(keys[1], 5), &[keys[1], "divisor"]);
        refused(&Pieces::of(name).with(keys[2], 65_536), &[keys[2], "65535"]);
        let error = refused(&Pieces::of(name).with("vocab_size", 1u64 << 28), &["expected [", "shape ["]);
        assert!(matches!(error, Error::Files(_)));
    }
    refused(&Pieces::of("neox_serial").with("num_hidden_layers", 4), &["layers.3.", "missing"]);
    refused(&Pieces::of("gptj").with("n_layer", 2), &["unexpected", "transformer.h.2."]);
    refused(&Pieces::of("phi3").with("num_key_value_heads", 3), &["num_key_value_heads", "divisor"]);
    refused(&Pieces::of("phi3").with("num_key_value_heads", 1), &["qkv_proj", "[96, 64]", "[128, 64]"]);
    refused(&Pieces::of("gptj").with("n_inner", 100), &["fc_in", "[100, 64]"]);
    refused(&Pieces::of("neox_serial").with("layer_norm_eps", 0.0), &["layer_norm_eps"]);
}

#[test]
fn neox_rotary_parameters() {
    let bare = Pieces::of("neox_parallel").without("rope_parameters");
    same("neox_parallel", &Pieces::of("neox_parallel").without("rope_parameters"));
    same("neox_parallel", &bare.with("rotary_pct", 0.25).with("rotary_emb_base", 10_000));
    let with = |name: &str, key: &str, value: Value| Pieces::of(name).without("rope_parameters").with(key, value);
    other("neox_parallel", &with("neox_parallel", "rotary_pct", json!(1.0)));
    other("neox_parallel", &with("neox_parallel", "rotary_emb_base", json!(25_000)));
    other("neox_parallel", &with("neox_parallel", "rope_scaling", json!({"type": "linear", "factor": 2.0})));
    same("neox_serial", &with("neox_serial", "rotary_pct", json!(1)));
    same("neox_serial", &with("neox_serial", "partial_rotary_factor", json!(1)).with("rope_theta", 10_000.0));
    for share in [json!(0), json!(-0.25), json!(1.5), json!(0.2), json!("all")] {
        refused(&with("neox_parallel", "rotary_pct", share), &["rotary_pct"]);
    }
    refused(&Pieces::of("neox_parallel").with("rotary_emb_base", 9_999), &["rope_theta", "rotary_emb_base"]);
    refused(&with("neox_parallel", "rope_scaling", json!({"type": "ntk", "factor": 2.0})), &["rope_scaling.type"]);
}

#[test]
fn neox_checkpoints() {
    same("neox_parallel", &renamed("neox_parallel", "embed_out.weight", Some("lm_head.weight")));
    let layer = "gpt_neox.layers.1.attention";
    let old = Pieces::of("neox_parallel").plus(&format!("{layer}.bias"), ones(&[1, 1, 256, 256]));
    let old = old.plus(&format!("{layer}.masked_bias"), ones(&[1]));
    same("neox_parallel", &old.plus(&format!("{layer}.rotary_emb.inv_freq"), ones(&[2])));
    other("neox_parallel", &Pieces::of("neox_parallel").with("use_parallel_residual", false));
    other("neox_parallel", &Pieces::of("neox_parallel").with("hidden_act", "silu"));
    refused(&renamed("neox_parallel", "embed_out.weight", None), &["embed_out.weight", "missing"]);
    refused(&Pieces::of("neox_parallel").with("attention_bias", false), &["unexpected", "query_key_value.bias"]);
    let without = Pieces::of("neox_parallel").with("attention_bias", false);
    let biases = ["query_key_value.bias", "dense.bias"];
    let without = without.map(|n, x| (!biases.iter().any(|bias| n.ends_with(bias))).then_some((n, x)));
    other("neox_parallel", &without);
    let tied = renamed("neox_serial", "embed_out.weight", None).with("tie_word_embeddings", true);
    other("neox_serial", &tied);
    // Two tables that differ are not tied, whatever the configuration says.
    same_as(&Pieces::of("neox_serial"), &Pieces::of("neox_serial").with("tie_word_embeddings", true), "neox_serial");
}

#[track_caller]
fn same_as(a: &Pieces, b: &Pieces, name: &str) {
    assert_same_bits(name, &logits(a, name), &logits(b, name));
}

#[test]
fn gptj_rotary_and_unembedding() {
    let published = Pieces::of("gptj").with("rotary", true).with("scale_attn_weights", true);
    same("gptj", &published.plus("transformer.h.0.attn.masked_bias", ones(&[1])));
    other("gptj", &Pieces::of("gptj").with("rotary_dim", 16));
    for d_rotary in [json!(0), json!(7), json!(18), json!(-8), Value::Null] {
        refused(&Pieces::of("gptj").with("rotary_dim", d_rotary), &["rotary_dim"]);
    }
    refused(&Pieces::of("gptj").with("rotary", false), &["rotary"]);
    refused(&Pieces::of("gptj").with("scale_attn_weights", false), &["scale_attn_weights"]);
    refused(&renamed("gptj", "lm_head.bias", None), &["lm_head.bias", "missing"]);
    refused(&Pieces::of("gptj").with("activation_function", "mish"), &["activation_function", "mish"]);
    let tied = renamed("gptj", "lm_head.weight", None).with("tie_word_embeddings", true);
    other("gptj", &tied);
}

#[test]
fn gpt_neo_kinds_of_layers() {
    let with = |types: Value| Pieces::of("gpt_neo").with("attention_types", types);
    same("gpt_neo", &Pieces::of("gpt_neo").without("attention_types"));
    same("gpt_neo", &with(json!([[["global", "local", "global"], 1]])).without("attention_layers"));
    same("gpt_neo", &with(json!([[[], 1u64 << 40], [["global"], 1], [["local", "global"], 1], [["local"], 0]])));
    let global = with(json!([[["global"], 3]]));
    other("gpt_neo", &global);
    // A window as long as the text hides nothing, nor does a longer one.
    for window in [24, 25, 256, 1 << 28] {
        same_as(&Pieces::of("gpt_neo").with("window_size", window), &global, "gpt_neo");
    }
    other("gpt_neo", &Pieces::of("gpt_neo").with("window_size", 7));
    other("gpt_neo", &Pieces::of("gpt_neo").with("window_size", 9));
    for types in [
        json!([[["global", "local"], 1]]),
        json!([[["global", "local"], 2]]),
        json!([[["global"], u64::MAX]]),
        json!([[["global", "local"], u64::MAX]]),
        json!([[["global"], -3]]),
        json!([[["sliding"], 3]]),
        json!([[["global", 1, "local"], 1]]),
        json!([["global", 3]]),
        json!([[["global"]]]),
        json!([]),
        json!("global"),
    ] {
        refused(&with(types), &["attention_types"]);
    }
    refused(&Pieces::of("gpt_neo").without("attention_types").without("attention_layers"), &["attention_layers"]);
    for window in [json!(0), json!(-8), json!(8.5), json!(1u64 << 60)] {
        refused(&Pieces::of("gpt_neo").with("window_size", window), &["window_size"]);
    }
}

#[test]
fn phi3_windows_and_biases() {
    let none = Pieces::of("phi3").with("sliding_window", Value::Null);
    other("phi3", &none);
    for window in [24, 2047, 1 << 28] {
        same_as(&Pieces::of("phi3").with("sliding_window", window), &none, "phi3");
    }
    for window in [json!(0), json!(-8), json!("8")] {
        refused(&Pieces::of("phi3").with("sliding_window", window), &["sliding_window"]);
    }
    refused(&Pieces::of("phi3").with("attention_bias", true), &["attention_bias"]);
    let old = Pieces::of("phi3_partial").without("rope_parameters").with("rope_theta", 10_000.0);
    same("phi3_partial", &old.with("rope_scaling", Value::Null).with("partial_rotary_factor", 0.5));
    for share in [0.0, 1.01, 0.45] {
        let spoilt = Pieces::of("phi3_partial").without("rope_parameters").with("partial_rotary_factor", share);
        refused(&spoilt, &["partial_rotary_factor"]);
    }
    let tied = renamed("phi3", "lm_head.weight", None).with("tie_word_embeddings", true);
    other("phi3", &tied);
}
