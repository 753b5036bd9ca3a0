//! Values mixed by a pattern.

use super::masks::all_finite;
use super::scores::{multiply, pack_rows};
use super::task::{Block, Job, Scratch};
use super::{AttentionShape, KeyValues};
use crate::buffer::Buffer;
use crate::epilogue::SharedOut;
use crate::{MatrixRef, TILE_COLS};
use std::ops::Range;

impl Job<'_> {
    /// Packs values of one head as columns, where they are not packed yet; says whether all are finite.
    pub fn pack_values(
        &self,
        v: KeyValues<'_>,
        batch: usize,
        kv_head: usize,
        keys: &Range<usize>,
        panels: &mut [u8],
    ) -> bool {
        let v = match v {
            KeyValues::Plain(v) => v,
            KeyValues::Packed(held) => return held.is_finite(batch, kv_head),
        };
        let AttentionShape { room, n_kv_heads, d_head, .. } = self.shape;
        let (bytes, stride) = (self.arithmetic.kernel().panel_bytes(keys.len()), n_kv_heads * d_head);
        let first = ((batch * room + keys.start) * n_kv_heads + kv_head) * d_head;
        let values = &v[if keys.is_empty() { 0 } else { first }..];
        // Row `j` is key `keys.start + j`.
        let matrix = MatrixRef::strided(values, keys.len(), d_head, stride, 1).expect("lengths are checked before");
        for (i, panel) in panels.chunks_exact_mut(bytes.max(1)).take(d_head.div_ceil(TILE_COLS)).enumerate() {
            matrix.pack_panel(self.arithmetic, i * TILE_COLS, panel);
        }
        all_finite(self.arithmetic.backend(), values, keys.len(), d_head, stride)
    }

    /// `z` of a block's rows, whose pattern is in `scratch.scores`; the scratch's panels hold `packed`.
    pub fn mix_block(
        &self,
        v: KeyValues<'_>,
        block: &Block,
        packed: &Range<usize>,
        finite: bool,
        scratch: &mut Scratch<'_>,
        z: &SharedOut<'_>,
    ) {
        let kernel = self.arithmetic.kernel();
        let (rows, k) = (block.rows(), block.keys.len());
        pack_rows(kernel, &scratch.scores[..rows * k], rows, k, scratch.blocks);
        let padded = rows.next_multiple_of(kernel.block_rows());
        let blocks = &scratch.blocks[..padded / kernel.block_rows() * kernel.block_bytes(k)];
        let sums = &mut scratch.sums[..padded * TILE_COLS];
        for first in (0..self.shape.d_head).step_by(TILE_COLS) {
            // Keys before the block's are whole steps, a prefix of the panel.
            let panel = match v {
                KeyValues::Packed(held) => {
                    let panel = held.value_panel(block.batch, block.head / self.shape.group(), first / TILE_COLS);
                    &panel[kernel.panel_bytes(block.keys.start)..]
                }
                KeyValues::Plain(_) => {
                    let skipped = kernel.panel_bytes(block.keys.start - packed.start.min(block.keys.start));
                    &scratch.v_panels[first / TILE_COLS * kernel.panel_bytes(packed.len()) + skipped..]
                }
            };
            let panel = &panel[..kernel.panel_bytes(k)];
            if finite {
                multiply(kernel, blocks, rows, panel, k, sums);
            } else {
                self.multiply_careful(&scratch.scores[..rows * k], panel, k, sums);
            }
            self.store_tile(block, first, sums, z);
        }
    }

    /// The product where values are not all finite: each row by itself, with zeros for the values whose weight is 0.
    fn multiply_careful(&self, weights: &[f32], panel: &[u8], k: usize, sums: &mut [f32]) {
        let kernel = self.arithmetic.kernel();
        if k == 0 {
            return sums.fill(0.0);
        }
        let step = kernel.k_step();
        let mut clean = Buffer::new(panel.len());
        let (zeros, mut block) = (Buffer::new(kernel.panel_bytes(step)), Buffer::new(kernel.block_bytes(k)));
        let mut row_sums = Buffer::new(kernel.block_rows() * TILE_COLS * size_of::<f32>());
        let clean = &mut clean.as_mut_slice::<u8>()[..panel.len()];
        let block = &mut block.as_mut_slice::<u8>()[..kernel.block_bytes(k)];
        let row_sums = &mut row_sums.as_mut_slice::<f32>()[..kernel.block_rows() * TILE_COLS];
        for (weights, sums) in weights.chunks_exact(k).zip(sums.chunks_exact_mut(TILE_COLS)) {
            clean.copy_from_slice(panel);
            // What lies behind the last key in its step has no weight either.
            for j in (0..k.next_multiple_of(step)).filter(|j| weights.get(*j).is_none_or(|weight| *weight == 0.0)) {
                kernel.copy_row(zeros.as_slice(), 0, clean, j);
            }
            pack_rows(kernel, weights, 1, k, block);
            multiply(kernel, block, 1, clean, k, row_sums);
            sums.copy_from_slice(&row_sums[..TILE_COLS]);
        }
    }

    fn store_tile(&self, block: &Block, first: usize, sums: &[f32], z: &SharedOut<'_>) {
        let d_head = self.shape.d_head;
        let cols = first..(first + TILE_COLS).min(d_head);
        for ((head, query), sums) in block.places().zip(sums.chunks_exact(TILE_COLS)) {
            let place = head * d_head + cols.start..head * d_head + cols.end;
            // SAFETY: no two blocks share a query of a head.
            unsafe { z.row(block.batch * self.shape.queries + query, place) }.copy_from_slice(&sums[..cols.len()]);
        }
    }
}
