//! Goldens, and how errors are counted. Shared by the integration tests of the facade.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use candle_core::{DType, Tensor};
use feature_analysis::FeatureExamples;
use model_hooks::TokenBatch;
use std::collections::BTreeSet;
use std::path::Path;
use tensor_files::SafetensorsFile;

/// A golden safetensors file.
pub struct Golden(SafetensorsFile);

impl Golden {
    pub fn open(path: impl AsRef<Path>) -> Self {
        Self(SafetensorsFile::open(path).expect("the goldens are readable"))
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.0.load(name).expect("the golden holds it")
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        floats(&self.tensor(name))
    }

    pub fn ints(&self, name: &str) -> Vec<i64> {
        self.tensor(name).to_dtype(DType::I64).and_then(|t| t.flatten_all()?.to_vec1()).expect("integers")
    }

    /// Feature or token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.ints(name).into_iter().map(|id| u32::try_from(id).expect("an id")).collect()
    }

    /// Rows of token ids `[.., pos]`.
    pub fn tokens(&self, name: &str) -> TokenBatch {
        let width = *self.tensor(name).dims().last().expect("a matrix");
        TokenBatch::new(&self.ids(name).chunks(width).collect::<Vec<_>>()).expect("equally long rows")
    }
}

/// A JSON file.
pub fn json(path: impl AsRef<Path>) -> serde_json::Value {
    let text = std::fs::read_to_string(path).expect("the goldens are readable");
    serde_json::from_str(&text).expect("valid JSON")
}

/// A JSON value as any type that fits.
pub fn parse<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> T {
    serde_json::from_value(value.clone()).expect("the golden has this type")
}

pub fn floats(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).and_then(|x| x.flatten_all()?.to_vec1()).expect("floats")
}

/// `max |ours - reference| / rms(reference)` over the finite entries; the others must be the same in both.
pub fn error_in_rms(ours: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(ours.len(), reference.len(), "another number of values");
    let (mut worst, mut squares, mut finite) = (0f64, 0f64, 0u32);
    for (&a, &b) in ours.iter().zip(reference) {
        if !b.is_finite() {
            assert!(a == b || (a.is_nan() && b.is_nan()), "{a} where the reference has {b}");
            continue;
        }
        assert!(a.is_finite(), "{a} where the reference has {b}");
        worst = worst.max(f64::from((a - b).abs()));
        squares += f64::from(b) * f64::from(b);
        finite += 1;
    }
    worst / (squares / f64::from(finite.max(1))).sqrt().max(f64::MIN_POSITIVE)
}

/// Prints the error as a line of a table (shown with `--nocapture`) and fails above the tolerance.
pub fn within(what: &str, ours: &[f32], reference: &[f32], tolerance: f64) {
    let error = error_in_rms(ours, reference);
    println!("| {what} | {error:.1e} of the rms | {tolerance:.0e} |");
    assert!(error <= tolerance, "{what}: {error:.3e} of the rms, allowed {tolerance:.0e}");
}

/// The same for one number, relative to the reference.
pub fn close(what: &str, ours: f64, reference: f64, tolerance: f64) {
    let error = ((ours - reference) / reference).abs();
    println!("| {what} | {ours:.6} for {reference:.6}: {error:.1e} relative | {tolerance:.0e} |");
    assert!(error <= tolerance, "{what}: {ours}, expected {reference}");
}

/// The same rows were kept, but for those where a feature is near the edge at which it begins to fire.
/// Returns how many rows differ.
pub fn same_rows(what: &str, ours: &[i64], reference: &[i64], near_edge: &[i64]) -> usize {
    let [ours, reference, near] =
        [ours, reference, near_edge].map(|rows| rows.iter().copied().collect::<BTreeSet<_>>());
    let differ: Vec<i64> = ours.symmetric_difference(&reference).copied().collect();
    let wrong: Vec<&i64> = differ.iter().filter(|row| !near.contains(row)).collect();
    let (n, m, d, e) = (ours.len(), reference.len(), differ.len(), near.len());
    println!("| {what} | {n} for {m}: {d} differ | only among {e} at the edge |");
    assert!(wrong.is_empty(), "{what}: {} rows differ away from the edge, first {:?}", wrong.len(), wrong[0]);
    differ.len()
}

/// The kept tokens as flat numbers `(row - first_row) * context + pos`, and the sums of their activations and of the squares of
/// their reconstructions.
pub fn summary(kept: &FeatureExamples, first_row: u64, context: u64) -> (Vec<i64>, f64, f64) {
    let flat = |at: &activation_store::TokenPos| ((at.row - first_row) * context + u64::from(at.pos)).cast_signed();
    let rows = kept.at().iter().map(flat).collect();
    let acts = kept.acts().iter().map(|&a| f64::from(a)).sum();
    let squares = floats(&kept.reconstructions().expect("reconstructions")).iter().map(|&x| f64::from(x).powi(2)).sum();
    (rows, acts, squares)
}
