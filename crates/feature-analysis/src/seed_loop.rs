//! The loop of the notebook's cells 20 and 26: batches of text through the model up to the hook, a few features of the SAE on it, and
//! the tokens kept on which any of them fired.

use crate::{FeatureExamples, Result};
use activation_store::{ActivationSource, ActivationStore, TokenFilter};
use sae_core::SparseCoder;

/// How long the loop runs and what counts.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectOptions {
    /// Batches to look at. The loop ends earlier when the text does, and says so.
    pub total_batches: u64,
    /// Batches of tokens to pass over first; the model does not run on them.
    pub skip_batches: u64,
    /// Which tokens count. The notebook counts every one, BOS too.
    pub filter: TokenFilter,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { total_batches: 100, skip_batches: 0, filter: TokenFilter::default() }
    }
}

impl CollectOptions {
    /// Exactly what the notebook counts: `total_batches` batches, special tokens included.
    #[must_use]
    pub fn notebook(total_batches: u64) -> Self {
        Self { total_batches, filter: TokenFilter::everything(), ..Self::default() }
    }
}

/// How far a loop is; what a progress bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Batches done.
    pub batches_done: u64,
    /// Batches asked for, if the loop has a number.
    pub batches: Option<u64>,
    /// "Examples found": tokens kept so far.
    pub examples: usize,
}

/// Runs the loop: tokens from the store, its model exactly up to the store's hook, the given features of the SAE (and, where its
/// columns are independent, no others), and keeps every token on which any of them fired.
///
/// # Errors
/// A bad feature list, [`activation_store::Error::NoSpecialTokens`] for a model without a tokenizer where special tokens are to be
/// excluded, or the store's, model's or SAE's own errors.
pub fn collect(
    coder: &dyn SparseCoder,
    store: &mut ActivationStore,
    features: &[u32],
    options: &CollectOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<FeatureExamples> {
    let filter = options.filter.resolve(store.model().tokenizer())?;
    let positions = store.spec().positions.clone();
    let mut kept = FeatureExamples::new(coder, features, options.total_batches)?;
    skip(store, options.skip_batches)?;
    for done in 0..options.total_batches {
        let Some(batch) = store.get_batch_tokens()? else { break };
        let activations = store.activations(&batch)?;
        let excluded = filter.exclusions(&batch.rows, &positions, &activations)?;
        kept.push(&batch.rows, &positions, &excluded, &coder.encode_only(&activations, features)?)?;
        progress(Progress { batches_done: done + 1, batches: Some(options.total_batches), examples: kept.len() });
    }
    Ok(kept)
}

/// Passes over batches of tokens; past the end of the text there is nothing to pass over.
pub(crate) fn skip(store: &mut ActivationStore, batches: u64) -> Result<()> {
    for _ in 0..batches {
        if store.get_batch_tokens()?.is_none() {
            break;
        }
    }
    Ok(())
}
