//! A weight matrix as it was read, and what weight processing does to it, in place.

use crate::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;
use tensor_kernels::MatrixRef;

/// Rows whose sums are kept apart: fixed, so that the order of additions does not depend on threads.
const ROWS_PER_SUM: usize = 256;

/// A matrix `[k, n]` in memory of its own, row-major or transposed.
#[derive(Clone, PartialEq)]
pub(crate) struct Plain {
    data: Vec<f32>,
    k: usize,
    n: usize,
    transposed: bool,
}

impl Plain {
    /// `[k, n]`, row after row.
    pub fn row_major(data: Vec<f32>, k: usize, n: usize) -> Self {
        debug_assert_eq!(data.len(), k * n);
        Self { data, k, n, transposed: false }
    }

    /// `[k, n]`, column after column.
    pub fn transposed(data: Vec<f32>, k: usize, n: usize) -> Self {
        Self { transposed: true, ..Self::row_major(data, k, n) }
    }

    /// The values, in the order in which they are stored.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The number of columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// A copy of some columns, range after range.
    pub fn columns(&self, ranges: &[Range<usize>]) -> Self {
        let n = ranges.iter().map(Range::len).sum();
        if self.transposed {
            let parts: Vec<_> =
                ranges.iter().map(|range| &self.data[range.start * self.k..range.end * self.k]).collect();
            return Self::transposed(parts.concat(), self.k, n);
        }
        let mut data = vec![0.0; self.k * n];
        let rows = data.par_chunks_mut(n.max(1)).zip(self.data.par_chunks(self.n.max(1)));
        rows.for_each(|(mut to, from)| {
            for range in ranges {
                let (these, rest) = to.split_at_mut(range.len());
                these.copy_from_slice(&from[range.clone()]);
                to = rest;
            }
        });
        Self::row_major(data, self.k, n)
    }

    /// The transpose `[n, k]`, in a copy of the same memory.
    pub fn transpose_of(other: &Self) -> Self {
        Self { data: other.data.clone(), k: other.n, n: other.k, transposed: !other.transposed }
    }

    /// As an operand of a product.
    pub fn view(&self) -> Result<MatrixRef<'_>> {
        let view = if self.transposed { MatrixRef::transposed } else { MatrixRef::row_major };
        Ok(view(&self.data, self.k, self.n)?)
    }

    /// As an operand of a product: the transpose.
    pub fn transposed_view(&self) -> Result<MatrixRef<'_>> {
        let view = if self.transposed { MatrixRef::row_major } else { MatrixRef::transposed };
        Ok(view(&self.data, self.n, self.k)?)
    }

    /// As a tensor `[k, n]`, without a copy.
    pub fn into_tensor(self) -> Result<Tensor> {
        if self.transposed {
            return Ok(Tensor::from_vec(self.data, (self.n, self.k), &Device::Cpu)?.t()?);
        }
        Ok(Tensor::from_vec(self.data, (self.k, self.n), &Device::Cpu)?)
    }

    /// `b W` `[n]`.
    pub fn product_with_row(&self, b: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(b).map(|(w, b)| f64::from(*w) * f64::from(*b)).sum::<f64>() as f32;
        if self.transposed {
            return self.data.par_chunks(self.k.max(1)).map(dot).collect();
        }
        sum_of_rows(&self.data, self.n, |row| f64::from(b[row])).into_iter().map(|x| x as f32).collect()
    }

    /// Multiplies row `i` by `gain[i]`.
    pub fn scale_rows(&mut self, gain: &[f32]) {
        if self.transposed {
            let columns = self.data.par_chunks_mut(self.k.max(1));
            columns.for_each(|column| column.iter_mut().zip(gain).for_each(|(w, gain)| *w *= gain));
        } else {
            let rows = self.data.par_chunks_mut(self.n.max(1)).zip(gain);
            rows.for_each(|(row, gain)| row.iter_mut().for_each(|w| *w *= gain));
        }
    }

    /// Subtracts from each column its mean over `k`.
    pub fn center_over_k(&mut self) {
        if self.transposed { center_each_row(&mut self.data, self.k) } else { center_columns(&mut self.data, self.n) }
    }

    /// Subtracts from each row its mean over `n`.
    pub fn center_over_n(&mut self) {
        if self.transposed { center_columns(&mut self.data, self.k) } else { center_each_row(&mut self.data, self.n) }
    }
}

/// Subtracts from a vector its mean.
pub(crate) fn center(x: &mut [f32]) {
    let mean = (x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64) as f32;
    x.iter_mut().for_each(|x| *x -= mean);
}

fn center_each_row(data: &mut [f32], width: usize) {
    data.par_chunks_mut(width.max(1)).for_each(center);
}

fn center_columns(data: &mut [f32], width: usize) {
    let rows = data.len().checked_div(width).unwrap_or(0) as f64;
    let means: Vec<f32> = sum_of_rows(data, width, |_| 1.0).into_iter().map(|sum| (sum / rows) as f32).collect();
    let rows = data.par_chunks_mut(width.max(1));
    rows.for_each(|row| row.iter_mut().zip(&means).for_each(|(x, mean)| *x -= mean));
}

/// `sum weight(i) row[i]`, in f64.
fn sum_of_rows(data: &[f32], width: usize, weight: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
    let parts = data.par_chunks((ROWS_PER_SUM * width).max(1)).enumerate().map(|(part, rows)| {
        let mut sum = vec![0f64; width];
        for (i, row) in rows.chunks_exact(width.max(1)).enumerate() {
            let weight = weight(part * ROWS_PER_SUM + i);
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x));
        }
        sum
    });
    let parts: Vec<Vec<f64>> = parts.collect();
    parts.into_iter().fold(vec![0.0; width], |mut total, part| {
        total.iter_mut().zip(part).for_each(|(total, x)| *total += x);
        total
    })
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plain([{}, {}]{})", self.k, self.n, if self.transposed { ", transposed" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both layouts of a matrix of 3 rows and 2 columns.
    fn both() -> [Plain; 2] {
        let rows = vec![1.0, 2.0, 3.0, 5.0, 8.0, 11.0];
        [Plain::row_major(rows, 3, 2), Plain::transposed(vec![1.0, 3.0, 8.0, 2.0, 5.0, 11.0], 3, 2)]
    }

    fn values(matrix: Plain) -> Vec<Vec<f32>> {
        matrix.into_tensor().unwrap().to_vec2().unwrap()
    }

    #[test]
    fn both_layouts_are_processed_alike() {
        for matrix in both() {
            assert_eq!(matrix.product_with_row(&[1.0, 2.0, 0.5]), [11.0, 17.5]);
            let with = |change: fn(&mut Plain)| {
                let mut matrix = matrix.clone();
                change(&mut matrix);
                values(matrix)
            };
            assert_eq!(with(|m| m.scale_rows(&[1.0, 0.0, 2.0])), [[1.0, 2.0], [0.0, 0.0], [16.0, 22.0]]);
            assert_eq!(with(Plain::center_over_k), [[-3.0, -4.0], [-1.0, -1.0], [4.0, 5.0]]);
            assert_eq!(with(Plain::center_over_n), [[-0.5, 0.5], [-1.0, 1.0], [-1.5, 1.5]]);
            assert_eq!(values(matrix.columns(&[1..2, 0..1])), [[2.0, 1.0], [5.0, 3.0], [11.0, 8.0]]);
            assert_eq!(values(Plain::transpose_of(&matrix)), [[1.0, 3.0, 8.0], [2.0, 5.0, 11.0]]);
        }
    }
}
