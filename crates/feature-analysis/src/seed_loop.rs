//! The loop of the notebook's cells 20 and 26: batches of text through the model up to the hook, a few features of the SAE on it, and
//! the tokens kept on which any of them fired.

use crate::{KeptExamples, Looked, Result};
use activation_store::ActivationStore;
use sae_core::SparseCoder;

/// How long the loop runs and what counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedLoopOptions {
    /// Batches to look at. The loop ends earlier when the text does, and says so.
    pub total_batches: u64,
    /// Batches of tokens to pass over first; the model does not run on them.
    pub skip_batches: u64,
    /// Whether BOS and other special tokens count like any other, as in the notebook. By default they are left out and counted.
    pub keep_special: bool,
}

impl Default for SeedLoopOptions {
    fn default() -> Self {
        Self { total_batches: 100, skip_batches: 0, keep_special: false }
    }
}

impl SeedLoopOptions {
    /// Exactly what the notebook counts: `total_batches` batches, special tokens included.
    #[must_use]
    pub fn notebook(total_batches: u64) -> Self {
        Self { total_batches, keep_special: true, ..Self::default() }
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
/// A bad feature list, or the store's, model's or SAE's own errors.
pub fn collect(
    coder: &dyn SparseCoder,
    store: &mut ActivationStore,
    features: &[u32],
    options: &SeedLoopOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<KeptExamples> {
    let looked = Looked::of(store, options.keep_special);
    let mut kept = KeptExamples::new(coder, features, options.total_batches)?;
    skip(store, options.skip_batches)?;
    for done in 0..options.total_batches {
        let Some(batch) = store.get_batch_tokens()? else { break };
        let acts = coder.encode_only(&store.activations(&batch)?, features)?;
        kept.push(&batch.rows, &looked, &acts)?;
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
