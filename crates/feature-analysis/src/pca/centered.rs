//! The centered data, read in chunks so that no whole f64 copy exists.

use crate::{Error, Result};
use faer::{Accum, Mat, MatRef, Par, linalg::matmul::matmul};

/// Rows `[n, d]` with their column means; rows are centered and widened to f64 a chunk at a time.
pub(super) struct Centered<'a> {
    x: &'a [f32],
    d: usize,
    mean: Vec<f64>,
    total: f64,
}

/// Rows per chunk: 1,024 x 768 doubles are 6 MB, the size of a cache, and enough for the product to run at full speed.
const CHUNK: usize = 1024;

impl<'a> Centered<'a> {
    /// Checks the data and takes the column means (sums in f64, in row order).
    pub(super) fn new(x: &'a [f32], d: usize) -> Result<Self> {
        if d == 0 || !x.len().is_multiple_of(d) {
            return Err(Error::Shape {
                what: "the data",
                expected: "whole rows of d > 0 columns".into(),
                found: vec![x.len(), d],
            });
        }
        let n = x.len() / d;
        if n < 2 {
            return Err(Error::TooFewRows { rows: n });
        }
        if let Some(i) = x.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { what: "the data", value: x[i], row: i / d, column: i % d });
        }
        let mut mean = vec![0.0; d];
        for row in x.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= n as f64);
        let total = x
            .chunks_exact(d)
            .map(|row| row.iter().zip(&mean).map(|(&v, m)| (f64::from(v) - m).powi(2)).sum::<f64>())
            .sum();
        Ok(Self { x, d, mean, total })
    }

    pub(super) fn n(&self) -> usize {
        self.x.len() / self.d
    }

    pub(super) fn d(&self) -> usize {
        self.d
    }

    /// Sum of squares of the centered data.
    pub(super) fn total(&self) -> f64 {
        self.total
    }

    pub(super) fn into_mean(self) -> Vec<f64> {
        self.mean
    }

    /// All centered rows at once, for solvers that want them whole.
    pub(super) fn whole(&self) -> Vec<f64> {
        self.widen(self.x)
    }

    fn widen(&self, rows: &[f32]) -> Vec<f64> {
        let mut wide = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(self.d) {
            wide.extend(row.iter().zip(&self.mean).map(|(&v, m)| f64::from(v) - m));
        }
        wide
    }

    /// Calls `each(first row, centered chunk [rows, d])` over all rows, in order.
    pub(super) fn for_each_chunk(&self, mut each: impl FnMut(usize, MatRef<'_, f64>)) {
        for (i, rows) in self.x.chunks(CHUNK * self.d).enumerate() {
            let wide = self.widen(rows);
            each(i * CHUNK, MatRef::from_row_major_slice(&wide, rows.len() / self.d, self.d));
        }
    }

    /// `Xc v` for each row `v` of `vectors [k, d]`: `[n, k]`.
    pub(super) fn times(&self, vectors: &[f64]) -> Mat<f64> {
        let k = vectors.len() / self.d;
        let v = MatRef::from_row_major_slice(vectors, k, self.d);
        let mut product = Mat::zeros(self.n(), k);
        self.for_each_chunk(|at, chunk| {
            let out = product.as_mut().subrows_mut(at, chunk.nrows());
            matmul(out, Accum::Replace, chunk, v.transpose(), 1.0, Par::rayon(0));
        });
        product
    }

    /// `s^2 = |Xc v|^2` of each component, after checking `|Xc' Xc v - s^2 v| <= tolerance * s_1^2` on the data itself.
    pub(super) fn certify(&self, components: &[f64], tolerance: f64) -> Result<Vec<f64>> {
        let (squares, residuals) = self.residuals(components);
        let allowed = tolerance * squares.iter().copied().fold(0.0, f64::max);
        match residuals.iter().position(|r| r.is_nan() || *r > allowed) {
            None => Ok(squares),
            Some(component) => {
                let residual = residuals[component] * tolerance / allowed;
                Err(Error::Uncertified { component, residual, allowed: tolerance })
            }
        }
    }

    /// `s^2` and `|Xc' Xc v - s^2 v|` of each component.
    fn residuals(&self, components: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let k = components.len() / self.d;
        let images = self.times(components);
        let squares: Vec<f64> = (0..k).map(|i| images.col(i).squared_norm_l2()).collect();
        let mut back = Mat::<f64>::zeros(self.d, k);
        self.for_each_chunk(|at, chunk| {
            let part = images.subrows(at, chunk.nrows());
            matmul(&mut back, Accum::Add, chunk.transpose(), part, 1.0, Par::rayon(0));
        });
        let residual = |i: usize| -> f64 {
            let v = &components[i * self.d..(i + 1) * self.d];
            back.col(i).iter().zip(v).map(|(b, v)| (b - squares[i] * v).powi(2)).sum::<f64>().sqrt()
        };
        let residuals = (0..k).map(residual).collect();
        (squares, residuals)
    }
}
