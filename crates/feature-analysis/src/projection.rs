//! Projecting directions on an unembedding, block by block, keeping only the extreme tokens.

use crate::{Error, Result};
use candle_core::{DType, Tensor};
use model_hooks::HookSelector;
use std::ops::Range;
use tensor_kernels::{Arithmetic, MatrixRef, Operand, PackedMatrix, PackedRows};

/// How many tokens to keep, what computes, and how large the blocks are. Block sizes change memory and speed, never a bit of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct LensOptions {
    /// Most promoted tokens kept per feature.
    pub top: usize,
    /// Most suppressed tokens kept per feature.
    pub bottom: usize,
    /// Decoder rows per block.
    pub block_features: usize,
    /// Columns of `W_U` per block; a `W_U` that is packed already is taken as it is.
    pub block_tokens: usize,
    /// Where the decoder rows of an SAE write (see [`logit_lens`](crate::logit_lens)); `None`: where its metadata say.
    pub at: Option<HookSelector>,
    /// What computes the products; a `W_U` that is packed already has been packed for one, which is used instead.
    pub arithmetic: Arithmetic,
}

impl Default for LensOptions {
    fn default() -> Self {
        let arithmetic = Arithmetic::default();
        Self { top: 10, bottom: 10, block_features: 1024, block_tokens: 8192, at: None, arithmetic }
    }
}

/// Parts of the columns that have candidates of their own, at most: some per thread, on eight threads.
const COLUMN_PARTS: usize = 16;

impl LensOptions {
    /// Peak memory in bytes of a projection of `features` directions, beyond the model and the SAE: a block of `W_U` (as a tensor, copied from it, and
    /// packed), a block of directions (the same), the candidates of a block of directions, and what is kept of all of them. For an SAE inside
    /// attention or an MLP of width `w`, a copy of the layer's `W_O` or `W_out` and `4 * block_features * w` bytes of directions come on top.
    #[must_use]
    pub fn bytes(&self, features: usize, d_model: usize) -> usize {
        let (rows, columns) = (self.block_features.min(features), self.block_tokens);
        let (top, bottom) = (self.top.max(1), self.bottom.max(1));
        let candidates = 16 * (top + bottom + 64) * rows * COLUMN_PARTS;
        3 * 4 * d_model * (columns + rows + 64) + candidates + features * (24 * (top + bottom) + 20)
    }

    fn check(&self) -> Result<()> {
        let zero = |option| Err(Error::Option { option, expected: "at least 1", found: "0".into() });
        match (self.block_features, self.block_tokens) {
            (0, _) => zero("block_features"),
            (_, 0) => zero("block_tokens"),
            _ => Ok(()),
        }
    }
}

/// One direction's extreme tokens: `(token id, projection)`, ties by the lower token id.
#[derive(Clone, Debug, PartialEq)]
pub struct TopBottomTokens {
    /// Largest projections, largest first.
    pub top: Vec<(u32, f32)>,
    /// Smallest projections, smallest first.
    pub bottom: Vec<(u32, f32)>,
}

/// Projects `n` directions on `d_vocab` columns of an unembedding, blockwise, and keeps each direction's extreme tokens.
///
/// # Shapes
/// `directions(range)` gives `[range.len(), d_model]`, `w_u_columns(start, len)` gives `[d_model, len]`; each is asked for a
/// block at a time (each block of `W_U` once, each block of directions once per block of `W_U`).
///
/// # Errors
/// Block sizes of zero, widths that do not match, a projection that is NaN or infinite, or the suppliers' own errors.
pub fn project_directions(
    n: usize,
    d_vocab: usize,
    directions: impl FnMut(Range<usize>) -> Result<Tensor>,
    mut w_u_columns: impl FnMut(usize, usize) -> Result<Tensor>,
    options: &LensOptions,
) -> Result<Vec<TopBottomTokens>> {
    let mut search = Search::new(n, directions, options)?;
    for start in (0..d_vocab).step_by(options.block_tokens) {
        let len = options.block_tokens.min(d_vocab - start);
        let w_u = w_u_columns(start, len)?;
        let d_model = match w_u.dims() {
            &[d_model, columns] if columns == len => d_model,
            found => return shape_error("a block of W_U", format!("[d_model, {len}]"), found),
        };
        let flat = w_u.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        drop(w_u);
        let packed = PackedMatrix::pack(options.arithmetic, MatrixRef::row_major(&flat, d_model, len)?)?;
        drop(flat);
        search.block(options.arithmetic, start, (&packed).into())?;
    }
    search.finish()
}

/// As [`project_directions`], on the whole of `W_U` as it lies in memory.
///
/// # Errors
/// As [`project_directions`].
pub fn project_directions_on(
    n: usize,
    directions: impl FnMut(Range<usize>) -> Result<Tensor>,
    w_u: Operand<'_>,
    options: &LensOptions,
) -> Result<Vec<TopBottomTokens>> {
    let mut search = Search::new(n, directions, options)?;
    match w_u {
        Operand::Packed(packed) => search.block(packed.arithmetic(), 0, w_u)?,
        Operand::Plain(plain) => {
            for start in (0..plain.n()).step_by(options.block_tokens) {
                let end = plain.n().min(start + options.block_tokens);
                let packed = PackedMatrix::pack(options.arithmetic, plain.columns(start..end)?)?;
                search.block(options.arithmetic, start, (&packed).into())?;
            }
        }
    }
    search.finish()
}

fn shape_error<T>(what: &'static str, expected: String, found: &[usize]) -> Result<T> {
    Err(Error::Shape { what, expected, found: found.to_vec() })
}

/// A search under way.
struct Search<'a, D> {
    n: usize,
    directions: D,
    options: &'a LensOptions,
    rows: PackedRows,
    found: tensor_kernels::TopBottom,
}

impl<'a, D: FnMut(Range<usize>) -> Result<Tensor>> Search<'a, D> {
    fn new(n: usize, directions: D, options: &'a LensOptions) -> Result<Self> {
        options.check()?;
        // At least one of each, so that a projection that is no number shows.
        let found = tensor_kernels::TopBottom::new(n, options.top.max(1), options.bottom.max(1))?;
        Ok(Self { n, directions, options, rows: PackedRows::new(), found })
    }

    /// Looks at all directions' projections on the columns of `w_u`, which are those from `start` on.
    fn block(&mut self, arithmetic: Arithmetic, start: usize, w_u: Operand<'_>) -> Result<()> {
        for first in (0..self.n).step_by(self.options.block_features) {
            let range = first..self.n.min(first + self.options.block_features);
            let len = range.len();
            let rows = (self.directions)(range)?;
            let left_size = match rows.dims() {
                &[found, width] if found == len => width,
                found => return shape_error("a block of directions", format!("[{len}, d]"), found),
            };
            if left_size != w_u.k() {
                let (left, right, right_size) = ("the directions' width", "d_model", w_u.k());
                return Err(Error::SizeMismatch { left, left_size, right, right_size });
            }
            let flat = rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            self.rows.pack(arithmetic, &flat, left_size)?;
            self.found.scan(first, &self.rows, start, w_u, None)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<TopBottomTokens>> {
        let take = |row| {
            let ends = || self.found.top(row).chain(self.found.bottom(row));
            if let Some((column, value)) = ends().filter(|(_, value)| !value.is_finite()).min_by_key(|entry| entry.0) {
                return Err(Error::NotFinite { what: "the projection", value, row, column: column as usize });
            }
            let top = self.found.top(row).take(self.options.top).collect();
            Ok(TopBottomTokens { top, bottom: self.found.bottom(row).take(self.options.bottom).collect() })
        };
        (0..self.n).map(take).collect()
    }
}
