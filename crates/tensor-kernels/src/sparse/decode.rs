//! Sparse rows times a dense matrix.

use super::CsrRef;
use crate::{Backend, Error, Precision, Result};
use rayon::prelude::*;

/// Rows that a task takes at least.
const ROWS_PER_TASK: usize = 4;

/// `out[i] = sum_j value_j * scale[j] * matrix[j] + bias`, `j` over the columns of sparse row `i`, in their order, one after another.
///
/// # Shapes
/// `matrix [features, width]` row-major, `scale [features]`, `bias [width]`, `out [codes.rows(), width]`. Multiplications and additions
/// are separate, so that the bits are the same on every back end.
///
/// # Errors
/// [`Error::Length`] when `matrix` or `out` is no whole number of rows or another slice does not fit, [`Error::Mismatch`] for codes that
/// are no sparse matrix of so many features, [`Error::Unavailable`].
pub fn decode_rows(
    backend: Backend,
    codes: CsrRef<'_>,
    matrix: &[f32],
    width: usize,
    scale: Option<&[f32]>,
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Result<()> {
    let length = |what, expected: usize, found: usize| match found == expected {
        true => Ok(()),
        false => Err(Error::Length { what, expected, found }),
    };
    let features = matrix.len().checked_div(width).unwrap_or(0);
    length("a decoder", features * width, matrix.len())?;
    length("rows to decode into", codes.rows().saturating_mul(width), out.len())?;
    length("scales of features", features, scale.map_or(features, <[f32]>::len))?;
    length("a bias", width, bias.map_or(width, <[f32]>::len))?;
    codes.check(if width == 0 { usize::MAX } else { features })?;
    backend.check(Precision::F32)?;
    if width == 0 {
        return Ok(());
    }
    out.par_chunks_exact_mut(width).with_min_len(ROWS_PER_TASK).enumerate().for_each(|(row, out)| {
        let (index, value) = codes.row(row);
        let sum = Sum { index, value, matrix, scale, bias };
        match backend {
            // SAFETY: the machine has the back end, and with it these instructions.
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 | Backend::Amx => unsafe { sum.avx512(out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => unsafe { sum.avx2(out) },
            _ => sum.write(out),
        }
    });
    Ok(())
}

/// One sparse row and what it is multiplied with.
struct Sum<'a> {
    index: &'a [u32],
    value: &'a [f32],
    matrix: &'a [f32],
    scale: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

impl Sum<'_> {
    /// The sum with the compiler's vectors for AVX-512.
    ///
    /// # Safety
    /// The processor must have AVX-512 F.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl")]
    unsafe fn avx512(&self, out: &mut [f32]) {
        self.write(out);
    }

    /// The sum with the compiler's vectors for AVX2.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn avx2(&self, out: &mut [f32]) {
        self.write(out);
    }

    /// Four rows of the matrix at a time, so that four reads from memory are under way at once; the sums are taken one after another all
    /// the same.
    #[inline(always)]
    fn write(&self, out: &mut [f32]) {
        let width = out.len();
        let row = |j: u32| &self.matrix[j as usize * width..][..width];
        let scaled = |j: u32, value: f32| self.scale.map_or(value, |scale| value * scale[j as usize]);
        out.fill(0.0);
        let (index_by_4, value_by_4) = (self.index.chunks_exact(4), self.value.chunks_exact(4));
        let rest = index_by_4.remainder().iter().zip(value_by_4.remainder());
        for (j, v) in index_by_4.zip(value_by_4) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|at| scaled(j[at], v[at]));
            let rows = row(j[0]).iter().zip(row(j[1])).zip(row(j[2])).zip(row(j[3]));
            for (out, (((wa, wb), wc), wd)) in out.iter_mut().zip(rows) {
                *out = *out + a * wa + b * wb + c * wc + d * wd;
            }
        }
        for (&j, &v) in rest {
            let v = scaled(j, v);
            out.iter_mut().zip(row(j)).for_each(|(out, w)| *out += v * w);
        }
        if let Some(bias) = self.bias {
            out.iter_mut().zip(bias).for_each(|(out, b)| *out += b);
        }
    }
}
