//! The tests, once for all sets of instructions.

use super::{Lanes, Line, Test};
use crate::TILE_COLS;

/// See [`scan`](super::scan), which checks the lengths.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn run<L: Lanes>(sums: &[f32], bias: &Line, test: Test<'_>, masks: &mut [u32]) {
    let (rows, _) = sums.as_chunks::<TILE_COLS>();
    // SAFETY: the caller's promise, for this block and everything it calls.
    unsafe {
        let (bias, zero) = (L::load(&bias.0), L::splat(0.0));
        match test {
            Test::Above { limit } => {
                let limit = L::load(&limit.0);
                for (mask, row) in masks.iter_mut().zip(rows) {
                    *mask = L::load(row).add(bias).not_at_most(limit);
                }
            }
            Test::Gated { gain, b_mag } => {
                let (gain, b_mag) = (L::load(&gain.0), L::load(&b_mag.0));
                for (mask, row) in masks.iter_mut().zip(rows) {
                    let sum = L::load(row);
                    *mask = sum.add(bias).not_at_most(zero) & sum.mul(gain).add(b_mag).not_at_most(zero);
                }
            }
            Test::Floor { norm, floors } => {
                let norm = L::load(&norm.0);
                for ((mask, row), &floor) in masks.iter_mut().zip(rows).zip(floors) {
                    *mask = L::load(row).add(bias).mul(norm).not_at_most(L::splat(floor));
                }
            }
            Test::Outside { low, high } => {
                for ((mask, row), (&low, &high)) in masks.iter_mut().zip(rows).zip(low.iter().zip(high)) {
                    let h = L::load(row).add(bias);
                    *mask = h.not_at_most(L::splat(high)) | h.not_at_least(L::splat(low));
                }
            }
        }
    }
}
