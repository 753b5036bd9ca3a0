//! The candidates of a cell's rows for the k largest.

use super::best::{self, by_size};
use super::encoder::Found;
use super::scan::{Hit, Line, Test, scan};
use crate::{Backend, TILE_COLS, Tile};

/// Candidates of one cell, a list per row.
#[derive(Default)]
pub(super) struct Top {
    k: usize,
    rows: Vec<Vec<u64>>,
    /// Threshold for the k largest values of a row so far; 0 at first, since only values above 0 are active.
    floors: Vec<f32>,
    counts: Vec<u32>,
    room: Vec<Hit>,
}

impl Top {
    /// Forgets what was found and makes room for the `k` largest in `rows` rows.
    pub fn start(&mut self, k: usize, rows: usize) {
        self.k = k;
        self.rows.resize_with(rows.max(self.rows.len()), Vec::new);
        for row in &mut self.rows[..rows] {
            row.clear();
            row.reserve(best::room(k));
        }
        self.floors.clear();
        self.floors.resize(rows, 0.0);
        self.counts.clear();
        self.counts.resize(rows, 0);
        self.room.resize(rows, Hit::default());
    }

    /// Takes the candidates of a tile.
    pub fn take(&mut self, backend: Backend, tile: &Tile<'_>, bias: Option<&[f32]>, norms: Option<&[f32]>) {
        let (bias, norm) = (Line::of(bias, &tile.cols, 0.0), Line::of(norms, &tile.cols, 1.0));
        let test = Test::Floor { norm: &norm, floors: &self.floors };
        for &hit in scan(backend, tile.sums, tile.cols.len(), &bias, test, &mut self.room) {
            let row = hit.row as usize;
            let (sums, keys) = (&tile.sums[row * TILE_COLS..][..TILE_COLS], &mut self.rows[row]);
            let key = |i: usize| by_size::key((sums[i] + bias.0[i]) * norm.0[i], (tile.cols.start + i) as u32);
            keys.extend(hit.columns().map(key));
            if keys.len() >= best::limit(self.k)
                && let Some(last) = best::keep(keys, self.k)
            {
                let last = by_size::value(last);
                self.floors[row] = if last.is_nan() { f32::INFINITY } else { last };
            }
        }
    }

    /// Keeps the k largest of each row, with the candidates of the cells beside it, left to right in their columns.
    pub fn finish(&mut self, beside: &mut [Self]) {
        for (row, count) in self.counts.iter_mut().enumerate() {
            let keys = &mut self.rows[row];
            best::keep(keys, self.k);
            for cell in &mut *beside {
                best::join(keys, &mut cell.rows[row], self.k);
            }
            keys.sort_unstable_by_key(|&key| by_size::column(key));
            *count = keys.len() as u32;
        }
    }
}

impl Found for Top {
    fn counts(&self) -> &[u32] {
        &self.counts
    }

    fn place(&self, next: &mut [u64], start: u64, index: &mut [u32], value: &mut [f32]) {
        for (next, keys) in next.iter_mut().zip(&self.rows) {
            let at = (*next - start) as usize;
            *next += keys.len() as u64;
            for ((index, value), &key) in index[at..].iter_mut().zip(&mut value[at..]).zip(keys) {
                (*index, *value) = (by_size::column(key), by_size::value(key));
            }
        }
    }
}
