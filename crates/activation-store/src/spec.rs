//! What an activation store delivers: [`ActivationSpec`].

use crate::TokenFilter;
use model_hooks::HookRows;
use serde::{Deserialize, Serialize};

/// In which order rows leave a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shuffle {
    /// Drawn uniformly among the rows in the ring; the same seed gives the same batches.
    Seeded(u64),
    /// In the order of the documents, through a buffer of one batch.
    Unshuffled,
}

/// What a source of activations delivers: from where, which positions, in what order, how many at a time.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ActivationSpec {
    /// Name of the model.
    pub model: String,
    /// The hook points, in the order of [`crate::ActivationBatch::rows`].
    pub hooks: Vec<HookRows>,
    /// Tokens in a row of tokens.
    pub context_size: usize,
    /// The positions of a row that are kept, ascending.
    pub positions: Vec<u32>,
    /// Which tokens are delivered.
    pub filter: TokenFilter,
    /// Rows of tokens in one forward pass.
    pub store_batch_size_prompts: usize,
    /// Rows in a batch, at most.
    pub batch_rows: usize,
    /// Slots of the ring; 0 for a source without one.
    pub ring_slots: usize,
    /// The order.
    pub shuffle: Shuffle,
    /// SAELens' mixing fraction, where its schedule is followed.
    pub mix_fraction: Option<f64>,
}

impl ActivationSpec {
    /// A source of one's own: these hooks, at most `batch_rows` rows at a time, in order, every token; contexts of one token.
    #[must_use]
    pub fn new(model: impl Into<String>, hooks: Vec<HookRows>, batch_rows: usize) -> Self {
        Self {
            model: model.into(),
            hooks,
            context_size: 1,
            positions: vec![0],
            filter: TokenFilter::everything(),
            store_batch_size_prompts: batch_rows,
            batch_rows,
            ring_slots: 0,
            shuffle: Shuffle::Unshuffled,
            mix_fraction: None,
        }
    }

    /// Numbers in a row, over all hooks.
    #[must_use]
    pub fn width(&self) -> usize {
        self.hooks.iter().map(HookRows::width).sum()
    }
}

/// Upper bound of what a store holds in memory beside the model, the tokenizer and the documents, in bytes:
///
/// ```text
/// ring_slots * (4 * width + 32)               the ring: rows, addresses, tokens, the permutation
/// + 3 * prompts * context * (4 * width + 32)  one forward pass's rows: whole, cut to what is kept, what waits
/// + batch * (4 * width + 32)                  the batch being handed out
/// ```
///
/// The forward pass's own intermediate values come on top; rows of tokens are kept as [`crate::KeepRows`] says.
#[must_use]
pub fn memory_bytes(spec: &ActivationSpec) -> u64 {
    let row = 4 * spec.width() as u64 + 32;
    let chunk = (spec.store_batch_size_prompts * spec.context_size) as u64;
    spec.ring_slots as u64 * row + 3 * chunk * row + spec.batch_rows as u64 * row
}
