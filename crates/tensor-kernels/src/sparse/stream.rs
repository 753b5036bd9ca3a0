//! The active values of a cell in the order in which its tiles come: columns rise within each row, rows are mixed.

use super::SparseActivation;
use super::encoder::Found;
use super::scan::{Hit, Line, Test, scan};
use crate::{Backend, TILE_COLS, Tile};

/// Active values of one cell.
#[derive(Default)]
pub(super) struct Stream {
    /// Row within the cell, column, value.
    entries: Vec<(u32, u32, f32)>,
    /// Active values per row.
    counts: Vec<u32>,
    room: Vec<Hit>,
}

impl Stream {
    /// Forgets what was found and makes room for so many rows.
    pub fn start(&mut self, rows: usize) {
        self.entries.clear();
        self.counts.clear();
        self.counts.resize(rows, 0);
        self.room.resize(rows, Hit::default());
    }

    /// Takes the active values of a tile.
    pub fn take(&mut self, backend: Backend, tile: &Tile<'_>, bias: Option<&[f32]>, rule: SparseActivation<'_>) {
        let cols = &tile.cols;
        let bias = Line::of(bias, cols, 0.0);
        match rule {
            SparseActivation::Gated { gain, b_mag } => {
                let (gain, b_mag) = (Line::of(Some(gain), cols, 0.0), Line::of(Some(b_mag), cols, 0.0));
                let test = Test::Gated { gain: &gain, b_mag: &b_mag };
                self.collect(backend, tile, &bias, test, |i, sum| sum * gain.0[i] + b_mag.0[i]);
            }
            SparseActivation::JumpRelu { threshold } => {
                let limit = Line(Line::of(Some(threshold), cols, 0.0).0.map(|limit| limit.max(0.0)));
                self.collect(backend, tile, &bias, Test::Above { limit: &limit }, |i, sum| sum + bias.0[i]);
            }
            SparseActivation::Relu | SparseActivation::TopK { .. } => {
                let limit = Line::of(None, cols, 0.0);
                self.collect(backend, tile, &bias, Test::Above { limit: &limit }, |i, sum| sum + bias.0[i]);
            }
        }
    }

    fn collect(
        &mut self,
        backend: Backend,
        tile: &Tile<'_>,
        bias: &Line,
        test: Test<'_>,
        value: impl Fn(usize, f32) -> f32,
    ) {
        for &hit in scan(backend, tile.sums, tile.cols.len(), bias, test, &mut self.room) {
            let sums = &tile.sums[hit.row as usize * TILE_COLS..][..TILE_COLS];
            self.counts[hit.row as usize] += hit.mask.count_ones();
            let entry = |i| (hit.row, (tile.cols.start + i) as u32, value(i, sums[i]));
            self.entries.extend(hit.columns().map(entry));
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
