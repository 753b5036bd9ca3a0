//! Projecting directions on an unembedding, block by block, keeping only the extreme tokens.

use crate::select::Best;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// How many tokens to keep, and how large the blocks are. Block sizes change memory and speed, never the answer's order.
#[derive(Clone, Debug, PartialEq)]
pub struct LensOptions {
    /// Most promoted tokens kept per feature.
    pub top: usize,
    /// Most suppressed tokens kept per feature.
    pub bottom: usize,
    /// Decoder rows per block.
    pub block_features: usize,
    /// Columns of `W_U` per block.
    pub block_tokens: usize,
}

impl Default for LensOptions {
    fn default() -> Self {
        Self { top: 10, bottom: 10, block_features: 256, block_tokens: 4096 }
    }
}

impl LensOptions {
    /// Peak memory in bytes of a projection of `features` directions, beyond the model and the SAE.
    #[must_use]
    pub fn bytes(&self, features: usize, d_model: usize) -> usize {
        let (rows, columns) = (self.block_features, self.block_tokens);
        4 * (d_model * columns + rows * (d_model + 2 * columns)) + 8 * features * (self.top + self.bottom)
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
pub struct Extremes {
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
    mut directions: impl FnMut(Range<usize>) -> Result<Tensor>,
    mut w_u_columns: impl FnMut(usize, usize) -> Result<Tensor>,
    options: &LensOptions,
) -> Result<Vec<Extremes>> {
    options.check()?;
    let mut kept: Vec<Selection> = (0..n).map(|_| Selection::new(options)).collect();
    for start in (0..d_vocab).step_by(options.block_tokens) {
        let len = options.block_tokens.min(d_vocab - start);
        let w_u = w_u_columns(start, len)?.to_dtype(DType::F32)?;
        for first in (0..n).step_by(options.block_features) {
            let range = first..n.min(first + options.block_features);
            let rows = directions(range.clone())?.to_dtype(DType::F32)?;
            check_widths(&rows, &w_u, range.len(), len)?;
            let block = rows.matmul(&w_u)?.flatten_all()?.to_vec1::<f32>()?;
            let selections = kept[range].par_iter_mut().zip(block.par_chunks_exact(len)).enumerate();
            selections.try_for_each(|(i, (selection, row))| selection.scan(first + i, start, row))?;
        }
    }
    Ok(kept.into_iter().map(Selection::finish).collect())
}

fn check_widths(rows: &Tensor, w_u: &Tensor, n: usize, len: usize) -> Result<()> {
    match (rows.dims(), w_u.dims()) {
        (&[found, d], &[d_model, columns]) if found == n && columns == len => match d == d_model {
            true => Ok(()),
            false => Err(Error::Misfit {
                left: "the directions' width",
                left_size: d,
                right: "d_model",
                right_size: d_model,
            }),
        },
        (&[_, _], other) => {
            Err(Error::Shape { what: "a block of W_U", expected: format!("[d_model, {len}]"), found: other.to_vec() })
        }
        (other, _) => {
            Err(Error::Shape { what: "a block of directions", expected: format!("[{n}, d]"), found: other.to_vec() })
        }
    }
}

/// Both ends of one direction's projections; the smallest are kept as the largest of their negatives.
struct Selection {
    top: Best<u32>,
    bottom: Best<u32>,
}

impl Selection {
    fn new(options: &LensOptions) -> Self {
        Self { top: Best::new(options.top), bottom: Best::new(options.bottom) }
    }

    /// Looks at the projections on tokens `start..`. Token ids only rise, so a value that ties the floor never gets in.
    fn scan(&mut self, direction: usize, start: usize, row: &[f32]) -> Result<()> {
        let (mut above, mut below) = (self.top.floor(), -self.bottom.floor());
        for (i, &value) in row.iter().enumerate() {
            if !value.is_finite() {
                return Err(Error::NotFinite { what: "the projection", value, row: direction, column: start + i });
            }
            let token = (start + i) as u32;
            if value > above {
                self.top.offer(value, token);
                above = self.top.floor();
            }
            if value < below {
                self.bottom.offer(-value, token);
                below = -self.bottom.floor();
            }
        }
        Ok(())
    }

    fn finish(self) -> Extremes {
        let top = self.top.entries().iter().map(|&(value, token)| (token, value)).collect();
        let bottom = self.bottom.entries().iter().map(|&(value, token)| (token, -value)).collect();
        Extremes { top, bottom }
    }
}
