//! Every supported SAE that SAELens itself saved, against what SAELens computes with it (see `golden/README.md`).

mod common;

use candle_core::Tensor;
use common::{error, flat, golden};
use sae_core::{Sae, SparseCoder};
use tensor_files::SafetensorsFile;

/// Largest allowed error over the reference's rms.
const TOLERANCE: f64 = 1e-5;

fn check(name: &str) {
    let folder = golden(name);
    let sae = Sae::load(&folder).unwrap();
    let expected = SafetensorsFile::open(folder.join("golden.safetensors")).unwrap();
    let x = expected.load("x").unwrap();
    let codes = sae.encode(&x).unwrap();
    let assert_close = |what: &str, found: &Tensor| {
        let reference = expected.load(what).unwrap();
        let error = error(found, &reference);
        assert!(error <= TOLERANCE, "{name}: {what} is off by {error:e} of the rms");
    };
    assert_close("encode", &codes.to_dense().unwrap());
    if expected.contains("decode") {
        assert_close("decode", &sae.decode(&codes).unwrap());
    }
    let forward = sae.forward(&x).unwrap();
    assert_close("forward", &forward.x_hat);
    let sum = (forward.x_hat + forward.error.unwrap()).unwrap();
    assert!(error(&sum, &x) < 1e-6, "{name}: x_hat + error is not x");
    same_active_set(name, &flat(&codes.to_dense().unwrap()), &flat(&expected.load("encode").unwrap()));
    if expected.contains("folded.encode") {
        let folded = sae.fold_w_dec_norm().unwrap();
        let forward = folded.forward(&x).unwrap();
        assert_close("folded.encode", &forward.codes.to_dense().unwrap());
        assert_close("folded.forward", &forward.x_hat);
    } else if !name.starts_with("legacy") {
        assert!(sae.fold_w_dec_norm().unwrap_err().to_string().contains("top-k"), "{name}");
    }
}

/// The same features fire. (None of these inputs lies within the tolerance of a threshold, so no exception is needed.)
fn same_active_set(name: &str, found: &[f32], expected: &[f32]) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(*found > 0.0, *expected > 0.0, "{name}: element {at} is {found}, expected {expected}");
    }
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
    gated,
    gated_from_training,
    topk,
    topk_rescaled,
    topk_fewer_positive_than_k,
    topk_from_training,
    topk_from_training_norescale,
    jumprelu,
    jumprelu_from_training,
    batchtopk_from_training,
    matryoshka_batchtopk_from_training,
    legacy_res_jb_style,
);
