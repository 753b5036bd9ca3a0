//! Values mixed by a pattern.

use super::AttentionShape;
use super::masks::all_finite;
use super::scores::{multiply, pack_rows};
use super::task::{Block, Job, Scratch};
use crate::epilogue::SharedOut;
use crate::{MatrixRef, TILE_COLS};
use std::ops::Range;

impl Job<'_> {
    /// Values of one head: row `j` is key `keys.start + j`.
    fn values<'v>(&self, v: &'v [f32], batch: usize, kv_head: usize, keys: &Range<usize>) -> MatrixRef<'v> {
        let d_head = self.shape.d_head;
        let values = &v[self.first_value(batch, kv_head, keys)..];
        MatrixRef::strided(values, keys.len(), d_head, self.shape.n_kv_heads * d_head, 1)
            .expect("lengths are checked before")
    }

    /// Where the first of these values lies; 0 where there are none.
    fn first_value(&self, batch: usize, kv_head: usize, keys: &Range<usize>) -> usize {
        let AttentionShape { room, n_kv_heads, d_head, .. } = self.shape;
        let first = ((batch * room + keys.start) * n_kv_heads + kv_head) * d_head;
        if keys.is_empty() { 0 } else { first }
    }

    /// Packs values of one head as columns; says whether all are finite.
    pub fn pack_values(&self, v: &[f32], batch: usize, kv_head: usize, keys: &Range<usize>, panels: &mut [u8]) -> bool {
        let bytes = self.arithmetic.kernel().panel_bytes(keys.len());
        let matrix = self.values(v, batch, kv_head, keys);
        for (i, panel) in panels.chunks_exact_mut(bytes.max(1)).take(matrix.n().div_ceil(TILE_COLS)).enumerate() {
            matrix.pack_panel(self.arithmetic, i * TILE_COLS, panel);
        }
        let stride = self.shape.n_kv_heads * self.shape.d_head;
        all_finite(
            self.arithmetic.backend(),
            &v[self.first_value(batch, kv_head, keys)..],
            keys.len(),
            self.shape.d_head,
            stride,
        )
    }

    /// `z` of a block's rows, whose pattern is in `scratch.scores`; the panels hold `packed`.
    pub fn mix_block(
        &self,
        v: &[f32],
        block: &Block,
        packed: &Range<usize>,
        finite: bool,
        scratch: &mut Scratch<'_>,
        z: &SharedOut<'_>,
    ) {
        let kernel = self.arithmetic.kernel();
        let (rows, k) = (block.queries.len(), block.keys.len());
        pack_rows(kernel, &scratch.scores[..rows * k], rows, k, scratch.blocks);
        if !finite {
            let row_of_values = self.values(v, block.batch, block.head / self.shape.group(), &block.keys);
            return self.mix_careful(row_of_values, block, scratch, z);
        }
        let padded = rows.next_multiple_of(kernel.block_rows());
        let blocks = &scratch.blocks[..padded / kernel.block_rows() * kernel.block_bytes(k)];
        let sums = &mut scratch.sums[..padded * TILE_COLS];
        // Keys before the block's are whole steps, a prefix of the panel.
        let skipped = kernel.panel_bytes(block.keys.start - packed.start.min(block.keys.start));
        for first in (0..self.shape.d_head).step_by(TILE_COLS) {
            let panel = first / TILE_COLS * kernel.panel_bytes(packed.len()) + skipped;
            multiply(kernel, blocks, rows, &scratch.v_panels[panel..][..kernel.panel_bytes(k)], k, sums);
            self.store_tile(block.batch, block.head, block.queries.clone(), first, sums, z);
        }
    }

    /// The same where values are not all finite: each row by itself, with zeros for the values whose weight is 0.
    fn mix_careful(&self, values: MatrixRef<'_>, block: &Block, scratch: &mut Scratch<'_>, z: &SharedOut<'_>) {
        let kernel = self.arithmetic.kernel();
        let (k, d_head) = (values.k(), self.shape.d_head);
        let (mut clean, mut panel) = (vec![0f32; k * TILE_COLS], crate::buffer::Buffer::new(kernel.panel_bytes(k)));
        let panel = &mut panel.as_mut_slice::<u8>()[..kernel.panel_bytes(k)];
        let sums = &mut scratch.sums[..kernel.block_rows() * TILE_COLS];
        for (i, weights) in block.queries.clone().zip(scratch.scores.chunks_exact(k.max(1))) {
            pack_rows(kernel, weights, 1, k, scratch.blocks);
            for first in (0..d_head).step_by(TILE_COLS) {
                values.for_each_k(first, |j, values| {
                    let row = &mut clean[j * TILE_COLS..][..TILE_COLS];
                    row.copy_from_slice(values);
                    if weights[j] == 0.0 {
                        row.fill(0.0);
                    }
                });
                let matrix = MatrixRef::row_major(&clean, k, TILE_COLS).expect("made to fit");
                matrix.pack_panel(self.arithmetic, 0, panel);
                multiply(kernel, &scratch.blocks[..kernel.block_bytes(k)], 1, panel, k, sums);
                self.store_tile(block.batch, block.head, i..i + 1, first, sums, z);
            }
        }
    }

    fn store_tile(
        &self,
        batch: usize,
        head: usize,
        queries: Range<usize>,
        first: usize,
        sums: &[f32],
        z: &SharedOut<'_>,
    ) {
        let d_head = self.shape.d_head;
        let cols = first..(first + TILE_COLS).min(d_head);
        for (i, sums) in queries.zip(sums.chunks_exact(TILE_COLS)) {
            let place = head * d_head + cols.start..head * d_head + cols.end;
            // SAFETY: no two blocks share a query of a head.
            unsafe { z.row(batch * self.shape.queries + i, place) }.copy_from_slice(&sums[..cols.len()]);
        }
    }
}
