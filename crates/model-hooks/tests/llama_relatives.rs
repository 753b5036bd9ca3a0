//! Llama's relatives: spellings of a configuration that mean the same model, and what must be refused.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Golden, Pieces, assert_same_bits, error};
use model_hooks::{Error, NoTap, Processing};
use serde_json::{Value, json};

fn logits(pieces: &Pieces, name: &str) -> Tensor {
    let model = pieces.load(Processing::None).unwrap();
    model.hooked().forward(&Golden::open(name).tokens(), &mut NoTap).unwrap()
}

#[track_caller]
fn same(name: &str, pieces: &Pieces) {
    assert_same_bits(name, &logits(pieces, name), &logits(&Pieces::of(name), name));
}

#[track_caller]
fn another(name: &str, pieces: &Pieces) {
    assert!(error(&logits(pieces, name), &logits(&Pieces::of(name), name)) > 1e-3, "{name}");
}

/// The error of a folder, whose text must contain every one of `words`.
#[track_caller]
fn refused(pieces: &Pieces, words: &[&str]) -> Error {
    let error = pieces.load(Processing::None).expect_err("accepted");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
    error
}

#[test]
fn the_gelu_of_gemma_1_is_the_one_by_tanh() {
    let acts = |hidden_act: Value, hidden_activation: Value| {
        Pieces::of("gemma1").with("hidden_act", hidden_act).with("hidden_activation", hidden_activation)
    };
    same("gemma1", &acts(json!("gelu"), Value::Null));
    same("gemma1", &acts(json!("gelu"), json!("gelu_pytorch_tanh")));
    same("gemma1", &acts(Value::Null, Value::Null));
    another("gemma1", &acts(json!("relu"), Value::Null));
    refused(&acts(json!("relu"), json!("gelu_pytorch_tanh")), &["hidden_activation", "hidden_act says"]);
    refused(&acts(json!("gelu"), json!("mish")), &["hidden_activation", "mish"]);
}

#[test]
fn windows_of_gemma_2() {
    let windows = |types: Value| Pieces::of("gemma2").with("layer_types", types);
    same("gemma2", &Pieces::of("gemma2").without("layer_types"));
    another("gemma2", &windows(Value::from(vec!["full_attention"; 4])));
    another("gemma2", &windows(Value::from(vec!["sliding_attention"; 4])));
    for wrong in [
        Value::from(vec!["full_attention"; 3]),
        Value::from(vec!["chunked_attention"; 4]),
        json!([]),
        json!("all"),
        json!([1, 2, 3, 4]),
    ] {
        refused(&windows(wrong), &["layer_types"]);
    }
    for wrong in [json!(0), json!(-8), json!(1.5), json!("8")] {
        refused(&Pieces::of("gemma2").with("sliding_window", wrong), &["sliding_window"]);
    }
    refused(&Pieces::of("gemma2").with("sliding_window", Value::Null), &["sliding_window", "missing"]);
    same("gemma2", &Pieces::of("gemma2").with("use_bidirectional_attention", false));
    refused(&Pieces::of("gemma2").with("use_bidirectional_attention", true), &["use_bidirectional_attention"]);
}

#[test]
fn soft_caps_of_gemma_2() {
    for (key, default) in [("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)] {
        same("gemma2", &Pieces::of("gemma2").without(key));
        same("gemma2", &Pieces::of("gemma2").with(key, default));
        another("gemma2", &Pieces::of("gemma2").with(key, 1.0));
        for wrong in [json!(0), json!(-1), json!("30")] {
            refused(&Pieces::of("gemma2").with(key, wrong), &[key]);
        }
    }
    another("gemma2", &Pieces::of("gemma2").with("final_logit_softcapping", Value::Null));
    another("gemma2", &Pieces::of("gemma2").with("query_pre_attn_scalar", 8));
    refused(&Pieces::of("gemma2").with("query_pre_attn_scalar", 0), &["query_pre_attn_scalar"]);
}

/// As the files of Gemma 3 on the hub spell it.
fn old_gemma3() -> Pieces {
    let pieces = Pieces::of("gemma3").without("rope_parameters").without("layer_types");
    pieces.with("rope_theta", 1e6).with("rope_local_base_freq", 1e4).with("sliding_window_pattern", 3)
}

#[test]
fn old_and_new_spellings_of_gemma_3() {
    same("gemma3", &old_gemma3());
    same(
        "gemma3",
        &old_gemma3().without("rope_theta").without("rope_local_base_freq").with("rope_scaling", Value::Null),
    );
    another("gemma3", &old_gemma3().with("rope_local_base_freq", 1e6));
    another("gemma3", &old_gemma3().without("sliding_window_pattern"));
    let linear = json!({"rope_type": "linear", "factor": 8.0});
    let scaled = old_gemma3().with("rope_scaling", linear);
    let new = Pieces::of("gemma3").with(
        "rope_parameters",
        json!({"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
               "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}),
    );
    assert_same_bits("scaled", &logits(&scaled, "gemma3"), &logits(&new, "gemma3"));
    another("gemma3", &new);
}

#[test]
fn what_gemma_3_does_not_have() {
    let flat = json!({"rope_type": "default", "rope_theta": 1e6});
    refused(&Pieces::of("gemma3").with("rope_parameters", flat), &["rope_parameters.rope_theta", "full_attention"]);
    let longrope = json!({"rope_type": "longrope", "factor": 2.0});
    refused(&old_gemma3().with("rope_scaling", longrope), &["rope_scaling.rope_type", "longrope"]);
    refused(&old_gemma3().with("rope_local_base_freq", -1.0), &["rope_local_base_freq"]);
    refused(&old_gemma3().with("sliding_window_pattern", 0), &["sliding_window_pattern"]);
    refused(&Pieces::of("gemma3").with("partial_rotary_factor", 0.5), &["partial_rotary_factor"]);
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        refused(&Pieces::of("gemma3").with(key, 30.0), &[key, "no soft-caps"]);
    }
    refused(&Pieces::of("gemma3").with("model_type", "gemma3"), &["text_config", "missing"]);
}

/// Files of models that see, under the names of old and new versions of transformers: their text model is the one alone.
#[test]
fn the_text_model_of_a_gemma_3_that_sees() {
    let name = "gemma3_multimodal";
    let renamed = |to: &str| {
        Pieces::of(name).map(|name, x| match name.strip_prefix("language_model.model.") {
            Some(rest) => Some((format!("{to}{rest}"), x)),
            None if to == "language_model.model." => Some((name, x)),
            None => Some((format!("model.{name}"), x)),
        })
    };
    same(name, &renamed("model.language_model."));
    let table = "language_model.model.embed_tokens.weight";
    let tied = Pieces::of(name).tensors.iter().find(|(n, _)| n == table).unwrap().1.clone();
    same(name, &renamed("language_model.model.").plus("language_model.lm_head.weight", tied));

    let text = |with_sight: bool| {
        let mut pieces = renamed("model.").map(|n, x| (with_sight || !n.contains("vision_tower")).then_some((n, x)));
        pieces = pieces.map(|n, x| (with_sight || !n.contains("multi_modal_projector")).then_some((n, x)));
        pieces.config = pieces.config["text_config"].clone();
        pieces
    };
    same(name, &text(false));
    assert!(matches!(refused(&text(true), &["vision_tower"]), Error::UnexpectedTensors { .. }));

    let mut wrong = Pieces::of(name);
    wrong.config["text_config"]["num_attention_heads"] = json!(5);
    wrong.config["text_config"]["num_key_value_heads"] = json!(2);
    refused(&wrong, &["text_config.num_key_value_heads", "divisor"]);
    refused(&Pieces::of(name).with("text_config", 7), &["text_config", "an object"]);
    refused(
        &Pieces::of(name).plus("model.audio_tower.weight", Tensor::ones(1, DType::F32, &Device::Cpu).unwrap()),
        &["audio"],
    );
}

#[test]
fn windows_of_qwen() {
    for name in ["qwen2", "qwen3"] {
        let windows = |first: usize, used: bool| {
            let pieces = Pieces::of(name).without("layer_types").with("sliding_window", 8);
            pieces.with("use_sliding_window", used).with("max_window_layers", first)
        };
        same(name, &windows(0, false));
        same(name, &windows(3, true));
        same(name, &windows(0, true).with("sliding_window", Value::Null));
        another(name, &windows(0, true));
        let types = json!(["full_attention", "full_attention", "sliding_attention"]);
        let listed = windows(0, true).with("layer_types", types.clone());
        assert_same_bits(name, &logits(&listed, name), &logits(&windows(2, true), name));
        refused(&windows(0, false).with("layer_types", types), &["use_sliding_window", "layer_types"]);
        refused(&windows(0, true).with("max_window_layers", -1), &["max_window_layers"]);
    }
}

#[test]
fn windows_of_mistral() {
    same("mistral", &Pieces::of("mistral").without("head_dim"));
    same("mistral", &Pieces::of("mistral").without("sliding_window"));
    another("mistral_sliding", &Pieces::of("mistral_sliding").with("sliding_window", Value::Null));
    let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    refused(&Pieces::of("mistral").with("layer_types", types), &["layer_types", "absent"]);
}

#[test]
fn biases_and_norms_are_neither_guessed_nor_dropped() {
    let without = |name: &str, end: &'static str| Pieces::of(name).map(|n, x| (!n.ends_with(end)).then_some((n, x)));
    for (name, tensor) in [
        ("qwen2", "layers.1.self_attn.k_proj.bias"),
        ("qwen3", "layers.1.self_attn.q_norm.weight"),
        ("olmo2", "layers.1.self_attn.k_norm.weight"),
        ("olmo2", "layers.2.post_feedforward_layernorm.weight"),
        ("gemma1", "layers.0.input_layernorm.weight"),
        ("gemma2", "layers.3.pre_feedforward_layernorm.weight"),
        ("gemma3", "layers.2.self_attn.q_norm.weight"),
        ("mistral", "model.norm.weight"),
    ] {
        assert!(matches!(refused(&without(name, tensor), &[]), Error::MissingWeight { .. }), "{name}");
    }
    for name in ["gemma1", "gemma2", "gemma3", "mistral", "olmo2", "qwen2", "qwen3"] {
        let bias = Tensor::ones(64, DType::F32, &Device::Cpu).unwrap();
        let extra = Pieces::of(name).plus("model.layers.0.self_attn.o_proj.bias", bias);
        assert!(matches!(refused(&extra, &["o_proj.bias"]), Error::UnexpectedTensors { .. }), "{name}");
    }
    for name in ["gemma1", "gemma2", "gemma3", "olmo2", "qwen3"] {
        refused(&Pieces::of(name).with("attention_bias", true), &["q_proj.bias", "missing"]);
    }
}

#[test]
fn sizes_that_cannot_be() {
    let keys = ["hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings", "vocab_size"];
    let more = ["intermediate_size", "num_key_value_heads", "head_dim"];
    for name in ["gemma1", "gemma2", "gemma3", "mistral", "olmo2", "qwen2", "qwen3"] {
        for key in keys.into_iter().chain(more) {
            for value in [json!(0), json!(-1), json!(1.5), json!("64"), json!(1u64 << 29), json!(u64::MAX)] {
                refused(&Pieces::of(name).with(key, value.clone()), &["config.json", key, &value.to_string()]);
            }
        }
        refused(&Pieces::of(name).without("hidden_size"), &["config.json", "hidden_size", "missing"]);
        refused(&Pieces::of(name).with("hidden_size", 1u64 << 28), &["expected [", "shape ["]);
        refused(&Pieces::of(name).with("vocab_size", 383), &["[384, 64]", "[383, 64]"]);
        refused(&Pieces::of(name).with("num_hidden_layers", 65_536), &["num_hidden_layers", "65535"]);
        refused(&Pieces::of(name).with("num_key_value_heads", 3), &["num_key_value_heads", "divisor"]);
        refused(&Pieces::of(name).with("head_dim", 15), &["head_dim", "even"]);
        refused(&Pieces::of(name).with("rms_norm_eps", 0.0), &["rms_norm_eps"]);
        for key in
            ["hidden_act", "hidden_activation"].into_iter().filter(|key| Pieces::of(name).config.get(key).is_some())
        {
            refused(&Pieces::of(name).with(key, "mish"), &[key, "mish"]);
        }
        let spoilt = Pieces::of(name).map(|n, x| {
            let bad = n.ends_with("layers.1.mlp.up_proj.weight");
            Some((n, if bad { (x * f64::NAN).unwrap() } else { x }))
        });
        refused(&spoilt, &["layers.1.mlp.up_proj.weight", "finite"]);
    }
}
