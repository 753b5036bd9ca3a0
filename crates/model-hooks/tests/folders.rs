//! Spellings of model folders that mean the same model, and hostile or broken ones that must be refused.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Golden, Pieces, assert_close, assert_same_bits, refused};
use model_hooks::{Error, LanguageModel, LoadOptions, NoTap, Processing, load};
use serde_json::{Value, json};
use std::path::Path;

fn logits(model: &LanguageModel, name: &str) -> Tensor {
    model.hooked().forward(&Golden::open(name).tokens(), &mut NoTap).unwrap()
}

fn plain(name: &str) -> Tensor {
    logits(&common::model(name, Processing::None), name)
}

fn try_load(path: &Path) -> model_hooks::Result<LanguageModel> {
    load(path, &LoadOptions::default())
}

#[test]
fn names_with_and_without_prefix() {
    for (name, prefix) in [("gpt2", "transformer."), ("llama", "model.")] {
        let bare = Pieces::of(name).map(|n, x| Some((n.strip_prefix(prefix).unwrap_or(&n).to_string(), x)));
        assert_same_bits(name, &logits(&bare.load(Processing::None).unwrap(), name), &plain(name));
    }
}

#[test]
fn half_precision_weights_are_widened() {
    for (dtype, tolerance) in [(DType::F16, 3e-2), (DType::BF16, 3e-1), (DType::F64, 1e-9)] {
        let pieces = Pieces::of("llama").map(|n, x| Some((n, x.to_dtype(dtype).unwrap())));
        let widened = Pieces { config: pieces.config.clone(), tensors: pieces.tensors.clone() }
            .map(|n, x| Some((n, x.to_dtype(DType::F32).unwrap())));
        let found = logits(&pieces.load(Processing::None).unwrap(), "llama");
        assert_same_bits("widening", &found, &logits(&widened.load(Processing::None).unwrap(), "llama"));
        assert_close("rounding", &found, &plain("llama"), tolerance);
    }
}

#[test]
fn buffers_and_tied_copies_are_no_weights() {
    let mask = Tensor::ones((1, 1, 256, 256), DType::U8, &Device::Cpu).unwrap();
    let mut gpt2 = Pieces::of("gpt2").plus("transformer.h.0.attn.bias", mask.clone());
    gpt2 = gpt2.plus("transformer.h.0.attn.masked_bias", mask);
    let lm_head = gpt2.tensors.iter().find(|(n, _)| n == "transformer.wte.weight").unwrap().1.clone();
    gpt2 = gpt2.plus("lm_head.weight", lm_head);
    assert_same_bits("gpt2", &logits(&gpt2.load(Processing::None).unwrap(), "gpt2"), &plain("gpt2"));
    let speeds = Tensor::ones(8, DType::F32, &Device::Cpu).unwrap();
    let llama = Pieces::of("llama").plus("model.layers.0.self_attn.rotary_emb.inv_freq", speeds);
    assert_same_bits("llama", &logits(&llama.load(Processing::None).unwrap(), "llama"), &plain("llama"));
}

#[test]
fn an_untied_gpt2() {
    let head = Tensor::randn(0f32, 1f32, (384, 64), &Device::Cpu).unwrap();
    let untied = Pieces::of("gpt2").with("tie_word_embeddings", false).plus("lm_head.weight", head);
    let model = untied.load(Processing::None).unwrap();
    assert_eq!(logits(&model, "gpt2").dims(), [2, 24, 384]);
    assert!(common::error(&logits(&model, "gpt2"), &plain("gpt2")) > 0.1);
}

#[test]
fn old_and_new_spellings_of_rotary_parameters() {
    let old = Pieces::of("llama3_rope").without("rope_parameters").with("rope_theta", 500_000.0).with(
        "rope_scaling",
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}),
    );
    assert_same_bits("old", &logits(&old.load(Processing::None).unwrap(), "llama3_rope"), &plain("llama3_rope"));
    let absent = Pieces::of("llama").without("rope_parameters").without("head_dim").with("rope_scaling", Value::Null);
    assert_same_bits("default", &logits(&absent.load(Processing::None).unwrap(), "llama"), &plain("llama"));
    let linear = |factor| json!({"type": "linear", "factor": factor});
    let rope = |scaling| Pieces::of("llama").without("rope_parameters").with("rope_scaling", scaling);
    assert_same_bits("by 1", &logits(&rope(linear(1.0)).load(Processing::None).unwrap(), "llama"), &plain("llama"));
    assert!(
        common::error(&logits(&rope(linear(4.0)).load(Processing::None).unwrap(), "llama"), &plain("llama")) > 1e-3
    );
    refused(&rope(json!({"type": "mrope", "factor": 4.0})), &["rope_scaling.type", "mrope", "yarn or dynamic"]);
    refused(&rope(json!({"rope_type": "linear"})), &["rope_scaling.factor"]);
    // Two spellings that disagree: neither is dropped.
    let both = Pieces::of("llama").with("rope_scaling", linear(4.0));
    refused(&both, &["rope_scaling", "absent beside rope_parameters"]);
    refused(&rope(json!({"rope_type": "linear", "factor": -1.0})), &["rope_scaling.factor", "-1"]);
    refused(&Pieces::of("llama").with("rope_theta", 7.0), &["rope_theta"]);
    refused(&Pieces::of("llama").with("partial_rotary_factor", 0.5), &["partial_rotary_factor"]);
    assert!(Pieces::of("llama").with("partial_rotary_factor", 1).load(Processing::None).is_ok());
    refused(&Pieces::of("llama").with("rope_interleaved", true), &["rope_interleaved"]);
}

/// A folder of three shards with an index; `edit` may spoil the map first.
fn sharded(edit: impl Fn(&mut serde_json::Map<String, Value>)) -> tempfile::TempDir {
    let pieces = Pieces::of("llama");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), pieces.config.to_string()).unwrap();
    let mut map = serde_json::Map::new();
    for (i, shard) in pieces.tensors.chunks(11).enumerate() {
        let file = format!("model-{i}.safetensors");
        tensor_files::save_safetensors(dir.path().join(&file), shard, None).unwrap();
        map.extend(shard.iter().map(|(name, _)| (name.clone(), Value::from(file.clone()))));
    }
    edit(&mut map);
    let index = json!({"metadata": {}, "weight_map": map});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    dir
}

#[test]
fn shards() {
    assert_same_bits("shards", &logits(&try_load(sharded(|_| {}).path()).unwrap(), "llama"), &plain("llama"));
}

#[test]
fn an_index_may_not_leave_its_folder() {
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().join("model-0.safetensors").to_string_lossy().into_owned();
    for file in [
        "../model-0.safetensors",
        "sub/../model-0.safetensors",
        "./model-0.safetensors",
        "..",
        ".",
        "",
        "a\\b",
        &absolute,
    ] {
        let dir = sharded(|map| map["model.norm.weight"] = file.into());
        let error = try_load(dir.path()).unwrap_err();
        assert!(matches!(error, Error::BadIndex { .. }), "{file}: {error}");
    }
    let swapped = sharded(|map| map["model.norm.weight"] = "model-0.safetensors".into());
    assert!(matches!(try_load(swapped.path()), Err(Error::BadIndex { .. })));
    let absent = sharded(|map| map["model.norm.weight"] = "model-9.safetensors".into());
    assert!(matches!(try_load(absent.path()), Err(Error::Files(_))));
    let number = sharded(|map| map["model.norm.weight"] = 7.into());
    assert!(matches!(try_load(number.path()), Err(Error::BadKey { .. })));
    let nul = sharded(|map| map["model.norm.weight"] = "model-0\0.safetensors".into());
    let error = try_load(nul.path()).unwrap_err();
    assert!(matches!(error, Error::BadIndex { .. }), "{error}");
    // The same tensor in two files: which of them is it?
    let twice = sharded(|_| ());
    let index = twice.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(
        &index,
        text.replacen(r#""weight_map":{"#, r#""weight_map":{"model.norm.weight":"model-0.safetensors","#, 1),
    )
    .unwrap();
    let error = try_load(twice.path()).unwrap_err();
    assert!(error.to_string().contains("`model.norm.weight` appears twice"), "{error}");
}

#[test]
fn sizes_that_cannot_be() {
    for (name, keys) in [
        ("gpt2", ["n_embd", "n_head", "n_layer", "n_positions", "vocab_size"]),
        ("llama", ["hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings", "vocab_size"]),
    ] {
        for key in keys {
            refused(&Pieces::of(name).without(key), &["config.json", key, "missing"]);
            for value in [json!(0), json!(-1), json!(1.5), json!("64"), json!(1u64 << 29), json!(u64::MAX)] {
                refused(&Pieces::of(name).with(key, value.clone()), &["config.json", key, &value.to_string()]);
            }
        }
        // Sizes that pass alone but contradict the tensors: found before anything of that size is allocated.
        for key in [keys[0], keys[4]] {
            let error = refused(&Pieces::of(name).with(key, 1u64 << 28), &["expected [", "shape ["]);
            assert!(matches!(error, Error::Files(_)));
        }
    }
    refused(&Pieces::of("gpt2").with("n_layer", 65_536), &["n_layer", "65535"]);
    refused(&Pieces::of("gpt2").with("n_layer", 4), &["h.3.", "missing"]);
    refused(&Pieces::of("gpt2").with("n_layer", 2), &["unexpected", "transformer.h.2."]);
    refused(&Pieces::of("gpt2").with("n_head", 5), &["n_head", "divisor"]);
    refused(&Pieces::of("llama").with("num_key_value_heads", 3), &["num_key_value_heads", "divisor"]);
    refused(&Pieces::of("llama").with("head_dim", 15), &["head_dim", "even"]);
    refused(
        &Pieces::of("llama").without("head_dim").with("num_attention_heads", 6),
        &["num_attention_heads", "divisor"],
    );
    refused(&Pieces::of("gpt2").with("layer_norm_epsilon", 0.0), &["layer_norm_epsilon"]);
    refused(&Pieces::of("gpt2").with("n_inner", 100), &["c_fc", "[64, 100]"]);
}

#[test]
fn what_is_unknown_is_named() {
    refused(&Pieces::of("gpt2").with("activation_function", "mish"), &["activation_function", "mish", "gelu_new"]);
    refused(&Pieces::of("llama").with("hidden_act", "quick_gelu"), &["hidden_act", "quick_gelu"]);
    refused(&Pieces::of("llama").with("model_type", "mamba"), &["model_type", "mamba", "gpt2", "llama"]);
    refused(&Pieces::of("llama").without("model_type"), &["model_type"]);
    refused(&Pieces::of("gpt2").with("quantization_config", json!({"bits": 4})), &["quantization_config"]);
    refused(&Pieces::of("gpt2").with("add_cross_attention", true), &["add_cross_attention"]);
    refused(&Pieces::of("gpt2").with("scale_attn_weights", "yes"), &["scale_attn_weights", "true or false"]);
}

#[test]
fn weights_that_cannot_be() {
    let missing = Pieces::of("gpt2").map(|n, x| (!n.ends_with("h.1.ln_2.bias")).then_some((n, x)));
    assert!(matches!(refused(&missing, &["h.1.ln_2.bias"]), Error::MissingWeight { .. }));
    let extra = Pieces::of("llama")
        .plus("model.layers.0.self_attn.q_norm.weight", Tensor::ones(16, DType::F32, &Device::Cpu).unwrap());
    assert!(matches!(refused(&extra, &["layers.0.self_attn.q_norm.weight"]), Error::UnexpectedTensors { .. }));
    let twice = Pieces::of("gpt2").plus("ln_f.bias", Tensor::ones(64, DType::F32, &Device::Cpu).unwrap());
    assert!(matches!(refused(&twice, &["ln_f.bias"]), Error::UnexpectedTensors { .. }));
    let bias = Pieces::of("llama").with("attention_bias", true);
    refused(&bias, &["q_proj.bias", "missing"]);
    for bad in [f32::NAN, f32::INFINITY] {
        let spoilt = Pieces::of("gpt2").map(|n, x| {
            let x = if n.ends_with("h.2.mlp.c_fc.bias") { (x * f64::from(bad)).unwrap() } else { x };
            Some((n, x))
        });
        refused(&spoilt, &["h.2.mlp.c_fc.bias", "finite"]);
    }
    let turned = Pieces::of("llama").map(|n, x| {
        let x = if n.ends_with("1.mlp.up_proj.weight") { x.t().unwrap().contiguous().unwrap() } else { x };
        Some((n, x))
    });
    refused(&turned, &["up_proj", "[64, 160]", "[160, 64]"]);
    let integers = Pieces::of("gpt2").map(|n, x| Some((n, x.to_dtype(DType::I64).unwrap())));
    refused(&integers, &["I64"]);
}

#[test]
fn folders_that_are_no_models() {
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(try_load(empty.path()), Err(Error::Io { .. })));
    assert!(matches!(try_load(&empty.path().join("absent")), Err(Error::NotAModel { .. })));
    for (text, word) in [("{", "JSON"), ("[1, 2]", "object"), ("", "JSON")] {
        std::fs::write(empty.path().join("config.json"), text).unwrap();
        assert!(try_load(empty.path()).unwrap_err().to_string().contains(word));
    }
    std::fs::write(empty.path().join("config.json"), Pieces::of("gpt2").config.to_string()).unwrap();
    assert!(matches!(try_load(empty.path()), Err(Error::NotAModel { .. })));
    std::fs::write(empty.path().join("model.safetensors"), [255u8; 64]).unwrap();
    assert!(matches!(try_load(empty.path()), Err(Error::Files(_))));
}
