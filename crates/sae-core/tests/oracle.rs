//! Random SAEs of all four kinds against a slow oracle in f64, written from the formulas and nothing else.

mod common;

use candle_core::{Device, Tensor};
use common::{flat, gaussian};
use proptest::prelude::*;
use sae_core::{ActShape, Activation, Engine, Normalisation, Precision, Sae, SaeParts, SparseCoder};

/// An SAE as plain lists, matrices by rows.
#[derive(Clone, Debug)]
struct Plain {
    d_in: usize,
    d_sae: usize,
    w_enc: Vec<f32>,
    b_enc: Vec<f32>,
    w_dec: Vec<f32>,
    b_dec: Vec<f32>,
    shift: Option<Vec<f32>>,
    activation: Activation,
    normalisation: Normalisation,
}

/// Activations, reconstruction, and how close any choice was to falling the other way.
struct Answer {
    acts: Vec<f64>,
    x_hat: Vec<f64>,
    margin: f64,
}

impl Plain {
    fn norm(&self, j: usize) -> f64 {
        self.w_dec[j * self.d_in..][..self.d_in].iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()
    }

    fn oracle(&self, x: &[f64]) -> Answer {
        let (d, n) = (self.d_in, self.d_sae);
        let mean = x.iter().sum::<f64>() / d as f64;
        let deviation = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (d as f64 - 1.0)).sqrt();
        let c = (d as f64).sqrt() / x.iter().map(|v| v * v).sum::<f64>().sqrt();
        let ((sub, mul), (back, add)) = match self.normalisation {
            Normalisation::ConstantNormRescale => ((0.0, c), (1.0 / c, 0.0)),
            Normalisation::LayerNorm => ((mean, 1.0 / (deviation + 1e-5)), (deviation, mean)),
            _ => ((0.0, 1.0), (1.0, 0.0)),
        };
        let shift = |i: usize| self.shift.as_ref().map_or(0.0, |s| f64::from(s[i]));
        let dot = |j: usize| (0..d).map(|i| ((x[i] - sub) * mul - shift(i)) * f64::from(self.w_enc[i * n + j])).sum();
        let dots: Vec<f64> = (0..n).map(dot).collect();
        let mut margin = f64::INFINITY;
        let pre = |j: usize| dots[j] + f64::from(self.b_enc[j]);
        let mut gate = |value: f64, limit: f64| {
            margin = margin.min((value - limit).abs());
            value > limit
        };
        let mut unit = vec![1.0; n];
        let acts: Vec<f64> = match &self.activation {
            Activation::Relu => (0..n).map(|j| if gate(pre(j), 0.0) { pre(j) } else { 0.0 }).collect(),
            Activation::JumpRelu { threshold } => {
                (0..n).map(|j| if gate(pre(j), f64::from(threshold[j])) { pre(j).max(0.0) } else { 0.0 }).collect()
            }
            Activation::Gated { r_mag, b_mag } => {
                let magnitude = |j: usize| dots[j] * f64::from(r_mag[j]).exp() + f64::from(b_mag[j]);
                (0..n).map(|j| if gate(pre(j), 0.0) { magnitude(j).max(0.0) } else { 0.0 }).collect()
            }
            Activation::TopK { k, rescale_by_decoder_norm } => {
                if *rescale_by_decoder_norm {
                    unit = (0..n).map(|j| self.norm(j)).collect();
                }
                let h: Vec<f64> = (0..n).map(|j| pre(j) * unit[j]).collect();
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&a, &b| h[b].total_cmp(&h[a]).then(a.cmp(&b)));
                if *k < n {
                    gate(h[order[k - 1]], h[order[*k]]);
                }
                let best = &order[..*k];
                (0..n).map(|j| if best.contains(&j) { h[j].max(0.0) } else { 0.0 }).collect()
            }
            other => panic!("no oracle for {other:?}"),
        };
        let decode = |i: usize| {
            let sum: f64 = (0..n).map(|j| acts[j] / unit[j] * f64::from(self.w_dec[j * d + i])).sum();
            (sum + f64::from(self.b_dec[i])) * back + add
        };
        let x_hat = (0..d).map(decode).collect();
        Answer { acts, x_hat, margin }
    }

    fn build(&self, engine: usize, act_shape: ActShape) -> Sae {
        let engines: Vec<Engine> = common::engines().into_iter().filter(is_f32).collect();
        let engine = engines[engine % engines.len()];
        let matrix = |v: &[f32], a, b| Tensor::from_slice(v, (a, b), &Device::Cpu).unwrap();
        let w_enc = matrix(&self.w_enc, self.d_in, self.d_sae);
        let w_dec = matrix(&self.w_dec, self.d_sae, self.d_in);
        let parts = SaeParts::new(w_enc, self.b_enc.clone(), w_dec, self.b_dec.clone());
        let parts = SaeParts {
            input_shift: self.shift.clone(),
            activation: self.activation.clone(),
            normalisation: self.normalisation,
            act_shape,
            ..parts
        };
        Sae::on(engine, parts).unwrap()
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let sizes = (2usize..14, 1usize..48, any::<u32>());
    let kinds = (0usize..5, 0usize..4, 0usize..3, 0.0f64..1.0);
    (sizes, kinds).prop_map(|((d_in, d_sae, seed), (kind, mode, shift, k))| {
        let random = |count, salt: u64, scale: f32| {
            gaussian(count, u64::from(seed) * 16 + salt).into_iter().map(|v| v * scale).collect::<Vec<f32>>()
        };
        let k = 1 + (k * d_sae as f64) as usize % d_sae;
        let b_dec = random(d_in, 3, 0.3);
        Plain {
            d_in,
            d_sae,
            w_enc: random(d_in * d_sae, 0, 0.5),
            b_enc: random(d_sae, 1, 0.5),
            w_dec: random(d_sae * d_in, 2, 0.7),
            shift: [None, Some(b_dec.clone()), Some(random(d_in, 4, 0.3))][shift].clone(),
            b_dec,
            activation: match kind {
                0 => Activation::Relu,
                1 => Activation::JumpRelu { threshold: random(d_sae, 5, 0.5).into() },
                2 => Activation::Gated { r_mag: random(d_sae, 5, 0.5).into(), b_mag: random(d_sae, 6, 0.5).into() },
                _ => Activation::TopK { k, rescale_by_decoder_norm: kind == 3 },
            },
            normalisation: [
                Normalisation::None,
                Normalisation::ExpectedAverageOnlyIn,
                Normalisation::ConstantNormRescale,
                Normalisation::LayerNorm,
            ][mode],
        }
    })
}

/// Engines whose products are as exact as this file's tolerance.
fn is_f32(engine: &Engine) -> bool {
    engine.arithmetic().is_none_or(|arithmetic| arithmetic.precision() == Precision::F32)
}

/// Choices nearer than this may fall either way in f32.
const MARGIN: f64 = 1e-5;
/// Sums of at most 48 products in f32, relative to the rms of the whole.
const TOLERANCE: f64 = 1e-5;

/// The largest error relative to the rms, or to 0.1 where the rms is smaller: all terms of these sums are of the order of one, and where the
/// only feature that fires does so by a hair, its rms says nothing of their rounding.
fn error_of_sums(found: &[f32], expected: &[f32]) -> f64 {
    let rms = (expected.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / expected.len().max(1) as f64).sqrt();
    common::error_of(found, expected) * if rms == 0.0 { 1.0 } else { rms / rms.max(0.1) }
}

fn answers(plain: &Plain, x: &[f32], factor: f64) -> Answer {
    let mut all = Answer { acts: Vec::new(), x_hat: Vec::new(), margin: f64::INFINITY };
    for row in x.chunks_exact(plain.d_in) {
        let one = plain.oracle(&row.iter().map(|&v| f64::from(v) * factor).collect::<Vec<f64>>());
        all.acts.extend(one.acts);
        all.x_hat.extend(one.x_hat);
        all.margin = all.margin.min(one.margin);
    }
    all
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn encode_and_decode(plain in plain(), rows in 0usize..9, heads in 1usize..4, engine: usize) {
        let x = gaussian(rows * plain.d_in, 1);
        let expected = answers(&plain, &x, 1.0);
        prop_assume!(expected.margin > MARGIN);
        let per_head = plain.d_in % heads == 0;
        let sae = plain.build(engine, if per_head { ActShape::PerHead } else { ActShape::Flat });
        let shape = if per_head { vec![1, rows, heads, plain.d_in / heads] } else { vec![1, rows, plain.d_in] };
        let x = Tensor::from_vec(x, shape.clone(), &Device::Cpu).unwrap();
        let forward = sae.forward(&x).unwrap();
        let dense = forward.codes.to_dense().unwrap();
        if !(per_head && heads == 1) {
            prop_assert_eq!(dense.dims(), &[1, rows, plain.d_sae]);
        }
        prop_assert_eq!(forward.x_hat.dims(), shape.as_slice());
        prop_assert!(error_of_sums(&flat(&dense), &narrow(&expected.acts)) < TOLERANCE);
        prop_assert!(error_of_sums(&flat(&forward.x_hat), &narrow(&expected.x_hat)) < TOLERANCE);
        let fired = flat(&dense).iter().map(|v| *v > 0.0).collect::<Vec<_>>();
        prop_assert_eq!(fired, expected.acts.iter().map(|v| *v > 0.0).collect::<Vec<_>>());
    }

    #[test]
    fn fold_w_dec_norm(plain in plain(), rows in 1usize..9, engine: usize) {
        let x = gaussian(rows * plain.d_in, 2);
        let expected = answers(&plain, &x, 1.0);
        prop_assume!(expected.margin > MARGIN);
        let folded = match plain.build(engine, ActShape::Flat).fold_w_dec_norm() {
            Ok(folded) => folded,
            Err(_) => {
                let plain_topk = Activation::TopK { k: 0, rescale_by_decoder_norm: false };
                prop_assert_eq!(std::mem::discriminant(&plain.activation), std::mem::discriminant(&plain_topk));
                return Ok(());
            }
        };
        // With rescaling the norm is in the activations already.
        let is_topk = matches!(plain.activation, Activation::TopK { .. });
        let norm = |j: usize| if is_topk { 1.0 } else { plain.norm(j) };
        let acts: Vec<f64> = expected.acts.iter().enumerate().map(|(at, v)| v * norm(at % plain.d_sae)).collect();
        let x = Tensor::from_vec(x, (rows, plain.d_in), &Device::Cpu).unwrap();
        let forward = folded.forward(&x).unwrap();
        prop_assert!(error_of_sums(&flat(&forward.codes.to_dense().unwrap()), &narrow(&acts)) < TOLERANCE);
        prop_assert!(error_of_sums(&flat(&forward.x_hat), &narrow(&expected.x_hat)) < TOLERANCE);
    }

    #[test]
    fn fold_norm_factor(plain in plain(), rows in 1usize..9, s in 0.2f32..5.0, engine: usize) {
        let x = gaussian(rows * plain.d_in, 3);
        let per_token = plain.normalisation.is_per_token();
        let folded = plain.build(engine, ActShape::Flat).fold_norm_factor(s);
        prop_assert_eq!(folded.is_err(), per_token);
        let Ok(folded) = folded else { return Ok(()) };
        let expected = answers(&plain, &x, f64::from(s));
        prop_assume!(expected.margin > MARGIN * 5.0);
        let rescaled = matches!(plain.activation, Activation::TopK { rescale_by_decoder_norm: true, .. });
        let over = if rescaled { f64::from(s) } else { 1.0 };
        let acts: Vec<f64> = expected.acts.iter().map(|v| v / over).collect();
        let x_hat: Vec<f64> = expected.x_hat.iter().map(|v| v / f64::from(s)).collect();
        let x = Tensor::from_vec(x, (rows, plain.d_in), &Device::Cpu).unwrap();
        let forward = folded.forward(&x).unwrap();
        prop_assert!(error_of_sums(&flat(&forward.codes.to_dense().unwrap()), &narrow(&acts)) < TOLERANCE);
        prop_assert!(error_of_sums(&flat(&forward.x_hat), &narrow(&x_hat)) < TOLERANCE);
    }
}
