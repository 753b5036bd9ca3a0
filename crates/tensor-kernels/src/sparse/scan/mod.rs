//! Scan for the values of a tile that can matter: one bit per value, found a row of 32 at a time; rows without any are left out.
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

/// A condition on `h = sum + bias`. Comparisons are true for NaN.
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

/// A row of a tile that holds something of interest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Row of the tile.
    pub row: u32,
    /// Bit `i` is the answer for column `i`; at least one is set.
    pub mask: u32,
}

impl Hit {
    /// The columns whose bits are set, rising.
    pub fn columns(self) -> impl Iterator<Item = usize> {
        let mut mask = self.mask;
        std::iter::from_fn(move || {
            let column = mask.trailing_zeros() as usize;
            mask &= mask.wrapping_sub(1);
            (column < TILE_COLS).then_some(column)
        })
    }
}

/// Tests every row of a tile `sums [rows, TILE_COLS]`, of which `cols` columns are real. `room` has at least as many places as the tile rows.
pub(crate) fn scan<'a>(
    backend: Backend,
    sums: &[f32],
    cols: usize,
    bias: &Line,
    test: Test<'_>,
    room: &'a mut [Hit],
) -> &'a [Hit] {
    let rows = sums.len() / TILE_COLS;
    let per_row = match test {
        Test::Floor { floors, .. } => floors.len(),
        Test::Outside { low, high } => low.len().min(high.len()),
        _ => rows,
    };
    assert!(
        room.len() >= rows && per_row >= rows && (1..=TILE_COLS).contains(&cols),
        "a tile's rows have their limits"
    );
    assert!(backend.is_available(), "a back end that this machine has");
    let tile = Rows { sums, used: u32::MAX >> (TILE_COLS - cols), bias, test };
    let found = match backend {
        // SAFETY: the machine has the back end, and with it these instructions; there is room for every row.
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512 | Backend::Amx => unsafe { avx512::scan(&tile, room) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => unsafe { avx2::scan(&tile, room) },
        // SAFETY: plain Rust asks for nothing; there is room for every row.
        _ => unsafe { tests::run::<portable::Plain>(&tile, room) },
    };
    &room[..found]
}

/// What is tested.
pub(super) struct Rows<'a> {
    sums: &'a [f32],
    /// Bits of the columns that there are.
    used: u32,
    bias: &'a Line,
    test: Test<'a>,
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
                for cols in [TILE_COLS, 5] {
                    let mut room = vec![Hit::default(); rows + 1];
                    let hits = scan(backend, &sums, cols, &bias, test, &mut room);
                    let found: Vec<(usize, usize)> =
                        hits.iter().flat_map(|hit| hit.columns().map(|col| (hit.row as usize, col))).collect();
                    let places = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
                    let right = places.filter(|&(row, col)| {
                        let sum = sums[row * TILE_COLS + col];
                        right(row, col, sum, sum + bias.0[col])
                    });
                    assert_eq!(found, right.collect::<Vec<_>>(), "{backend}");
                    assert!(hits.iter().all(|hit| hit.mask != 0));
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
