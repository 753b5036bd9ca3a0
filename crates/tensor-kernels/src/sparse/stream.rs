//! The active values of a cell in the order in which its tiles come: columns rise within each row, rows are mixed.

use super::SparseRule;
use super::encoder::Found;
use super::scan::{Line, Test, scan};
use crate::{Backend, TILE_COLS, Tile};

/// Active values of one cell.
#[derive(Default)]
pub(super) struct Stream {
    /// Row within the cell, column, value.
    entries: Vec<(u32, u32, f32)>,
    /// Active values per row.
    counts: Vec<u32>,
    masks: Vec<u32>,
}

impl Stream {
    /// Forgets what was found and makes room for so many rows.
    pub fn start(&mut self, rows: usize) {
        self.entries.clear();
        self.counts.clear();
        self.counts.resize(rows, 0);
        self.masks.resize(rows, 0);
    }

    /// Takes the active values of a tile.
    pub fn take(&mut self, backend: Backend, tile: &Tile<'_>, bias: Option<&[f32]>, rule: SparseRule<'_>) {
        let cols = &tile.cols;
        let bias = Line::of(bias, cols, 0.0);
        let masks = &mut self.masks[..tile.rows.len()];
        match rule {
            SparseRule::Gated { gain, b_mag } => {
                let (gain, b_mag) = (Line::of(Some(gain), cols, 0.0), Line::of(Some(b_mag), cols, 0.0));
                scan(backend, tile.sums, &bias, Test::Gated { gain: &gain, b_mag: &b_mag }, masks);
                self.collect(tile, |i, sum| sum * gain.0[i] + b_mag.0[i]);
            }
            SparseRule::JumpRelu { threshold } => {
                let limit = Line::of(Some(threshold), cols, 0.0);
                let limit = Line(limit.0.map(|limit| limit.max(0.0)));
                scan(backend, tile.sums, &bias, Test::Above { limit: &limit }, masks);
                self.collect(tile, |i, sum| sum + bias.0[i]);
            }
            SparseRule::Relu | SparseRule::TopK { .. } => {
                let limit = Line::of(None, cols, 0.0);
                scan(backend, tile.sums, &bias, Test::Above { limit: &limit }, masks);
                self.collect(tile, |i, sum| sum + bias.0[i]);
            }
        }
    }

    fn collect(&mut self, tile: &Tile<'_>, value: impl Fn(usize, f32) -> f32) {
        let used = u32::MAX >> (TILE_COLS - tile.cols.len());
        let rows = tile.sums.chunks_exact(TILE_COLS).zip(&self.masks).zip(&mut self.counts).enumerate();
        for (row, ((sums, mask), count)) in rows {
            let mut mask = mask & used;
            *count += mask.count_ones();
            while mask != 0 {
                let i = mask.trailing_zeros() as usize;
                self.entries.push((row as u32, (tile.cols.start + i) as u32, value(i, sums[i])));
                mask &= mask - 1;
            }
        }
    }
}

impl Found for Stream {
    fn counts(&self) -> &[u32] {
        &self.counts
    }

    fn place(&self, next: &mut [u64], start: u64, index: &mut [u32], value: &mut [f32]) {
        for &(row, column, v) in &self.entries {
            let next = &mut next[row as usize];
            let at = (*next - start) as usize;
            *next += 1;
            index[at] = column;
            value[at] = v;
        }
    }
}
