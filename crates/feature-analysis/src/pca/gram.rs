//! The exact path: eigenvectors of the smaller Gram matrix of the centered data.

use super::{TOLERANCE, centered::Centered};
use crate::{Error, Result};
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular};
use faer::{Accum, Mat, MatRef, Par, Side};

/// `Xc' Xc [d, d]`, or `Xc Xc' [n, n]` when there are fewer rows than columns; only the lower triangle is filled.
pub(super) struct Gram {
    matrix: Mat<f64>,
    of_rows: bool,
}

impl Gram {
    pub(super) fn new(data: &Centered<'_>) -> Self {
        let of_rows = data.n() < data.d();
        let side = data.n().min(data.d());
        let mut matrix = Mat::zeros(side, side);
        if of_rows {
            let whole = data.whole();
            let x = MatRef::from_row_major_slice(&whole, data.n(), data.d());
            add_lower(&mut matrix, x, x.transpose(), 1.0);
        } else {
            data.for_each_chunk(|_, chunk| add_lower(&mut matrix, chunk.transpose(), chunk, 1.0));
        }
        Self { matrix, of_rows }
    }

    /// The `k` leading components `[k, d]`, orthonormal. Beyond the rank of the data they are completed deterministically.
    pub(super) fn leading(&self, data: &Centered<'_>, k: usize) -> Result<Vec<f64>> {
        let (side, d) = (self.matrix.nrows(), data.d());
        let eigen = self.matrix.self_adjoint_eigen(Side::Lower).map_err(|_| Error::NoConvergence { size: side })?;
        // faer sorts eigenvalues upwards: the last column of U leads.
        let leading = (0..k).map(|i| side - 1 - i);
        let null = f64::EPSILON * data.n().max(d) as f64 * eigen.S()[side - 1].max(0.0);
        let mut candidates = Vec::with_capacity(k * d);
        let mut rank = 0;
        for column in leading.take_while(|&c| eigen.S()[c] > null) {
            if self.of_rows {
                candidates.extend(rows_combined(data, eigen.U().col(column).iter().copied()));
            } else {
                candidates.extend(eigen.U().col(column).iter());
            }
            rank += 1;
        }
        let mut components = Vec::with_capacity(k * d);
        for candidate in candidates.chunks_exact(d) {
            push_orthonormal(&mut components, candidate.to_vec());
        }
        (rank..k).for_each(|_| complete(&mut components, d));
        Ok(components)
    }

    /// Whether `components` are eigenvectors, orthonormal, and the leading ones: with `s_k^2` the smallest of their eigenvalues,
    /// `(s_k^2 + tolerance s_1^2) I - (Gram - their part)` is positive definite exactly if no larger eigenvalue was missed.
    pub(super) fn certifies(&self, data: &Centered<'_>, components: &[f64]) -> bool {
        let Ok(squares) = data.certify(components, TOLERANCE) else { return false };
        let (d, k) = (data.d(), squares.len());
        let v = MatRef::from_row_major_slice(components, k, d);
        let overlap = v * v.transpose();
        let near_one = |i: usize, j: usize| (overlap[(i, j)] - f64::from(u8::from(i == j))).abs() <= TOLERANCE;
        if !(0..k).all(|i| (0..k).all(|j| near_one(i, j))) {
            return false;
        }
        let (largest, smallest) =
            squares.iter().fold((0.0, f64::INFINITY), |(a, b): (f64, f64), &s| (a.max(s), b.min(s)));
        let mut rest = Mat::from_fn(self.matrix.nrows(), self.matrix.nrows(), |i, j| -self.matrix[(i, j)]);
        if self.of_rows {
            let images = data.times(components);
            add_lower(&mut rest, images.as_ref(), images.transpose(), 1.0);
        } else {
            let scaled = Mat::from_fn(k, d, |i, j| squares[i].sqrt() * v[(i, j)]);
            add_lower(&mut rest, scaled.transpose(), scaled.as_ref(), 1.0);
        }
        (0..rest.nrows()).for_each(|i| rest[(i, i)] += smallest + TOLERANCE * largest);
        rest.llt(Side::Lower).is_ok()
    }
}

fn add_lower(out: &mut Mat<f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>, alpha: f64) {
    use BlockStructure::{Rectangular, TriangularLower};
    triangular(out, TriangularLower, Accum::Add, left, Rectangular, right, Rectangular, alpha, Par::rayon(0));
}

/// `Xc' u`: along a component of the data, because `Xc' (Xc Xc' u) = s^2 Xc' u`.
fn rows_combined(data: &Centered<'_>, weights: impl Iterator<Item = f64>) -> Vec<f64> {
    let weights: Vec<f64> = weights.collect();
    let mut sum = vec![0.0; data.d()];
    data.for_each_chunk(|at, chunk| {
        for (row, w) in chunk.row_iter().zip(&weights[at..]) {
            sum.iter_mut().zip(row.iter()).for_each(|(s, x)| *s += w * x);
        }
    });
    sum
}

/// Appends `v`, made orthogonal to the vectors before it (twice: once is not enough in floating point) and of unit length.
fn push_orthonormal(basis: &mut Vec<f64>, mut v: Vec<f64>) {
    let d = v.len();
    for _ in 0..2 {
        for b in basis.chunks_exact(d) {
            let along: f64 = b.iter().zip(&v).map(|(b, v)| b * v).sum();
            v.iter_mut().zip(b).for_each(|(v, b)| *v -= along * b);
        }
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        v.iter_mut().for_each(|v| *v /= norm);
    }
    basis.extend(v);
}

/// Appends a unit vector orthogonal to the basis: the axis that the basis covers least (the first of them), made orthogonal.
fn complete(basis: &mut Vec<f64>, d: usize) {
    let mut covered = vec![0.0; d];
    for b in basis.chunks_exact(d) {
        covered.iter_mut().zip(b).for_each(|(c, b)| *c += b * b);
    }
    let least = (0..d).fold(0, |best, j| if covered[j] < covered[best] { j } else { best });
    push_orthonormal(basis, (0..d).map(|j| f64::from(u8::from(j == least))).collect());
}
