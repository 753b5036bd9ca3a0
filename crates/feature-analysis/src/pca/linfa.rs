//! linfa-reduction's PCA, asked for its components only.

use super::centered::Centered;
use linfa::DatasetBase;
use linfa::traits::Fit;
use ndarray::Array2;
use tensor_files::contained;

/// linfa's `k` components `[k, d]`, or `None` when it fails or finds fewer. The caller certifies them.
pub(super) fn leading(data: &Centered<'_>, k: usize) -> Option<Vec<f64>> {
    let x = Array2::from_shape_vec((data.n(), data.d()), data.whole()).ok()?;
    let dataset = DatasetBase::from(x);
    // linfa-linalg sorts eigenvalues with `partial_cmp(..).unwrap()`, which panics when its iteration ran into NaN
    // (rank-deficient data can do that); such an answer is as good as none.
    let fitted = contained(|| linfa_reduction::Pca::params(k).fit(&dataset)).ok()?.ok()?;
    let components = fitted.components();
    (components.dim() == (k, data.d())).then(|| components.iter().copied().collect())
}
