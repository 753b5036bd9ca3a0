//! Plain Rust: the kernel of machines without a better one, and the one that the others are compared with.

use super::{Kernel, Part, as_f32, pack};
use crate::TILE_COLS;
use crate::matrix::MatrixRef;

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
        pack::rows_f32::<MR>(x, rows, k, block);
    }

    fn pack_columns(&self, matrix: MatrixRef<'_>, first: usize, panel: &mut [u8]) {
        pack::columns_f32(matrix, first, panel);
    }

    fn unpack_column(&self, panel: &[u8], col: usize, out: &mut [f32]) {
        pack::unpack_f32(panel, col, out);
    }

    fn copy_column(&self, from: &[u8], from_col: usize, to: &mut [u8], to_col: usize) {
        pack::copy_column(from, from_col, to, to_col);
    }

    fn multiply(&self, part: &Part<'_>, sums: &mut [f32]) {
        let (k, steps) = (part.k, part.steps.clone());
        let first = steps.start == 0;
        let panel = &as_f32(part.panel)[steps.start * TILE_COLS..steps.end * TILE_COLS];
        let blocks = as_f32(part.blocks).chunks_exact((k * MR).max(1));
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
