//! TransformerLens' weight processing: changes of the weights that leave the model's predictions as they are.

use crate::ModelShape;
use crate::ops::NormKind;
use crate::weights::{BlockWeights, Linear, NormWeights, Plain, Raw, RawEmbed, center};
use serde::{Deserialize, Serialize};

/// The two numeric modes that have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Processing {
    /// The checkpoint's weights as they are: Hugging Face's numbers.
    #[default]
    None,
    /// TransformerLens' `from_pretrained` default: every step of [`ProcessingSteps`].
    TransformerLens,
}

/// Steps of weight processing, each also alone. They are applied in the order of the fields.
///
/// Log-probabilities stay the same up to rounding; the values at hook points change: the residual stream by its mean
/// (`center_writing_weights`), `hook_normalized`, `q`, `k`, `v` by nothing but rounding and the parts of biases that move,
/// logits by a constant per token (`center_unembed`), `v` and `z` by the value biases (`fold_value_biases`).
/// Formulas: TransformerLens, `HookedTransformer.load_and_process_state_dict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessingSteps {
    /// Folds each norm's gain and bias into the weights that read from it, and (layer norm only) centers those over `d_model`. Norms behind
    /// attention or an MLP and those of queries and keys stay; of OLMo 2, which has no others in its blocks, the final one too, as in
    /// TransformerLens.
    pub fold_ln: bool,
    /// Subtracts from everything that is written to the residual stream its mean over `d_model`. Only for layer norms, which
    /// remove the mean anyway: on RMS models this step does nothing, as in TransformerLens.
    pub center_writing_weights: bool,
    /// Subtracts from `W_U` and `b_U` their mean over the vocabulary. Left out where logits have a soft-cap.
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
    /// Applies the steps to a block, in place.
    pub(crate) fn apply_to_block(self, block: &mut BlockWeights<Raw>, shape: &ModelShape, norm: NormKind) {
        if self.fold_ln {
            fold_block_norms(block, norm == NormKind::Layer);
        }
        if self.center_writing_weights && norm == NormKind::Layer {
            for linear in [&mut block.o, &mut block.mlp_out] {
                linear.w.center_over_n();
                linear.b.iter_mut().for_each(|b| center(b));
            }
        }
        if self.fold_value_biases {
            fold_value_biases(block, shape);
        }
    }

    /// Applies the steps to what is not in a block, in place. A tied unembedding gets memory of its own if it changes.
    pub(crate) fn apply_to_ends(self, ends: &mut RawEmbed, norm: NormKind) {
        let center_embedding = self.center_writing_weights && norm == NormKind::Layer;
        let fold = self.fold_ln && (ends.ln_final.w.is_some() || ends.ln_final.b.is_some());
        if ends.w_u.is_none() && (fold || center_embedding || self.center_unembed) {
            ends.w_u = Some(Plain::transpose_of(&ends.w_e));
        }
        if let Some(w_u) = &mut ends.w_u {
            if self.fold_ln {
                fold_into(&std::mem::take(&mut ends.ln_final), w_u, &mut ends.b_u, norm == NormKind::Layer);
            }
            if self.center_unembed {
                w_u.center_over_n();
                ends.b_u.iter_mut().for_each(|b| center(b));
            }
        }
        if center_embedding {
            ends.w_e.center_over_n();
            ends.w_pos.iter_mut().for_each(Plain::center_over_n);
        }
    }
}

/// ```text
/// b += norm.b W;  W *= norm.w (rows);  layer norm: W -= mean over rows (W_gate is never centered)
/// ```
/// for W_Q, W_K, W_V (ln1), W_in, W_gate (ln2) and W_U (ln_final). The bias uses the weight before the gain.
fn fold_block_norms(block: &mut BlockWeights<Raw>, center: bool) {
    let ln1 = std::mem::take(&mut block.ln1);
    for Linear { w, b } in [&mut block.q, &mut block.k, &mut block.v] {
        fold_into(&ln1, w, b, center);
    }
    let ln2 = std::mem::take(&mut block.ln2);
    fold_into(&ln2, &mut block.mlp_in.w, &mut block.mlp_in.b, center);
    if let Some(Linear { w, b }) = &mut block.gate {
        fold_into(&ln2, w, b, false);
    }
}

fn fold_into(ln: &NormWeights<Raw>, w: &mut Plain, b: &mut Option<Vec<f32>>, center: bool) {
    if let Some(ln_b) = &ln.b {
        add_to(b, w.product_with_row(ln_b));
    }
    if let Some(ln_w) = &ln.w {
        w.scale_rows(ln_w);
        if center {
            w.center_over_k();
        }
    }
}

fn add_to(b: &mut Option<Vec<f32>>, shift: Vec<f32>) {
    match b {
        Some(b) => b.iter_mut().zip(shift).for_each(|(b, shift)| *b += shift),
        None => *b = Some(shift),
    }
}

/// `b_O += sum_h b_V[h] W_O[h]`, then no value bias; with grouped heads `b_V` is repeated over its group first.
fn fold_value_biases(block: &mut BlockWeights<Raw>, shape: &ModelShape) {
    let group = shape.n_heads / shape.n_kv_heads;
    let Some(b_v) = block.v.b.take() else { return };
    let heads = b_v.chunks_exact(shape.d_head).flat_map(|head| std::iter::repeat_n(head, group));
    let repeated: Vec<f32> = heads.flatten().copied().collect();
    add_to(&mut block.o.b, block.o.w.product_with_row(&repeated));
}
