//! Scores of a block of queries.

use super::KeyValues;
use super::masks::{mask_row, seen};
use super::task::{Block, Job, Scratch};
use crate::kernel::Part;
use crate::simd::{Simd, entry, tanh, zip_map};
use crate::{MatrixRef, TILE_COLS};
use std::ops::Range;

impl Job<'_> {
    /// Packs keys of one head as columns, where they are not packed yet.
    pub fn pack_keys(&self, k: KeyValues<'_>, batch: usize, kv_head: usize, keys: &Range<usize>, panels: &mut [u8]) {
        let KeyValues::Plain(k) = k else { return };
        let d_head = self.shape.d_head;
        let bytes = self.arithmetic.kernel().panel_bytes(d_head);
        let stride = self.shape.n_kv_heads * d_head;
        let first = (batch * self.shape.room + keys.start) * stride + kv_head * d_head;
        let matrix = MatrixRef::strided(k.get(first..).unwrap_or(&[]), d_head, keys.len(), 1, stride)
            .expect("lengths are checked before");
        for (i, panel) in panels.chunks_exact_mut(bytes.max(1)).take(keys.len().div_ceil(TILE_COLS)).enumerate() {
            matrix.pack_panel(self.arithmetic, i * TILE_COLS, panel);
        }
    }

    /// Scores of a block into `scratch.scores`, `[rows, block.keys]`; the scratch's panels hold `packed`.
    pub fn scores(&self, q: &[f32], k: KeyValues<'_>, block: &Block, packed: &Range<usize>, scratch: &mut Scratch<'_>) {
        let held = k;
        let rows = block.rows();
        let width = block.keys.len();
        self.pack_queries(q, block, scratch);
        let kernel = self.arithmetic.kernel();
        let k = self.shape.d_head;
        let padded = rows.next_multiple_of(kernel.block_rows());
        let blocks = &scratch.blocks[..padded / kernel.block_rows() * kernel.block_bytes(k)];
        let sums = &mut scratch.sums[..padded * TILE_COLS];
        for first in block.keys.clone().step_by(TILE_COLS) {
            let panel = match held {
                KeyValues::Packed(held) => {
                    held.key_panel(block.batch, block.head / self.shape.group(), first / TILE_COLS)
                }
                KeyValues::Plain(_) => {
                    let panel = (first - packed.start) / TILE_COLS * kernel.panel_bytes(k);
                    &scratch.k_panels[panel..][..kernel.panel_bytes(k)]
                }
            };
            multiply(kernel, blocks, rows, panel, k, sums);
            let at = first - block.keys.start;
            let out = &mut scratch.scores[..rows * width];
            let finish = Finish { inverse: 1.0 / self.options.divisor, softcap: self.options.softcap, at };
            finish_tile(self.arithmetic.backend(), &sums[..rows * TILE_COLS], &finish, width, out);
        }
        let kept = self.options.kept_keys.map(|kept| &kept[block.batch * self.shape.keys..][..self.shape.keys]);
        for (row, (_, query)) in scratch.scores.chunks_exact_mut(width.max(1)).zip(block.places()) {
            mask_row(row, block.keys.start, &seen(&self.shape, &self.options, query), kept);
        }
    }

    fn pack_queries(&self, q: &[f32], block: &Block, scratch: &mut Scratch<'_>) {
        let kernel = self.arithmetic.kernel();
        let d_head = self.shape.d_head;
        for ((head, query), row) in block.places().zip(scratch.rows.chunks_exact_mut(d_head.max(1))) {
            let at = ((block.batch * self.shape.queries + query) * self.shape.n_heads + head) * d_head;
            row.copy_from_slice(&q[at..at + d_head]);
        }
        let rows = &scratch.rows[..block.rows() * d_head];
        pack_rows(kernel, rows, block.rows(), d_head, scratch.blocks);
    }
}

/// Packs rows of width `k` into blocks.
pub(crate) fn pack_rows(kernel: &dyn crate::kernel::Kernel, x: &[f32], rows: usize, k: usize, blocks: &mut [u8]) {
    if k == 0 {
        return;
    }
    let block_rows = kernel.block_rows();
    let blocks = blocks.chunks_exact_mut(kernel.block_bytes(k));
    for (first, block) in (0..rows).step_by(block_rows).zip(blocks) {
        let rows = block_rows.min(rows - first);
        kernel.pack_rows(&x[first * k..(first + rows) * k], rows, k, block);
    }
}

/// `sums = rows x panel`.
pub(crate) fn multiply(
    kernel: &dyn crate::kernel::Kernel,
    blocks: &[u8],
    rows: usize,
    panel: &[u8],
    k: usize,
    sums: &mut [f32],
) {
    let steps = k.div_ceil(kernel.k_step());
    if steps == 0 {
        sums.fill(0.0);
    }
    for start in (0..steps).step_by(kernel.k_block()) {
        let steps = start..(start + kernel.k_block()).min(steps);
        kernel.multiply(&Part { blocks, rows, panel, k, steps }, sums);
    }
}

/// Epilogue that turns a tile of sums into scores.
struct Finish {
    /// One over the divisor.
    inverse: f32,
    softcap: Option<f32>,
    /// The tile's first column in the rows of scores.
    at: usize,
}

entry! {
    /// Divides and caps the sums of a tile, on their way to rows of `width`.
    fn finish_tile(sums: &[f32], finish: &Finish, width: usize, out: &mut [f32]) = finish_tile_on;
}

#[inline(always)]
fn finish_tile_on<S: Simd>(s: S, sums: &[f32], finish: &Finish, width: usize, out: &mut [f32]) {
    let cols = TILE_COLS.min(width - finish.at);
    let inverse = s.splat(finish.inverse);
    for (sums, out) in sums.chunks_exact(TILE_COLS).zip(out.chunks_exact_mut(width)) {
        let out = &mut out[finish.at..][..cols];
        let sums = &sums[..cols];
        match finish.softcap {
            None => zip_map!(s, sums, out, |x, _out| x * inverse),
            Some(cap) => {
                let (cap, inverse_cap) = (s.splat(cap), s.splat(1.0 / cap));
                zip_map!(s, sums, out, |x, _out| tanh(s, x * inverse * inverse_cap) * cap);
            }
        }
    }
}
