//! The tensors of a GGUF file under Hugging Face's names, with what the converter did to them undone.

use super::GgufFile;
use super::arch::{Architecture, Change};
use super::words::Sizes;
use crate::folder::shorten;
use crate::weights::TensorSource;
use crate::{Error, LoadWarning, Result};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

pub(super) struct Source<'a> {
    file: &'a GgufFile,
    arch: &'static Architecture,
    sizes: Sizes,
    taken: Mutex<BTreeSet<String>>,
    warnings: Mutex<Vec<LoadWarning>>,
}

impl<'a> Source<'a> {
    pub fn new(file: &'a GgufFile, arch: &'static Architecture, sizes: Sizes) -> Self {
        Self { file, arch, sizes, taken: Mutex::default(), warnings: Mutex::default() }
    }

    fn read(&self, stored: String, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.file.read_f32(&stored, shape)?;
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(stored);
        Ok(values)
    }
}

impl TensorSource for Source<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (stored, change) = self.arch.stored(name);
        if let (Change::Transposed, &[k, n]) = (change, shape) {
            return Ok(transpose(&self.read(stored, &[n, k])?, n, k));
        }
        let values = self.read(stored, shape)?;
        let columns = shape.iter().skip(1).product();
        let Sizes { n_heads, n_kv_heads, .. } = self.sizes;
        Ok(match change {
            Change::PairsOfQ => unpermute(&values, n_heads, columns),
            Change::PairsOfK => unpermute(&values, n_kv_heads, columns),
            Change::HeadsOfParts => swap_outer(&values, 3, n_heads),
            Change::None | Change::Transposed => values,
        })
    }

    /// GGUF files hold whole gains: the converter has added what a family's own files leave out.
    fn gain(&self, name: &str, len: usize, _: f32) -> Result<Vec<f32>> {
        self.vector(name, len)
    }

    /// Biases are not announced by any key: they are there or not. One that only some blocks have is left over, or missed here.
    fn vector_if(&self, exists: bool, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        // Models with biases on Q, K and V alone exist in this format; the folder's one flag means all four.
        let exists = exists && (self.holds(name) || !name.ends_with("o_proj.bias"));
        if exists { self.vector(name, len).map(Some) } else { Ok(None) }
    }

    fn holds(&self, name: &str) -> bool {
        self.file.tensor(&self.arch.stored(name).0).is_some()
    }

    fn warn(&self, warning: LoadWarning) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    fn warnings(&self) -> Vec<LoadWarning> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&self, _: &dyn Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |name: &str| taken.contains(name) || self.arch.factors.contains(&name);
        let left = self.file.tensors().map(|(name, _)| name).filter(|name| !read(name));
        let mut names: Vec<String> = left.map(str::to_owned).collect();
        if names.is_empty() {
            return Ok(());
        }
        shorten(&mut names);
        Err(Error::UnexpectedTensors { path: self.file.path().into(), names })
    }
}

/// `[n, k]` to `[k, n]`.
#[expect(clippy::indexing_slicing, reason = "`row < n` and `column < k`, and both lengths are `n * k`")]
fn transpose(values: &[f32], n: usize, k: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    // Squares that fit in the first cache: neither side is then read or written with a stride for long.
    const SIDE: usize = 32;
    for (row0, column0) in (0..n).step_by(SIDE).flat_map(|row| (0..k).step_by(SIDE).map(move |column| (row, column))) {
        for row in row0..(row0 + SIDE).min(n) {
            for column in column0..(column0 + SIDE).min(k) {
                out[column * n + row] = values[row * k + column];
            }
        }
    }
    out
}

/// Puts the rows of a Q or K projection back into Hugging Face's order.
///
/// llama.cpp rotates neighbors `(2 j, 2 j + 1)` of a Llama, so its converter moved row `half * d_head/2 + j` of each head to
/// `2 j + half`. This crate rotates `(j, d_head/2 + j)`, as the original checkpoint does. Without this step the model does not look
/// broken, only worse.
fn unpermute(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let half = values.len() / columns / heads / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact((2 * half * columns).max(1)).take(heads) {
        for side in 0..2 {
            head.chunks_exact(columns).skip(side).step_by(2).for_each(|row| out.extend_from_slice(row));
        }
    }
    out
}

/// `[a, b, rest]` to `[b, a, rest]`.
fn swap_outer(values: &[f32], a: usize, b: usize) -> Vec<f32> {
    let rest = values.len() / a / b;
    let mut out = Vec::with_capacity(values.len());
    for j in 0..b {
        values.chunks_exact(rest.max(1)).skip(j).step_by(b).take(a).for_each(|part| out.extend_from_slice(part));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_of_uneven_sides() {
        let (n, k) = (37, 70);
        let values: Vec<f32> = (0..n * k).map(|i| i as f32).collect();
        let out = transpose(&values, n, k);
        assert!((0..n * k).all(|i| out[i % k * n + i / k] == i as f32));
    }

    #[test]
    fn parts_and_heads_change_places() {
        // Three parts of two heads of two rows of one column, named by part, head and row.
        let values = [0., 1., 10., 11., 100., 101., 110., 111., 200., 201., 210., 211.];
        let out = swap_outer(&values, 3, 2);
        assert_eq!(out, [0., 1., 100., 101., 200., 201., 10., 11., 110., 111., 210., 211.]);
    }
}
