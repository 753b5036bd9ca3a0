//! From parts of the stream to parts of logits.

use super::{ActivationCache, ResidualStack};
use crate::{Error, HookPoint, NormSite, Result};
use candle_core::{D, Tensor};

impl ActivationCache<'_> {
    /// The final norm of each component, with the scale that the whole stream had in this run: `(x - mean(x)) / scale * gain` (the mean
    /// only in layer norms, the gain where it is not folded away). With the scale held, the norm is linear: components that add up
    /// to the stream add up to what the unembedding reads, but for the norm's bias.
    ///
    /// # Errors
    /// [`Error::NotCaptured`] without the scale, [`Error::Shape`] for components of other positions,
    /// [`Error::NoFinalNorm`] from a model that does not tell its final norm.
    pub fn apply_final_norm(&self, stack: &ResidualStack) -> Result<ResidualStack> {
        let norm = self.model.final_norm()?.ok_or(Error::NoFinalNorm)?;
        let scale = self.get(HookPoint::FinalNorm(NormSite::Scale))?;
        let x = stack.components();
        let (_, batch, pos, d_model) = x.dims4()?;
        if scale.dims() != [batch, pos, 1] || d_model != self.model.shape().d_model {
            let expected = format!("[component, {}, {}, {}]", scale.dim(0)?, scale.dim(1)?, self.model.shape().d_model);
            return Err(Error::Shape { what: "a stack of components", expected, found: x.dims().to_vec() });
        }
        let x = if norm.centers { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
        let x = x.broadcast_div(scale)?;
        Ok(stack.with(match &norm.gain {
            Some(gain) => x.broadcast_mul(gain)?,
            None => x,
        }))
    }

    /// Contribution of each component to the logit of a token, or with `against` to the difference of two logits: `[component, batch, pos]`.
    /// `tokens` (and `against`) have one token for all rows, or one for each. Components that add up to the final stream add up to the logit
    /// less [`logit_bias`](Self::logit_bias) (before a soft-cap, where the family has one).
    ///
    /// # Errors
    /// As [`apply_final_norm`](Self::apply_final_norm); [`Error::Shape`] for another number of tokens, [`Error::OutOfRange`] for a
    /// token outside the vocabulary.
    pub fn logit_attrs(&self, stack: &ResidualStack, tokens: &[u32], against: Option<&[u32]>) -> Result<Tensor> {
        let normed = self.apply_final_norm(stack)?;
        let directions = self.directions(normed.components().dim(1)?, tokens, against)?;
        Ok(normed.components().broadcast_mul(&directions.unsqueeze(1)?)?.sum(D::Minus1)?)
    }

    /// Contribution of the biases of the final norm and of the unembedding to the logit of a token, or to a difference: `[batch]`.
    ///
    /// # Errors
    /// As [`logit_attrs`](Self::logit_attrs).
    pub fn logit_bias(&self, tokens: &[u32], against: Option<&[u32]>) -> Result<Tensor> {
        let norm = self.model.final_norm()?.ok_or(Error::NoFinalNorm)?;
        let batch = self.get(HookPoint::FinalNorm(NormSite::Scale))?.dim(0)?;
        let directions = self.directions(batch, tokens, against)?;
        let mut bias = directions.narrow(1, 0, 1)?.zeros_like()?.squeeze(1)?;
        if let Some(b) = &norm.bias {
            bias = (bias + directions.broadcast_mul(b)?.sum(D::Minus1)?)?;
        }
        if let Some(b_u) = &norm.b_u {
            let of = |tokens: &[u32]| b_u.index_select(&Tensor::new(tokens, b_u.device())?, 0);
            bias = bias.broadcast_add(&of(tokens)?)?;
            if let Some(against) = against {
                bias = bias.broadcast_sub(&of(against)?)?;
            }
        }
        Ok(bias)
    }

    /// Columns of `W_U`, or their differences: `[batch, d_model]`.
    fn directions(&self, batch: usize, tokens: &[u32], against: Option<&[u32]>) -> Result<Tensor> {
        let of = |tokens: &[u32]| -> Result<Tensor> {
            if tokens.len() != 1 && tokens.len() != batch {
                let expected = format!("[1] or [{batch}]");
                return Err(Error::Shape { what: "the tokens", expected, found: vec![tokens.len()] });
            }
            let columns: Vec<Tensor> =
                tokens.iter().map(|&token| self.model.w_u_columns(token as usize, 1)).collect::<Result<_>>()?;
            let columns = Tensor::cat(&columns, 1)?.t()?.contiguous()?;
            Ok(columns.broadcast_as((batch, columns.dim(1)?))?.contiguous()?)
        };
        let directions = of(tokens)?;
        match against {
            Some(against) => Ok((directions - of(against)?)?),
            None => Ok(directions),
        }
    }
}
