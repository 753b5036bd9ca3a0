//! The encoder's weights, packed for the kernels or plain for the reference, and what both compute with them.

mod batch;
mod kernels;
mod reference;
mod scratch;
pub(crate) mod selection;

use crate::encoder::selection::{Row, Selection};
use crate::normalization::Rows;
use crate::slices::with_f32;
use crate::{Error, FeatureId, Result, SparseFeatures};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
pub use scratch::EncodeScratch;
pub(crate) use scratch::ScratchPool;
use std::ops::Range;
use std::sync::Arc;
use tensor_kernels::{Engine, MatrixRef, PackedMatrix};

/// Rows of pre-activations worked on at a time.
pub(crate) const ROW_TILE: usize = 1024;

/// Reads one column: its number, its product with the row, its bias.
pub(crate) type Read = fn(&Selection, usize, f32, f32) -> f32;

/// `W_enc`, once in memory.
#[derive(Clone)]
enum Weights {
    Packed(Arc<PackedMatrix>),
    /// `[columns, d_in]`: the transpose, so that a feature's weights are one run of memory.
    Plain(Tensor),
}

/// Encoder weights and activation rule of some columns: of all features, or of a chosen few.
#[derive(Clone)]
pub(crate) struct Encoder {
    weights: Weights,
    pub(crate) bias: Arc<[f32]>,
    pub(crate) rule: Selection,
}

impl Encoder {
    /// Of `W_enc [d_in, columns]` in any memory order, packed or kept as the engine wants it.
    pub(crate) fn new(engine: Engine, w_enc: &Tensor, bias: Arc<[f32]>, rule: Selection) -> Result<Self> {
        let weights = match engine {
            Engine::Reference => Weights::Plain(w_enc.t()?.contiguous()?),
            Engine::Kernels(arithmetic) => {
                let (d_in, columns) = w_enc.dims2()?;
                let w_t = w_enc.t()?;
                let packed = if w_t.is_contiguous() {
                    with_f32(&w_t, |flat| PackedMatrix::pack(arithmetic, MatrixRef::transposed(flat, d_in, columns)?))
                } else {
                    with_f32(w_enc, |flat| PackedMatrix::pack(arithmetic, MatrixRef::row_major(flat, d_in, columns)?))
                };
                Weights::Packed(Arc::new(packed??))
            }
        };
        Ok(Self { weights, bias, rule })
    }

    pub(crate) fn engine(&self) -> Engine {
        match &self.weights {
            Weights::Packed(packed) => Engine::Kernels(packed.arithmetic()),
            Weights::Plain(_) => Engine::Reference,
        }
    }

    pub(crate) fn columns(&self) -> usize {
        self.bias.len()
    }

    /// Bytes that the weights take.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => packed.bytes(),
            Weights::Plain(w_t) => w_t.elem_count() * size_of::<f32>(),
        }
    }

    /// `W_enc` transposed, `[columns, d_in]`, bit for bit as it was given.
    pub(crate) fn w_t(&self, purpose: &'static str) -> Result<Tensor> {
        let packed = match &self.weights {
            Weights::Plain(w_t) => return Ok(w_t.clone()),
            Weights::Packed(packed) => packed,
        };
        if !packed.arithmetic().is_exact() {
            return Err(Error::RoundedWeights { purpose, engine: self.engine() });
        }
        let (d_in, columns) = (packed.k(), packed.n());
        let mut flat = vec![0f32; d_in * columns];
        for (j, column) in flat.chunks_exact_mut(d_in).enumerate() {
            packed.column(j, column)?;
        }
        Ok(Tensor::from_vec(flat, (columns, d_in), &Device::Cpu)?)
    }

    /// Appends the sparse features of the rows.
    pub(crate) fn sparse(&self, rows: &Rows<'_>, scratch: &mut EncodeScratch, out: &mut SparseFeatures) -> Result<()> {
        if let (Weights::Packed(packed), Some(rule)) = (&self.weights, self.rule.for_kernels()) {
            return kernels::sparse(self, packed, rule, rows, scratch, out);
        }
        if let Selection::Batch { k, .. } = self.rule {
            return batch::sparse(self, k, rows, scratch, out);
        }
        for range in tiles(rows.len(), ROW_TILE) {
            for row in self.collect(rows, range, self.rule.floor(), scratch)? {
                out.push_row(row.entries.iter().copied());
            }
        }
        Ok(())
    }

    /// The finished entries of a tile of rows.
    fn collect<'a>(
        &self,
        rows: &Rows<'_>,
        range: Range<usize>,
        floor: f32,
        scratch: &'a mut EncodeScratch,
    ) -> Result<&'a [Row]> {
        scratch.rows.resize_with(scratch.rows.len().max(range.len()), Row::default);
        let mut found = std::mem::take(&mut scratch.rows);
        let tile = &mut found[..range.len()];
        tile.iter_mut().for_each(|row| row.start(floor));
        let collected = match &self.weights {
            Weights::Packed(packed) => kernels::collect(self, packed, rows, &range, floor, scratch, tile),
            Weights::Plain(w_t) => reference::collect(self, w_t, rows, &range, tile),
        };
        tile.par_iter_mut().for_each(|row| self.rule.finish(row));
        scratch.rows = found;
        collected.map(|()| &scratch.rows[..range.len()])
    }

    /// Dense `[n, columns]`: what `read` makes of each column's product. Activations ([`Selection::value`]) only for rules whose columns are
    /// independent.
    pub(crate) fn dense(&self, rows: &Rows<'_>, scratch: &mut EncodeScratch, read: Read) -> Result<Tensor> {
        let (n, width) = (rows.len(), self.columns());
        let mut out = vec![0f32; n * width];
        if n > 0 && width > 0 {
            match &self.weights {
                Weights::Packed(packed) => kernels::dense(self, packed, rows, scratch, read, &mut out)?,
                Weights::Plain(w_t) => reference::dense(self, w_t, rows, read, &mut out)?,
            }
        }
        Ok(Tensor::from_vec(out, (n, width), &Device::Cpu)?)
    }

    /// The same rule for the given columns only, their weights gathered once.
    pub(crate) fn gather(&self, features: &[FeatureId]) -> Result<Self> {
        let weights = match &self.weights {
            Weights::Packed(packed) => Weights::Packed(Arc::new(packed.gather(features)?)),
            Weights::Plain(w_t) => Weights::Plain(gather_rows(w_t, features, None)?),
        };
        let pick = |from: &[f32]| features.iter().map(|&f| from[f as usize]).collect::<Arc<[f32]>>();
        Ok(Self { weights, bias: pick(&self.bias), rule: self.rule.gather(features) })
    }
}

/// Rows of a matrix, each multiplied by its own factor when there are any.
pub(crate) fn gather_rows(matrix: &Tensor, rows: &[FeatureId], factor: Option<&[f32]>) -> Result<Tensor> {
    let width = matrix.dim(1)?;
    let mut out = Vec::with_capacity(rows.len() * width);
    with_f32(matrix, |flat| {
        for &row in rows {
            let row = row as usize;
            let factor = factor.map_or(1.0, |f| f[row]);
            out.extend(flat[row * width..(row + 1) * width].iter().map(|w| w * factor));
        }
    })?;
    Ok(Tensor::from_vec(out, (rows.len(), width), &Device::Cpu)?)
}

fn tiles(len: usize, tile: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(tile).map(move |start| start..len.min(start + tile))
}
