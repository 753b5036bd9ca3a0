//! Neuronpedia's feature dashboards, as SAEDashboard's runner writes them for the site to take in.
//!
//! ```text
//! OUT/batch-{i}.json        {model_id, layer, sae_set, sae_id_suffix, features: [..]}     nearly equal ranges of at most 128 features
//! OUT/run_settings.json     what the text and the SAE were
//! OUT/skipped_indexes.json  features without an entry: none here
//! ```
//!
//! What an entry holds ([`NeuronpediaFeature`]), with `n[j]` the norm of feature j's decoder row:
//!
//! * activations `f n[j]`, and 0 on the tokens that [`NeuronpediaOptions::filter`] excludes;
//! * `frac_nonzero`, and 50 bins of the activations that are not 0, from the smallest to the largest;
//! * the 10 tokens with the largest and the smallest logits `W_dec[j] M W_U / n[j]` (`M`: from the SAE's hook point to the residual stream), and 50 bins of all of them;
//! * the 3 largest entries of the decoder row;
//! * examples: the 20 strongest tokens, then 5 drawn from each fifth between 0 and the largest activation, strongest fifth first. An example is
//!   its whole row but the first position;
//! * of signed codes (AbsTopK, signed TopK) every activation with its sign. Examples are ranked and grouped by magnitude, as in a census, so the
//!   bounds of a group are magnitudes; [`NeuronpediaReport::negative`] counts the activations below 0.
//!
//! Where this differs from SAEDashboard 0.8.0, on purpose: a feature's strong negative activations are among its examples (SAEDashboard ranks by signed
//! value and draws from 0 upwards, though its histogram and `frac_nonzero` have the negative ones too); examples are tokens on which the feature fires (SAEDashboard fills up with tokens of activation 0);
//! draws depend on the seed alone; among equals the earlier token comes first; tokens are printed as their tokenizer decodes them (SAEDashboard
//! prints vocabulary entries, in which bytes beyond ASCII stand for themselves); lists of correlated neurons and features are left empty, and so is
//! `decoder_weights_dist`.
//!
//! Source: SAEDashboard 0.8.0, `sae_dashboard/neuronpedia/` and `sequence_data_generator.py`.

mod entry;
mod figures;
mod logits;
mod report;
mod spool;
mod write;

pub use entry::{NeuronpediaActivation, NeuronpediaBatch, NeuronpediaFeature};
pub use report::NeuronpediaReport;
pub use write::write_neuronpedia;

use crate::{Error, Result};
use activation_store::TokenFilter;
use model_hooks::{LanguageModel, Tokenizer};
use sae_core::SparseCoder;

/// A dictionary, the tensor of the batch that it reads, and the model whose tokens its features write.
#[derive(Clone, Copy)]
pub struct NeuronpediaTarget<'a> {
    /// Which of the source's hooks.
    pub hook: usize,
    /// What encodes. It writes where its metadata say, or, of an SAE that has none, at the source's hook.
    pub coder: &'a dyn SparseCoder,
    /// Whose `W_U`.
    pub model: &'a LanguageModel,
    /// What prints tokens.
    pub tokenizer: &'a Tokenizer,
}

/// What the files say of the SAE, and what is shown of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NeuronpediaOptions {
    /// The model, as Neuronpedia calls it (`gpt2-small`).
    pub model_id: String,
    /// The SAE's layer.
    pub layer: usize,
    /// The set of SAEs, as Neuronpedia calls it (`res-jb`).
    pub sae_set: String,
    /// What tells SAEs of one layer and set apart.
    pub sae_id_suffix: Option<String>,
    /// The text.
    pub dataset: String,
    /// Rows of tokens to stop after; `None` for the whole text.
    pub rows: Option<u64>,
    /// Which tokens count: on the others activations are 0. SAEDashboard's are bos, eos and padding.
    pub filter: TokenFilter,
    /// Most features in a file.
    pub features_per_file: usize,
    /// Of the draws.
    pub seed: u64,
}

impl NeuronpediaOptions {
    /// SAEDashboard's choices, and the default of [`TokenFilter`].
    #[must_use]
    pub fn new(model_id: impl Into<String>, layer: usize, sae_set: impl Into<String>) -> Self {
        Self {
            model_id: model_id.into(),
            layer,
            sae_set: sae_set.into(),
            sae_id_suffix: None,
            dataset: String::new(),
            rows: None,
            filter: TokenFilter::default(),
            features_per_file: 128,
            seed: 0,
        }
    }

    fn check(&self) -> Result<()> {
        if self.features_per_file == 0 {
            let (option, expected) = ("features_per_file", "at least one");
            return Err(Error::Option { option, expected, found: "0".into() });
        }
        Ok(())
    }

    /// The ranges of features, in order: nearly equal, the first ones larger by one (as numpy's `array_split`).
    fn files(&self, d_sae: usize) -> Vec<std::ops::Range<u32>> {
        let n = d_sae.div_ceil(self.features_per_file.max(1)).max(1);
        let (size, larger) = (d_sae / n, d_sae % n);
        let start = |i: usize| (i * size + i.min(larger)) as u32;
        (0..n).map(|i| start(i)..start(i + 1)).collect()
    }
}
