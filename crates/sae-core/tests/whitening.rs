//! A checkpoint's whitening with full matrices that are neither symmetric nor orthogonal, opened from its file, against sums over the plain
//! weights in f64: `f = encode((x - mean) M)`, `x_hat = decode(f) M_inv + mean` (SAELens 6.54, `ActivationWhitening`).

mod common;

use candle_core::{Device, Tensor};
use common::{error_of, flat, gaussian, golden};
use sae_core::formats::{OpenOptions, open};
use sae_core::{Dictionary, Sae, SparseCoder};
use serde_json::{Value, json};
use std::path::Path;
use tensor_files::{SafetensorsFile, save_safetensors};

const ROWS: usize = 7;
/// Relative to the rms: what f32 products of 32 terms leave of the f64 sums, times the matrices' condition.
const TOLERANCE: f64 = 1e-4;

/// `[d, d]`, row after row.
type Matrix = Vec<f64>;

fn times(a: &[f64], b: &[f64], d: usize) -> Matrix {
    a.chunks_exact(d).flat_map(|row| (0..d).map(|j| (0..d).map(|i| row[i] * b[i * d + j]).sum::<f64>())).collect()
}

fn transposed(m: &[f64], d: usize) -> Matrix {
    (0..d * d).map(|at| m[at % d * d + at / d]).collect()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// `M = (1 + N) D (1 + L)` and its inverse `(1 - L) D^-1 (1 - N)`, with `N` in the upper right quarter and `L` in the lower left one, so
/// that both square to 0.
fn whitening(d: usize) -> [Matrix; 2] {
    let random = gaussian(d * d, 5);
    let triangle = |sign: f64, wanted: &dyn Fn(usize, usize) -> bool| -> Matrix {
        let entry = |at: usize| match (at / d, at % d) {
            (i, j) if i == j => 1.0,
            (i, j) if wanted(i, j) => sign * 0.3 * f64::from(random[at]),
            _ => 0.0,
        };
        (0..d * d).map(entry).collect()
    };
    let [upper, upper_inverse] = [1.0, -1.0].map(|sign| triangle(sign, &|i, j| i < d / 2 && j >= d / 2));
    let [lower, lower_inverse] = [1.0, -1.0].map(|sign| triangle(sign, &|i, j| i >= d / 2 && j < d / 2));
    let scale = |i: usize| 0.5 + i as f64 / d as f64;
    let diagonal = |of: &dyn Fn(f64) -> f64| -> Matrix {
        (0..d * d).map(|at| if at / d == at % d { of(scale(at / d)) } else { 0.0 }).collect()
    };
    let m = times(&times(&upper, &diagonal(&|s| s), d), &lower, d);
    let inverse = times(&times(&lower_inverse, &diagonal(&|s| 1.0 / s), d), &upper_inverse, d);
    let identity = diagonal(&|_| 1.0);
    assert!(largest_difference(&times(&m, &inverse, d), &identity) < 1e-12);
    assert!(largest_difference(&m, &transposed(&m, d)) > 0.3, "not symmetric");
    assert!(largest_difference(&inverse, &transposed(&m, d)) > 0.3, "not orthogonal");
    [m, inverse]
}

/// The golden SAE as a checkpoint that was trained on whitened activations.
fn checkpoint(name: &str, to: &Path, mean: &[f64], [m, inverse]: [&Matrix; 2]) -> Dictionary {
    let d = mean.len();
    let read = std::fs::read(golden(name).join("cfg.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&read).unwrap();
    config["normalize_activations"] = json!("covariance_whitening");
    std::fs::write(to.join("cfg.json"), config.to_string()).unwrap();
    std::fs::copy(golden(name).join("sae_weights.safetensors"), to.join("sae_weights.safetensors")).unwrap();
    let square = |m: &[f64]| Tensor::from_slice(m, (d, d), &Device::Cpu).unwrap();
    let mean = Tensor::new(mean, &Device::Cpu).unwrap();
    let tensors = [("mean", mean), ("matrix", square(m)), ("inverse_matrix", square(inverse))];
    save_safetensors(to.join("activation_whitening.safetensors"), &tensors, None).unwrap();
    open(to, &OpenOptions::default()).unwrap()
}

/// Activations and outputs of the plain weights on whitened inputs `z`, in whitened units.
fn plain(name: &str, z: &[f64], d: usize) -> [Vec<f64>; 2] {
    let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
    if !name.starts_with("standard") {
        let narrow: Vec<f32> = z.iter().map(|z| *z as f32).collect();
        let z = Tensor::from_vec(narrow, (z.len() / d, d), &Device::Cpu).unwrap();
        let forward = Sae::load(golden(name)).unwrap().forward(&z).unwrap();
        return [&forward.codes.to_dense().unwrap(), &forward.x_hat].map(|x| wide(flat(x)));
    }
    let file = SafetensorsFile::open(golden(name).join("sae_weights.safetensors")).unwrap();
    let [w_enc, b_enc, w_dec, b_dec] =
        ["W_enc", "b_enc", "W_dec", "b_dec"].map(|name| wide(flat(&file.load_f32(name).unwrap())));
    let (d_sae, shifts) = (b_enc.len(), name == "standard");
    let (mut codes, mut outputs) = (Vec::new(), Vec::new());
    for z in z.chunks_exact(d) {
        let shifted: Vec<f64> = z.iter().zip(&b_dec).map(|(z, b)| z - if shifts { *b } else { 0.0 }).collect();
        let sum = |j: usize| shifted.iter().enumerate().map(|(i, z)| z * w_enc[i * d_sae + j]).sum::<f64>();
        let f: Vec<f64> = (0..d_sae).map(|j| (sum(j) + b_enc[j]).max(0.0)).collect();
        outputs.extend((0..d).map(|i| b_dec[i] + (0..d_sae).map(|j| f[j] * w_dec[j * d + i]).sum::<f64>()));
        codes.extend(f);
    }
    [codes, outputs]
}

#[test]
fn full_matrices_give_the_numbers_of_whitened_activations() {
    for name in ["standard", "standard_no_b_dec_in", "gated", "jumprelu", "topk", "abstopk"] {
        let d = Sae::load(golden(name)).unwrap().d_in();
        let mean: Vec<f64> = gaussian(d, 3).into_iter().map(|v| 0.5 * f64::from(v)).collect();
        let [m, inverse] = whitening(d);
        let x = gaussian(ROWS * d, 4);
        let centered: Vec<f64> = x.iter().zip(mean.iter().cycle()).map(|(x, mean)| f64::from(*x) - mean).collect();
        let due = |m: &[f64], inverse: &[f64]| -> [Vec<f32>; 2] {
            let [codes, outputs] = plain(name, &times(&centered, m, d), d);
            let raw = times(&outputs, inverse, d);
            let raw = raw.iter().zip(mean.iter().cycle()).map(|(raw, mean)| raw + mean);
            [codes.iter().map(|v| *v as f32).collect(), raw.map(|v| v as f32).collect()]
        };
        let dir = tempfile::tempdir().unwrap();
        let sae = checkpoint(name, dir.path(), &mean, [&m, &inverse]);
        let forward = sae.forward(&Tensor::from_vec(x.clone(), (ROWS, d), &Device::Cpu).unwrap()).unwrap();
        let (codes, output) = (flat(&forward.codes.to_dense().unwrap()), flat(&forward.x_hat));
        let [due_codes, due_output] = due(&m, &inverse);
        assert!(codes.iter().any(|f| *f != 0.0));
        let off = [error_of(&codes, &due_codes), error_of(&output, &due_output)];
        assert!(off.iter().all(|off| *off < TOLERANCE), "{name}: {off:?}");
        // One matrix turned over shows.
        let [turned_codes, _] = due(&transposed(&m, d), &inverse);
        let [_, turned_output] = due(&m, &transposed(&inverse, d));
        assert!(error_of(&codes, &turned_codes) > 0.1 && error_of(&output, &turned_output) > 0.1, "{name}");
    }
}
