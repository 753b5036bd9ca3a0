//! Arithmetic that SAELens' and dictionary_learning's own tests assert, by hand-made weights.

mod common;

use candle_core::{Device, Tensor};
use common::{error, error_of, exact, flat};
use sae_core::{Activation, Normalization, Sae, SaeParts, SparseCoder};

fn ones(rows: usize, columns: usize) -> Tensor {
    Tensor::ones((rows, columns), candle_core::DType::F32, &Device::Cpu).unwrap()
}

fn randn(rows: usize, columns: usize, seed: u64) -> Tensor {
    Tensor::from_vec(common::gaussian(rows * columns, seed), (rows, columns), &Device::Cpu).unwrap()
}

fn three_features(activation: Activation, b_enc: Vec<f32>) -> Sae {
    let parts = SaeParts::new(ones(2, 3), b_enc, ones(3, 2), vec![0.0; 2]);
    Sae::on(exact(), SaeParts { activation, input_shift: Some(vec![0.0; 2]), ..parts }).unwrap()
}

fn random(d_in: usize, d_sae: usize, activation: Activation, seed: u64) -> SaeParts {
    let parts = SaeParts::new(
        randn(d_in, d_sae, seed),
        common::gaussian(d_sae, seed + 1),
        randn(d_sae, d_in, seed + 2),
        common::gaussian(d_in, seed + 3),
    );
    SaeParts { input_shift: Some(parts.b_dec.clone()), activation, ..parts }
}

#[test]
fn gated_by_hand() {
    let activation = Activation::Gated { r_mag: [1., 2., 3.].into(), b_mag: [1., 1., 1.].into() };
    let sae = three_features(activation, vec![-2., 0., 1.]);
    let x = Tensor::new(&[0.3f32, 0.3], &Device::Cpu).unwrap();
    let forward = sae.forward(&x).unwrap();
    let acts = flat(&forward.codes.to_dense().unwrap());
    assert!(error_of(&acts, &[0., 5.4334, 13.0513]) < 1e-4, "{acts:?}");
    assert!(error_of(&flat(&forward.x_hat), &[18.4848, 18.4848]) < 1e-4);
    assert!(error_of(&flat(&forward.error.unwrap()), &[0.3 - 18.4848, 0.3 - 18.4848]) < 1e-4);
}

#[test]
fn jumprelu_by_hand() {
    let sae = three_features(Activation::JumpRelu { threshold: [1., 0.5, 0.25].into() }, vec![0.0; 3]);
    let x = Tensor::new(&[0.3f32, 0.3], &Device::Cpu).unwrap();
    let forward = sae.forward(&x).unwrap();
    assert_eq!(flat(&forward.codes.to_dense().unwrap()), [0., 0.6, 0.6]);
    assert_eq!(flat(&forward.x_hat), [1.2, 1.2]);
}

#[test]
fn jumprelu_is_strict_and_never_negative() {
    // A pre-activation that equals its threshold does not fire; one below a negative threshold neither, one above it only if positive.
    let sae = three_features(Activation::JumpRelu { threshold: [0.5, 0.25, -1.0].into() }, vec![0.0; 3]);
    let dense = |a: f32, b: f32| flat(&sae.encode_dense(&Tensor::new(&[a, b], &Device::Cpu).unwrap()).unwrap());
    assert_eq!(dense(0.25, 0.25), [0., 0.5, 0.5]);
    assert_eq!(dense(-0.25, -0.25), [0., 0., 0.]);
}

#[test]
fn identity_sae_reconstructs() {
    let d = 5;
    let eye = Tensor::eye(d, candle_core::DType::F32, &Device::Cpu).unwrap();
    let w_dec = Tensor::cat(&[&eye, &eye.neg().unwrap()], 0).unwrap();
    let parts = SaeParts::new(w_dec.t().unwrap(), vec![0.0; 2 * d], w_dec, vec![0.0; d]);
    let sae = Sae::on(exact(), parts).unwrap();
    let x = randn(40, d, 3);
    for sae in [sae.clone(), sae.fold_norm_factor(3.0).unwrap()] {
        let forward = sae.forward(&x).unwrap();
        assert_eq!(forward.codes.features.l0(), d as f64);
        assert!(error(&forward.x_hat, &x) < 1e-6);
    }
}

#[test]
fn dictionary_learning_identity() {
    let eye = Tensor::eye(2, candle_core::DType::F32, &Device::Cpu).unwrap();
    let x = Tensor::new(&[[2f32, -1.]], &Device::Cpu).unwrap();
    let gated = Activation::Gated { r_mag: [0., 0.].into(), b_mag: [0., 0.].into() };
    for activation in [Activation::Relu, gated] {
        let parts = SaeParts::new(eye.clone(), vec![0.0; 2], eye.clone(), vec![0.0; 2]);
        let sae = Sae::on(exact(), SaeParts { activation, ..parts }).unwrap();
        assert_eq!(flat(&sae.encode_dense(&x).unwrap()), [2., 0.]);
        assert_eq!(flat(&sae.forward(&x).unwrap().x_hat), [2., 0.]);
    }
}

#[test]
fn normalizations_by_formula() {
    let x = randn(10, 2, 9);
    let identity = |normalization| {
        let eye = Tensor::eye(2, candle_core::DType::F32, &Device::Cpu).unwrap();
        let w = Tensor::cat(&[&eye, &eye.neg().unwrap()], 1).unwrap();
        let parts = SaeParts::new(w.clone(), vec![0.0; 4], w.t().unwrap(), vec![0.0; 2]);
        Sae::on(exact(), SaeParts { normalization, ..parts }).unwrap()
    };
    let rows: Vec<Vec<f32>> = x.to_vec2().unwrap();
    let seen = |sae: &Sae| {
        let acts: Vec<Vec<f32>> = sae.encode_dense(&x).unwrap().to_vec2().unwrap();
        acts.iter().flat_map(|a| [a[0] - a[2], a[1] - a[3]]).collect::<Vec<f32>>()
    };
    let layer = identity(Normalization::LayerNorm);
    let expected: Vec<f32> = rows
        .iter()
        .flat_map(|r| {
            let mean = (r[0] + r[1]) / 2.0;
            let deviation = ((r[0] - mean).powi(2) + (r[1] - mean).powi(2)).sqrt();
            [(r[0] - mean) / (deviation + 1e-5), (r[1] - mean) / (deviation + 1e-5)]
        })
        .collect();
    assert!(error_of(&seen(&layer), &expected) < 1e-5);
    assert!(error(&layer.forward(&x).unwrap().x_hat, &x) < 1e-4, "the way back, off by the epsilon");
    let constant = identity(Normalization::ConstantNormRescale);
    let expected: Vec<f32> = rows
        .iter()
        .flat_map(|r| {
            let c = 2f32.sqrt() / (r[0] * r[0] + r[1] * r[1]).sqrt();
            [r[0] * c, r[1] * c]
        })
        .collect();
    assert!(error_of(&seen(&constant), &expected) < 1e-5);
    assert!(error(&constant.forward(&x).unwrap().x_hat, &x) < 1e-6);
    let zeros = Tensor::zeros((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(flat(&constant.forward(&zeros).unwrap().x_hat), [0., 0.], "a zero vector stays finite");
}

#[test]
fn folds_keep_the_function() {
    let (d_in, d_sae) = (6, 20);
    let x = randn(30, d_in, 50);
    let activations = [
        Activation::Relu,
        Activation::TopK { k: 4, rescale_by_decoder_norm: true },
        Activation::JumpRelu { threshold: common::gaussian(d_sae, 60).into() },
        Activation::Gated { r_mag: common::gaussian(d_sae, 61).into(), b_mag: common::gaussian(d_sae, 62).into() },
    ];
    for (at, activation) in activations.into_iter().enumerate() {
        let sae = Sae::on(exact(), random(d_in, d_sae, activation, 70 + 10 * at as u64)).unwrap();
        let folded = sae.fold_w_dec_norm().unwrap();
        for row in folded.w_dec().to_vec2::<f32>().unwrap() {
            let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() < 1e-6, "{norm}");
        }
        assert!(error(&folded.forward(&x).unwrap().x_hat, &sae.forward(&x).unwrap().x_hat) < 1e-5);
        let s = 0.37;
        let scaled_x = (&x * f64::from(s)).unwrap();
        let expected = (sae.forward(&scaled_x).unwrap().x_hat / f64::from(s)).unwrap();
        assert!(error(&sae.fold_norm_factor(s).unwrap().forward(&x).unwrap().x_hat, &expected) < 1e-5);
    }
}

#[test]
fn topk_of_everything_is_relu() {
    let (d_in, d_sae) = (6, 20);
    let x = randn(30, d_in, 51);
    let relu = Sae::on(exact(), random(d_in, d_sae, Activation::Relu, 90)).unwrap();
    for rescale_by_decoder_norm in [false, true] {
        let activation = Activation::TopK { k: d_sae, rescale_by_decoder_norm };
        let topk = Sae::on(exact(), random(d_in, d_sae, activation, 90)).unwrap();
        assert!(error(&topk.forward(&x).unwrap().x_hat, &relu.forward(&x).unwrap().x_hat) < 1e-6);
        if !rescale_by_decoder_norm {
            assert_eq!(topk.encode(&x).unwrap(), relu.encode(&x).unwrap());
            let error = topk.fold_w_dec_norm().unwrap_err();
            assert!(error.to_string().contains("fold_w_dec_norm would change"), "{error}");
        }
    }
}

#[test]
fn topk_ties_go_to_the_lower_feature() {
    // Enough columns and rows for several tiles; every feature has the same pre-activation.
    let (rows, d_sae) = (1025, 5000);
    let parts = SaeParts::new(ones(1, d_sae), vec![0.0; d_sae], ones(d_sae, 1), vec![0.0]);
    let activation = Activation::TopK { k: 7, rescale_by_decoder_norm: false };
    let sae = Sae::on(exact(), SaeParts { activation, ..parts }).unwrap();
    let codes = sae.encode(&ones(rows, 1)).unwrap();
    for (index, value) in codes.features.iter() {
        assert_eq!(index, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(value, [1.0; 7]);
    }
}
