//! Every supported SAE that SAELens itself saved, against what SAELens computes with it (see `golden/README.md`).

mod common;
#[path = "../../../tests/support/tolerances.rs"]
mod tolerances;

use candle_core::Tensor;
use common::{error, flat, golden};
use sae_core::formats::{OpenOptions, open};
use sae_core::{Dictionary, Engine, Error, LoadOptions, SparseCoder};
use tensor_files::SafetensorsFile;
use tolerances::SAES;

/// The folder whose norm factor is neither in its weights nor beside them.
const UNFOLDED: &str = "standard_expected_average_only_in";

struct Golden {
    name: &'static str,
    sae: Dictionary,
    file: SafetensorsFile,
}

impl Golden {
    fn open(name: &'static str, engine: Engine) -> Self {
        let folder = golden(name);
        let load = LoadOptions { engine, ..LoadOptions::default() };
        // SAELens computes without the factor that it was not told of; here that has to be said.
        let norm_scaling_factor = (name == UNFOLDED).then_some(1.0);
        let options = OpenOptions { load, norm_scaling_factor, ..OpenOptions::default() };
        let file = SafetensorsFile::open(folder.join("golden.safetensors")).unwrap();
        Self { name, sae: open(&folder, &options).unwrap(), file }
    }

    /// Where hardly a feature fires, the rms of the codes is small beside the terms that were summed.
    fn tolerance(&self) -> f64 {
        let few = if self.name == "topk_fewer_positive_than_k" { 4.0 } else { 1.0 };
        few * SAES.on(self.sae.engine())
    }

    fn assert_close(&self, what: &str, found: &Tensor, tolerance: f64) {
        let error = error(found, &self.file.load_f32(what).unwrap());
        assert!(error <= tolerance, "{}: {what} is off by {error:e} of the rms", self.name);
    }

    /// `prefix.encode` and `prefix.forward`, and the same features fire: none of these inputs lies within the tolerance of a
    /// threshold, so there is no exception, but in bf16.
    fn compare(&self, prefix: &str, sae: &Dictionary) {
        let x = self.file.load("x").unwrap();
        let forward = sae.forward(&x).unwrap();
        let found = forward.codes.to_dense().unwrap();
        let expected = self.file.load_f32(&format!("{prefix}encode")).unwrap();
        if self.tolerance() > 1e-3 {
            return self.compare_coarsely(prefix, &flat(&found), &flat(&expected));
        }
        self.assert_close(&format!("{prefix}encode"), &found, self.tolerance());
        self.assert_close(&format!("{prefix}forward"), &forward.x_hat, self.tolerance());
        for (at, (found, expected)) in flat(&found).iter().zip(flat(&expected)).enumerate() {
            assert_eq!(*found != 0.0, expected != 0.0, "{}: {prefix} {at}: {found}, expected {expected}", self.name);
        }
    }

    /// Features that fire in both are as close as the precision is; few fire in one alone.
    fn compare_coarsely(&self, prefix: &str, found: &[f32], expected: &[f32]) {
        let both = |(a, b): &(f32, f32)| (*a != 0.0) == (*b != 0.0);
        let (same, other): (Vec<_>, Vec<_>) = found.iter().copied().zip(expected.iter().copied()).partition(both);
        let (a, b): (Vec<f32>, Vec<f32>) = same.into_iter().unzip();
        let error = common::error_of(&a, &b);
        assert!(error <= self.tolerance(), "{}: {prefix} is off by {error:e} of the rms in bf16", self.name);
        let fired = expected.iter().filter(|v| **v != 0.0).count();
        assert!(50 * other.len() <= fired + 50, "{}: {prefix} {} of {fired} differ", self.name, other.len());
    }
}

fn check(name: &'static str) {
    for engine in common::engines() {
        check_on(name, engine);
    }
}

fn check_on(name: &'static str, engine: Engine) {
    let golden = Golden::open(name, engine);
    let x = golden.file.load("x").unwrap();
    golden.compare("", &golden.sae);
    let codes = golden.sae.encode(&x).unwrap();
    if golden.file.contains("decode") && golden.tolerance() < 1e-3 {
        golden.assert_close("decode", &golden.sae.decode(&codes).unwrap(), golden.tolerance());
    }
    let forward = golden.sae.forward(&x).unwrap();
    assert_eq!(forward.error.is_none(), name.ends_with("transcoder"));
    if let Some(missed) = forward.error {
        let sum = (forward.x_hat + missed).unwrap();
        assert!(error(&sum, &x) < 1e-6, "{name}: x_hat + error is not x");
    }
    check_folds(&golden);
}

fn check_folds(golden: &Golden) {
    if golden.name.starts_with("legacy") {
        return; // Its weights are those of `standard`, where folds are compared.
    }
    let rounded = golden.sae.engine().arithmetic().is_some_and(|arithmetic| !arithmetic.is_exact());
    for (prefix, folded) in [("folded.", golden.sae.fold_w_dec_norm()), ("scaled.", golden.sae.fold_norm_factor(1.7))] {
        match folded {
            Ok(folded) => golden.compare(prefix, &folded),
            Err(error) if rounded && golden.file.contains(&format!("{prefix}encode")) => {
                assert!(matches!(error, Error::RoundedWeights { .. }), "{error}");
                assert!(error.to_string().contains("LoadOptions { engine: Engine::Reference"), "{error}");
            }
            Err(error) => {
                assert!(!golden.file.contains(&format!("{prefix}encode")), "{}: {error}", golden.name);
                assert!(matches!(error, Error::CannotFold { .. }), "{error}");
            }
        }
    }
}

/// Weights stored in a lower precision: exact against SAELens computing in f32 as we do; against SAELens computing in that
/// precision, a few units in the last place of pre-activations that reach five times the rms (bf16 keeps 8 bits, f16 11).
fn check_low_precision(name: &'static str, tolerance: f64) {
    for engine in [Engine::Reference, common::exact()] {
        check_low_precision_on(name, tolerance, engine);
    }
}

fn check_low_precision_on(name: &'static str, tolerance: f64, engine: Engine) {
    let golden = Golden::open(name, engine);
    golden.compare("f32.", &golden.sae);
    golden.compare("scaled.", &golden.sae.fold_norm_factor(1.7).unwrap());
    let x = golden.file.load("x").unwrap();
    let forward = golden.sae.forward(&x).unwrap();
    golden.assert_close("encode", &forward.codes.to_dense().unwrap(), tolerance);
    golden.assert_close("forward", &forward.x_hat, tolerance);
    let folded = golden.sae.fold_w_dec_norm().unwrap().forward(&x).unwrap();
    golden.assert_close("folded.encode", &folded.codes.to_dense().unwrap(), tolerance);
    golden.assert_close("folded.forward", &folded.x_hat, tolerance);
}

#[test]
fn standard_bf16() {
    check_low_precision("standard_bf16", 0.05);
}

#[test]
fn standard_f16() {
    check_low_precision("standard_f16", 0.006);
}

macro_rules! golden {
    ($($name:ident),* $(,)?) => {$(#[test] fn $name() { check(stringify!($name)); })*};
}

golden!(
    standard,
    standard_no_b_dec_in,
    standard_layer_norm,
    standard_constant_norm_rescale,
    standard_expected_average_only_in,
    standard_hook_z,
    standard_from_training,
    standard_training,
    gated,
    gated_from_training,
    gated_training,
    topk,
    topk_rescaled,
    topk_fewer_positive_than_k,
    topk_from_training,
    topk_from_training_norescale,
    topk_training,
    topk_training_norescale,
    jumprelu,
    jumprelu_from_training,
    jumprelu_training,
    batchtopk_from_training,
    matryoshka_batchtopk_from_training,
    legacy_res_jb_style,
    abstopk,
    abstopk_from_training,
    abstopk_training,
    batchtopk_training,
    matryoshka_batchtopk_training,
    transcoder,
    skip_transcoder,
    jumprelu_transcoder,
    jumprelu_skip_transcoder,
    matching_pursuit,
    matching_pursuit_from_training,
    matching_pursuit_training,
    temporal,
);

#[test]
fn every_folder_is_tested() {
    let source = include_str!("golden.rs");
    for name in common::golden_folders() {
        let listed = source.contains(&format!("    {name},")) || source.contains(&format!("\"{name}\""));
        assert!(listed, "{name} has no test");
    }
}

#[test]
fn all_39_folders_open() {
    assert_eq!(common::golden_folders().len(), 39);
}

#[test]
fn matryoshka_widths_are_known_at_inference_and_as_trained() {
    for name in ["matryoshka_batchtopk_from_training", "matryoshka_batchtopk_training"] {
        let sae = Dictionary::load(golden(name)).unwrap();
        assert_eq!(sae.metadata().matryoshka_widths(), Some(vec![16, 48, 96]), "{name}");
    }
    assert_eq!(Dictionary::load(golden("standard")).unwrap().metadata().matryoshka_widths(), None);
}

/// `predicted` holds the codes of the context; `skip` is what they decode to, so that `decode + skip` is `forward`.
#[test]
fn temporal_predictions() {
    for engine in common::engines() {
        let golden = Golden::open("temporal", engine);
        let Dictionary::Temporal(sae) = &golden.sae else { panic!("{:?}", golden.sae) };
        let x = golden.file.load("x").unwrap();
        golden.assert_close("predicted", &sae.predict(&x).unwrap(), golden.tolerance());
        let codes = sae.encode(&x).unwrap();
        let sum = (sae.decode(&codes).unwrap() + sae.skip(&x).unwrap().unwrap()).unwrap();
        golden.assert_close("forward", &sum, 2.0 * golden.tolerance());
        let error = sae.encode(&x.flatten(0, 1).unwrap()).unwrap_err();
        assert!(error.to_string().contains("[batch, pos, d_in=32]"), "{error}");
    }
}
