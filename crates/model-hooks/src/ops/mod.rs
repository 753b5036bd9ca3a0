//! Small f32 kernels on slices, parallel over rows with rayon, where the tensor library's own are slow
//! (its tanh GELU costs more than the matrix product before it). Every one is tested against an f64 oracle.
//!
//! Each output row depends on its input row alone and is summed in a fixed order, so results do not depend on threads or batch size.

mod activation;
mod attention;
mod norm;
mod tracked;

pub(crate) use activation::Activation;
pub(crate) use attention::{masked_scores, rotate, softmax};
pub(crate) use norm::{Norm, NormKind, scale_and_shift};

use crate::Result;
use candle_core::{CpuStorage, Error as TensorError, InplaceOp2, Layout, Storage, Tensor};
use rayon::prelude::*;

/// Rows are handed to threads in parts of at least this many elements; smaller parts cost more to hand over than to compute.
const MIN_PART: usize = 16_384;

/// Reads a CPU f32 tensor as a slice, without a copy where it is contiguous.
pub(crate) fn with_slice<R>(x: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let (start, end) = layout.contiguous_offsets().ok_or(TensorError::RequiresContiguous { op: "read" })?;
    match &*storage {
        Storage::Cpu(cpu) => read(&cpu.as_slice::<f32>()?[start..end]),
        _ => Err(TensorError::Msg("the kernels of model-hooks run on the CPU only".into()).into()),
    }
}

/// A new tensor whose rows of `out_cols` are written by `f(row, in_row, out_row)` from rows of the last axis of `x`.
fn map_rows(x: &Tensor, out_cols: usize, f: impl Fn(usize, &[f32], &mut [f32]) + Sync) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let cols = shape.pop().unwrap_or(1).max(1);
    let rows = x.elem_count() / cols;
    shape.push(out_cols);
    let mut out = vec![0f32; rows * out_cols];
    with_slice(x, |x| {
        let part = (MIN_PART / cols).max(1);
        let parts = out.par_chunks_mut(part * out_cols.max(1)).zip(x.par_chunks(part * cols));
        parts.enumerate().for_each(|(i, (out, x))| {
            for (j, (out, x)) in out.chunks_exact_mut(out_cols.max(1)).zip(x.chunks_exact(cols)).enumerate() {
                f(i * part + j, x, out);
            }
        });
        Ok(())
    })?;
    Ok(Tensor::from_vec(out, shape, x.device())?)
}

/// `x W + b` over the last axis: `[.., n]`, `[n, m]`, `[m]` -> `[.., m]`.
pub(crate) fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (n, m) = w.dims2()?;
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(n) {
        let expected = format!("[.., {n}]");
        return Err(crate::Error::Shape { what: "the input of a linear map", expected, found: x.dims().to_vec() });
    }
    shape.push(m);
    let rows = x.reshape(((), n))?;
    if rows.track_op() {
        let y = tracked::product(&rows, w)?;
        let y = match b {
            Some(b) => y.broadcast_add(b)?,
            None => y,
        };
        return Ok(y.reshape(shape)?);
    }
    let y = rows.matmul(w)?;
    if let Some(b) = b {
        // In place: `y` is new and has no other owner.
        y.inplace_op2(&b.contiguous()?, &AddRow)?;
    }
    Ok(y.reshape(shape)?)
}

struct AddRow;

impl InplaceOp2 for AddRow {
    fn name(&self) -> &'static str {
        "add-row"
    }

    fn cpu_fwd(
        &self,
        y: &mut CpuStorage,
        y_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(y), Some((start, end))) = (y, y_layout.contiguous_offsets()) else {
            return Err(TensorError::RequiresContiguous { op: "add-row" });
        };
        let b_range = b_layout.contiguous_offsets().ok_or(TensorError::RequiresContiguous { op: "add-row" })?;
        let b = &b.as_slice::<f32>()?[b_range.0..b_range.1];
        let part = (MIN_PART / b.len().max(1)).max(1) * b.len().max(1);
        y[start..end].par_chunks_mut(part).for_each(|rows| {
            for row in rows.chunks_exact_mut(b.len().max(1)) {
                row.iter_mut().zip(b).for_each(|(y, b)| *y += b);
            }
        });
        Ok(())
    }
}

/// `sum f(x)` with eight running sums, which the compiler turns into vector code and which round less than one.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 8];
    let chunks = x.chunks_exact(8);
    let rest: f32 = chunks.remainder().iter().map(|&x| f(x)).sum();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The largest value, NaN left aside; -inf for nothing.
fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 8];
    let chunks = x.chunks_exact(8);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

/// `log sum e^x`, in f32 over blocks that are short enough to round well, in f64 over their sums.
pub(crate) fn log_sum_exp(x: &[f32]) -> f64 {
    let largest = max(x);
    if !largest.is_finite() {
        return f64::from(largest);
    }
    let total: f64 = x.chunks(1024).map(|block| f64::from(sum(block, |x| exp(x - largest)))).sum();
    total.ln() + f64::from(largest)
}

/// `e^x` within 2 ulp for results in the range of normal f32; smaller results are 0, larger ones saturate near `f32::MAX`; NaN stays NaN.
///
/// Cephes' `expf` written so that loops over it become vector code: `x = n ln 2 + r`, a polynomial for `e^r`, `2^n` by its bits.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer held in the low bits
    const LOWEST: f32 = -87.336_54; // ln of the smallest normal number
    const HIGHEST: f32 = 88.02; // keeps n at 127 at most
    let clamped = if x > HIGHEST { HIGHEST } else { x };
    let clamped = if clamped < LOWEST { LOWEST } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4;
    let r = r - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    let two_to_n = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { p * two_to_n }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut x = -87.3f32;
        while x < 88.0 {
            let (found, right) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / right - 1.0).abs() < 2.4e-7, "{x}: {found} {right}");
            x += 0.000_37 + x.abs() * 1e-5;
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert!(exp(1000.0) > 1e38 && exp(f32::INFINITY) > 1e38);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn log_sum_exp_equals_the_f64_oracle() {
        for width in [1, 9, 1024, 50_257] {
            let x = Tensor::randn(0f32, 8f32, width, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
            let right = x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            // Two ulp of each exponential.
            assert!((log_sum_exp(&x) - right).abs() < 1e-6);
        }
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), f64::NEG_INFINITY);
        assert_eq!(max(&[1.0, f32::NAN, 3.0, -2.0, 0.0, 0.0, 0.0, 0.0, 2.0]), 3.0);
    }

    #[test]
    fn linear_adds_the_bias_to_every_row() {
        let x = Tensor::from_vec((0..24).map(|i| i as f32).collect(), (2, 3, 4), &Device::Cpu).unwrap();
        let w = Tensor::from_vec((0..20).map(|i| (i as f32).sin()).collect(), (4, 5), &Device::Cpu).unwrap();
        let b = Tensor::from_vec((0..10).map(|i| i as f32).collect(), (10,), &Device::Cpu)
            .unwrap()
            .narrow(0, 5, 5)
            .unwrap();
        let y = linear(&x, &w, Some(&b)).unwrap();
        let expected = x.reshape((6, 4)).unwrap().matmul(&w).unwrap().broadcast_add(&b).unwrap();
        assert_eq!(y.dims(), [2, 3, 5]);
        assert_eq!(
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            expected.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
        assert!(linear(&w, &x.reshape((6, 4)).unwrap(), None).is_err());
    }
}
