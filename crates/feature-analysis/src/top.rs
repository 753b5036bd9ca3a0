//! Top activations (cell 23), joined with their contexts by address.

use crate::{FeatureExamples, FrameOptions, Result, beside, token_frame_at, with_report};
use activation_store::TokenPos;
use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use model_hooks::Tokenizer;
use std::sync::Arc;
use tensor_kernels::FeatureTop;

/// One of the strongest activations of a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopActivation {
    /// The activation, not zero; below zero only where the SAE's codes are signed.
    pub activation: f32,
    /// Its address.
    pub at: TokenPos,
    /// The token there.
    pub token: u32,
    /// Which of the kept examples it is.
    pub example: usize,
}

/// The `k` strongest activations of a feature: the largest magnitude first, equal magnitudes by the lower address. For SAEs whose activations
/// are not negative that is by value; for signed codes a strong negative activation is as strong as a positive one. It is the rule of
/// [`FeatureCensus::top`](feature_census::FeatureCensus::top), by the same [`FeatureTop`]. Fewer when the feature fired less often: a zero is no
/// activation (the notebook would fill up with zeros).
///
/// The notebook takes the contexts by `all_token_dfs.iloc[top.index]`, positions in two frames that only happen to be aligned ("TODO:
/// double check this is working correctly"). Here each activation carries its address.
///
/// # Errors
/// A feature that was not collected, or an address beyond those of a census.
pub fn top_activations(kept: &FeatureExamples, feature: u32, k: usize) -> Result<Vec<TopActivation>> {
    let activations = kept.activations(feature)?;
    let mut best = FeatureTop::new(1, k.min(activations.len()));
    for ((example, &activation), at) in (0..).zip(&activations).zip(kept.at()) {
        if activation != 0.0 {
            best.offer(0, activation, at.to_u64().ok_or(feature_census::Error::Address { at: *at })?, example);
        }
    }
    let line = |ranked: tensor_kernels::TopEntry| {
        let example = ranked.note as usize;
        let (at, token) = (kept.at()[example], kept.tokens()[example]);
        TopActivation { activation: ranked.value, at, token, example }
    };
    Ok(best.ranked(0).into_iter().map(line).collect())
}

/// The token frame of a feature's [`top_activations`], with a column `activation` at its end.
///
/// # Errors
/// A feature that was not collected, or a token that the tokenizer does not know.
pub fn top_frame(
    kept: &FeatureExamples,
    feature: u32,
    k: usize,
    tokenizer: &Tokenizer,
    options: &FrameOptions,
) -> Result<RecordBatch> {
    let top = top_activations(kept, feature, k)?;
    let places: Vec<_> = top.iter().map(|t| kept.place(t.example)).collect();
    let values: ArrayRef = Arc::new(Float32Array::from_iter_values(top.iter().map(|t| t.activation)));
    let values = RecordBatch::try_from_iter_with_nullable([("activation", values, false)])?;
    with_report(beside(&token_frame_at(&places, tokenizer, options)?, &values)?, kept.counts())
}
