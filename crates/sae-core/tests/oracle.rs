//! Random SAEs of every activation against a slow oracle in f64, written from the formulas and nothing else.

mod common;

use candle_core::{Device, Tensor};
use common::{flat, gaussian};
use proptest::prelude::*;
use sae_core::{Activation, Engine, Error, InputShape, Normalization, Precision, Sae, SaeParts, SparseCoder};

/// An SAE as plain lists, matrices by rows.
#[derive(Clone, Debug)]
struct Plain {
    d_in: usize,
    d_sae: usize,
    /// `d_in` but for transcoders.
    d_out: usize,
    /// By rows, `[d_out, d_in]`, of a transcoder.
    w_skip: Option<Vec<f32>>,
    w_enc: Vec<f32>,
    b_enc: Vec<f32>,
    w_dec: Vec<f32>,
    b_dec: Vec<f32>,
    shift: Option<Vec<f32>>,
    activation: Activation,
    normalization: Normalization,
}

/// Activations, reconstruction, and how close any choice was to falling the other way.
struct Answer {
    acts: Vec<f64>,
    x_hat: Vec<f64>,
    margin: f64,
}

/// A row before it is known which features fire.
struct Half {
    /// What competes: pre-activations, times the norms where they count.
    h: Vec<f64>,
    /// Gated: the magnitudes.
    magnitude: Vec<f64>,
    back: f64,
    add: f64,
    skip: Vec<f64>,
}

impl Plain {
    fn norm(&self, j: usize) -> f64 {
        self.w_dec[j * self.d_out..][..self.d_out].iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()
    }

    fn is_transcoder(&self) -> bool {
        self.w_skip.is_some() || self.d_in != self.d_out
    }

    fn unit(&self) -> Vec<f64> {
        let rescales = self.activation.rescales_by_decoder_norm();
        (0..self.d_sae).map(|j| if rescales { self.norm(j) } else { 1.0 }).collect()
    }

    fn half(&self, x: &[f64]) -> Half {
        let (d, n) = (self.d_in, self.d_sae);
        let mean = x.iter().sum::<f64>() / d as f64;
        let deviation = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (d as f64 - 1.0)).sqrt();
        let c = (d as f64).sqrt() / x.iter().map(|v| v * v).sum::<f64>().sqrt();
        let ((sub, mul), (back, add)) = match self.normalization {
            Normalization::ConstantNormRescale => ((0.0, c), (1.0 / c, 0.0)),
            Normalization::LayerNorm => ((mean, 1.0 / (deviation + 1e-5)), (deviation, mean)),
            _ => ((0.0, 1.0), (1.0, 0.0)),
        };
        let (back, add) = if self.is_transcoder() { (1.0, 0.0) } else { (back, add) };
        let shift = |i: usize| self.shift.as_ref().map_or(0.0, |s| f64::from(s[i]));
        let dot = |j: usize| (0..d).map(|i| ((x[i] - sub) * mul - shift(i)) * f64::from(self.w_enc[i * n + j])).sum();
        let dots: Vec<f64> = (0..n).map(dot).collect();
        let unit = self.unit();
        let magnitude = match &self.activation {
            Activation::Gated { r_mag, b_mag } => {
                (0..n).map(|j| dots[j] * f64::from(r_mag[j]).exp() + f64::from(b_mag[j])).collect()
            }
            _ => Vec::new(),
        };
        let skip = |o: usize| {
            let row = |w: &Vec<f32>| (0..d).map(|i| x[i] * f64::from(w[o * d + i])).sum::<f64>();
            self.w_skip.as_ref().map_or(0.0, row)
        };
        let h = (0..n).map(|j| (dots[j] + f64::from(self.b_enc[j])) * unit[j]).collect();
        Half { h, magnitude, back, add, skip: (0..self.d_out).map(skip).collect() }
    }

    /// Activations of each row, and the margin.
    fn activate(&self, halves: &[Half]) -> (Vec<Vec<f64>>, f64) {
        let n = self.d_sae;
        let mut margin = f64::INFINITY;
        let mut gate = |value: f64, limit: f64| {
            margin = margin.min((value - limit).abs());
            value > limit
        };
        // The k best of some scores, as a mask.
        let mut best = |scores: &[f64], k: usize, least: f64| {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
            if k > 0 && k < scores.len() && scores[order[k - 1]] > least {
                gate(scores[order[k - 1]], scores[order[k]].max(least));
            }
            let mut mask = vec![false; scores.len()];
            order[..k.min(scores.len())].iter().for_each(|&j| mask[j] = true);
            mask
        };
        let masked = |h: &[f64], mask: &[bool]| h.iter().zip(mask).map(|(h, m)| if *m { *h } else { 0.0 }).collect();
        let relu = |h: &[f64]| h.iter().map(|h| h.max(0.0)).collect::<Vec<f64>>();
        let acts: Vec<Vec<f64>> = match &self.activation {
            Activation::TopK { k, .. } => {
                halves.iter().map(|x| masked(&relu(&x.h), &best(&relu(&x.h), *k, 0.0))).collect()
            }
            Activation::AbsTopK { k, .. } => {
                let size = |h: &[f64]| h.iter().map(|h| h.abs()).collect::<Vec<f64>>();
                halves.iter().map(|x| masked(&x.h, &best(&size(&x.h), *k, -1.0))).collect()
            }
            Activation::SignedTopK { k } => {
                halves.iter().map(|x| masked(&x.h, &best(&x.h, *k, f64::NEG_INFINITY))).collect()
            }
            Activation::BatchTopK { k, .. } => {
                let all: Vec<f64> = halves.iter().flat_map(|x| relu(&x.h)).collect();
                let mask = best(&all, (k * halves.len() as f64) as usize, 0.0);
                all.chunks(n).zip(mask.chunks(n)).map(|(h, mask)| masked(h, mask)).collect()
            }
            Activation::GroupMax { k } => {
                let mut group = |h: &[f64]| -> Vec<f64> { masked(&relu(h), &best(&relu(h), 1, 0.0)) };
                halves.iter().map(|x| x.h.chunks(n / k).flat_map(&mut group).collect()).collect()
            }
            Activation::Relu => halves.iter().map(|x| relu(&x.h)).collect(),
            Activation::JumpRelu { threshold } => {
                let one = |h: &f64, t: &f32| if *h > f64::from(*t) { h.max(0.0) } else { 0.0 };
                halves.iter().map(|x| x.h.iter().zip(threshold.iter()).map(|(h, t)| one(h, t)).collect()).collect()
            }
            Activation::Gated { .. } => {
                let one = |(h, m): (&f64, &f64)| if *h > 0.0 { m.max(0.0) } else { 0.0 };
                halves.iter().map(|x| x.h.iter().zip(&x.magnitude).map(one).collect()).collect()
            }
            other => panic!("no oracle for {other:?}"),
        };
        for x in halves {
            for (j, &h) in x.h.iter().enumerate() {
                let limit =
                    if let Activation::JumpRelu { threshold } = &self.activation { threshold[j].into() } else { 0.0 };
                gate(h, limit);
            }
        }
        (acts, margin)
    }

    /// What comes of all rows of a batch.
    fn oracle(&self, rows: &[Vec<f64>]) -> Answer {
        let halves: Vec<Half> = rows.iter().map(|x| self.half(x)).collect();
        let (acts, margin) = self.activate(&halves);
        let unit = self.unit();
        let mut x_hat = Vec::new();
        for (half, acts) in halves.iter().zip(&acts) {
            for o in 0..self.d_out {
                let term = |j: usize| acts[j] / unit[j] * f64::from(self.w_dec[j * self.d_out + o]);
                let sum = (0..self.d_sae).map(term).sum::<f64>() + f64::from(self.b_dec[o]);
                x_hat.push(sum * half.back + half.add + half.skip[o]);
            }
        }
        Answer { acts: acts.concat(), x_hat, margin }
    }

    fn build(&self, engine: usize, act_shape: InputShape) -> Sae {
        let engines: Vec<Engine> = common::engines().into_iter().filter(is_f32).collect();
        let engine = engines[engine % engines.len()];
        let matrix = |v: &[f32], a, b| Tensor::from_slice(v, (a, b), &Device::Cpu).unwrap();
        let w_enc = matrix(&self.w_enc, self.d_in, self.d_sae);
        let w_dec = matrix(&self.w_dec, self.d_sae, self.d_out);
        let parts = SaeParts::new(w_enc, self.b_enc.clone(), w_dec, self.b_dec.clone());
        let parts = SaeParts {
            input_shift: self.shift.clone(),
            activation: self.activation.clone(),
            normalization: self.normalization,
            act_shape,
            transcoder: self.is_transcoder(),
            w_skip: self.w_skip.as_ref().map(|w| matrix(w, self.d_out, self.d_in)),
            ..parts
        };
        Sae::on(engine, parts).unwrap()
    }
}

/// Without the norm factor that some expect: activations go in as they are.
fn as_it_is(sae: Sae) -> Sae {
    match sae.normalization() {
        Normalization::ExpectedAverageOnlyIn => sae.fold_norm_factor(1.0).unwrap(),
        _ => sae,
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let sizes = (2usize..14, 1usize..48, any::<u32>());
    let kinds = (0usize..12, 0usize..4, 0usize..3, 0.0f64..1.0, 0usize..5);
    (sizes, kinds).prop_map(|((d_in, d_sae, seed), (kind, mode, shift, k, transcoder))| {
        let random = |count, salt: u64, scale: f32| {
            gaussian(count, u64::from(seed) * 16 + salt).into_iter().map(|v| v * scale).collect::<Vec<f32>>()
        };
        let whole = 1 + (k * d_sae as f64) as usize % d_sae;
        let rescale_by_decoder_norm = kind % 2 == 0;
        // One of five is a transcoder, one a skip transcoder of the input's width.
        let d_out = if transcoder == 0 { d_in + 3 } else { d_in };
        let b_dec = random(d_out, 3, 0.3);
        let shifts = [None, Some(b_dec.clone()).filter(|b| b.len() == d_in), Some(random(d_in, 4, 0.3))];
        Plain {
            d_in,
            d_sae,
            d_out,
            w_skip: (transcoder < 2).then(|| random(d_out * d_in, 7, 0.3)),
            w_enc: random(d_in * d_sae, 0, 0.5),
            b_enc: random(d_sae, 1, 0.5),
            w_dec: random(d_sae * d_out, 2, 0.7),
            shift: shifts[shift].clone(),
            b_dec,
            activation: match kind {
                0 => Activation::Relu,
                1 => Activation::JumpRelu { threshold: random(d_sae, 5, 0.5).into() },
                2 => Activation::Gated { r_mag: random(d_sae, 5, 0.5).into(), b_mag: random(d_sae, 6, 0.5).into() },
                3 | 4 => Activation::TopK { k: whole, rescale_by_decoder_norm },
                5 | 6 => Activation::AbsTopK { k: whole, rescale_by_decoder_norm },
                7 | 8 => {
                    Activation::BatchTopK { k: (k * d_sae as f64).clamp(0.1, d_sae as f64), rescale_by_decoder_norm }
                }
                9 => Activation::SignedTopK { k: whole },
                _ => Activation::GroupMax { k: (1..=whole).rev().find(|k| d_sae % k == 0).unwrap() },
            },
            normalization: [
                Normalization::None,
                Normalization::ExpectedAverageOnlyIn,
                Normalization::ConstantNormRescale,
                Normalization::LayerNorm,
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
    let row = |row: &[f32]| row.iter().map(|&v| f64::from(v) * factor).collect::<Vec<f64>>();
    plain.oracle(&x.chunks_exact(plain.d_in).map(row).collect::<Vec<_>>())
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn competes(activation: &Activation) -> bool {
    !matches!(activation, Activation::Relu | Activation::JumpRelu { .. } | Activation::Gated { .. })
}

/// `M = Q D`, `M_inv = D^-1 Q^T` with a rotation `Q` made of reflections: inverse to each other to the last bits of f64.
fn whitening(d: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let mut q: Vec<f64> = (0..d * d).map(|i| f64::from(u8::from(i / d == i % d))).collect();
    for reflection in 0..3 {
        let v: Vec<f64> = gaussian(d, seed + reflection).into_iter().map(f64::from).collect();
        let square: f64 = v.iter().map(|v| v * v).sum();
        for row in q.chunks_exact_mut(d) {
            let dot: f64 = row.iter().zip(&v).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(&v).for_each(|(a, b)| *a -= 2.0 * dot / square * b);
        }
    }
    let scale: Vec<f64> = gaussian(d, seed + 9).into_iter().map(|v| 0.5 + f64::from(v).abs()).collect();
    let m = (0..d * d).map(|at| q[at] * scale[at % d]).collect();
    let inverse = (0..d * d).map(|at| q[(at % d) * d + at / d] / scale[at / d]).collect();
    (m, inverse)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn fold_whitening(plain in plain(), rows in 1usize..9, engine: usize, seed: u32) {
        let d = plain.d_in;
        let (m, inverse) = whitening(d, u64::from(seed));
        let mean: Vec<f32> = gaussian(d, u64::from(seed) + 20).into_iter().map(|v| v * 0.5).collect();
        let matrix = |v: &[f64]| Tensor::from_slice(v, (d, d), &Device::Cpu).unwrap();
        let folded = plain.build(engine, InputShape::Flat).fold_whitening(&mean, &matrix(&m), &matrix(&inverse));
        let legal = !plain.is_transcoder() && plain.normalization == Normalization::None;
        let folded = match folded {
            Ok(folded) => folded,
            Err(error) => {
                prop_assert!(!legal && matches!(error, Error::CannotFold { .. }), "{}", error);
                return Ok(());
            }
        };
        prop_assert!(legal);
        let x = gaussian(rows * d, 4);
        let map = |row: &[f64], matrix: &[f64]| -> Vec<f64> {
            (0..d).map(|j| (0..d).map(|i| row[i] * matrix[i * d + j]).sum()).collect()
        };
        let centered = |row: &[f32]| row.iter().zip(&mean).map(|(x, m)| f64::from(*x) - f64::from(*m)).collect::<Vec<_>>();
        let expected = plain.oracle(&x.chunks_exact(d).map(|row| map(&centered(row), &m)).collect::<Vec<_>>());
        prop_assume!(expected.margin > MARGIN * 5.0);
        let raw = |row: &[f64]| map(row, &inverse).into_iter().zip(&mean).map(|(x, m)| x + f64::from(*m)).collect::<Vec<_>>();
        let x_hat: Vec<f64> = expected.x_hat.chunks_exact(d).flat_map(raw).collect();
        let forward = folded.forward(&Tensor::from_vec(x, (rows, d), &Device::Cpu).unwrap()).unwrap();
        prop_assert!(error_of_sums(&flat(&forward.codes.to_dense().unwrap()), &narrow(&expected.acts)) < 5.0 * TOLERANCE);
        prop_assert!(error_of_sums(&flat(&forward.x_hat), &narrow(&x_hat)) < 5.0 * TOLERANCE);
    }

    #[test]
    fn encode_and_decode(plain in plain(), rows in 0usize..9, heads in 1usize..4, engine: usize) {
        let x = gaussian(rows * plain.d_in, 1);
        let expected = answers(&plain, &x, 1.0);
        prop_assume!(expected.margin > MARGIN);
        let per_head = plain.d_in % heads == 0;
        let sae = as_it_is(plain.build(engine, if per_head { InputShape::PerHead } else { InputShape::Flat }));
        let shape = if per_head { vec![1, rows, heads, plain.d_in / heads] } else { vec![1, rows, plain.d_in] };
        let split = if per_head && plain.d_out % heads == 0 && heads > 1 { Some(heads) } else { None };
        let out = split.map_or(vec![1, rows, plain.d_out], |heads| vec![1, rows, heads, plain.d_out / heads]);
        let x = Tensor::from_vec(x, shape.clone(), &Device::Cpu).unwrap();
        let forward = sae.forward(&x).unwrap();
        let dense = forward.codes.to_dense().unwrap();
        if !(per_head && heads == 1) {
            prop_assert_eq!(dense.dims(), &[1, rows, plain.d_sae]);
        }
        if !(per_head && heads == 1) {
            prop_assert_eq!(forward.x_hat.dims(), out.as_slice());
        }
        prop_assert_eq!(forward.error.is_none(), plain.is_transcoder());
        prop_assert!(error_of_sums(&flat(&dense), &narrow(&expected.acts)) < TOLERANCE);
        prop_assert!(error_of_sums(&flat(&forward.x_hat), &narrow(&expected.x_hat)) < TOLERANCE);
        let fired = flat(&dense).iter().map(|v| *v != 0.0).collect::<Vec<_>>();
        prop_assert_eq!(fired, expected.acts.iter().map(|v| *v != 0.0).collect::<Vec<_>>());
    }

    #[test]
    fn fold_w_dec_norm(plain in plain(), rows in 1usize..9, engine: usize) {
        let x = gaussian(rows * plain.d_in, 2);
        let expected = answers(&plain, &x, 1.0);
        prop_assume!(expected.margin > MARGIN);
        let folded = match plain.build(engine, InputShape::Flat).fold_w_dec_norm() {
            Ok(folded) => folded,
            Err(error) => {
                prop_assert!(matches!(error, Error::CannotFold { .. }), "{}", error);
                prop_assert!(competes(&plain.activation) && !plain.activation.rescales_by_decoder_norm());
                return Ok(());
            }
        };
        prop_assert!(!competes(&plain.activation) || plain.activation.rescales_by_decoder_norm());
        // With rescaling the norm is in the activations already.
        let norm = |j: usize| if competes(&plain.activation) { 1.0 } else { plain.norm(j) };
        let acts: Vec<f64> = expected.acts.iter().enumerate().map(|(at, v)| v * norm(at % plain.d_sae)).collect();
        let x = Tensor::from_vec(x, (rows, plain.d_in), &Device::Cpu).unwrap();
        let forward = as_it_is(folded).forward(&x).unwrap();
        prop_assert!(error_of_sums(&flat(&forward.codes.to_dense().unwrap()), &narrow(&acts)) < TOLERANCE);
        prop_assert!(error_of_sums(&flat(&forward.x_hat), &narrow(&expected.x_hat)) < TOLERANCE);
    }

    #[test]
    fn fold_norm_factor(plain in plain(), rows in 1usize..9, s in 0.2f32..5.0, engine: usize) {
        let x = gaussian(rows * plain.d_in, 3);
        let per_token = plain.normalization.is_per_token();
        let folded = plain.build(engine, InputShape::Flat).fold_norm_factor(s);
        prop_assert_eq!(folded.is_err(), per_token);
        let Ok(folded) = folded else { return Ok(()) };
        let expected = answers(&plain, &x, f64::from(s));
        prop_assume!(expected.margin > MARGIN * 5.0);
        let over = if plain.activation.rescales_by_decoder_norm() { f64::from(s) } else { 1.0 };
        let acts: Vec<f64> = expected.acts.iter().map(|v| v / over).collect();
        let x_hat: Vec<f64> = expected.x_hat.iter().map(|v| v / f64::from(s)).collect();
        let x = Tensor::from_vec(x, (rows, plain.d_in), &Device::Cpu).unwrap();
        let forward = folded.forward(&x).unwrap();
        prop_assert!(error_of_sums(&flat(&forward.codes.to_dense().unwrap()), &narrow(&acts)) < TOLERANCE);
        prop_assert!(error_of_sums(&flat(&forward.x_hat), &narrow(&x_hat)) < TOLERANCE);
    }
}
