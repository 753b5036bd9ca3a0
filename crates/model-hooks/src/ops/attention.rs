//! What attention does between its matrix products.

use super::{MIN_PART, exp, map_rows, max, tracked};
use crate::Result;
use candle_core::{CpuStorage, Error as TensorError, InplaceOp1, Layout, Tensor};
use rayon::prelude::*;

/// Divides new scores `[.., q_pos, k_pos]` by `divisor` and masks keys after the query with -inf, in place:
/// only for a tensor that nobody else holds yet.
pub(crate) fn causal_mask_scaled(scores: Tensor, divisor: f64) -> Result<Tensor> {
    if scores.track_op() {
        return tracked::causal_mask_scaled(&scores, divisor);
    }
    scores.inplace_op1(&CausalMask { divisor: divisor as f32 })?;
    Ok(scores)
}

struct CausalMask {
    divisor: f32,
}

impl InplaceOp1 for CausalMask {
    fn name(&self) -> &'static str {
        "causal-mask"
    }

    fn cpu_fwd(&self, scores: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(scores), Some((start, end))) = (scores, layout.contiguous_offsets()) else {
            return Err(TensorError::RequiresContiguous { op: "causal-mask" });
        };
        let &[.., queries, keys] = layout.dims() else {
            return Err(TensorError::RequiresContiguous { op: "causal-mask" });
        };
        let rows_per_part = (MIN_PART / keys.max(1)).max(1);
        scores[start..end].par_chunks_mut(rows_per_part * keys.max(1)).enumerate().for_each(|(part, rows)| {
            for (i, row) in rows.chunks_exact_mut(keys.max(1)).enumerate() {
                let query = (part * rows_per_part + i) % queries;
                let (seen, hidden) = row.split_at_mut(query + 1);
                seen.iter_mut().for_each(|score| *score /= self.divisor);
                hidden.fill(f32::NEG_INFINITY);
            }
        });
        Ok(())
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

/// Rotary embedding of `x` `[batch, pos, head, d_head]`, rotating pairs `(i, i + d_head/2)` by the angle at `(pos, i)`;
/// `cos` and `sin` are `[pos * d_head/2]`.
pub(crate) fn rotate(x: &Tensor, cos: &[f32], sin: &[f32]) -> Result<Tensor> {
    if x.track_op() {
        return tracked::rotate(x, cos, sin);
    }
    let (_, pos, heads, d_head) = x.dims4()?;
    let half = d_head / 2;
    map_rows(x, d_head, |row, x, y| {
        let at = (row / heads) % pos * half;
        let angles = cos[at..at + half].iter().zip(&sin[at..at + half]);
        let (x_low, x_high) = x.split_at(half);
        let (y_low, y_high) = y.split_at_mut(half);
        for ((((y_low, y_high), x_low), x_high), (cos, sin)) in
            y_low.iter_mut().zip(y_high).zip(x_low).zip(x_high).zip(angles)
        {
            *y_low = x_low * cos - x_high * sin;
            *y_high = x_high * cos + x_low * sin;
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
        let rows = causal_mask_scaled(x, 4.0).unwrap().reshape((2 * 3 * 70, 70)).unwrap().to_vec2::<f32>().unwrap();
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
        let x = Tensor::new(&[[[[1f32, 0.0, 0.0, 2.0]], [[1.0, 0.0, 0.0, 2.0]]]], &Device::Cpu).unwrap();
        let y: Vec<f32> = rotate(&x, &cos, &sin).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let expected = [1.0, -2.0 * sin[1], 0.0, 2.0 * cos[1], cos[2], -2.0 * sin[3], sin[2], 2.0 * cos[3]];
        assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?}");
    }
}
