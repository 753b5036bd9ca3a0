//! Principal component analysis that checks its own answer.
//!
//! ```text
//! Xc = X - mean,   Xc' Xc v_i = s_i^2 v_i,   explained variance_i = s_i^2 / (n - 1),
//! ratio_i = explained variance_i / sum of all column variances
//! ```
//!
//! Two solvers: the Gram matrix of the centered data in f64 with a dense symmetric eigensolver (exact, the default), and
//! linfa-reduction's, kept as a second, independent implementation. linfa 0.8.1 divides its variances by the number of components
//! and, for many sizes, returns components that are simply wrong; so variances are computed here, and every component
//! of either solver must pass a certificate (see [`Solver`]).

mod centered;
mod gram;
mod linfa;

use crate::{Error, Result};
use candle_core::Tensor;
use centered::Centered;

/// How the components are found.
///
/// Whatever finds them, each is certified on the data itself: `|Xc' Xc v - s^2 v| <= 1e-8 s_1^2`. linfa's must moreover be the
/// leading ones (`(s_k^2 + 1e-8 s_1^2) I` minus the deflated Gram matrix must have a Cholesky factor); where they are not, the Gram
/// path takes over and [`Pca::solver`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Solver {
    /// The right one for the size: at present always [`Gram`](Solver::Gram).
    #[default]
    Auto,
    /// Eigenvectors of the smaller Gram matrix (`d x d`, or `n x n` when there are fewer rows than columns). Memory:
    /// about `4 min(n, d)^2` doubles and, per 1,024 rows, one centered copy of them.
    Gram,
    /// `linfa_reduction::Pca`. Memory: two copies of the data in f64 beside the Gram matrix of the certificate.
    Linfa,
}

/// A fitted PCA: orthonormal components, largest variance first, signs by scikit-learn's rule (in each component the
/// entry of largest magnitude is positive; the first of them if several tie).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use feature_analysis::{Pca, Solver};
/// // Points on the line y = 2x: one component holds all the variance.
/// let x = Tensor::new(&[[0f32, 0.], [1., 2.], [2., 4.]], &Device::Cpu)?;
/// let pca = Pca::fit(&x, 1, Solver::Auto)?;
/// assert!((pca.component(0)[1] / pca.component(0)[0] - 2.0).abs() < 1e-12);
/// assert!((pca.explained_variance()[0] - 5.0).abs() < 1e-12);
/// assert!((pca.explained_variance_ratio()[0] - 1.0).abs() < 1e-12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    components: Vec<f64>,
    mean: Vec<f64>,
    squares: Vec<f64>,
    total_variance: f64,
    n: usize,
    solver: Solver,
}

/// Largest allowed residual of a component, relative to the largest eigenvalue.
const TOLERANCE: f64 = 1e-8;

impl Pca {
    /// Fits `n_components` components to the rows of `x`.
    ///
    /// # Shapes
    /// `x [n, d]` of any float type; it is read as f32 and all arithmetic is f64.
    ///
    /// # Errors
    /// Fewer than two rows, no components or more than `min(n, d)`, NaN or infinity in `x`, or a solver whose answer cannot be certified.
    pub fn fit(x: &Tensor, n_components: usize, solver: Solver) -> Result<Self> {
        let (flat, d) = rows_of(x)?;
        Self::fit_rows(&flat, d, n_components, solver)
    }

    /// [`fit`](Self::fit) on a row-major slice of rows of width `d`.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and a slice that is not whole rows.
    pub fn fit_rows(x: &[f32], d: usize, n_components: usize, solver: Solver) -> Result<Self> {
        let data = Centered::new(x, d)?;
        let (n, k) = (data.n(), n_components);
        if k == 0 || k > n.min(d) {
            return Err(Error::Components { asked: k, rows: n, columns: d });
        }
        let gram = gram::Gram::new(&data);
        let from_linfa = match solver {
            // Without variance there is nothing to iterate on, and linfa's cut-off would leave no components.
            Solver::Linfa if data.total() > 0.0 => linfa::leading(&data, k).filter(|v| gram.certifies(&data, v)),
            _ => None,
        };
        let (mut components, solver) = match from_linfa {
            Some(components) => (components, Solver::Linfa),
            None => (gram.leading(&data, k)?, Solver::Gram),
        };
        let squares = data.certify(&components, TOLERANCE)?;
        components.chunks_exact_mut(d).for_each(fix_sign);
        let total_variance = data.total() / (n - 1) as f64;
        Ok(Self { components, mean: data.into_mean(), squares, total_variance, n, solver })
    }

    /// The rows of `x` in the components' coordinates: `(x - mean) components'`.
    ///
    /// # Shapes
    /// `x [m, d]` -> `[m, n_components]` of f32 on the CPU.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn transform(&self, x: &Tensor) -> Result<Tensor> {
        let (flat, d) = rows_of(x)?;
        let embedding = self.transform_rows(&flat, d)?;
        let k = self.n_components();
        Ok(Tensor::from_vec(embedding, (flat.len() / d, k), x.device())?)
    }

    /// [`transform`](Self::transform) on a row-major slice of rows of width `d`.
    ///
    /// # Errors
    /// Another width than the fit's, or a slice that is not whole rows.
    pub fn transform_rows(&self, x: &[f32], d: usize) -> Result<Vec<f32>> {
        if d != self.mean.len() || !x.len().is_multiple_of(d) {
            let expected = format!("rows of {} columns, as fitted", self.mean.len());
            return Err(Error::Shape { what: "the data to transform", expected, found: vec![x.len() / d.max(1), d] });
        }
        let project = |row: &[f32], component: &[f64]| -> f64 {
            row.iter().zip(&self.mean).zip(component).map(|((&x, m), c)| (f64::from(x) - m) * c).sum()
        };
        Ok(x.chunks_exact(d)
            .flat_map(|row| self.components.chunks_exact(d).map(move |c| project(row, c) as f32))
            .collect())
    }

    /// Number of components.
    #[must_use]
    pub fn n_components(&self) -> usize {
        self.squares.len()
    }

    /// Component `i`, a unit vector of the data's width.
    ///
    /// # Panics
    /// If there is no component `i`.
    #[must_use]
    pub fn component(&self, i: usize) -> &[f64] {
        let d = self.mean.len();
        &self.components[i * d..(i + 1) * d]
    }

    /// All components `[n_components, d]`, row after row.
    #[must_use]
    pub fn components(&self) -> &[f64] {
        &self.components
    }

    /// The mean of each column, subtracted before anything else.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Variance along each component, `s^2 / (n - 1)`.
    #[must_use]
    pub fn explained_variance(&self) -> Vec<f64> {
        self.squares.iter().map(|s| s / (self.n - 1) as f64).collect()
    }

    /// Share of the total variance along each component; zero for data without variance (scikit-learn: NaN).
    #[must_use]
    pub fn explained_variance_ratio(&self) -> Vec<f64> {
        let share = |v: f64| if self.total_variance > 0.0 { v / self.total_variance } else { 0.0 };
        self.explained_variance().into_iter().map(share).collect()
    }

    /// Singular values of the centered data, `s`.
    #[must_use]
    pub fn singular_values(&self) -> Vec<f64> {
        self.squares.iter().map(|s| s.sqrt()).collect()
    }

    /// Sum of the variances of all columns.
    #[must_use]
    pub fn total_variance(&self) -> f64 {
        self.total_variance
    }

    /// The solver whose components these are: never [`Solver::Auto`], and [`Solver::Gram`] where linfa's were refused.
    #[must_use]
    pub fn solver(&self) -> Solver {
        self.solver
    }
}

fn rows_of(x: &Tensor) -> Result<(Vec<f32>, usize)> {
    let [_, d] = *x.dims() else {
        return Err(Error::Shape { what: "the data", expected: "[n, d]".into(), found: x.dims().to_vec() });
    };
    Ok((x.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?, d))
}

/// scikit-learn's `svd_flip(u_based_decision=False)`.
fn fix_sign(component: &mut [f64]) {
    let largest = component.iter().copied().fold(0.0, |a: f64, x| if x.abs() > a.abs() { x } else { a });
    if largest < 0.0 {
        component.iter_mut().for_each(|x| *x = -*x);
    }
}
