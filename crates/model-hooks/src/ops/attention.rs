//! Attention between its matrix products.

use super::{MIN_PART, exp, map_rows, max, tracked};
use crate::Result;
use crate::families::angles::RopeTable;
use crate::forward::positions::Positions;
use crate::math::AttentionSpec;
use candle_core::{CpuStorage, Error as TensorError, InplaceOp1, Layout, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use tensor_kernels::RopeLayout;

/// New scores `[batch, head, q_pos, k_pos]` divided, capped, and -inf where a query does not see a key, in place: only for a tensor
/// that has no other owner yet.
pub(crate) fn masked_scores(scores: Tensor, rule: AttentionSpec, columns: &Positions) -> Result<Tensor> {
    if scores.track_op() {
        return tracked::masked_scores(&scores, rule, columns);
    }
    scores.inplace_op1(&Mask { rule, columns: columns.clone() })?;
    Ok(scores)
}

/// The keys that query `i` of the last `queries` columns sees, padding aside.
pub(super) fn seen(rule: AttentionSpec, queries: usize, keys: usize, i: usize) -> Range<usize> {
    let end = keys - queries + i + 1;
    end - rule.window.unwrap_or(end).min(end)..end
}

struct Mask {
    rule: AttentionSpec,
    columns: Positions,
}

impl InplaceOp1 for Mask {
    fn name(&self) -> &'static str {
        "masked-scores"
    }

    fn cpu_fwd(&self, scores: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(scores), Some((start, end))) = (scores, layout.contiguous_offsets()) else {
            return Err(TensorError::RequiresContiguous { op: "masked-scores" });
        };
        let &[_, heads, queries, keys] = layout.dims() else {
            return Err(TensorError::RequiresContiguous { op: "masked-scores" });
        };
        let rows_per_part = (MIN_PART / keys.max(1)).max(1);
        scores[start..end].par_chunks_mut(rows_per_part * keys.max(1)).enumerate().for_each(|(part, rows)| {
            for (i, row) in rows.chunks_exact_mut(keys.max(1)).enumerate() {
                let row_index = part * rows_per_part + i;
                let kept = self.columns.kept().map(|kept| &kept[row_index / (heads * queries) * keys..][..keys]);
                self.row(row, &seen(self.rule, queries, keys, row_index % queries), kept);
            }
        });
        Ok(())
    }
}

impl Mask {
    fn row(&self, row: &mut [f32], seen: &Range<usize>, kept: Option<&[bool]>) {
        let divisor = self.rule.divisor as f32;
        for (k, score) in row.iter_mut().enumerate() {
            let visible = seen.contains(&k) && kept.is_none_or(|kept| kept[k]);
            *score = match (visible, self.rule.softcap) {
                (false, _) => f32::NEG_INFINITY,
                (true, None) => *score / divisor,
                (true, Some(cap)) => cap as f32 * (*score / divisor / cap as f32).tanh(),
            };
        }
    }
}

/// Softmax over the last axis. A row of nothing but -inf becomes zeros, as in TransformerLens.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    if x.track_op() {
        return tracked::softmax(x);
    }
    let cols = x.dims().last().copied().unwrap_or(1);
    map_rows(x, cols, |_, x, y| {
        let largest = max(x);
        if largest == f32::NEG_INFINITY {
            return; // the row is already zero
        }
        y.iter_mut().zip(x).for_each(|(y, x)| *y = exp(x - largest));
        let total = super::sum(y, |y| y);
        // NaN scores give NaN here; TransformerLens writes zeros for them.
        y.iter_mut().for_each(|y| *y = if total.is_nan() { 0.0 } else { *y / total });
    })
}

/// Rotary embedding of `x` `[batch, pos, head, d_head]`: the first `d_rotary` entries of each head are turned in pairs, by the angles of
/// their positions; the others stay.
pub(crate) fn rotate(x: &Tensor, angles: &RopeTable, columns: &Positions) -> Result<Tensor> {
    if x.track_op() {
        return tracked::rotate(x, angles, columns);
    }
    let (_, pos, heads, d_head) = x.dims4()?;
    let half = angles.d_rotary / 2;
    map_rows(x, d_head, |row, x, y| {
        let (row, column) = (row / heads / pos, row / heads % pos);
        let (cos, sin) = angles.at(columns.position(row, column));
        y.copy_from_slice(x);
        for i in 0..half {
            let (low, high) = match angles.pairs {
                RopeLayout::Interleaved => (2 * i, 2 * i + 1),
                _ => (i, half + i),
            };
            y[low] = x[low] * cos[i] - x[high] * sin[i];
            y[high] = x[high] * cos[i] + x[low] * sin[i];
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn softmax_equals_the_f64_oracle() {
        for width in [1, 3, 24, 131] {
            let x = Tensor::randn(0f32, 9f32, (2, 3, width), &Device::Cpu).unwrap();
            let y: Vec<f32> = softmax(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let x: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            for (x, y) in x.chunks(width).zip(y.chunks(width)) {
                let total: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
                for (&x, &y) in x.iter().zip(y) {
                    assert!((f64::from(x).exp() / total - f64::from(y)).abs() < 4e-7);
                }
            }
        }
    }

    #[test]
    fn masked_rows_are_zero_not_nan() {
        let inf = f32::NEG_INFINITY;
        let x = Tensor::new(&[[inf, inf], [inf, 2.0], [f32::NAN, 1.0]], &Device::Cpu).unwrap();
        assert_eq!(softmax(&x).unwrap().to_vec2::<f32>().unwrap(), [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]);
    }

    #[test]
    fn the_mask_hides_later_keys_in_every_head() {
        let x = Tensor::ones((2, 3, 70, 70), candle_core::DType::F32, &Device::Cpu).unwrap();
        let columns = Positions::new(0, 70, Vec::new());
        let rows = masked_scores(x, AttentionSpec::new(4.0), &columns)
            .unwrap()
            .reshape((2 * 3 * 70, 70))
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        for (i, row) in rows.iter().enumerate() {
            for (k, &score) in row.iter().enumerate() {
                assert_eq!(score, if k <= i % 70 { 0.25 } else { f32::NEG_INFINITY });
            }
        }
    }

    #[test]
    fn rotation_keeps_lengths_and_turns_by_the_angle() {
        let angle = [0.0f32, 0.5, 1.0, 1.5]; // [pos 2, half 2]
        let (cos, sin): (Vec<f32>, Vec<f32>) = angle.iter().map(|a| (a.cos(), a.sin())).unzip();
        let angles =
            RopeTable { positions: 2, d_rotary: 4, pairs: RopeLayout::Half, cos: cos.clone(), sin: sin.clone() };
        let columns = Positions::new(0, 2, Vec::new());
        let x = Tensor::new(&[[[[1f32, 0.0, 0.0, 2.0]], [[1.0, 0.0, 0.0, 2.0]]]], &Device::Cpu).unwrap();
        let y: Vec<f32> = rotate(&x, &angles, &columns).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let expected = [1.0, -2.0 * sin[1], 0.0, 2.0 * cos[1], cos[2], -2.0 * sin[3], sin[2], 2.0 * cos[3]];
        assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?}");
    }
}
