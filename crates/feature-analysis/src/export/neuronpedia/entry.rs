use crate::export::ExportError;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Above this a file is not read; a batch of 128 features with rows of 1024 tokens has some 60 MB.
const MOST_BYTES: u64 = 1 << 30;

/// One file of features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeuronpediaBatch {
    /// The model, as Neuronpedia calls it.
    pub model_id: String,
    /// The SAE's layer.
    pub layer: usize,
    /// The set of SAEs.
    pub sae_set: String,
    /// What tells SAEs of one layer and set apart.
    pub sae_id_suffix: Option<String>,
    /// Its features, in order.
    pub features: Vec<NeuronpediaFeature>,
}

/// What is shown of a feature, under Neuronpedia's names; numbers are rounded to 3 decimals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeuronpediaFeature {
    /// The feature.
    pub feature_index: u32,
    /// The largest entries of its decoder row: where,
    pub neuron_alignment_indices: Vec<usize>,
    /// how large in the row of norm 1,
    pub neuron_alignment_values: Vec<f64>,
    /// and which share of the sum of magnitudes.
    pub neuron_alignment_l1: Vec<f64>,
    /// Not filled.
    pub correlated_neurons_indices: Vec<usize>,
    /// Not filled.
    pub correlated_neurons_l1: Vec<f64>,
    /// Not filled.
    pub correlated_neurons_pearson: Vec<f64>,
    /// Not filled.
    pub correlated_features_indices: Vec<usize>,
    /// Not filled.
    pub correlated_features_l1: Vec<f64>,
    /// Not filled.
    pub correlated_features_pearson: Vec<f64>,
    /// The tokens with the smallest logits, smallest first.
    pub neg_str: Vec<String>,
    /// Their logits.
    pub neg_values: Vec<f64>,
    /// The tokens with the largest logits, largest first.
    pub pos_str: Vec<String>,
    /// Their logits.
    pub pos_values: Vec<f64>,
    /// The share of all tokens on which it fires.
    pub frac_nonzero: f64,
    /// The middles of 50 bins of its activations; empty if it never fires.
    pub freq_hist_data_bar_values: Vec<f64>,
    /// How many activations are in each.
    pub freq_hist_data_bar_heights: Vec<u64>,
    /// How many logits are in each of 50 bins.
    pub logits_hist_data_bar_heights: Vec<u64>,
    /// The middles of these.
    pub logits_hist_data_bar_values: Vec<f64>,
    /// Rows of tokens.
    pub n_prompts_total: u64,
    /// Tokens in a row.
    pub n_tokens_in_prompt: usize,
    /// The text.
    pub dataset: String,
    /// Examples, group by group.
    pub activations: Vec<NeuronpediaActivation>,
    /// Not filled.
    pub decoder_weights_dist: Vec<f64>,
    /// Empty for SAEs.
    pub vector: Vec<f64>,
}

/// An example: a row of tokens without its first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeuronpediaActivation {
    /// The least magnitude of an activation of its group; -1 for the strongest.
    pub bin_min: f64,
    /// The largest magnitude of an activation of its group.
    pub bin_max: f64,
    /// The share of all tokens whose activation has a magnitude in these bounds; -1 for the strongest.
    pub bin_contains: f64,
    /// The tokens.
    pub tokens: Vec<String>,
    /// The feature's activation on each.
    pub values: Vec<f64>,
    /// For which of them the example was chosen.
    pub qualifying_token_index: usize,
}

impl NeuronpediaBatch {
    /// Reads a file.
    ///
    /// # Errors
    /// I/O; [`ExportError::Malformed`] for what is not such a batch.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.into(), source };
        let malformed = |reason| ExportError::Malformed { path: path.into(), reason };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MOST_BYTES {
            return Err(malformed(format!("it has {size} bytes; at most {MOST_BYTES} are read")).into());
        }
        let text = std::fs::read(path).map_err(io)?;
        Ok(serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?)
    }
}
