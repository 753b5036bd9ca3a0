//! Plain Rust: the kernel of machines without a better one, and the one that the others are compared with.

use super::{Kernel, as_f32, as_f32_mut};
use crate::TILE_COLS;
use std::ops::Range;

/// Rows of a block.
const MR: usize = 4;

/// Single precision in plain Rust.
pub(crate) static F32: PortableF32 = PortableF32;

/// See [`F32`].
pub(crate) struct PortableF32;

impl Kernel for PortableF32 {
    fn name(&self) -> &'static str {
        "portable f32"
    }

    fn block_rows(&self) -> usize {
        MR
    }

    fn k_step(&self) -> usize {
        1
    }

    fn k_block(&self) -> usize {
        256
    }

    fn block_bytes(&self, k: usize) -> usize {
        k * MR * size_of::<f32>()
    }

    fn panel_bytes(&self, k: usize) -> usize {
        k * TILE_COLS * size_of::<f32>()
    }

    fn pack_rows(&self, x: &[f32], rows: usize, k: usize, block: &mut [u8]) {
        for (step, values) in as_f32_mut(block).chunks_exact_mut(MR).enumerate() {
            for (row, value) in values.iter_mut().enumerate() {
                *value = if row < rows { x[row * k + step] } else { 0.0 };
            }
        }
    }

    fn pack_columns(&self, at: &dyn Fn(usize, usize) -> f32, cols: usize, _: usize, panel: &mut [u8]) {
        for (step, values) in as_f32_mut(panel).chunks_exact_mut(TILE_COLS).enumerate() {
            for (col, value) in values.iter_mut().enumerate() {
                *value = if col < cols { at(step, col) } else { 0.0 };
            }
        }
    }

    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]) {
        for (out, values) in out.iter_mut().zip(as_f32(panel).chunks_exact(TILE_COLS)) {
            *out = values[col];
        }
    }

    fn multiply(&self, blocks: &[u8], panel: &[u8], k: usize, steps: Range<usize>, sums: &mut [f32], first: bool) {
        let panel = &as_f32(panel)[steps.start * TILE_COLS..steps.end * TILE_COLS];
        let blocks = as_f32(blocks).chunks_exact((k * MR).max(1));
        for (block, sums) in blocks.zip(sums.chunks_exact_mut(MR * TILE_COLS)) {
            let mut new = [0f32; MR * TILE_COLS];
            let block = &block[steps.start * MR..steps.end * MR];
            for (x, w) in block.chunks_exact(MR).zip(panel.chunks_exact(TILE_COLS)) {
                for (new, x) in new.chunks_exact_mut(TILE_COLS).zip(x) {
                    new.iter_mut().zip(w).for_each(|(new, w)| *new += x * w);
                }
            }
            for (sum, new) in sums.iter_mut().zip(new) {
                *sum = if first { new } else { *sum + new };
            }
        }
    }
}
