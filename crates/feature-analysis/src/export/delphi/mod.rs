//! delphi's cache of latents (automatic interpretability): every activation of every feature on a text, split by features.
//!
//! ```text
//! OUT/HOOKPOINT/config.json
//! OUT/HOOKPOINT/{first}_{last}.safetensors    for each range of features, both ends inclusive
//!     locations    [n, 3]  u16 (u32 where a number needs it)   row, position, feature - first; by row, then position, then feature
//!     activations  [n]     f16
//!     tokens       [rows, context]  i64                        all rows of the text, in every file
//! ```
//!
//! Activations of magnitude up to [`LEAST`] are left out, as delphi does. Layout: delphi 0.1.3, `delphi/latents/cache.py` and `loader.py`.
//!
//! ```no_run
//! # use activation_store::{ActivationStore, Documents, DocumentOptions, StoreOptions};
//! # use feature_analysis::export::delphi::{DelphiOptions, ExportSae, write_delphi};
//! # use sae_core::{Sae, SparseCoder};
//! # fn example(model: &model_hooks::LanguageModel, sae: &Sae) -> std::result::Result<(), Box<dyn std::error::Error>> {
//! let text = Documents::open(&["corpus/*.jsonl"], DocumentOptions::default())?;
//! let mut harvest = ActivationStore::from_sae(model, sae, text, StoreOptions::default())?.in_order();
//! let target = ExportSae { hook: 0, coder: sae, hookpoint: "transformer.h.7".into() };
//! let options = DelphiOptions { model_name: "gpt2".into(), rows: Some(10_000), ..DelphiOptions::default() };
//! write_delphi(&mut harvest, &[target], "latents".as_ref(), &options, &mut |_| {})?;
//! # Ok(()) }
//! ```

mod read;
mod spool;
mod write;

pub use read::{DelphiActivation, DelphiCache, DelphiSplit, DelphiTokens};
pub use write::{DelphiReport, write_delphi};

use crate::export::folder::plain_name;
use crate::{Error, Result};
use sae_core::SparseCoder;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Activations of this magnitude and less are not cached: delphi keeps those with `|a| > 1e-5`.
pub const LEAST: f32 = 1e-5;

/// More ranges of features than this take too much memory: 64 KiB each.
const MOST_SPLITS: usize = 512;

/// A dictionary, the tensor of the batch that it reads, and the name of its folder.
#[derive(Clone)]
pub struct ExportSae<'a> {
    /// Which of the source's hooks.
    pub hook: usize,
    /// What encodes.
    pub coder: &'a dyn SparseCoder,
    /// The folder's name: delphi calls it the hookpoint and uses the module's path in transformers (`layers.5.mlp`), but any name is read.
    pub hookpoint: String,
}

/// What is cached, and what `config.json` says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelphiOptions {
    /// Into how many ranges the features are split.
    pub n_splits: usize,
    /// Rows of tokens to stop after; `None` for the whole text.
    pub rows: Option<u64>,
    /// The model's name on the hub, from which delphi takes the tokenizer unless it is given one.
    pub model_name: String,
    /// The data set.
    pub dataset_repo: String,
    /// Its part.
    pub dataset_split: String,
    /// Its configuration.
    pub dataset_name: String,
    /// Its column.
    pub dataset_column: String,
    /// Rows in a forward pass.
    pub batch_size: usize,
}

impl Default for DelphiOptions {
    /// delphi's own five ranges, the whole text, names left empty.
    fn default() -> Self {
        let empty = String::new;
        Self {
            n_splits: 5,
            rows: None,
            model_name: empty(),
            dataset_repo: empty(),
            dataset_split: empty(),
            dataset_name: empty(),
            dataset_column: "text".into(),
            batch_size: 32,
        }
    }
}

impl DelphiOptions {
    fn check(&self, targets: &[ExportSae<'_>]) -> Result<()> {
        let wrong = |option, expected, found| Err(Error::Option { option, expected, found });
        if targets.is_empty() {
            return wrong("targets", "at least one dictionary", "empty".into());
        }
        let mut names = BTreeSet::new();
        for target in targets {
            plain_name("the hookpoint", &target.hookpoint)?;
            if !names.insert(&target.hookpoint) {
                return wrong("hookpoint", "a name of its own for each dictionary", target.hookpoint.clone());
            }
            if !(1..=MOST_SPLITS.min(target.coder.d_sae())).contains(&self.n_splits) {
                return wrong("n_splits", "from 1 to the number of features, at most 512", self.n_splits.to_string());
            }
        }
        Ok(())
    }

    /// The ranges of features, in order: the borders are `i * d_sae / n_splits`, rounded down.
    #[must_use]
    pub fn splits(&self, d_sae: usize) -> Vec<std::ops::RangeInclusive<u32>> {
        let border = |i: usize| (i as u64 * d_sae as u64 / self.n_splits.max(1) as u64) as u32;
        (0..self.n_splits.max(1))
            .filter(|&i| border(i) < border(i + 1))
            .map(|i| border(i)..=border(i + 1) - 1)
            .collect()
    }

    /// The keys of delphi's `CacheConfig`, and the model's name.
    fn config(&self, context: usize, tokens: u64) -> Value {
        json!({
            "dataset_repo": self.dataset_repo,
            "dataset_split": self.dataset_split,
            "dataset_name": self.dataset_name,
            "dataset_column": self.dataset_column,
            "batch_size": self.batch_size,
            "cache_ctx_len": context,
            "n_tokens": tokens,
            "n_splits": self.n_splits,
            "model_name": self.model_name,
        })
    }
}
