//! Files beside the weights of a SAELens folder: the scaler and the whitening of a training checkpoint, which change what is computed, and
//! firing frequencies, which do not.

use super::SPARSITY_FILE;
use crate::formats::json_keys::read_object;
use crate::{Error, Normalization, OpenNote, Result};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;
use tensor_files::SafetensorsFile;

/// Name of the file that holds the factor of the norms.
pub(crate) const SCALER_FILE: &str = "activation_scaler.json";
/// Name of the file that holds a whitening.
pub(crate) const WHITENING_FILE: &str = "activation_whitening.safetensors";

/// The factor to fold into the weights: the caller's, else that of `activation_scaler.json` where the configuration asks for one.
///
/// A scaler that cannot be read is an error where its factor is needed, and a note where it is not.
pub(super) fn norm_factor(
    folder: &Path,
    normalization: Normalization,
    given: Option<f32>,
    notes: &mut Vec<OpenNote>,
) -> Result<Option<f32>> {
    let path = folder.join(SCALER_FILE);
    let wanted = normalization == Normalization::ExpectedAverageOnlyIn;
    let beside = match scaler(&path) {
        Err(Error::BadAuxiliary { reason, .. }) if given.is_some() || !wanted => {
            notes.push(OpenNote::FileSkipped { path: path.clone(), reason });
            None
        }
        said => said?,
    };
    if let Some(factor) = given {
        notes.push(OpenNote::NormFactorFolded { factor, path: None });
        if let Some(other) = beside.filter(|other| *other != factor) {
            notes.push(OpenNote::NormFactorUnused { path, factor: other, reason: "another was given" });
        }
        return Ok(given);
    }
    if let Some(factor) = beside {
        notes.push(match wanted {
            true => OpenNote::NormFactorFolded { factor, path: Some(path) },
            false => {
                let reason = "cfg.json does not say `normalize_activations: expected_average_only_in`";
                OpenNote::NormFactorUnused { path, factor, reason }
            }
        });
    }
    Ok(beside.filter(|_| wanted))
}

/// `scaling_factor`; `None` where there is no such file, or it holds null, as SAELens writes once the factor is in the weights.
fn scaler(path: &Path) -> Result<Option<f32>> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(None);
    }
    let expected = "an object with a positive `scaling_factor`, or null";
    let bad = |reason: String| Error::BadAuxiliary { path: path.into(), reason, expected };
    let reason = |error: Error| match error {
        Error::Io { source, .. } => source.to_string(),
        Error::NotJson { reason, .. } => format!("not a JSON object: {reason}"),
        other => other.to_string(),
    };
    let map = read_object(path).map_err(|error| bad(reason(error)))?;
    match map.get("scaling_factor") {
        Some(Value::Null) => Ok(None),
        Some(value) => {
            let factor =
                value.as_f64().map(|factor| factor as f32).filter(|factor| factor.is_finite() && *factor > 0.0);
            factor.map(Some).ok_or_else(|| bad(format!("`scaling_factor` is {value}")))
        }
        None => Err(bad("`scaling_factor` is missing".into())),
    }
}

/// `x -> (x - mean) matrix`, and the way back.
pub(super) struct Whitening {
    pub(super) mean: Vec<f32>,
    pub(super) matrix: Tensor,
    pub(super) inverse: Tensor,
}

/// The whitening of a training checkpoint, which the configuration asks for.
pub(super) fn whitening(folder: &Path, d_in: usize, notes: &mut Vec<OpenNote>) -> Result<Whitening> {
    let path = folder.join(WHITENING_FILE);
    let expected =
        "the `mean`, `matrix` and `inverse_matrix` that SAELens writes beside a checkpoint of `covariance_whitening`";
    if !path.is_file() {
        return Err(Error::BadAuxiliary { path, reason: "the file is missing".into(), expected });
    }
    let file = SafetensorsFile::open(&path)?;
    let whitening = Whitening {
        mean: file.read_f32("mean", &[d_in])?,
        matrix: file.load_f32_shaped("matrix", &[d_in, d_in])?,
        inverse: file.load_f32_shaped("inverse_matrix", &[d_in, d_in])?,
    };
    notes.push(OpenNote::WhiteningFolded { path });
    Ok(whitening)
}

/// log10 of firing frequencies, -inf where a feature never fired. They change no number of the SAE, so that a file that cannot be used is
/// a note.
pub(super) fn sparsity(folder: &Path, d_sae: usize, notes: &mut Vec<OpenNote>) -> Option<Vec<f32>> {
    let path = folder.join(SPARSITY_FILE);
    if std::fs::symlink_metadata(&path).is_err() {
        return None;
    }
    let reason = match read_logs(&path, d_sae) {
        Ok(logs) => match logs.iter().enumerate().find(|(_, log)| log.is_nan() || **log == f32::INFINITY) {
            None => return Some(logs),
            Some((at, log)) => {
                format!("`sparsity` holds {log} at element {at}, expected log10 of a frequency, or -inf")
            }
        },
        Err(error) => error.to_string(),
    };
    notes.push(OpenNote::FileSkipped { path, reason });
    None
}

fn read_logs(path: &Path, d_sae: usize) -> Result<Vec<f32>> {
    let logs = SafetensorsFile::open(path)?.load("sparsity")?;
    if logs.dims() != [d_sae] {
        return Err(Error::Shape { name: "sparsity", expected: vec![d_sae], found: logs.dims().to_vec() });
    }
    if !logs.dtype().is_float() {
        return Err(Error::InputType { found: logs.dtype() });
    }
    Ok(logs.to_dtype(candle_core::DType::F32)?.to_vec1()?)
}
