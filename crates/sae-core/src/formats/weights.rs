//! Helpers for reading weight files: sizes from shapes, vectors, matrices that are stored transposed, and nothing left over.

use super::SaeFormat;
use crate::{Error, Result};
use candle_core::Tensor;
use serde_json::Value;
use std::path::Path;
use tensor_files::TensorFile;

/// The two sizes of a matrix.
pub(super) fn sizes(file: &dyn TensorFile, name: &str) -> Result<[usize; 2]> {
    match file.shape(name).as_deref() {
        Some(&[rows, columns]) => Ok([rows, columns]),
        found => {
            let found = found.unwrap_or_default();
            let expected = vec![0, 0];
            // The reading itself says best what is missing or misshapen.
            Err(file
                .read_f32(name, &expected)
                .err()
                .map_or_else(|| Error::Shape { name: "a matrix", expected, found: found.to_vec() }, Error::from))
        }
    }
}

pub(super) fn vector(file: &dyn TensorFile, name: &str, len: usize) -> Result<Vec<f32>> {
    Ok(file.read_f32(name, &[len])?)
}

/// A matrix that the file stores as `[columns, rows]`, as `[rows, columns]`.
pub(super) fn transposed(file: &dyn TensorFile, name: &str, rows: usize, columns: usize) -> Result<Tensor> {
    Ok(file.load_f32_shaped(name, &[columns, rows])?.t()?)
}

/// Every tensor must be one that the reader knows: another could change what is computed.
pub(super) fn refuse_strangers(file: &dyn TensorFile, format: SaeFormat, known: &[&str]) -> Result<()> {
    let mut names: Vec<String> = file.names().into_iter().filter(|name| !known.contains(&name.as_str())).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    Err(Error::UnknownTensors { path: file.path().into(), names, architecture: format.name().into() })
}

/// A configuration's size must be that of the weights.
pub(super) fn agree(path: &Path, key: &str, said: Option<usize>, held: usize) -> Result<()> {
    match said {
        Some(said) if said != held => Err(Error::BadKey {
            path: path.into(),
            key: key.into(),
            expected: format!("{held}, as the weights have it"),
            found: Value::from(said).to_string(),
        }),
        _ => Ok(()),
    }
}

/// The number after the first `marker` that is followed by one: 12 for `layer_12` and `layer_`.
pub(super) fn number_after(name: &str, marker: &str) -> Option<usize> {
    name.match_indices(marker).find_map(|(at, _)| {
        let digits: String = name[at + marker.len()..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}
