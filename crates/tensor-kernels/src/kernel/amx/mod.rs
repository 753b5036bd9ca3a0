//! AMX: blocks of 32 rows by 32 columns, whose sums fill four tiles. bf16, and single precision from three products of bf16.
//!
//! A step takes 32 values of `k`. `P` is the number of bf16 parts of a value, 1 or 2 (see [`split`](crate::kernel::bf16::split)).
//!
//! ```text
//! a step of a block    [part P][half of the rows 2][row 16][k 32]                       of bf16
//! a step of a panel    [part P][half of the columns 2][pair of k 16][column 16][2]      of bf16
//! ```
//!
//! # How exact the sum of three products is
//! `x = x1 + x2 + dx` and `w = w1 + w2 + dw` with the parts of [`split`](crate::kernel::bf16::split). The kernel sums
//! `x1 w1 + x1 w2 + x2 w1`, whose terms are exact in f32 before they are added. What is left out is
//!
//! ```text
//! x w - (x1 w1 + x1 w2 + x2 w1) = x2 w2 + x dw + (w1 + w2) dx
//! ```
//! Say `|x|` is in `1..2`. A bf16 has 8 bits: `|x - x1| <= 2^-8`. The rest is rounded to 8 bits of its own: `|dx| <= 2^-17`. Both are
//! attained only by an `x` a little above 1, `1 + 2^-8 + 2^-17`, which rounds up: so `|x2| <= 2^-8 |x| / (1 + 2^-8)` and `|dx|` likewise. The
//! same for `w`. Together, in units of `|x w|`: `(2^-16 + (1 + 2^-8) 2^-17 + 2^-17) / (1 + 2^-8)^2 < 0.994 * 2^-15`.
//!
//! The order of the additions: within a step, two chains of 16 fused multiply-adds from zero, the sum of the two, and that added to the
//! tile; three times per step. A term passes at most `16 + 3 ceil(K / 32)` roundings, fewer where `K < 32`. That is at most `K`, but
//! for the smallest `K`, where what `0.994` leaves of `2^-15` pays for it (3 `eps`; `K = 3` needs 1.1). So
//! `|error| <= (2^-15 + K eps) sum|x||w|`.
//!
//! With one part: `|x - x1| <= 2^-8 |x|`, and `|error| <= (2^-7 + 2^-16 + K eps) sum|x||w|`.
//!
//! Subnormal numbers are zero to AMX, as inputs and as results of each addition: that adds at most `2^-125 sum(|x| + |w| + 4)`, which
//! matters for numbers below about `1e-33`.

mod detect;
mod pack;
mod tiles;

use super::{Kernel, Part};
use crate::TILE_COLS;
use crate::matrix::MatrixRef;

pub(crate) use detect::is_available;

/// Rows of a block, and columns of a panel: two tiles of 16.
const ROWS: usize = 32;
/// Values of `k` of a step: a tile's row of 64 bytes.
const STEP: usize = 32;
/// Bytes of a tile.
const TILE: usize = 1024;

/// Inputs and weights rounded to bf16.
pub(crate) static BF16: Amx<1> = Amx;
/// Inputs and weights as sums of two bf16, their products as sums of three.
pub(crate) static BF16X3: Amx<2> = Amx;

/// See [`BF16`] and [`BF16X3`].
pub(crate) struct Amx<const P: usize>;

impl<const P: usize> Amx<P> {
    /// Bytes of a step of a block, and of a panel.
    const STEP_BYTES: usize = P * 2 * TILE;
}

impl<const P: usize> Kernel for Amx<P> {
    fn name(&self) -> &'static str {
        if P == 1 { "amx bf16" } else { "amx bf16x3" }
    }

    fn block_rows(&self) -> usize {
        ROWS
    }

    fn k_step(&self) -> usize {
        STEP
    }

    /// Measured on one Sapphire Rapids: with `K = 768` all 24 steps at once ran at two thirds of the speed.
    fn k_block(&self) -> usize {
        if P == 1 { 8 } else { 6 }
    }

    fn block_bytes(&self, k: usize) -> usize {
        k.div_ceil(STEP) * Self::STEP_BYTES
    }

    fn panel_bytes(&self, k: usize) -> usize {
        k.div_ceil(STEP) * Self::STEP_BYTES
    }

    fn pack_rows(&self, x: &[f32], rows: usize, k: usize, block: &mut [u8]) {
        // SAFETY: the kernel is only handed out where `is_available`.
        unsafe { pack::rows::<P>(x, rows, k, block) }
    }

    fn pack_columns(&self, matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
        // SAFETY: the kernel is only handed out where `is_available`.
        unsafe { pack::columns::<P>(matrix, first, panel) }
    }

    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]) {
        pack::unpack_column::<P>(panel, col, out);
    }

    fn copy_column(&self, from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
        pack::copy_column(from, from_col, to, to_col);
    }

    fn copy_row(&self, from: &[u8], from_k: usize, to: &mut [u8], to_k: usize) {
        pack::copy_row::<P>(from, from_k, to, to_k);
    }

    fn multiply(&self, part: &Part<'_>, sums: &mut [f32]) {
        part.check(self, sums);
        // SAFETY: the kernel is only handed out where `is_available`; the operands' lengths were checked.
        unsafe { tiles::multiply::<P>(part, sums) }
    }
}

const _: () = assert!(TILE_COLS == ROWS, "a tile of sums is as wide as it is high");
