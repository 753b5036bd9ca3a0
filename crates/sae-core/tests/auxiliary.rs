//! What lies beside the weights: a factor or a whitening that changes the numbers is used or refused, never passed over; what changes no
//! number is never in the way.

mod common;
#[path = "common/copy.rs"]
mod copies;

use candle_core::{DType, Device, Tensor};
use common::{engines, error, flat, golden};
use copies::copy;
use sae_core::formats::{OpenOptions, open};
use sae_core::{Dictionary, Error, LoadOptions, Normalization, OpenNote, Precision, Sae, SaeParts, SparseCoder};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tensor_files::{SafetensorsFile, save_safetensors};

/// Its configuration says `expected_average_only_in`; `golden.safetensors` has SAELens' numbers as it is and folded by 1.7.
const UNFOLDED: &str = "standard_expected_average_only_in";
const FACTOR: f32 = 1.7;
const SCALER: &str = "activation_scaler.json";
const WHITENING: &str = "activation_whitening.safetensors";
const SPARSITY: &str = "sparsity.safetensors";

fn with_file(name: &str, file: &str, body: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let (dir, folder) = copy(name);
    std::fs::write(folder.join(file), body).unwrap();
    (dir, folder)
}

fn configured(folder: &Path, key: &str, value: Value) {
    let path = folder.join("cfg.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(&path, config.to_string()).unwrap();
}

fn expected(name: &str, tensor: &str) -> Tensor {
    SafetensorsFile::open(golden(name).join("golden.safetensors")).unwrap().load_f32(tensor).unwrap()
}

fn given(factor: f32) -> OpenOptions {
    OpenOptions::default().norm_scaling_factor(factor)
}

fn plainly(folder: &Path) -> Dictionary {
    open(folder, &OpenOptions::default()).unwrap()
}

fn codes(sae: &Dictionary, name: &str) -> Tensor {
    sae.encode(&expected(name, "x")).unwrap().to_dense().unwrap()
}

#[test]
fn the_factor_beside_the_weights_is_folded_on_every_engine_and_said() {
    let (_dir, folder) =
        with_file(UNFOLDED, SCALER, json!({"scaling_factor": FACTOR, "has_whitening": false}).to_string());
    for engine in engines() {
        let load = LoadOptions { engine, ..LoadOptions::default() };
        let doors = [
            open(&folder, &OpenOptions { load: load.clone(), ..OpenOptions::default() }).unwrap(),
            Dictionary::load_with(&folder, &load).unwrap(),
            Sae::load_with(&folder, &load).unwrap().into(),
        ];
        let rounds = engine.arithmetic().is_some_and(|a| a.precision() == Precision::Bf16);
        for sae in doors {
            assert_eq!((sae.engine(), sae.as_sae().unwrap().normalization()), (engine, Normalization::None));
            let off = error(&codes(&sae, UNFOLDED), &expected(UNFOLDED, "scaled.encode"));
            assert!(off < if rounds { 0.1 } else { 5e-5 }, "{engine}: {off:e}");
            let note = OpenNote::NormFactorFolded { factor: FACTOR, path: Some(folder.join(SCALER)) };
            assert_eq!(sae.metadata().notes, [note]);
        }
    }
    // The caller's own factor comes first, and both are named.
    let sae = open(&folder, &given(1.0)).unwrap();
    assert!(error(&codes(&sae, UNFOLDED), &expected(UNFOLDED, "encode")) < 5e-5);
    let notes: Vec<String> = sae.metadata().notes.iter().map(ToString::to_string).collect();
    assert!(notes[0].contains("norm factor 1 (given)") && notes[1].contains("1.7"), "{notes:?}");
    // Saved, the factor is in the weights and is not folded again.
    let to = folder.join("saved");
    plainly(&folder).save(&to).unwrap();
    assert_eq!(flat(&codes(&plainly(&to), UNFOLDED)), flat(&codes(&plainly(&folder), UNFOLDED)));
    assert!(plainly(&to).metadata().notes.is_empty());
}

/// Every way to use it: a missing factor would make each of them silently wrong.
#[test]
fn without_a_factor_every_use_is_an_error_that_says_where_one_comes_from() {
    let (_dir, null) = with_file(UNFOLDED, SCALER, r#"{"scaling_factor": null}"#);
    for folder in [golden(UNFOLDED), null] {
        let sae = Sae::load(&folder).unwrap();
        let x = expected(UNFOLDED, "x");
        let codes = sae.fold_norm_factor(1.0).unwrap().encode(&x).unwrap();
        let dense = codes.to_dense().unwrap();
        let uses = [
            sae.encode(&x).map(drop),
            sae.encode_dense(&x).map(drop),
            sae.encode_only(&x, &[0]).map(drop),
            sae.select(&[0]).unwrap().encode(&x).map(drop),
            sae.pre_acts(&x).map(drop),
            sae.forward(&x).map(drop),
            sae.decode(&codes).map(drop),
            sae.decode_dense(&dense).map(drop),
            sae.decoder_rows(&[0]).map(drop),
            sae.fold_w_dec_norm().unwrap().encode(&x).map(drop),
            sae.truncated(8).unwrap().encode(&x).map(drop),
        ];
        for (at, result) in uses.into_iter().enumerate() {
            let error = result.expect_err(&format!("use {at}"));
            assert!(matches!(error, Error::NormFactorMissing), "{at}: {error}");
            for word in
                ["activation_scaler.json", "norm_scaling_factor", "fold_norm_factor", "--norm-factor", "release"]
            {
                assert!(error.to_string().contains(word), "{error}: no {word}");
            }
        }
        sae.fold_norm_factor(FACTOR).unwrap().encode(&x).unwrap();
    }
    let (_dir, folder) = copy("matching_pursuit");
    configured(&folder, "normalize_activations", json!("expected_average_only_in"));
    let (pursuit, x) = (plainly(&folder), expected("matching_pursuit", "x"));
    assert!(matches!(pursuit.encode(&x), Err(Error::NormFactorMissing)));
    assert!(matches!(pursuit.decoder_rows(&[0]), Err(Error::NormFactorMissing)));
    std::fs::write(folder.join(SCALER), r#"{"scaling_factor": 1.7}"#).unwrap();
    let scaled = codes(&plainly(&folder), "matching_pursuit");
    assert_eq!(flat(&scaled), flat(&codes(&pursuit.fold_norm_factor(FACTOR).unwrap(), "matching_pursuit")));
}

#[test]
fn an_odd_scaler_is_an_error_where_its_factor_is_needed_and_a_note_where_not() {
    for (body, says) in [
        ("", "JSON"),
        ("[1.7]", "JSON"),
        ("{}", "missing"),
        (r#"{"scaling_factor": "1.7"}"#, "1.7"),
        (r#"{"scaling_factor": 0}"#, "0"),
        (r#"{"scaling_factor": -1.5}"#, "-1.5"),
        (r#"{"scaling_factor": 1e300}"#, "1e+300"),
        (r#"{"scaling_factor": NaN}"#, "JSON"),
    ] {
        let (_dir, folder) = with_file(UNFOLDED, SCALER, body);
        let error = open(&folder, &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains(SCALER) && error.contains(says), "{body}: {error}");
        let sae = open(&folder, &given(FACTOR)).unwrap();
        assert!(matches!(sae.metadata().notes[0], OpenNote::FileSkipped { .. }), "{body}");
        assert!(error_of_scaled(&sae) < 5e-5);
        let (_dir, folder) = with_file("standard", SCALER, body);
        let sae = plainly(&folder);
        assert!(sae.metadata().notes[0].to_string().contains(SCALER), "{body}");
        assert_eq!(flat(&codes(&sae, "standard")), flat(&codes(&plainly(&golden("standard")), "standard")));
    }
    // A factor that the configuration does not ask for is not applied, and this is said.
    let (_dir, folder) = with_file("standard", SCALER, r#"{"scaling_factor": 1.7}"#);
    let sae = plainly(&folder);
    assert!(matches!(sae.metadata().notes[..], [OpenNote::NormFactorUnused { factor: FACTOR, .. }]));
    assert_eq!(flat(&codes(&sae, "standard")), flat(&codes(&plainly(&golden("standard")), "standard")));
}

fn error_of_scaled(sae: &Dictionary) -> f64 {
    error(&codes(sae, UNFOLDED), &expected(UNFOLDED, "scaled.encode"))
}

#[test]
fn the_whitening_of_a_checkpoint_is_folded_and_one_that_is_missing_is_an_error() {
    let (_dir, folder) = copy("standard");
    configured(&folder, "normalize_activations", json!("covariance_whitening"));
    let error = open(&folder, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains(WHITENING) && error.contains("missing"), "{error}");
    let plain = Sae::load(golden("standard")).unwrap();
    let d = plain.d_in();
    let mean: Vec<f32> = common::gaussian(d, 3);
    let scale: Vec<f32> = (0..d).map(|i| 1.0 + i as f32 / d as f32).collect();
    let diagonal = |value: &dyn Fn(f32) -> f32| {
        let flat: Vec<f32> = (0..d * d).map(|i| if i % (d + 1) == 0 { value(scale[i / d]) } else { 0.0 }).collect();
        Tensor::from_vec(flat, (d, d), &Device::Cpu).unwrap()
    };
    let (matrix, inverse) = (diagonal(&|s| s), diagonal(&|s| 1.0 / s));
    let mean_tensor = Tensor::new(mean.as_slice(), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let tensors = [("mean", mean_tensor), ("matrix", matrix.clone()), ("inverse_matrix", inverse.clone())];
    save_safetensors(folder.join(WHITENING), &tensors, None).unwrap();
    let (sae, due) = (plainly(&folder), plain.fold_whitening(&mean, &matrix, &inverse).unwrap());
    assert_eq!(flat(&codes(&sae, "standard")), flat(&codes(&due.into(), "standard")));
    assert!(matches!(sae.metadata().notes[..], [OpenNote::WhiteningFolded { .. }]));
    std::fs::write(folder.join(WHITENING), b"no").unwrap();
    assert!(open(&folder, &OpenOptions::default()).unwrap_err().to_string().contains(WHITENING));
}

fn logs(values: Vec<f32>) -> Vec<(&'static str, Tensor)> {
    let len = values.len();
    vec![("sparsity", Tensor::from_vec(values, len, &Device::Cpu).unwrap())]
}

#[test]
fn frequencies_that_cannot_be_used_are_left_out_and_named() {
    let d_sae = plainly(&golden("standard")).d_sae();
    let ones = |dtype| Tensor::ones(d_sae, dtype, &Device::Cpu).unwrap();
    let mut one_nan = vec![-1.0; d_sae];
    one_nan[5] = f32::NAN;
    let odd = [
        ("[95]", logs(vec![-1.0; d_sae - 1])),
        ("NaN at element 5", logs(one_nan)),
        ("inf at element 0", logs(vec![f32::INFINITY; d_sae])),
        ("sparsity", vec![("frequencies", ones(DType::F32))]),
        ("I64", vec![("sparsity", ones(DType::I64))]),
    ];
    for (says, tensors) in odd {
        let (_dir, folder) = copy("standard");
        save_safetensors(folder.join(SPARSITY), &tensors, None).unwrap();
        let sae = plainly(&folder);
        let notes: Vec<String> = sae.metadata().notes.iter().map(ToString::to_string).collect();
        assert!(notes.len() == 1 && notes[0].contains(SPARSITY) && notes[0].contains(says), "{says}: {notes:?}");
        assert_eq!(sae.as_sae().unwrap().sparsity(), None);
        assert_eq!(flat(&codes(&sae, "standard")), flat(&codes(&plainly(&golden("standard")), "standard")));
    }
    for body in [&b""[..], b"no safetensors", &[0xff; 64]] {
        let (_dir, folder) = with_file("standard", SPARSITY, body);
        assert!(matches!(plainly(&folder).metadata().notes[..], [OpenNote::FileSkipped { .. }]));
    }
    let (_dir, folder) = copy("standard");
    std::fs::create_dir(folder.join(SPARSITY)).unwrap();
    assert!(matches!(plainly(&folder).metadata().notes[..], [OpenNote::FileSkipped { .. }]));
}

/// log10 of a frequency of zero, as other tools write it without SAELens' 1e-10.
#[test]
fn a_frequency_of_minus_infinity_is_a_feature_that_never_fired() {
    let (_dir, folder) = copy("standard");
    let mut values = vec![f32::NEG_INFINITY; plainly(&folder).d_sae()];
    values[1] = -2.0;
    save_safetensors(folder.join(SPARSITY), &logs(values.clone()), None).unwrap();
    let sae = Sae::load(&folder).unwrap();
    assert_eq!(sae.sparsity(), Some(values.as_slice()));
    assert!(sae.metadata().notes.is_empty());
    sae.save(folder.join("saved")).unwrap();
    assert_eq!(Sae::load(folder.join("saved")).unwrap().sparsity(), Some(values.as_slice()));
    let parts = |sparsity| SaeParts {
        sparsity: Some(sparsity),
        ..SaeParts::new(
            sae.w_enc_t().unwrap().t().unwrap(),
            sae.b_enc().into(),
            sae.w_dec().clone(),
            sae.b_dec().into(),
        )
    };
    assert!(Sae::new(parts(values.clone())).is_ok());
    values[3] = f32::NAN;
    assert!(matches!(Sae::new(parts(values)), Err(Error::NotFinite { name: "sparsity", column: 3, .. })));
}

#[test]
fn files_that_nothing_reads_may_hold_anything() {
    let (_dir, folder) = copy("standard");
    for file in [
        "runner_cfg.json",
        "trainer_state.pt",
        "activations_store_state.safetensors",
        "log_feature_sparsity.safetensors",
    ] {
        std::fs::write(folder.join(file), b"\xff\x00no").unwrap();
    }
    assert!(plainly(&folder).metadata().notes.is_empty());
    // sparsify's training configuration one folder up tells names alone.
    let dir = tempfile::tempdir().unwrap();
    let from = golden("dialects/sparsify_topk/files");
    let place: Value =
        serde_json::from_slice(&std::fs::read(golden("dialects/sparsify_topk/meta.json")).unwrap()).unwrap();
    let sae = place["path"].as_str().unwrap();
    let to = dir.path().join("set").join("layers.3.mlp");
    std::fs::create_dir_all(&to).unwrap();
    for file in ["cfg.json", "sae.safetensors"] {
        std::fs::copy(from.join(sae).join(file), to.join(file)).unwrap();
    }
    for (body, notes) in [("no json", 1), (r#"{"sae": {}, "ctx_len": "long"}"#, 1), (r#"{"sae": 3}"#, 0), ("{}", 0)] {
        std::fs::write(dir.path().join("set/config.json"), body).unwrap();
        assert_eq!(plainly(&to).metadata().notes.len(), notes, "{body}");
    }
}

#[test]
fn keys_that_the_caller_names_are_ignored_and_reported_and_others_are_still_refused() {
    let (_dir, folder) = copy("standard");
    configured(&folder, "brand_new", json!(1));
    configured(&folder, "another", json!("x"));
    let open_with = |keys: &[&str]| {
        let options = keys.iter().fold(OpenOptions::default(), |options, key| options.ignore_key(*key));
        open(&folder, &options)
    };
    let error = open_with(&["brand_new", "absent"]).unwrap_err().to_string();
    assert!(error.contains("another") && !error.contains("brand_new") && error.contains("--ignore-keys"), "{error}");
    let sae = open_with(&["brand_new", "another", "absent"]).unwrap();
    let keys = vec!["another".to_owned(), "brand_new".to_owned()];
    assert_eq!(sae.metadata().notes, [OpenNote::KeysIgnored { path: folder.join("cfg.json"), keys }]);
    assert_eq!(flat(&codes(&sae, "standard")), flat(&codes(&plainly(&golden("standard")), "standard")));
}

/// Its factor is in the table of releases alone, so that files that are opened by path lack it.
#[test]
fn a_factor_that_only_the_table_has_is_an_error_that_names_the_release() {
    let meta: Value =
        serde_json::from_slice(&std::fs::read(golden("dialects/llama_scope_r1_distill/meta.json")).unwrap()).unwrap();
    let path = golden("dialects/llama_scope_r1_distill/files").join(meta["path"].as_str().unwrap());
    let error = open(&path, &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("llama_scope_r1_distill") && error.contains("--norm-factor"), "{error}");
    let sae = open(&path, &given(0.7)).unwrap();
    let metadata = sae.metadata();
    assert_eq!(metadata.model_name.as_deref(), Some("deepseek-ai/DeepSeek-R1-Distill-Llama-8B"));
    assert_eq!(metadata.dataset_path, None);
    assert_eq!(metadata.notes, [OpenNote::NormFactorFolded { factor: 0.7, path: None }]);
}

/// The ways to open a folder give equal bits, on every golden folder.
#[test]
fn every_door_opens_the_same_sae() {
    for name in common::golden_folders() {
        let folder = golden(&name);
        let unscaled = |sae: Dictionary| match name == UNFOLDED {
            true => sae.fold_norm_factor(1.0).unwrap(),
            false => sae,
        };
        let saelens = OpenOptions { format: Some("saelens".parse().unwrap()), ..OpenOptions::default() };
        let mut doors = vec![
            plainly(&folder),
            open(&folder, &saelens).unwrap(),
            Dictionary::load(&folder).unwrap(),
            Dictionary::load_with(&folder, &LoadOptions::default()).unwrap(),
        ];
        match Sae::load(&folder) {
            Ok(sae) => doors.push(sae.into()),
            Err(error) => assert!(matches!(error, Error::NotAnSae { .. }), "{name}: {error}"),
        }
        let x = expected(&name, "x");
        let results: Vec<_> = doors.into_iter().map(|sae| unscaled(sae).forward(&x).unwrap()).collect();
        for other in &results[1..] {
            assert_eq!(results[0].codes, other.codes, "{name}");
            assert_eq!(flat(&results[0].x_hat), flat(&other.x_hat), "{name}");
        }
    }
}

/// Saving replaces all files that decide what an SAE computes: the factor of the one that was in the folder before must not be applied to the new one.
#[test]
fn a_scaler_of_the_sae_before_does_not_stay() {
    let (_dir, folder) = with_file(UNFOLDED, SCALER, json!({ "scaling_factor": FACTOR }).to_string());
    std::fs::write(folder.join("notes.txt"), "of the user").unwrap();
    let (_other, unfolded) = copy(UNFOLDED);
    plainly(&unfolded).save(&folder).unwrap();
    assert!(!folder.join(SCALER).exists());
    assert_eq!(plainly(&folder).as_sae().unwrap().normalization(), Normalization::ExpectedAverageOnlyIn);
    assert!(folder.join("notes.txt").exists());
}
