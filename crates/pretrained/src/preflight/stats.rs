//! Small statistics, in f64.

pub(super) fn norm(row: &[f32]) -> f64 {
    dot(row, row).sqrt()
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// 0 where one of the two has no direction.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let of = norm(a) * norm(b);
    if of > 0.0 { dot(a, b) / of } else { 0.0 }
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The mean of rows of this width.
pub(super) fn mean_row(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0f64; width];
    let n = (rows.len() / width).max(1) as f64;
    rows.chunks_exact(width).for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x)));
    sum.into_iter().map(|sum| (sum / n) as f32).collect()
}

/// `|mean over the row| * sqrt(d) / |row|`: the share of a row's length that points along `(1, 1, ..)`. 0 for rows of zeros.
pub(super) fn mean_share(row: &[f32]) -> f64 {
    let sum = row.iter().map(|&x| f64::from(x)).sum::<f64>();
    let norm = norm(row);
    if norm > 0.0 { sum.abs() / (row.len() as f64).sqrt() / norm } else { 0.0 }
}

/// The share of the variance of `y` that `y_hat` keeps, `1 - sum |y - y_hat|^2 / sum |y - mean y|^2`, all rows pooled; the rows come in parts.
pub(super) struct Variance {
    mean: Vec<f32>,
    missed: f64,
    all: f64,
}

impl Variance {
    /// Around the mean of all rows.
    pub(super) fn around(mean: Vec<f32>) -> Self {
        Self { mean, missed: 0.0, all: 0.0 }
    }

    pub(super) fn add(&mut self, y: &[f32], y_hat: &[f32]) {
        let width = self.mean.len().max(1);
        for (y, y_hat) in y.chunks_exact(width).zip(y_hat.chunks_exact(width)) {
            for ((&y, &y_hat), &mean) in y.iter().zip(y_hat).zip(&self.mean) {
                self.missed += f64::from(y - y_hat).powi(2);
                self.all += f64::from(y - mean).powi(2);
            }
        }
    }

    pub(super) fn explained(&self) -> f64 {
        if self.all > 0.0 { 1.0 - self.missed / self.all } else { 0.0 }
    }
}

/// Spearman's correlation of ranks, ties sharing the mean of their ranks. 0 where one side has one value only.
pub(super) fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        let (a, b) = (a - mean, b - mean);
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let rank = start as f64 + (tied.len() as f64 - 1.0) / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        start += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_their_places_among_equals() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
        assert!((rank_correlation(&[1.0, 2.0, 3.0], &[10.0, 20.0, 21.0]) - 1.0).abs() < 1e-12);
        assert!((rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn variance_explained_by_hand() {
        let variance_explained = |y: &[f32], y_hat: &[f32], width| {
            let mut parts = Variance::around(mean_row(y, width));
            y.chunks(width).zip(y_hat.chunks(width)).for_each(|(y, y_hat)| parts.add(y, y_hat));
            parts.explained()
        };
        // Rows (0, 0), (2, 0): variance 2; predicting the mean explains nothing, the rows all.
        let y = [0f32, 0.0, 2.0, 0.0];
        assert_eq!(variance_explained(&y, &[1.0, 0.0, 1.0, 0.0], 2), 0.0);
        assert_eq!(variance_explained(&y, &y, 2), 1.0);
        assert_eq!(variance_explained(&y, &[0.0, 1.0, 2.0, 1.0], 2), 0.0);
        assert_eq!(mean_row(&y, 2), [1.0, 0.0]);
    }

    #[test]
    fn a_constant_row_is_all_mean() {
        assert!((mean_share(&[3.0, 3.0, 3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert_eq!(mean_share(&[1.0, -1.0]), 0.0);
        assert_eq!(mean_share(&[0.0, 0.0]), 0.0);
    }
}
