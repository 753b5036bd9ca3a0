use crate::encoder::selection::Selection;
use crate::encoder::{Encoder, ScratchPool};
use crate::normalization::InputMap;
use crate::{FeatureId, Result, SparseFeatures};
use candle_core::Tensor;
use std::sync::Arc;

/// A few features of an SAE, made ready once for a loop over many batches.
///
/// Where columns are independent it holds copies of their weights alone and `encode` costs `n * d_in * features.len()`;
/// where they are coupled it holds the whole encoder and picks.
#[derive(Clone)]
pub struct FeatureSubset {
    pub(crate) features: Arc<[FeatureId]>,
    pub(crate) input: InputMap,
    pub(crate) encoder: Encoder,
    pub(crate) d_sae: usize,
    pub(crate) scratch: ScratchPool,
}

impl FeatureSubset {
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
        self.input.with_rows(x, |rows, _, layout| {
            let dense = self.scratch.with(|scratch| {
                if !self.encoder.rule.is_coupled() {
                    return self.encoder.dense(rows, scratch, Selection::value);
                }
                let mut all = SparseFeatures::empty(self.d_sae as u32);
                self.encoder.sparse(rows, scratch, &mut all)?;
                all.columns(&self.features)
            })?;
            Ok(dense.reshape(layout.with_width(self.features.len()))?)
        })
    }
}
