//! Top activations (cell 23), joined with their contexts by address.

use crate::{Best, FrameOptions, KeptExamples, Result, beside, token_frame_at, with_counts};
use activation_store::TokenPos;
use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use model_hooks::Tokenizer;
use std::sync::Arc;

/// One of the strongest activations of a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopActivation {
    /// The activation, above zero.
    pub activation: f32,
    /// Its address.
    pub at: TokenPos,
    /// The token there.
    pub token: u32,
    /// Which of the kept examples it is.
    pub example: usize,
}

/// The `k` strongest activations of a feature, strongest first, ties by the lower address. Fewer when it fired less often: a zero
/// is no activation (the notebook would fill up with zeros).
///
/// The notebook takes the contexts by `all_token_dfs.iloc[top.index]`, positions in two frames that only happen to be aligned ("TODO:
/// double check this is working correctly"). Here each activation carries its address.
///
/// # Errors
/// A feature that was not collected.
pub fn top_activations(kept: &KeptExamples, feature: u32, k: usize) -> Result<Vec<TopActivation>> {
    let mut best = Best::new(k);
    for (example, activation) in kept.activations(feature)?.into_iter().enumerate() {
        if activation > 0.0 {
            best.offer(activation, (kept.at()[example], example));
        }
    }
    let line = |&(activation, (at, example))| TopActivation { activation, at, token: kept.tokens()[example], example };
    Ok(best.entries().iter().map(line).collect())
}

/// The token frame of a feature's [`top_activations`], with a column `activation` at its end.
///
/// # Errors
/// A feature that was not collected, or a token that the tokenizer does not know.
pub fn top_frame(
    kept: &KeptExamples,
    feature: u32,
    k: usize,
    tokenizer: &Tokenizer,
    options: &FrameOptions,
) -> Result<RecordBatch> {
    let top = top_activations(kept, feature, k)?;
    let places: Vec<_> = top.iter().map(|t| kept.place(t.example)).collect();
    let values: ArrayRef = Arc::new(Float32Array::from_iter_values(top.iter().map(|t| t.activation)));
    let values = RecordBatch::try_from_iter_with_nullable([("activation", values, false)])?;
    with_counts(beside(&token_frame_at(&places, tokenizer, options)?, &values)?, kept.counts())
}
