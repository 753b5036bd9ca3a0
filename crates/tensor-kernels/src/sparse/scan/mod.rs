//! Which values of a tile can matter: one bit per value, found a row of 32 at a time.
//!
//! Nearly every row of a tile holds nothing of interest (of 24,576 features about 70 fire), so that this test is what an epilogue spends
//! its time on. The tests are written once ([`tests`]) over the few operations that [`Lanes`] has on each set of instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod tests;

use crate::{Backend, TILE_COLS};
use std::ops::Range;

/// One value per column of a tile.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [f32; TILE_COLS]);

impl Line {
    /// The values of some columns; `fill` where there are none.
    pub fn of(values: Option<&[f32]>, cols: &Range<usize>, fill: f32) -> Self {
        let mut line = Self([fill; TILE_COLS]);
        if let Some(values) = values {
            line.0[..cols.len()].copy_from_slice(&values[cols.clone()]);
        }
        line
    }
}

/// What is asked of `h = sum + bias`. Comparisons are true for NaN.
#[derive(Clone, Copy)]
pub(crate) enum Test<'a> {
    /// `h > limit`, a limit per column.
    Above {
        /// The limits.
        limit: &'a Line,
    },
    /// `h > 0` and `sum * gain + b_mag > 0`.
    Gated {
        /// The magnitude's gain.
        gain: &'a Line,
        /// The magnitude's bias.
        b_mag: &'a Line,
    },
    /// `h * norm > floor`, a floor per row.
    Floor {
        /// Factor per column.
        norm: &'a Line,
        /// Floor per row of the tile.
        floors: &'a [f32],
    },
    /// `h > high` or `h < low`, both per row.
    Outside {
        /// Lower limit per row of the tile.
        low: &'a [f32],
        /// Upper limit per row of the tile.
        high: &'a [f32],
    },
}

/// Tests every row of a tile: bit `i` of `masks[row]` is the answer for column `i`. `sums` is `[masks.len(), TILE_COLS]`.
pub(crate) fn scan(backend: Backend, sums: &[f32], bias: &Line, test: Test<'_>, masks: &mut [u32]) {
    let rows = masks.len();
    let per_row = match test {
        Test::Floor { floors, .. } => floors.len(),
        Test::Outside { low, high } => low.len().min(high.len()),
        _ => rows,
    };
    assert!(sums.len() == rows * TILE_COLS && per_row >= rows, "a tile's rows have their sums and limits");
    assert!(backend.is_available(), "a back end that this machine has");
    match backend {
        // SAFETY: the machine has the back end, and with it these instructions.
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512 | Backend::Amx => unsafe { avx512::scan(sums, bias, test, masks) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => unsafe { avx2::scan(sums, bias, test, masks) },
        // SAFETY: plain Rust asks for nothing.
        _ => unsafe { tests::run::<portable::Plain>(sums, bias, test, masks) },
    }
}

/// [`TILE_COLS`] values and what the tests do with them.
pub(super) trait Lanes: Copy {
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn load(from: &[f32; TILE_COLS]) -> Self;

    /// # Safety
    /// The processor must have the instructions.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// The processor must have the instructions.
    unsafe fn add(self, other: Self) -> Self;

    /// # Safety
    /// The processor must have the instructions.
    unsafe fn mul(self, other: Self) -> Self;

    /// Bits of the values that are greater, or not comparable.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn not_at_most(self, other: Self) -> u32;

    /// Bits of the values that are less, or not comparable.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn not_at_least(self, other: Self) -> u32;
}

#[cfg(test)]
mod agree {
    use super::*;

    #[test]
    fn back_ends_agree_with_the_definition() {
        let odd = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0, -1.0, 0.5, 1e-40];
        let rows = 11;
        let pick = |i: usize, m: usize| odd[(i * m + i / 7) % odd.len()];
        let sums: Vec<f32> = (0..rows * TILE_COLS).map(|i| pick(i, 5)).collect();
        let line = |m: usize| Line(std::array::from_fn(|i| pick(i, m)));
        let (bias, a, b) = (line(1), line(2), line(4));
        let (low, high): (Vec<f32>, Vec<f32>) = (0..rows).map(|i| (pick(i, 2), pick(i, 7))).unzip();
        let above = |x: f32, limit: f32| x.is_nan() || limit.is_nan() || x > limit;
        for backend in Backend::available() {
            let check = |test: Test<'_>, right: &dyn Fn(usize, usize, f32, f32) -> bool| {
                let mut masks = vec![u32::MAX; rows];
                scan(backend, &sums, &bias, test, &mut masks);
                for (at, &sum) in sums.iter().enumerate() {
                    let (row, col) = (at / TILE_COLS, at % TILE_COLS);
                    let found = masks[row] >> col & 1 == 1;
                    assert_eq!(found, right(row, col, sum, sum + bias.0[col]), "{backend}: {row} {col} {sum}");
                }
            };
            check(Test::Above { limit: &a }, &|_, col, _, h| above(h, a.0[col]));
            let gated = Test::Gated { gain: &a, b_mag: &b };
            check(gated, &|_, col, sum, h| above(h, 0.0) && above(sum * a.0[col] + b.0[col], 0.0));
            let floor = Test::Floor { norm: &a, floors: &low };
            check(floor, &|row, col, _, h| above(h * a.0[col], low[row]));
            let outside = Test::Outside { low: &low, high: &high };
            check(outside, &|row, _, _, h| above(h, high[row]) || above(-h, -low[row]));
        }
    }
}
