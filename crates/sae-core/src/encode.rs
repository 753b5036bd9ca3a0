use crate::activation::{Row, Rule};
use crate::normalise::InputMap;
use crate::slices::with_f32;
use crate::{FeatureId, Result, SparseFeatures};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Rows of pre-activations worked on at a time.
const ROW_TILE: usize = 1024;
/// Bound on a dense tile of pre-activations. Small enough that the allocator hands the same pages out again instead of
/// faulting in new ones, large enough that the product does not notice the seams.
const TILE_BYTES: usize = 16 << 20;

/// With at most so many rows on both sides `gemm` takes another path.
const SMALL: usize = 64;
/// So many rows against more than `SMALL` are enough for the common path.
const FEW: usize = 4;

/// Encoder weights and activation rule of some columns: of all features, or of a chosen few.
#[derive(Clone)]
pub(crate) struct Encoder {
    /// `[columns, d_in]`: the transpose of `W_enc`, so that a feature's weights are one run of memory.
    pub(crate) w_t: Tensor,
    pub(crate) bias: Arc<[f32]>,
    pub(crate) rule: Rule,
}

/// Scratch of [`Sae::encode_into`](crate::Sae::encode_into), kept by the caller so that a loop over batches reuses it.
#[derive(Default)]
pub struct EncodeScratch {
    rows: Vec<Row>,
}

impl Encoder {
    pub(crate) fn columns(&self) -> usize {
        self.bias.len()
    }

    /// Appends the sparse features of the rows of `x~ [n, d_in]`.
    pub(crate) fn sparse(&self, x: &Tensor, scratch: &mut EncodeScratch, out: &mut SparseFeatures) -> Result<()> {
        let n = x.dim(0)?;
        for rows in tiles(n, ROW_TILE) {
            let x = x.narrow(0, rows.start, rows.len())?;
            scratch.rows.resize_with(scratch.rows.len().max(rows.len()), Row::default);
            let accumulators = &mut scratch.rows[..rows.len()];
            accumulators.iter_mut().for_each(Row::clear);
            for columns in tiles(self.columns(), column_tile(rows.len())) {
                let dots = self.product(&x, &columns)?;
                with_f32(&dots, |dots| {
                    let dots = dots.par_chunks_exact(columns.len());
                    accumulators.par_iter_mut().zip(dots).for_each(|(row, dots)| {
                        self.rule.collect(row, columns.start, dots, &self.bias);
                    });
                })?;
            }
            accumulators.par_iter_mut().for_each(|row| self.rule.finish(row));
            for row in accumulators {
                out.push_row(row.entries.iter().copied());
            }
        }
        Ok(())
    }

    /// Dense activations `[n, columns]`; only for rules whose columns are independent.
    pub(crate) fn dense(&self, x: &Tensor) -> Result<Tensor> {
        let (n, width) = (x.dim(0)?, self.columns());
        let mut out = vec![0f32; n * width];
        if width > 0 {
            for rows in tiles(n, ROW_TILE) {
                let x = x.narrow(0, rows.start, rows.len())?;
                let out = &mut out[rows.start * width..rows.end * width];
                for columns in tiles(width, column_tile(rows.len())) {
                    let dots = self.product(&x, &columns)?;
                    with_f32(&dots, |dots| {
                        let dots = dots.par_chunks_exact(columns.len());
                        out.par_chunks_exact_mut(width).zip(dots).for_each(|(out, dots)| {
                            for (j, &dot) in columns.clone().zip(dots) {
                                out[j] = self.rule.value(j, dot, self.bias[j]);
                            }
                        });
                    })?;
                }
            }
        }
        Ok(Tensor::from_vec(out, (n, width), &Device::Cpu)?)
    }

    /// The same rule for the given columns only, their weights gathered once.
    pub(crate) fn gather(&self, features: &[FeatureId]) -> Result<Self> {
        let pick = |from: &[f32]| features.iter().map(|&f| from[f as usize]).collect::<Arc<[f32]>>();
        let rule = match &self.rule {
            Rule::Relu => Rule::Relu,
            Rule::TopK { k, norms } => Rule::TopK { k: *k, norms: norms.as_deref().map(pick) },
            Rule::JumpRelu { threshold } => Rule::JumpRelu { threshold: pick(threshold) },
            Rule::Gated { gain, b_mag } => Rule::Gated { gain: pick(gain), b_mag: pick(b_mag) },
        };
        Ok(Self { w_t: gather_rows(&self.w_t, features, None)?, bias: pick(&self.bias), rule })
    }

    /// `x~ W_enc` for some columns, `[n, columns]`.
    ///
    /// `gemm` goes along the inner dimension in another order when the product is a matrix times a vector, when the result has
    /// at most 256 entries, or when both sides have at most 64 rows. Such products get rows of zeros, so that a value's bits
    /// depend neither on the other tokens nor on the other columns. (Read in gemm 0.19; tests/laws.rs would notice a change.)
    fn product(&self, x: &Tensor, columns: &Range<usize>) -> Result<Tensor> {
        let w_t = self.w_t.narrow(0, columns.start, columns.len())?;
        let (n, width) = (x.dim(0)?, columns.len());
        let rows = if width <= SMALL { n.max(SMALL + 1) } else { n.max(FEW) };
        let product = pad(x, rows)?.matmul(&pad(&w_t, FEW)?.t()?)?;
        Ok(product.narrow(0, 0, n)?.narrow(1, 0, width)?.contiguous()?)
    }
}

/// A matrix with rows of zeros put under it until there are at least `rows`.
fn pad(matrix: &Tensor, rows: usize) -> Result<Tensor> {
    match rows.saturating_sub(matrix.dim(0)?) {
        0 => Ok(matrix.clone()),
        missing => Ok(matrix.pad_with_zeros(0, 0, missing)?),
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

/// A few features of an SAE, made ready once for a loop over many batches.
///
/// Where columns are independent it holds copies of their weights alone and `encode` costs `n * d_in * features.len()`;
/// where they are coupled it holds the whole encoder and picks.
#[derive(Clone)]
pub struct SelectedFeatures {
    pub(crate) features: Arc<[FeatureId]>,
    pub(crate) input: InputMap,
    pub(crate) encoder: Encoder,
    pub(crate) d_sae: usize,
}

impl SelectedFeatures {
    /// The features, in the order of the columns of [`encode`](Self::encode).
    #[must_use]
    pub fn features(&self) -> &[FeatureId] {
        &self.features
    }

    /// Dense activations `[.., features.len()]`.
    ///
    /// # Errors
    /// As [`SparseCoder::encode`](crate::SparseCoder::encode).
    pub fn encode(&self, x: &Tensor) -> Result<Tensor> {
        let input = self.input.apply(x)?;
        let dense = match self.encoder.rule {
            Rule::TopK { .. } => {
                let mut all = SparseFeatures::empty(self.d_sae as u32);
                self.encoder.sparse(&input.x, &mut EncodeScratch::default(), &mut all)?;
                all.columns(&self.features)?
            }
            _ => self.encoder.dense(&input.x)?,
        };
        Ok(dense.reshape(input.layout.with_width(self.features.len()))?)
    }
}

fn column_tile(rows: usize) -> usize {
    TILE_BYTES / size_of::<f32>() / rows.max(1)
}

fn tiles(len: usize, tile: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(tile).map(move |start| start..len.min(start + tile))
}
