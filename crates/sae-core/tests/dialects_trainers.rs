//! Llama Scope and dictionary_learning: what their configurations change, and what is refused.

mod common;

use candle_core::{Device, Tensor};
use common::error;
use sae_core::formats::{OpenOptions, open};
use sae_core::{Dictionary, Error, LoadOptions, Result, SparseCoder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tensor_files::SafetensorsFile;

const LLAMA: &str = "Llama3_1-8B-Base-L3R-8x";
const TRAINER: &str = "resid_post_layer_3/trainer_0";

fn golden(name: &str) -> PathBuf {
    common::golden("dialects").join(name)
}

fn expected(name: &str, tensor: &str) -> Tensor {
    SafetensorsFile::open(golden(name).join("expected.safetensors")).unwrap().load_f32(tensor).unwrap()
}

fn factor(name: &str) -> f32 {
    let meta: Value = serde_json::from_slice(&std::fs::read(golden(name).join("meta.json")).unwrap()).unwrap();
    meta["norm_scaling_factor"].as_f64().unwrap() as f32
}

fn acts(dictionary: &Dictionary, name: &str) -> Tensor {
    dictionary.encode(&expected(name, "x")).unwrap().to_dense().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() { copy(&path, &to) } else { std::fs::copy(&path, &to).map(drop).unwrap() }
    }
}

/// Opens a copy of a fixture's folder whose configuration was edited.
fn edited(name: &str, path: &str, config: &str, edit: impl Fn(&mut Value)) -> (TempDir, Result<Dictionary>) {
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(name).join("files").join(path), dir.path());
    let file = dir.path().join(config);
    let mut keys: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    edit(&mut keys);
    std::fs::write(&file, keys.to_string()).unwrap();
    let opened = open(dir.path(), &OpenOptions::default());
    (dir, opened)
}

#[track_caller]
fn refused((dir, opened): (TempDir, Result<Dictionary>), words: &[&str]) {
    let error = opened.expect_err("it was opened").to_string();
    for word in words.iter().copied().chain([&*dir.path().to_string_lossy()]) {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn without_a_release_the_factor_is_the_files_own() {
    let path = golden("llama_scope").join("files").join(LLAMA);
    let with = |factor| open(&path, &OpenOptions { norm_scaling_factor: factor, ..OpenOptions::default() }).unwrap();
    let x = expected("llama_scope", "x");
    let (said, given) = (with(None), with(Some(factor("llama_scope"))));
    assert!(error(&acts(&said, "llama_scope"), &acts(&given, "llama_scope")) < 1e-6);
    assert!(error(&said.forward(&x).unwrap().x_hat, &given.forward(&x).unwrap().x_hat) < 1e-6);
    // Another factor is another SAE.
    assert!(error(&acts(&with(Some(0.5)), "llama_scope"), &acts(&given, "llama_scope")) > 0.1);
}

#[test]
fn saelens_leaves_the_decoders_norms_out_and_so_can_we() {
    let name = "llama_scope_decoder_norms";
    let path = golden(name).join("files").join(LLAMA);
    let options = |ignore_keys: &[&str]| OpenOptions {
        norm_scaling_factor: Some(factor(name)),
        load: LoadOptions {
            ignore_keys: ignore_keys.iter().map(|key| (*key).to_owned()).collect(),
            ..LoadOptions::default()
        },
        ..OpenOptions::default()
    };
    let without = open(&path, &options(&["sparsity_include_decoder_norm"])).unwrap();
    assert!(error(&acts(&without, name), &expected(name, "acts")) < 1e-5);
    let with = open(&path, &options(&[])).unwrap();
    assert!(error(&acts(&with, name), &expected(name, "acts")) > 0.1);
    // With rows of norm 1 codes are the publisher's.
    let folded = with.fold_w_dec_norm().unwrap();
    let publisher = expected(name, "publisher.acts");
    assert!(error(&acts(&folded, name), &publisher) < 1e-5);
}

#[test]
fn llama_scopes_configurations_must_agree_with_the_weights() {
    let edited = |key: &'static str, value: Value| {
        edited("llama_scope", LLAMA, "hyperparams.json", |keys| keys[key] = value.clone())
    };
    refused(edited("d_model", json!(17)), &["d_model", "16", "17"]);
    refused(edited("expansion_factor", json!(4)), &["expansion_factor", "48", "64"]);
    refused(edited("act_fn", json!("relu")), &["act_fn", "jumprelu", "relu"]);
    refused(edited("use_glu_encoder", json!(true)), &["use_glu_encoder"]);
    refused(edited("hook_point_out", json!("blocks.3.hook_mlp_out")), &["hook_point_out", "transcoders"]);
    refused(edited("norm_activation", json!("token-wise")), &["norm_activation", "token-wise"]);
    refused(edited("dataset_average_activation_norm", json!({"in": 0.0})), &["dataset_average_activation_norm"]);
    refused(edited("jump_relu_threshold", json!(-1.0)), &["jump_relu_threshold", "-1"]);
    refused(edited("jump_relu_threshold", Value::Null), &["jump_relu_threshold"]);
    refused(edited("use_decoder_bias", json!(false)), &["decoder.bias"]);
    let (_dir, shifted) = edited("apply_decoder_bias_to_pre_encoder", json!(true));
    assert!(error(&acts(&shifted.unwrap(), "llama_scope"), &expected("llama_scope", "acts")) > 0.01);
}

#[test]
fn a_tensor_that_is_not_known_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    copy(&golden("llama_scope").join("files").join(LLAMA), dir.path());
    let file = dir.path().join("checkpoints/final.safetensors");
    let held = SafetensorsFile::open(&file).unwrap();
    let mut tensors: Vec<(String, Tensor)> =
        held.names().into_iter().map(|n| (n.clone(), held.load(&n).unwrap())).collect();
    tensors.push(("encoder_glu.weight".into(), Tensor::ones((48, 16), candle_core::DType::F32, &Device::Cpu).unwrap()));
    tensor_files::save_safetensors(&file, &tensors, None).unwrap();
    let opened = open(dir.path(), &OpenOptions::default());
    assert!(
        matches!(&opened, Err(Error::UnknownTensors { names, .. }) if names == &["encoder_glu.weight"]),
        "{opened:?}"
    );
}

#[test]
fn rows_of_norm_one_are_a_fold() {
    for name in ["dictionary_learning_auto_encoder", "dictionary_learning_gated"] {
        let sae = open(golden(name).join("files").join(TRAINER), &OpenOptions::default()).unwrap();
        let folded = sae.fold_w_dec_norm().unwrap();
        assert!(error(&acts(&folded, name), &expected(name, "normalised.acts")) < 1e-5, "{name}");
    }
}

#[test]
fn dictionary_learnings_configurations_must_agree_with_the_weights() {
    let edited =
        |name: &str, edit: fn(&mut Value)| edited(&format!("dictionary_learning_{name}"), TRAINER, "config.json", edit);
    refused(edited("top_k", |keys| keys["trainer"]["k"] = json!(7)), &["trainer.k", "6", "7"]);
    refused(edited("top_k", |keys| keys["trainer"]["dict_size"] = json!(64)), &["trainer.dict_size", "48", "64"]);
    refused(
        edited("gated", |keys| keys["trainer"]["activation_dim"] = json!(8)),
        &["trainer.activation_dim", "16", "8"],
    );
    refused(
        edited("top_k", |keys| keys["trainer"]["dict_class"] = json!("IdentityDict")),
        &["trainer.dict_class", "IdentityDict", "BatchTopKSAE"],
    );
    refused(
        edited("gated", |keys| drop(keys["trainer"].as_object_mut().unwrap().remove("dict_class"))),
        &["trainer.dict_class"],
    );
    refused(edited("gated", |keys| *keys = json!({"buffer": {}})), &["trainer"]);
    // A class whose tensors these are not: nothing is taken for something else.
    refused(edited("gated", |keys| keys["trainer"]["dict_class"] = json!("AutoEncoder")), &["r_mag", "mag_bias"]);
    refused(edited("jump_relu", |keys| keys["trainer"]["dict_class"] = json!("AutoEncoderTopK")), &["W_enc"]);
}

#[test]
fn modules_name_the_hook() {
    let hook = |module: Value| {
        let opened = edited("dictionary_learning_top_k", TRAINER, "config.json", |keys| {
            keys["trainer"]["submodule_name"] = module.clone()
        });
        opened.1.unwrap().metadata().hook_name.clone()
    };
    assert_eq!(hook(json!("mlp_out_layer_3")).as_deref(), Some("blocks.3.hook_mlp_out"));
    assert_eq!(hook(json!("attention_out_layer_3")).as_deref(), Some("blocks.3.hook_attn_out"));
    assert_eq!(hook(Value::Null).as_deref(), Some("blocks.3.hook_resid_post"));
    assert_eq!(hook(json!("router_layer_3")), None);
}
