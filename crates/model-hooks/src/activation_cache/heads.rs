//! Attention's output, head by head.

use super::{ActivationCache, Part};
use crate::{BlockPart, Result, Site};
use candle_core::Tensor;

impl ActivationCache<'_> {
    /// The heads of the layers before `layers`, and the sum of what attention adds beside them: its biases.
    pub(super) fn heads(&self, layers: usize) -> Result<(Vec<Part>, Option<Tensor>)> {
        let (mut parts, mut bias): (Vec<Part>, Option<Tensor>) = (Vec::new(), None);
        for layer in 0..layers {
            let results = self.results(layer)?;
            let beside = (self.at(layer, Site::AttnOut)? - results.sum(2)?)?;
            bias = Some(match bias {
                Some(bias) => (bias + beside)?,
                None => beside,
            });
            for head in 0..results.dim(2)? {
                parts.push((format!("L{layer}H{head}"), results.narrow(2, head, 1)?.squeeze(2)?));
            }
        }
        Ok((parts, bias))
    }

    /// `[batch, pos, head, d_model]`, through the norm after attention where there is one.
    fn results(&self, layer: usize) -> Result<Tensor> {
        let results = self.at(layer, Site::Result)?;
        if !self.has(layer, Site::Ln1PostScale) {
            return Ok(results.clone());
        }
        let scale = self.at(layer, Site::Ln1PostScale)?.unsqueeze(2)?;
        let results = results.broadcast_div(&scale)?;
        // From the weights: activations do not show it where an edit has changed them.
        let norm = self.model.output_weights(layer, BlockPart::Attention)?.post_norm;
        Ok(match norm.and_then(|norm| norm.gain) {
            Some(gain) => results.broadcast_mul(&gain)?,
            None => results,
        })
    }
}
