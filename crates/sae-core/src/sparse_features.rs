use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use std::mem::take;
use tensor_kernels::CsrBuffer;

/// The number of a dictionary element, `0..d_sae`.
pub type FeatureId = u32;

/// Feature activations of many tokens, compressed by rows (CSR).
///
/// ```text
/// row i:  features index[indptr[i] .. indptr[i+1]]  with activations  value[ same range ]
/// ```
///
/// # Invariants
/// `indptr` has one entry more than there are rows, starts at 0, never falls and ends at the length of `index` and of
/// `value`; inside a row the indices rise strictly and are below `d_sae`. Values may have either sign; absent means zero.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseFeatures {
    indptr: Vec<u64>,
    index: Vec<u32>,
    value: Vec<f32>,
    d_sae: u32,
}

impl SparseFeatures {
    /// No rows yet.
    #[must_use]
    pub fn empty(d_sae: u32) -> Self {
        Self { indptr: vec![0], index: Vec::new(), value: Vec::new(), d_sae }
    }

    /// Takes the three vectors of the format, after checking every invariant.
    ///
    /// # Errors
    /// [`Error::Sparse`] naming the first row that breaks one.
    pub fn new(indptr: Vec<u64>, index: Vec<u32>, value: Vec<f32>, d_sae: u32) -> Result<Self> {
        let broken = |reason: String| Err(Error::Sparse { reason });
        if indptr.first() != Some(&0) {
            return broken(format!("indptr starts with {:?}, expected 0", indptr.first()));
        }
        if index.len() != value.len() {
            return broken(format!("{} indices but {} values", index.len(), value.len()));
        }
        if indptr.last() != Some(&(index.len() as u64)) {
            return broken(format!("indptr ends with {:?}, expected {}", indptr.last(), index.len()));
        }
        for (row, ends) in indptr.windows(2).enumerate() {
            if ends[0] > ends[1] || ends[1] > index.len() as u64 {
                return broken(format!("row {row} runs from {} to {} of {}", ends[0], ends[1], index.len()));
            }
            let row_index = &index[ends[0] as usize..ends[1] as usize];
            if let Some(pair) = row_index.windows(2).find(|p| p[0] >= p[1]) {
                return broken(format!("row {row} has feature {} before {}", pair[0], pair[1]));
            }
            if let Some(&last) = row_index.last().filter(|&&j| j >= d_sae) {
                return broken(format!("row {row} has feature {last}, d_sae is {d_sae}"));
            }
        }
        Ok(Self { indptr, index, value, d_sae })
    }

    /// Compresses dense activations `[.., d_sae]`; exact zeros are left out, NaN is kept.
    ///
    /// # Errors
    /// [`Error::InputShape`] for a scalar, [`Error::Parameter`] when `d_sae` exceeds u32.
    pub fn from_dense(dense: &Tensor) -> Result<Self> {
        let Some(&width) = dense.dims().last() else {
            return Err(Error::InputShape { expected: "[.., d_sae]".into(), found: Vec::new() });
        };
        let d_sae = u32::try_from(width).map_err(|_| Error::Parameter {
            name: "d_sae",
            expected: format!("at most {}", u32::MAX),
            found: width.to_string(),
        })?;
        let mut out = Self::empty(d_sae);
        if dense.elem_count() == 0 {
            let rows = dense.dims()[..dense.rank() - 1].iter().product::<usize>();
            out.indptr.resize(rows + 1, 0);
            return Ok(out);
        }
        let flat: Vec<f32> = dense.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
        for row in flat.chunks_exact(width) {
            out.push_row(row.iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(j, v)| (j as u32, *v)));
        }
        Ok(out)
    }

    /// Appends a row. The caller gives rising indices below `d_sae`.
    pub(crate) fn push_row(&mut self, entries: impl Iterator<Item = (u32, f32)>) {
        for (index, value) in entries {
            self.index.push(index);
            self.value.push(value);
        }
        self.indptr.push(self.index.len() as u64);
    }

    /// Appends what the kernels give: rising indices below `d_sae`.
    pub(crate) fn extend_with(
        &mut self,
        encode: impl FnOnce(&mut CsrBuffer) -> tensor_kernels::Result<()>,
    ) -> Result<()> {
        let (indptr, index, value) = (take(&mut self.indptr), take(&mut self.index), take(&mut self.value));
        let mut out = CsrBuffer { indptr, index, value };
        let result = encode(&mut out);
        (self.indptr, self.index, self.value) = (out.indptr, out.index, out.value);
        Ok(result?)
    }

    /// As [`push_row`](Self::push_row), from slices.
    pub(crate) fn extend_row(&mut self, index: &[u32], value: &[f32]) {
        self.index.extend_from_slice(index);
        self.value.extend_from_slice(value);
        self.indptr.push(self.index.len() as u64);
    }

    /// Forgets all rows and keeps the storage.
    pub fn clear(&mut self, d_sae: u32) {
        self.indptr.truncate(1);
        self.index.clear();
        self.value.clear();
        self.d_sae = d_sae;
    }

    /// The number of rows (tokens).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// The number of features of the dictionary, stored or not.
    #[must_use]
    pub fn d_sae(&self) -> usize {
        self.d_sae as usize
    }

    /// The number of stored activations, over all rows.
    #[must_use]
    pub fn nnz(&self) -> usize {
        self.index.len()
    }

    /// Mean number of stored activations per row; 0 without rows.
    #[must_use]
    pub fn l0(&self) -> f64 {
        if self.rows() == 0 { 0.0 } else { self.nnz() as f64 / self.rows() as f64 }
    }

    /// The features of a row, rising, and their activations.
    ///
    /// # Panics
    /// When `row >= self.rows()`.
    #[must_use]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.indptr[row] as usize..self.indptr[row + 1] as usize;
        (&self.index[range.clone()], &self.value[range])
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u32], &[f32])> {
        (0..self.rows()).map(|row| self.row(row))
    }

    /// The activation of a feature in a row, zero when it is not stored.
    ///
    /// # Panics
    /// When `row >= self.rows()`.
    #[must_use]
    pub fn get(&self, row: usize, feature: FeatureId) -> f32 {
        let (index, value) = self.row(row);
        index.binary_search(&feature).map_or(0.0, |at| value[at])
    }

    /// The row boundaries, `rows + 1` of them.
    #[must_use]
    pub fn indptr(&self) -> &[u64] {
        &self.indptr
    }

    /// The features of all rows, one row after another.
    #[must_use]
    pub fn index(&self) -> &[u32] {
        &self.index
    }

    /// The activations beside [`index`](Self::index).
    #[must_use]
    pub fn value(&self) -> &[f32] {
        &self.value
    }

    /// Gives back `(indptr, index, value, d_sae)`.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u64>, Vec<u32>, Vec<f32>, u32) {
        (self.indptr, self.index, self.value, self.d_sae)
    }

    /// Dense activations `[rows, d_sae]`. For wide dictionaries prefer [`columns`](Self::columns).
    ///
    /// # Errors
    /// [`Error::Tensor`].
    pub fn to_dense(&self) -> Result<Tensor> {
        let (rows, width) = (self.rows(), self.d_sae());
        let mut dense = vec![0f32; rows * width];
        for (row, (index, value)) in self.iter().enumerate() {
            for (&j, &v) in index.iter().zip(value) {
                dense[row * width + j as usize] = v;
            }
        }
        Ok(Tensor::from_vec(dense, (rows, width), &Device::Cpu)?)
    }

    /// Dense activations `[rows, features.len()]` of the given features, in the given order; repeats are allowed.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`].
    pub fn columns(&self, features: &[FeatureId]) -> Result<Tensor> {
        check_features(features, self.d_sae())?;
        let width = features.len();
        let mut dense = vec![0f32; self.rows() * width];
        if width > 0 {
            dense.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
                for (out, &feature) in out.iter_mut().zip(features) {
                    *out = self.get(row, feature);
                }
            });
        }
        Ok(Tensor::from_vec(dense, (self.rows(), width), &Device::Cpu)?)
    }

    /// The same rows with only the given features kept; all others become absent.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`].
    pub fn keep(&self, features: &[FeatureId]) -> Result<Self> {
        check_features(features, self.d_sae())?;
        let mut sorted = features.to_vec();
        sorted.sort_unstable();
        let mut out = Self::empty(self.d_sae);
        for (index, value) in self.iter() {
            let entries = index.iter().copied().zip(value.iter().copied());
            out.push_row(entries.filter(|(j, _)| sorted.binary_search(j).is_ok()));
        }
        Ok(out)
    }

    /// The same rows with only the features below `width` kept: one level of a matryoshka SAE, to be decoded by the SAE that encoded them.
    #[must_use]
    pub fn first(&self, width: usize) -> Self {
        let mut out = Self::empty(self.d_sae);
        for (index, value) in self.iter() {
            let end = index.partition_point(|&feature| (feature as usize) < width);
            out.extend_row(&index[..end], &value[..end]);
        }
        out
    }

    /// The given rows, in the given order.
    ///
    /// # Panics
    /// When a row is out of range.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        let mut out = Self::empty(self.d_sae);
        for &row in rows {
            let (index, value) = self.row(row);
            out.extend_row(index, value);
        }
        out
    }
}

/// Every feature must exist.
pub(crate) fn check_features(features: &[FeatureId], d_sae: usize) -> Result<()> {
    match features.iter().find(|&&feature| feature as usize >= d_sae) {
        Some(&feature) => Err(Error::FeatureOutOfRange { feature, d_sae }),
        None => Ok(()),
    }
}

/// Checks a list of features: at least one, each of them of the SAE, none named twice.
///
/// # Errors
/// [`Error::NoFeatures`], [`Error::FeatureOutOfRange`], [`Error::FeatureTwice`].
pub fn check_feature_list(features: &[FeatureId], d_sae: usize) -> Result<()> {
    if features.is_empty() {
        return Err(Error::NoFeatures { d_sae });
    }
    check_features(features, d_sae)?;
    let mut seen = HashMap::with_capacity(features.len());
    for (second, &feature) in features.iter().enumerate() {
        if let Some(first) = seen.insert(feature, second) {
            return Err(Error::FeatureTwice { feature, first, second });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_refused_with_names() {
        let refuse = |list: &[u32]| check_feature_list(list, 10).unwrap_err().to_string();
        assert_eq!(refuse(&[]), "no features given; at least one of 0..10 is needed");
        assert_eq!(refuse(&[3, 10]), "feature 10 is outside this SAE, whose features are 0..10");
        assert_eq!(refuse(&[3, 1, 3]), "feature 3 is listed twice, at places 0 and 2");
        check_feature_list(&[9, 0], 10).unwrap();
    }
}
