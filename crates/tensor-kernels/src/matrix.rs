//! Weights: a view of a matrix in memory, and the same matrix packed for a back end.

use crate::buffer::Buffer;
use crate::kernel::transpose;
use crate::scratch::{self, Slot};
use crate::{Arithmetic, Error, Precision, Result, TILE_COLS};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;

/// Values of `k` that are read together: a cache line of each column.
const PIECE: usize = 16;

/// A view of a weight matrix `[k, n]` in memory, row-major or transposed.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRef<'a> {
    data: &'a [f32],
    k: usize,
    n: usize,
    stride_k: usize,
    stride_n: usize,
}

impl<'a> MatrixRef<'a> {
    /// `[k, n]`, row after row.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn row_major(data: &'a [f32], k: usize, n: usize) -> Result<Self> {
        Self::strided(data, k, n, n, 1)
    }

    /// `[k, n]` stored as its transpose `[n, k]`, row after row: each column is one run of memory.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn transposed(data: &'a [f32], k: usize, n: usize) -> Result<Self> {
        Self::strided(data, k, n, 1, k)
    }

    /// Entry `(i, j)` at `i * stride_k + j * stride_n`.
    ///
    /// # Errors
    /// [`Error::Length`] when an entry would lie outside `data`.
    pub fn strided(data: &'a [f32], k: usize, n: usize, stride_k: usize, stride_n: usize) -> Result<Self> {
        let span = |n: usize, stride: usize| n.saturating_sub(1).checked_mul(stride);
        let last = span(k, stride_k).zip(span(n, stride_n)).and_then(|(a, b)| a.checked_add(b)?.checked_add(1));
        let needed = if k == 0 || n == 0 { Some(0) } else { last };
        match needed {
            Some(needed) if needed <= data.len() => Ok(Self { data, k, n, stride_k, stride_n }),
            Some(expected) => Err(Error::Length { what: "a weight matrix", expected, found: data.len() }),
            None => Err(Error::TooLarge { rows: k, cols: n }),
        }
    }

    /// Height: the inner size of products.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Some of its columns.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for columns that there are not.
    pub fn columns(&self, columns: std::ops::Range<usize>) -> Result<Self> {
        if columns.start > columns.end || columns.end > self.n {
            let (expected, found) = (format!("within 0..{}", self.n), format!("{columns:?}"));
            return Err(Error::Mismatch { what: "columns of a matrix", expected, found });
        }
        let start = if self.k == 0 || columns.is_empty() { 0 } else { columns.start * self.stride_n };
        Self::strided(&self.data[start..], self.k, columns.len(), self.stride_k, self.stride_n)
    }

    /// Calls `each(k, values)` for every `k`, with the entries of the [`TILE_COLS`] columns from `first` on; zeros past the last.
    #[inline(always)]
    pub(crate) fn for_each_k(&self, first: usize, mut each: impl FnMut(usize, &[f32; TILE_COLS])) {
        let cols = (self.n - first).min(TILE_COLS);
        let mut tile = [[0f32; TILE_COLS]; PIECE];
        for start in (0..self.k).step_by(PIECE) {
            let ks = start..(start + PIECE).min(self.k);
            if self.stride_n == 1 && cols == TILE_COLS {
                for k in ks {
                    let values = self.data[k * self.stride_k + first..].first_chunk();
                    each(k, values.expect("a matrix lies within its data"));
                }
                continue;
            }
            self.read(ks.clone(), first..first + cols, &mut tile);
            ks.zip(&tile).for_each(|(k, values)| each(k, values));
        }
    }

    /// Copies a piece of the matrix, by fours of columns where each column is one run of memory.
    fn read(&self, ks: Range<usize>, cols: Range<usize>, tile: &mut [[f32; TILE_COLS]; PIECE]) {
        let runs = if self.stride_k == 1 { cols.len() / 4 * 4 } else { 0 };
        for col in (0..runs).step_by(4) {
            let run = |i: usize| &self.data[(cols.start + col + i) * self.stride_n..][ks.clone()];
            transpose(std::array::from_fn(run), &mut tile.as_flattened_mut()[col..], TILE_COLS);
        }
        for (k, values) in ks.zip(tile) {
            for (col, value) in values[..cols.len()].iter_mut().enumerate().skip(runs) {
                *value = self.data[k * self.stride_k + (cols.start + col) * self.stride_n];
            }
        }
    }

    /// Packs the panel that starts at column `first`.
    pub(crate) fn pack_panel(&self, arithmetic: Arithmetic, first: usize, panel: &mut [u8]) {
        crate::counting::panel_packed();
        arithmetic.kernel().pack_columns(*self, first, panel);
    }
}

/// A weight matrix `[k, n]` packed for one [`Arithmetic`]: panels of [`TILE_COLS`] columns, each one run of memory.
///
/// Takes `4 k n` bytes (bf16: `2 k n`), `k` and `n` rounded up to whole steps and panels.
pub struct PackedMatrix {
    arithmetic: Arithmetic,
    k: usize,
    n: usize,
    panels: Buffer,
}

impl PackedMatrix {
    /// Packs a matrix, in parallel over its columns.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn pack(arithmetic: Arithmetic, matrix: MatrixRef<'_>) -> Result<Self> {
        let mut packed = Self::zeros(arithmetic, matrix.k, matrix.n)?;
        packed.panels_mut().enumerate().for_each(|(i, panel)| matrix.pack_panel(arithmetic, i * TILE_COLS, panel));
        Ok(packed)
    }

    fn zeros(arithmetic: Arithmetic, k: usize, n: usize) -> Result<Self> {
        let too_large = Error::TooLarge { rows: k, cols: n };
        // Eight bytes a value is more than any kernel takes.
        let bound = k.max(64).checked_mul(n.max(TILE_COLS)).and_then(|entries| entries.checked_mul(8));
        if bound.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(too_large);
        }
        let panels = Buffer::new(arithmetic.kernel().panel_bytes(k) * n.div_ceil(TILE_COLS));
        Ok(Self { arithmetic, k, n, panels })
    }

    /// Height: the inner size of products.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// The arithmetic it is packed for.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// Column `j` as products see it: exact where they are computed in f32, else rounded.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a column that there is not, [`Error::Length`] for an `out` that is not of length `k`.
    pub fn column(&self, j: usize, out: &mut [f32]) -> Result<()> {
        if j >= self.n {
            return Err(self.no_column(j));
        }
        if out.len() != self.k {
            return Err(Error::Length { what: "a column", expected: self.k, found: out.len() });
        }
        self.arithmetic.kernel().unpack_column(self.panel(j / TILE_COLS), j % TILE_COLS, out);
        Ok(())
    }

    /// Columns in any order, as products see them, one after another: rows of a table that is held as its transpose.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a column that there is not, [`Error::Length`] for an `out` that is not `[columns, k]`.
    pub fn read_columns(&self, columns: &[u32], out: &mut [f32]) -> Result<()> {
        if let Some(&j) = columns.iter().find(|&&j| j as usize >= self.n) {
            return Err(self.no_column(j as usize));
        }
        if out.len() != columns.len() * self.k {
            let (expected, found) = (columns.len() * self.k, out.len());
            return Err(Error::Length { what: "columns", expected, found });
        }
        let kernel = self.arithmetic.kernel();
        out.par_chunks_exact_mut(self.k.max(1)).zip(columns).for_each(|(out, &j)| {
            let j = j as usize;
            kernel.unpack_column(self.panel(j / TILE_COLS), j % TILE_COLS, out);
        });
        Ok(())
    }

    /// Whether products see every entry of `matrix`, from which this one was packed, as it is: always where they are computed in f32,
    /// else where nothing had to be rounded.
    #[must_use]
    pub fn is_exact(&self, matrix: MatrixRef<'_>) -> bool {
        if (self.k, self.n) != (matrix.k, matrix.n) {
            return false;
        }
        if self.arithmetic.precision() == Precision::F32 {
            return true;
        }
        (0..self.n).into_par_iter().all(|j| {
            scratch::with(Slot::Operand, self.k * size_of::<f32>(), |buffer| {
                let column = &mut buffer.as_mut_slice::<f32>()[..self.k];
                self.arithmetic.kernel().unpack_column(self.panel(j / TILE_COLS), j % TILE_COLS, column);
                let start = j * matrix.stride_n;
                let right = |(k, x): (usize, &f32)| x.to_bits() == matrix.data[start + k * matrix.stride_k].to_bits();
                column.iter().enumerate().all(right)
            })
        })
    }

    /// The matrix of these columns, in this order, copied from the packed ones: products with it equal those columns of products with
    /// the whole, bit for bit, at the cost of `columns.len()` columns. Repetitions are allowed.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a column that there is not.
    pub fn gather(&self, columns: &[u32]) -> Result<Self> {
        if let Some(&j) = columns.iter().find(|&&j| j as usize >= self.n) {
            return Err(self.no_column(j as usize));
        }
        let mut gathered = Self::zeros(self.arithmetic, self.k, columns.len())?;
        let kernel = self.arithmetic.kernel();
        gathered.panels_mut().zip(columns.par_chunks(TILE_COLS)).for_each(|(panel, columns)| {
            for (to, &from) in columns.iter().enumerate() {
                let from = from as usize;
                kernel.copy_column(self.panel(from / TILE_COLS), from % TILE_COLS, panel, to);
            }
        });
        Ok(gathered)
    }

    fn no_column(&self, j: usize) -> Error {
        let (expected, found) = (format!("less than {}", self.n), j.to_string());
        Error::Mismatch { what: "column of a packed matrix", expected, found }
    }

    fn panels_mut(&mut self) -> impl IndexedParallelIterator<Item = &mut [u8]> {
        let bytes = self.panel_bytes();
        let used = bytes * self.n.div_ceil(TILE_COLS);
        self.panels.as_mut_slice::<u8>()[..used].par_chunks_exact_mut(bytes.max(1))
    }

    pub(crate) fn panel(&self, i: usize) -> &[u8] {
        let bytes = self.panel_bytes();
        &self.panels.as_slice()[i * bytes..(i + 1) * bytes]
    }

    fn panel_bytes(&self) -> usize {
        self.arithmetic.kernel().panel_bytes(self.k)
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedMatrix([{}, {}], {})", self.k, self.n, self.arithmetic)
    }
}
