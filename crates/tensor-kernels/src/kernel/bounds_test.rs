//! No kernel touches a byte outside its operands: each operand lies against a page that may not be touched, at its end or its beginning.
//!
//! Assembly and vector instructions are invisible to an address sanitizer's instrumentation, but not to the processor.

use super::Part;
use crate::{Arithmetic, MatrixRef, TILE_COLS};
use std::slice::{from_raw_parts, from_raw_parts_mut};

const PAGE: usize = 4096;

/// Memory between two pages that may not be touched.
struct Guarded {
    at: *mut u8,
    mapped: usize,
    data: *mut u8,
    len: usize,
}

impl Guarded {
    /// `len` zeroed bytes against the page after them, or before them.
    fn new(len: usize, at_end: bool) -> Self {
        let inner = len.next_multiple_of(PAGE);
        let mapped = inner + 2 * PAGE;
        // SAFETY: a new private mapping, whose inner pages alone are opened.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            let open = at.cast::<u8>().add(PAGE);
            assert_eq!(libc::mprotect(open.cast(), inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            Self { at: at.cast(), mapped, data: if at_end { open.add(inner - len) } else { open }, len }
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: open, owned and borrowed exclusively.
        unsafe { from_raw_parts_mut(self.data, self.len) }
    }

    fn floats(&mut self) -> &mut [f32] {
        assert!(self.data.cast::<f32>().is_aligned());
        // SAFETY: as above, aligned; any bits are an f32.
        unsafe { from_raw_parts_mut(self.data.cast(), self.len / 4) }
    }

    fn filled(len: usize, at_end: bool, seed: usize) -> Self {
        let mut new = Self::new(4 * len, at_end);
        for (i, x) in new.floats().iter_mut().enumerate() {
            *x = ((i * 31 + seed) % 17) as f32 - 8.0;
        }
        new
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`.
        unsafe { libc::munmap(self.at.cast(), self.mapped) };
    }
}

#[test]
fn kernels_stay_within_their_operands() {
    for arithmetic in Arithmetic::available() {
        for at_end in [false, true] {
            for rows in [1, 2, 5, 12, 31, 33, 64] {
                for (k, n) in [(1, 1), (2, 33), (31, 32), (33, 7), (300, 31)] {
                    run(arithmetic, rows, k, n, at_end);
                }
            }
        }
    }
}

/// Packs small integers, whose products are exact at any precision, multiplies, and compares.
fn run(arithmetic: Arithmetic, rows: usize, k: usize, n: usize, at_end: bool) {
    let kernel = arithmetic.kernel();
    let block_rows = kernel.block_rows();
    let (mut x, mut w) = (Guarded::filled(rows * k, at_end, 3), Guarded::filled(k * n, at_end, 5));
    let mut blocks = Guarded::new(kernel.block_bytes(k) * rows.div_ceil(block_rows), at_end);
    for (x, block) in x.floats().chunks(block_rows * k).zip(blocks.bytes().chunks_exact_mut(kernel.block_bytes(k))) {
        kernel.pack_rows(x, x.len() / k, k, block);
    }
    let first = (n - 1) / TILE_COLS * TILE_COLS;
    let mut panel = Guarded::new(kernel.panel_bytes(k), at_end);
    kernel.pack_columns(MatrixRef::row_major(w.floats(), k, n).unwrap(), first, panel.bytes());
    let mut copy = Guarded::new(kernel.panel_bytes(k), at_end);
    copy.bytes().copy_from_slice(panel.bytes());
    kernel.copy_column(panel.bytes(), 0, copy.bytes(), TILE_COLS - 1);
    let mut column = Guarded::new(4 * k, at_end);
    kernel.unpack_column(copy.bytes(), TILE_COLS - 1, column.floats());
    for (i, value) in column.floats().iter().enumerate() {
        assert_eq!(*value, w.floats()[i * n + first], "{arithmetic:?}");
    }

    let mut sums = Guarded::new(rows.next_multiple_of(block_rows) * TILE_COLS * 4, at_end);
    for start in (0..k.div_ceil(kernel.k_step())).step_by(kernel.k_block()) {
        let steps = start..(start + kernel.k_block()).min(k.div_ceil(kernel.k_step()));
        // SAFETY: as in `bytes`; read only, and not written meanwhile.
        let (blocks, panel) =
            unsafe { (from_raw_parts(blocks.data, blocks.len), from_raw_parts(panel.data, panel.len)) };
        kernel.multiply(&Part { blocks, rows, panel, k, steps }, sums.floats());
    }
    for (i, j) in (0..rows).flat_map(|i| (first..n).map(move |j| (i, j))) {
        let right: f32 = (0..k).map(|q| x.floats()[i * k + q] * w.floats()[q * n + j]).sum();
        assert_eq!(sums.floats()[i * TILE_COLS + j - first], right, "{arithmetic:?} {rows} x {k} x {n} at {i}, {j}");
    }
}
