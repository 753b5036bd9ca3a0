//! The tests, once for all sets of instructions.

use super::{Hit, Lanes, Rows, Test};
use crate::TILE_COLS;

/// See [`scan`](super::scan), which checks the lengths. Returns how many rows were hit.
///
/// # Safety
/// The processor must have the instructions of `L`, and `room` a place for every row.
#[inline(always)]
pub(super) unsafe fn run<L: Lanes>(tile: &Rows<'_>, room: &mut [Hit]) -> usize {
    let (rows, _) = tile.sums.as_chunks::<TILE_COLS>();
    let mut found = 0;
    let mut note = |row: usize, mask: u32| {
        let mask = mask & tile.used;
        // Written in any case, kept if there is something: a branch would often be guessed wrong.
        // SAFETY: at most one place per row was taken before this row, and the caller promises as many places as rows.
        unsafe { *room.get_unchecked_mut(found) = Hit { row: row as u32, mask } };
        found += usize::from(mask != 0);
    };
    // SAFETY: the caller's promise, for this block and everything it calls.
    unsafe {
        let (bias, zero) = (L::load(&tile.bias.0), L::splat(0.0));
        match tile.test {
            Test::Above { limit } => {
                let limit = L::load(&limit.0);
                for (at, row) in rows.iter().enumerate() {
                    note(at, L::load(row).add(bias).not_at_most(limit));
                }
            }
            Test::Gated { gain, b_mag } => {
                let (gain, b_mag) = (L::load(&gain.0), L::load(&b_mag.0));
                for (at, row) in rows.iter().enumerate() {
                    let sum = L::load(row);
                    note(at, sum.add(bias).not_at_most(zero) & sum.mul(gain).add(b_mag).not_at_most(zero));
                }
            }
            Test::Floor { norm, floors } => {
                let norm = L::load(&norm.0);
                for (at, (row, &floor)) in rows.iter().zip(floors).enumerate() {
                    note(at, L::load(row).add(bias).mul(norm).not_at_most(L::splat(floor)));
                }
            }
            Test::Outside { low, high } => {
                for (at, (row, (&low, &high))) in rows.iter().zip(low.iter().zip(high)).enumerate() {
                    let h = L::load(row).add(bias);
                    note(at, h.not_at_most(L::splat(high)) | h.not_at_least(L::splat(low)));
                }
            }
        }
    }
    found
}
