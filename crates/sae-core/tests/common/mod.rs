//! Helpers that several test files share.
#![allow(dead_code)]

use candle_core::{DType, Tensor};
use sae_core::{Arithmetic, Engine, LoadOptions, Precision, Sae};
use std::path::{Path, PathBuf};

/// A golden folder.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Architectures that no [`Sae`] computes: types of their own, opened as a [`Dictionary`](sae_core::Dictionary).
pub const OTHERS: [&str; 2] = ["matching_pursuit", "temporal"];

/// Names of the golden folders in SAELens' own layout.
pub fn golden_folders() -> Vec<String> {
    files(&golden("")).into_iter().filter(|name| golden(name).join("cfg.json").is_file()).collect()
}

/// Those of them that are an [`Sae`].
pub fn golden_saes() -> Vec<String> {
    let other = |name: &String| OTHERS.iter().any(|other| name.starts_with(other));
    golden_folders().into_iter().filter(|name| !other(name)).collect()
}

/// Kernels that keep every bit of the weights, on any machine.
pub fn exact() -> Engine {
    Engine::kernels(Precision::F32)
}

/// The reference, and every kernel of the machine.
pub fn engines() -> Vec<Engine> {
    std::iter::once(Engine::Reference).chain(Arithmetic::available().map(Engine::Kernels)).collect()
}

/// An SAE on an engine.
pub fn load_on(engine: Engine, folder: impl AsRef<Path>) -> sae_core::Result<Sae> {
    Sae::load_with(folder, &LoadOptions { engine, ..LoadOptions::default() })
}

/// All values of a tensor.
pub fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `max |found - expected| / rms(expected)`.
pub fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims(), "shapes differ");
    error_of(&flat(found), &flat(expected))
}

/// As [`error`], of slices.
pub fn error_of(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |v: &f32| f64::from(*v) * f64::from(*v);
    let rms = (expected.iter().map(square).sum::<f64>() / expected.len().max(1) as f64).sqrt();
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).fold(0.0, f64::max);
    assert!(found.iter().all(|v| v.is_finite()), "not finite");
    if rms == 0.0 { worst } else { worst / rms }
}

/// Names of the files in a folder, sorted.
pub fn files(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Standard normal numbers from a seed (splitmix64 and Box-Muller), the same on every machine to the last bits of `ln`.
pub fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut uniform = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count)
        .map(|_| {
            let (radius, angle) = (1.0 - uniform(), uniform());
            ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
        })
        .collect()
}
