//! Attention's output, head by head.

use super::{ActivationCache, Part};
use crate::{Result, Site};
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
        let [scale, normalized, out] =
            [Site::Ln1PostScale, Site::Ln1PostNormalized, Site::AttnOut].map(|site| self.at(layer, site));
        let (scale, normalized, out) = (scale?, normalized?, out?);
        // out = gain * normalized in every token, so that the gain is the quotient of these sums wherever it matters at all.
        let square = normalized.sqr()?.sum((0, 1))?;
        let product = (out * normalized)?.sum((0, 1))?;
        let nothing = square.eq(0f32)?.to_dtype(square.dtype())?;
        let gain = product.div(&(square + nothing)?)?;
        Ok(results.broadcast_div(&scale.unsqueeze(2)?)?.broadcast_mul(&gain)?)
    }
}
