//! TransformerLens' weight processing: changes of the weights that leave the model's predictions as they are.

use crate::ops::Norm;
use crate::weights::{NormWeights, Weights};
use crate::{ModelShape, Result};
use candle_core::{D, Tensor};

/// The two numeric modes that have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Processing {
    /// The checkpoint's weights as they are: Hugging Face's numbers.
    #[default]
    None,
    /// What TransformerLens' `from_pretrained` does by default: every step of [`ProcessingSteps`].
    TransformerLens,
}

/// Steps of weight processing, each also alone. They are applied in the order of the fields.
///
/// Log-probabilities stay the same up to rounding; what stands at hook points changes: the residual stream by its mean
/// (`center_writing_weights`), `hook_normalized`, `q`, `k`, `v` by nothing but rounding and the parts of biases that move,
/// logits by a constant per token (`center_unembed`), `v` and `z` by the value biases (`fold_value_biases`).
/// Formulas: TransformerLens, `HookedTransformer.load_and_process_state_dict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct ProcessingSteps {
    /// Folds each norm's gain and bias into the weights that read from it, and (layer norm only) centres those over `d_model`.
    pub fold_ln: bool,
    /// Subtracts from everything that is written to the residual stream its mean over `d_model`. Only for layer norms, which
    /// remove the mean anyway: on RMS models this step does nothing, as in TransformerLens.
    pub center_writing_weights: bool,
    /// Subtracts from `W_U` and `b_U` their mean over the vocabulary.
    pub center_unembed: bool,
    /// Moves the value biases into `b_O`, where they end up because patterns sum to 1.
    pub fold_value_biases: bool,
}

impl From<Processing> for ProcessingSteps {
    fn from(processing: Processing) -> Self {
        let all = processing == Processing::TransformerLens;
        Self { fold_ln: all, center_writing_weights: all, center_unembed: all, fold_value_biases: all }
    }
}

impl ProcessingSteps {
    /// Applies the steps in place.
    pub(crate) fn apply(self, weights: &mut Weights, shape: &ModelShape, norm: Norm) -> Result<()> {
        if self.fold_ln {
            fold_ln(weights, norm)?;
        }
        if self.center_writing_weights && norm == Norm::Layer {
            center_writing_weights(weights)?;
        }
        if self.center_unembed {
            weights.w_u = centered(&weights.w_u, D::Minus1)?;
            weights.b_u = weights.b_u.as_ref().map(|b| centered(b, D::Minus1)).transpose()?;
        }
        if self.fold_value_biases {
            fold_value_biases(weights, shape)?;
        }
        Ok(())
    }
}

/// ```text
/// b += norm.b W;  W *= norm.w (rows);  layer norm: W -= mean over rows (W_gate is never centred)
/// ```
/// for W_Q, W_K, W_V (ln1), W_in, W_gate (ln2) and W_U (ln_final). The bias uses the weight before the gain.
fn fold_ln(weights: &mut Weights, norm: Norm) -> Result<()> {
    let center = norm == Norm::Layer;
    for block in &mut weights.blocks {
        let ln1 = std::mem::take(&mut block.ln1);
        fold(&ln1, &mut block.w_q, &mut block.b_q, center)?;
        fold(&ln1, &mut block.w_k, &mut block.b_k, center)?;
        fold(&ln1, &mut block.w_v, &mut block.b_v, center)?;
        let ln2 = std::mem::take(&mut block.ln2);
        fold(&ln2, &mut block.w_in, &mut block.b_in, center)?;
        if let Some(w_gate) = &mut block.w_gate {
            fold(&ln2, w_gate, &mut block.b_gate, false)?;
        }
    }
    let ln_final = std::mem::take(&mut weights.ln_final);
    fold(&ln_final, &mut weights.w_u, &mut weights.b_u, center)
}

fn fold(ln: &NormWeights, w: &mut Tensor, b: &mut Option<Tensor>, center: bool) -> Result<()> {
    if let Some(ln_b) = &ln.b {
        let shift = ln_b.unsqueeze(0)?.matmul(w)?.squeeze(0)?;
        *b = Some(match b.take() {
            Some(b) => (b + shift)?,
            None => shift,
        });
    }
    if let Some(ln_w) = &ln.w {
        // Tied unembeddings are transposed views, over which the tensor library broadcasts slowly.
        *w = w.contiguous()?.broadcast_mul(&ln_w.unsqueeze(1)?)?;
        if center {
            *w = centered(w, D::Minus2)?;
        }
    }
    Ok(())
}

/// Every matrix and bias that writes to the residual stream loses its mean over `d_model`.
fn center_writing_weights(weights: &mut Weights) -> Result<()> {
    weights.w_e = centered(&weights.w_e, D::Minus1)?;
    center_some(&mut weights.w_pos)?;
    for block in &mut weights.blocks {
        block.w_o = centered(&block.w_o, D::Minus1)?;
        center_some(&mut block.b_o)?;
        block.w_out = centered(&block.w_out, D::Minus1)?;
        center_some(&mut block.b_out)?;
    }
    Ok(())
}

fn center_some(x: &mut Option<Tensor>) -> Result<()> {
    *x = x.as_ref().map(|x| centered(x, D::Minus1)).transpose()?;
    Ok(())
}

fn centered(x: &Tensor, axis: D) -> Result<Tensor> {
    Ok(x.broadcast_sub(&x.mean_keepdim(axis)?)?)
}

/// `b_O += sum_h b_V[h] W_O[h]`, then no value bias; with grouped heads `b_V` is repeated over its group first.
fn fold_value_biases(weights: &mut Weights, shape: &ModelShape) -> Result<()> {
    let group = shape.n_heads / shape.n_kv_heads;
    for block in &mut weights.blocks {
        let Some(b_v) = block.b_v.take() else { continue };
        let per_head = b_v.reshape((shape.n_kv_heads, 1, shape.d_head))?;
        let repeated = per_head.repeat((1, group, 1))?.reshape((1, shape.n_heads * shape.d_head))?;
        let shift = repeated.matmul(&block.w_o)?.squeeze(0)?;
        block.b_o = Some(match block.b_o.take() {
            Some(b) => (b + shift)?,
            None => shift,
        });
    }
    Ok(())
}
