//! SAELens folders: what is saved comes back, old configurations are understood, and every lie is named.

mod common;
#[path = "common/copy.rs"]
mod copies;
#[path = "../../tensor-files/tests/crash/mod.rs"]
mod crash;

use candle_core::{Device, Tensor};
use common::{exact, files, flat, golden, load_on};
use copies::copy;
use sae_core::{
    Activation, Error, ExcludeSpecialTokens, InputShape, LoadOptions, Normalization, Sae, SaeParts, SeparatorToken,
    SeqposSlice, SparseCoder,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use tensor_files::{SafetensorsFile, save_safetensors};

fn edit(folder: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = folder.join("cfg.json");
    let mut config: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
}

fn edit_weights(folder: &Path, change: impl FnOnce(&mut Vec<(String, Tensor)>)) {
    let path = folder.join("sae_weights.safetensors");
    let file = SafetensorsFile::open(&path).unwrap();
    let mut tensors: Vec<(String, Tensor)> =
        file.names().into_iter().map(|name| (name.clone(), file.load(&name).unwrap())).collect();
    change(&mut tensors);
    save_safetensors(&path, &tensors, None).unwrap();
}

fn refused(folder: &Path, says: &[&str]) -> Error {
    let error = load_on(exact(), folder).unwrap_err();
    for part in says {
        assert!(error.to_string().contains(part), "`{error}` does not say `{part}`");
    }
    error
}

fn with_config(name: &str, change: impl FnOnce(&mut Map<String, Value>), says: &[&str]) -> Error {
    let (_dir, folder) = copy(name);
    edit(&folder, change);
    refused(&folder, &[says, &["cfg.json"]].concat())
}

fn with_weights(name: &str, change: impl FnOnce(&mut Vec<(String, Tensor)>), says: &[&str]) -> Error {
    let (_dir, folder) = copy(name);
    edit_weights(&folder, change);
    refused(&folder, &[says, &["sae_weights.safetensors"]].concat())
}

fn put(key: &'static str, value: Value) -> impl FnOnce(&mut Map<String, Value>) {
    move |config| {
        config.insert(key.into(), value);
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn saved_and_loaded_is_the_same_to_the_bit() {
    for name in &common::golden_saes() {
        let sae = load_on(exact(), golden(name)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        if matches!(sae.activation(), Activation::BatchTopK { .. }) {
            // SAELens trains these, and opens none of them for inference.
            assert!(matches!(sae.save(dir.path()).unwrap_err(), Error::CannotSave { .. }), "{name}");
            continue;
        }
        sae.save(dir.path().join("a")).unwrap();
        let again = load_on(exact(), dir.path().join("a")).unwrap();
        assert_eq!(files(&dir.path().join("a")), ["cfg.json", "sae_weights.safetensors"]);
        let width = sae.d_in();
        let x = Tensor::from_vec(common::gaussian(5 * width, 1), (5, width), &Device::Cpu).unwrap();
        // A missing norm factor stays missing; taken for 1 it is the same SAE.
        let usable = |sae: &Sae| match sae.normalization() {
            Normalization::ExpectedAverageOnlyIn => sae.fold_norm_factor(1.0).unwrap(),
            _ => sae.clone(),
        };
        let (one, two) = (usable(&sae).forward(&x).unwrap(), usable(&again).forward(&x).unwrap());
        assert_eq!((one.codes, flat(&one.x_hat)), (two.codes, flat(&two.x_hat)), "{name}");
        assert_eq!(flat(&sae.w_enc_t().unwrap()), flat(&again.w_enc_t().unwrap()));
        assert_eq!(sae.w_skip().unwrap().map(|w| flat(&w)), again.w_skip().unwrap().map(|w| flat(&w)));
        assert_eq!((sae.architecture(), sae.d_out()), (again.architecture(), again.d_out()));
        let mut metadata = again.metadata().clone();
        if name.starts_with("legacy") {
            // Says now that it has the new layout.
            assert_eq!(metadata.other.remove("sae_lens_version"), Some(json!("6.54.12")));
        }
        assert_eq!(sae.metadata(), &metadata, "{name}");
        assert_eq!(sae.normalization(), again.normalization());
        assert_eq!(sae.act_shape(), again.act_shape());
        assert_eq!(sae.activation(), again.activation());
    }
}

#[test]
fn sparsity_and_every_piece_of_metadata_round_trip() {
    let (_dir, folder) = copy("topk_rescaled");
    let metadata = json!({
        "sae_lens_version": "6.20.0", "model_name": "gpt2", "hook_name": "blocks.1.attn.hook_z", "hook_head_index": 3,
        "context_size": 64, "prepend_bos": false, "seqpos_slice": [5, -5, 2], "exclude_special_tokens": [50256],
        "sequence_separator_token": null, "disable_concat_sequences": true,
        "model_from_pretrained_kwargs": {"center_writing_weights": true}, "dataset_path": "d", "neuronpedia_id": "n",
        "l0": 24.5, "something_new": {"kept": ["as", 1, "was"]},
    });
    edit(&folder, put("metadata", metadata.clone()));
    let logs = Tensor::from_vec(common::gaussian(96, 5), 96, &Device::Cpu).unwrap();
    save_safetensors(folder.join("sparsity.safetensors"), &[("sparsity", logs.clone())], None).unwrap();
    let sae = load_on(exact(), &folder).unwrap();
    assert_eq!(sae.sparsity().unwrap(), flat(&logs));
    assert_eq!(sae.hook_name().unwrap(), "blocks.1.attn.hook_z");
    let m = sae.metadata();
    assert_eq!(m.hook_head_index, Some(3));
    assert_eq!((m.context_size, m.prepend_bos, m.disable_concat_sequences), (Some(64), Some(false), Some(true)));
    assert_eq!(m.seqpos_slice, Some(SeqposSlice { start: Some(5), stop: Some(-5), step: Some(2) }));
    assert_eq!(m.exclude_special_tokens, Some(ExcludeSpecialTokens::Ids(vec![50256])));
    assert_eq!(m.sequence_separator_token, Some(SeparatorToken::Nothing));
    assert_eq!(m.other["something_new"], json!({"kept": ["as", 1, "was"]}));
    let to = folder.join("again");
    sae.save(&to).unwrap();
    assert_eq!(load_on(exact(), &to).unwrap().sparsity(), sae.sparsity());
    let saved: Value = serde_json::from_slice(&std::fs::read(to.join("cfg.json")).unwrap()).unwrap();
    assert_eq!(saved["metadata"], metadata);
    // Overwritten by an SAE without sparsity, the old sparsity does not stay behind.
    load_on(exact(), golden("gated")).unwrap().save(&to).unwrap();
    assert_eq!(files(&to), ["cfg.json", "sae_weights.safetensors"]);
    assert_eq!(load_on(exact(), &to).unwrap().sparsity(), None);
}

#[test]
fn an_input_shift_that_saelens_cannot_hold_is_not_saved() {
    let parts = SaeParts::new(zeros(&[2, 3]), vec![0.0; 3], zeros(&[3, 2]), vec![1.0, 2.0]);
    let dir = tempfile::tempdir().unwrap();
    let other = Sae::on(exact(), SaeParts { input_shift: Some(vec![1.0, 2.5]), ..parts.clone() }).unwrap();
    assert!(other.save(dir.path()).unwrap_err().to_string().contains("an input shift other than b_dec"));
    assert!(files(dir.path()).is_empty());
    Sae::on(exact(), SaeParts { input_shift: Some(vec![1.0, 2.0]), ..parts }).unwrap().save(dir.path()).unwrap();
}

#[test]
fn an_old_configuration_becomes_what_saelens_makes_of_it() {
    let folder = golden("legacy_res_jb_style");
    let expected: Value = serde_json::from_slice(&std::fs::read(folder.join("cfg_as_loaded.json")).unwrap()).unwrap();
    let sae = load_on(exact(), &folder).unwrap();
    assert_eq!(json!(sae.activation().architecture()), expected["architecture"]);
    assert_eq!((json!(sae.d_in()), json!(sae.d_sae())), (expected["d_in"].clone(), expected["d_sae"].clone()));
    assert_eq!(json!(sae.input_shift().is_some()), expected["apply_b_dec_to_input"]);
    assert_eq!(sae.normalization(), Normalization::None);
    assert_eq!(sae.act_shape(), InputShape::Flat);
    let (m, e) = (sae.metadata(), &expected["metadata"]);
    assert_eq!(json!(m.model_name), e["model_name"]);
    assert_eq!(json!(m.hook_name), e["hook_name"]);
    assert_eq!(json!(m.hook_head_index), e["hook_head_index"]);
    assert_eq!(json!(m.context_size), e["context_size"]);
    assert_eq!(json!(m.prepend_bos), e["prepend_bos"]);
    assert_eq!(json!(m.dataset_path), e["dataset_path"]);
    assert_eq!(m.other["expansion_factor"], json!(3), "keys without a meaning are kept");
}

fn legacy(changes: Value) -> sae_core::Result<Sae> {
    let (_dir, folder) = copy("legacy_res_jb_style");
    edit(&folder, |config| config.extend(changes.as_object().unwrap().clone()));
    load_on(exact(), &folder)
}

#[test]
fn migration_rules() {
    let topk = json!({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}});
    let expected = Activation::TopK { k: 5, rescale_by_decoder_norm: false };
    assert_eq!(legacy(topk).unwrap().activation(), &expected);
    let topk = json!({"architecture": "topk", "activation_fn_kwargs": {"k": 5}});
    assert_eq!(legacy(topk).unwrap().activation(), &expected);
    let z = legacy(json!({"hook_point": "blocks.0.attn.hook_z"})).unwrap();
    assert_eq!((z.act_shape(), z.hook_name().unwrap()), (InputShape::PerHead, "blocks.0.attn.hook_z"));
    for (value, mode) in [
        (json!(true), Normalization::ExpectedAverageOnlyIn),
        (json!(false), Normalization::None),
        (Value::Null, Normalization::None),
        (json!("layer_norm"), Normalization::LayerNorm),
    ] {
        assert_eq!(legacy(json!({"normalize_activations": value})).unwrap().normalization(), mode);
    }
    assert_eq!(legacy(json!({"prepend_bos": false})).unwrap().metadata().prepend_bos, Some(false));
    assert!(legacy(json!({"apply_b_dec_to_input": false})).unwrap().input_shift().is_none());
    assert!(legacy(json!({"sae_lens_version": "5.9.1"})).is_ok());
    assert!(legacy(json!({"sae_lens_version": "6.0.0.dev3"})).is_ok());
    let says = |changes, part: &str| {
        let error = legacy(changes).unwrap_err().to_string();
        assert!(error.contains(part), "`{error}` does not say `{part}`");
    };
    says(json!({"activation_fn": "tanh-relu"}), "key `activation_fn` is \"tanh-relu\", expected relu, or topk");
    says(json!({"activation_fn": "topk"}), "topk without k");
    says(json!({"sae_lens_version": "new"}), "key `sae_lens_version` is \"new\"");
    // With a current version the old names are unknown keys.
    says(json!({"sae_lens_version": "6.0.0-rc.1"}), "key `architecture` is missing");
    says(json!({"sae_lens_version": "6.1.0", "architecture": "standard"}), "unknown keys [\"b_dec_init_method\"");
}

#[test]
fn scaling_factor_of_ones_is_dropped_others_need_the_flag() {
    let factor = |values: Vec<f32>| {
        move |t: &mut Vec<(String, Tensor)>| {
            t.push(("scaling_factor".into(), Tensor::from_vec(values, 96, &Device::Cpu).unwrap()));
        }
    };
    let (_dir, folder) = copy("legacy_res_jb_style");
    let plain = load_on(exact(), &folder).unwrap();
    edit_weights(&folder, factor(vec![1.0; 96]));
    assert_eq!(flat(load_on(exact(), &folder).unwrap().w_dec()), flat(plain.w_dec()));
    let (_dir, folder) = copy("legacy_res_jb_style");
    let mut values = vec![1.0; 96];
    values[7] = 2.5;
    edit_weights(&folder, factor(values.clone()));
    let error = refused(&folder, &["`scaling_factor` is 2.5 at element 7", "finetuning_scaling_factor"]);
    assert!(matches!(error, Error::ScalingFactor { index: 7, .. }));
    // SAELens 5 with the flag: x_hat = (f * factor) W_dec + b_dec.
    edit(&folder, put("finetuning_scaling_factor", json!(true)));
    let tuned = load_on(exact(), &folder).unwrap();
    let x = Tensor::from_vec(common::gaussian(20 * 32, 2), (20, 32), &Device::Cpu).unwrap();
    let codes = tuned.encode(&x).unwrap();
    assert_eq!(codes, plain.encode(&x).unwrap());
    let factor = Tensor::from_vec(values, (1, 96), &Device::Cpu).unwrap();
    let expected = plain.decode_dense(&codes.to_dense().unwrap().broadcast_mul(&factor).unwrap()).unwrap();
    assert!(common::error(&tuned.decode(&codes).unwrap(), &expected) < 1e-6);
}

#[test]
fn a_training_folder_opens_when_its_architecture_is_known() {
    let (_dir, folder) = copy("standard");
    edit(&folder, |config| {
        config.extend(json!({"l1_coefficient": 1.0, "decoder_init_norm": 0.1}).as_object().unwrap().clone());
    });
    load_on(exact(), &folder).unwrap();
}

#[test]
fn other_types_are_not_read_as_an_sae() {
    for name in common::OTHERS {
        let error = load_on(exact(), golden(name)).unwrap_err();
        assert!(matches!(error, Error::NotAnSae { .. }), "{error}");
        assert!(error.to_string().contains(&format!("`{name}`")) && error.to_string().contains("Dictionary::load"));
    }
}

#[test]
fn configurations_that_lie() {
    let (_dir, folder) = copy("standard");
    std::fs::remove_file(folder.join("cfg.json")).unwrap();
    assert!(matches!(refused(&folder, &["cfg.json", "No such file"]), Error::Io { .. }));
    for (text, says) in
        [("", "EOF"), ("{\"d_in\": ", "EOF"), ("[1]", "holds an array"), ("\u{1}\u{2}", "expected value")]
    {
        std::fs::write(folder.join("cfg.json"), text).unwrap();
        assert!(matches!(refused(&folder, &["not a JSON object", says]), Error::NotJson { .. }));
    }
    std::fs::write(folder.join("cfg.json"), "[".repeat(100_000)).unwrap();
    refused(&folder, &["recursion limit"]);
    let remove = |key: &'static str| move |config: &mut Map<String, Value>| drop(config.remove(key));
    with_config("standard", remove("architecture"), &["key `architecture` is missing"]);
    with_config("standard", remove("d_in"), &["key `d_in` is missing, expected a whole number"]);
    with_config("topk", remove("k"), &["key `k` is missing"]);
    for value in [json!(0), json!(-3), json!(1.5), json!("32"), json!(5_000_000_000u64), json!(1e300)] {
        with_config("standard", put("d_in", value), &["key `d_in` is", "expected a whole number from 1 to 4294967295"]);
    }
    for k in [json!(0), json!(97), json!("8")] {
        with_config("topk", put("k", k), &["key `k` is", "expected a whole number from 1 to d_sae=96"]);
    }
    with_config("topk", put("rescale_acts_by_decoder_norm", json!(1)), &["expected true or false"]);
    let error = with_config("standard", put("architecture", json!("crosscoder")), &["`crosscoder`"]);
    assert!(error.to_string().contains("supported are standard, topk, abstopk, "), "{error}");
    assert!(matches!(error, Error::UnsupportedArchitecture { .. }));
    let says = "key `normalize_activations` is \"rms\", expected none, expected_average_only_in";
    with_config("standard", put("normalize_activations", json!("rms")), &[says]);
    with_config("standard", put("reshape_activations", json!("hook_q")), &["`reshape_activations` is \"hook_q\""]);
    with_config("standard", put("dtype", json!("int8")), &["key `dtype` is \"int8\", expected float64, float32"]);
    with_config("standard", put("tied_weights", json!(true)), &["unknown keys [\"tied_weights\"]", "ignore_keys"]);
    let metadata = |key: &'static str, value: Value| {
        move |config: &mut Map<String, Value>| {
            config["metadata"].as_object_mut().unwrap().insert(key.into(), value);
        }
    };
    with_config("standard", metadata("hook_name", json!(7)), &["key `metadata.hook_name` is 7, expected a string"]);
    with_config("standard", metadata("seqpos_slice", json!([1, 2, 3, 4])), &["`metadata.seqpos_slice` is [1,2,3,4]"]);
    with_config("standard", metadata("seqpos_slice", json!([1, 2, 0])), &["`metadata.seqpos_slice`"]);
    with_config("standard", metadata("context_size", json!(-1)), &["`metadata.context_size` is -1"]);
    with_config("standard", metadata("sequence_separator_token", json!("pad")), &["\"bos\", \"eos\", \"sep\""]);
    with_config("standard", metadata("exclude_special_tokens", json!([-1])), &["true, false or a list of ids"]);
}

#[test]
fn an_unknown_key_can_be_declared_harmless() {
    let (_dir, folder) = copy("standard");
    edit(&folder, put("favorite_color", json!("blue")));
    assert!(matches!(refused(&folder, &["favorite_color"]), Error::UnknownKeys { .. }));
    let options = LoadOptions { ignore_keys: vec!["favorite_color".into()], ..LoadOptions::default() };
    Sae::load_with(&folder, &options).unwrap();
}

#[test]
fn weights_that_lie() {
    let (_dir, folder) = copy("standard");
    let path = folder.join("sae_weights.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 5, 60, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        refused(&folder, &["sae_weights.safetensors", "not a valid safetensors file"]);
    }
    std::fs::remove_file(&path).unwrap();
    refused(&folder, &["sae_weights.safetensors", "No such file"]);
    with_weights("standard", |t| t.retain(|(name, _)| name != "b_enc"), &["tensor `b_enc` is missing"]);
    with_weights("gated", |t| t.retain(|(name, _)| name != "r_mag"), &["tensor `r_mag` is missing"]);
    with_weights("jumprelu", |t| t.retain(|(name, _)| name != "threshold"), &["tensor `threshold` is missing"]);
    let replace = |name: &'static str, with: Tensor| {
        move |t: &mut Vec<(String, Tensor)>| t.iter_mut().filter(|(n, _)| n == name).for_each(|e| e.1 = with.clone())
    };
    with_weights("standard", replace("W_enc", zeros(&[96, 32])), &["`W_enc` has shape [96, 32], expected [32, 96]"]);
    with_weights("standard", replace("b_dec", zeros(&[31])), &["`b_dec` has shape [31], expected [32]"]);
    let mut values = vec![0f32; 96 * 32];
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        values[100] = bad;
        let tensor = Tensor::from_vec(values.clone(), (96, 32), &Device::Cpu).unwrap();
        with_weights(
            "standard",
            replace("W_dec", tensor),
            &["`W_dec` holds", "at element 100; weights must be finite"],
        );
    }
    let ids = Tensor::zeros(96, candle_core::DType::I64, &Device::Cpu).unwrap();
    with_weights("standard", replace("b_enc", ids), &["tensor `b_enc` holds I64"]);
    let extra = |t: &mut Vec<(String, Tensor)>| {
        t.extend([("threshold".into(), zeros(&[96])), ("W_skip".into(), zeros(&[2]))]);
    };
    with_weights("standard", extra, &["tensors [\"W_skip\", \"threshold\"] do not belong to architecture `standard`"]);
    let (_dir, folder) = copy("standard");
    edit(&folder, put("d_in", json!(33)));
    refused(&folder, &["`b_dec` has shape [32], expected [33]"]);
    edit(&folder, put("d_in", json!(4_000_000_000u64)));
    refused(&folder, &["`b_dec` has shape [32], expected [4000000000]"]);
}

#[test]
fn a_save_that_fails_leaves_no_litter_and_no_mixture() {
    let dir = tempfile::tempdir().unwrap();
    let old = load_on(exact(), golden("gated")).unwrap();
    old.save(dir.path()).unwrap();
    let before = std::fs::read(dir.path().join("sae_weights.safetensors")).unwrap();
    let names = |path: &Path| std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect::<BTreeSet<_>>();
    let expected = names(dir.path());
    // An SAE that cannot be expressed is refused before anything is touched.
    let parts = SaeParts::new(
        Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu).unwrap(),
        vec![0.; 2],
        Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu).unwrap(),
        vec![0.; 2],
    );
    let shifted = Sae::on(exact(), SaeParts { input_shift: Some(vec![1., 2.]), ..parts }).unwrap();
    assert!(shifted.save(dir.path()).is_err());
    assert_eq!(std::fs::read(dir.path().join("sae_weights.safetensors")).unwrap(), before);
    // Over an SAE of another kind: only the new one's files remain.
    load_on(exact(), golden("topk")).unwrap().save(dir.path()).unwrap();
    assert_eq!(names(dir.path()), expected);
    assert_eq!(load_on(exact(), dir.path()).unwrap().activation().architecture(), "topk");
    // A place that cannot be written: the error names it, and nothing appears.
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = old.save(file.join("sae")).unwrap_err().to_string();
    assert!(error.contains("file/sae"), "{error}");
}

#[test]
fn a_save_that_ends_at_any_step_leaves_no_sae_or_the_whole() {
    let load = |dir: &Path| load_on(exact(), dir.join("deep/sae"));
    let save = |dir: &Path| load_on(exact(), golden("gated")).unwrap().save(dir.join("deep/sae")).unwrap();
    crash::at_every_step(
        "a_save_that_ends_at_any_step_leaves_no_sae_or_the_whole",
        |_| {},
        save,
        |dir, finished| {
            let there = dir.join("deep/sae").exists();
            assert!(if there { load(dir).is_ok() } else { !finished });
            save(dir);
            assert_eq!(load(dir).unwrap().activation().architecture(), "gated");
            assert_eq!(crash::names(&dir.join("deep")), ["sae"]);
        },
    );
}

/// In the folder of the old one, which has a file of its own and one of somebody else.
#[test]
fn a_save_that_ends_at_any_step_leaves_the_old_sae_or_the_new_one() {
    let load = |dir: &Path| load_on(exact(), dir.join("sae")).unwrap();
    let save = |dir: &Path| load_on(exact(), golden("topk")).unwrap().save(dir.join("sae")).unwrap();
    crash::at_every_step(
        "a_save_that_ends_at_any_step_leaves_the_old_sae_or_the_new_one",
        |dir| {
            load_on(exact(), golden("gated")).unwrap().save(dir.join("sae")).unwrap();
            let sparsity = Tensor::zeros(load(dir).d_sae(), candle_core::DType::F32, &Device::Cpu).unwrap();
            save_safetensors(dir.join("sae/sparsity.safetensors"), &[("sparsity", sparsity)], None).unwrap();
            std::fs::write(dir.join("sae/README.md"), "mine").unwrap();
        },
        save,
        |dir, finished| {
            let found = load(dir);
            let state = (found.activation().architecture(), found.sparsity().is_some());
            assert!(state == ("topk", false) || !finished && state == ("gated", true), "{state:?}");
            save(dir);
            assert_eq!(load(dir).activation().architecture(), "topk");
            assert_eq!(std::fs::read_to_string(dir.join("sae/README.md")).unwrap(), "mine");
            assert_eq!(crash::names(dir), ["sae"]);
            assert_eq!(crash::names(&dir.join("sae")), ["README.md", "cfg.json", "sae_weights.safetensors"]);
        },
    );
}
