//! Tiles that go through a non-linearity before they are stored.

use super::{Epilogue, OnTiles, SharedOut, Tile, check_bias};
use crate::activation::activate_row_on;
use crate::simd::{Simd, entry};
use crate::{Activation, Result, TILE_COLS};

/// `out = act(x W + b)`, with the bits of [`Store`](crate::Store) and then [`activate`](crate::activate).
pub struct Activate<'a> {
    act: Activation,
    out: SharedOut<'a>,
    bias: Option<&'a [f32]>,
}

impl<'a> Activate<'a> {
    /// Into rows of `width` one after another.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length).
    pub fn new(out: &'a mut [f32], width: usize, bias: Option<&'a [f32]>, act: Activation) -> Result<Self> {
        check_bias(bias, width)?;
        Ok(Self { act, out: SharedOut::new(out, width)?, bias })
    }
}

impl Epilogue for Activate<'_> {}

impl OnTiles for Activate<'_> {
    fn tile(&self, mut tile: Tile<'_>) {
        let cols = tile.cols.clone();
        let bias = self.bias.map(|bias| &bias[cols.clone()]);
        activate_sums(tile.backend, self.act, tile.sums, bias);
        for (row, sums) in tile.each_row() {
            // SAFETY: tiles do not overlap.
            unsafe { self.out.row(row, cols.clone()) }.copy_from_slice(sums);
        }
    }

    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        self.out.check(rows, cols)
    }
}

entry! {
    /// `sums = act(sums + bias)` for rows of a tile.
    fn activate_sums(act: Activation, sums: &mut [f32], bias: Option<&[f32]>) = activate_sums_on;
}

#[inline(always)]
fn activate_sums_on<S: Simd>(s: S, act: Activation, sums: &mut [f32], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        for sums in sums.chunks_exact_mut(TILE_COLS) {
            sums.iter_mut().zip(bias).for_each(|(sum, b)| *sum += b);
        }
    }
    activate_row_on(s, act, sums);
}
