//! What is evaluated, and how.

use super::Bootstrap;
use crate::{Error, Result};
use activation_store::TokenFilter;

/// How an evaluation is made.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalOptions {
    /// Rows to look at; `None`: all there are. They serve all metrics. SAELens takes losses and divergences from the first rows of a text (160 by
    /// default) and the rest from rows that follow them (16), so its numbers of one `run_evals` are of two texts: to compare, ask it for one half at a time.
    pub rows: Option<u64>,
    /// Rows in a batch. Two metrics depend on it, as in SAELens: `explained_variance_legacy` and `relative_reconstruction_bias`.
    pub batch_size_prompts: usize,
    /// Rows in one forward pass, which changes no result. `None`: as many as keep one run's logits at 64 MiB, at least one, at most a batch.
    pub forward_rows: Option<usize>,
    /// Which tokens count; at the others the original activation is kept. SAELens' `ignore_tokens` are [`TokenFilter::structural`], its `None`
    /// is [`TokenFilter::everything`].
    pub filter: TokenFilter,
    /// Whether ablation leaves the excluded tokens' activations as they are. SAELens ablates them all.
    pub spare_excluded: bool,
    /// Whether the model runs with the SAE: losses and divergences. Without it the forward pass ends at the hook.
    pub downstream: bool,
    /// Whether it runs with zeros at the hook.
    pub zero_ablation: bool,
    /// Whether it runs with the mean of the counted tokens at the hook. The mean is of the same rows, from a pass of its own that ends at the hook.
    pub mean_ablation: bool,
    /// What may be held from the first row to the last, in bytes: the sums of each document, and with mean ablation the rows of tokens, which are read twice.
    /// More is an error ([`EvalError::Held`](super::EvalError::Held)), not a machine without memory. 1 GiB by default: some 20 million tokens, or 80,000 documents
    /// at a width of 768.
    pub held_bytes: u64,
    /// The intervals.
    pub bootstrap: Bootstrap,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            rows: Some(160),
            batch_size_prompts: 16,
            forward_rows: None,
            filter: TokenFilter::default(),
            spare_excluded: false,
            downstream: true,
            zero_ablation: true,
            mean_ablation: true,
            held_bytes: 1 << 30,
            bootstrap: Bootstrap::default(),
        }
    }
}

/// What one run's logits may take, at least one row's.
const LOGIT_BYTES: usize = 64 << 20;

impl EvalOptions {
    pub(super) fn check(&self) -> Result<()> {
        let at_least_one = |option, found: Option<u64>| match found {
            Some(0) => Err(Error::Option { option, expected: "at least 1", found: "0".into() }),
            _ => Ok(()),
        };
        at_least_one("rows", self.rows)?;
        at_least_one("batch_size_prompts", Some(self.batch_size_prompts as u64))?;
        at_least_one("forward_rows", self.forward_rows.map(|rows| rows as u64))?;
        self.bootstrap.check()
    }

    /// Rows of `pos` tokens in one forward pass.
    pub(super) fn rows_at_once(&self, pos: usize, d_vocab: usize) -> usize {
        let fit = || LOGIT_BYTES / (pos * d_vocab * size_of::<f32>()).max(1);
        self.forward_rows.unwrap_or_else(fit).clamp(1, self.batch_size_prompts)
    }

    pub(super) fn zero(&self) -> bool {
        self.downstream && self.zero_ablation
    }

    pub(super) fn mean(&self) -> bool {
        self.downstream && self.mean_ablation
    }
}

/// What an evaluation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvalPhase {
    /// The pass that finds the mean at the hook.
    Mean,
    /// The runs that are compared.
    Runs,
    /// The intervals.
    Intervals,
}

/// How far an evaluation is; what a progress bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EvalProgress {
    /// What is being done.
    pub phase: EvalPhase,
    /// Rows done in this phase.
    pub rows_done: u64,
    /// Rows that there are to do, as far as is known: fewer where the text ends before.
    pub rows: Option<u64>,
}
