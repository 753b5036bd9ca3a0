//! What is counted and read of each feature.

use crate::Result;
use sae_core::{Sae, SparseCoder, SparseFeatures};

/// How often each feature fires.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FeatureCounts {
    tokens: u64,
    fired: Vec<u64>,
    prompts: Vec<u64>,
    /// The last row in which each fired, counted from 1.
    last: Vec<u64>,
}

impl FeatureCounts {
    pub(super) fn new(d_sae: usize) -> Self {
        Self { tokens: 0, fired: vec![0; d_sae], prompts: vec![0; d_sae], last: vec![0; d_sae] }
    }

    /// Counts one token of row `row` of the evaluation.
    pub(super) fn add(&mut self, row: u64, features: &[u32], values: &[f32]) {
        self.tokens += 1;
        for (&feature, _) in features.iter().zip(values).filter(|(_, value)| **value != 0.0) {
            let feature = feature as usize;
            self.fired[feature] += 1;
            self.prompts[feature] += u64::from(self.last[feature] != row + 1);
            self.last[feature] = row + 1;
        }
    }

    fn density_of(&self, fired: u64) -> f64 {
        fired as f64 / self.tokens as f64
    }

    /// The share of features whose density is so.
    pub(super) fn share(&self, so: impl Fn(f64) -> bool) -> f64 {
        self.fired.iter().filter(|fired| so(self.density_of(**fired))).count() as f64 / self.fired.len() as f64
    }

    /// The share of all firings that are of features with a density above this.
    pub(super) fn mass_over(&self, density: f64) -> f64 {
        let over = self.fired.iter().filter(|fired| self.density_of(**fired) > density);
        over.sum::<u64>() as f64 / self.fired.iter().sum::<u64>() as f64
    }

    pub(super) fn finish(self, weights: Option<FeatureWeights>) -> FeatureMetrics {
        let per_prompt = |(fired, prompts): (&u64, &u64)| *fired as f64 / *prompts as f64;
        FeatureMetrics {
            feature_density: self.fired.iter().map(|fired| self.density_of(*fired)).collect(),
            consistent_activation_heuristic: self.fired.iter().zip(&self.prompts).map(per_prompt).collect(),
            weights,
        }
    }
}

/// The number of active features of a token and the sum of their magnitudes.
pub(super) fn l0_l1(codes: &SparseFeatures, token: usize) -> (f64, f64) {
    let values = codes.row(token).1;
    let active = values.iter().filter(|v| **v != 0.0).count();
    (active as f64, values.iter().map(|v| f64::from(v.abs())).sum())
}

/// A number for each feature, `[d_sae]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FeatureMetrics {
    /// Share of counted tokens on which the feature is active.
    pub feature_density: Vec<f64>,
    /// Counted tokens on which it is active, for each row in which it is; NaN for one that never fired.
    pub consistent_activation_heuristic: Vec<f64>,
    /// What its weights say, where the coder's weights are at hand.
    pub weights: Option<FeatureWeights>,
}

/// What the weights of an SAE say of each feature, `[d_sae]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FeatureWeights {
    /// `b_enc`.
    pub encoder_bias: Vec<f64>,
    /// `|W_enc[:, f]|`.
    pub encoder_norm: Vec<f64>,
    /// `cos(W_enc[:, f], W_dec[f])`; NaN where one of them is zero, or where they have different widths.
    pub encoder_decoder_cosine_sim: Vec<f64>,
}

impl FeatureWeights {
    /// Reads them, in f64.
    ///
    /// # Errors
    /// An encoder that is held rounded (`Precision::Bf16`).
    pub fn of(sae: &Sae) -> Result<Self> {
        let (d_in, d_out) = (sae.d_in(), sae.d_out());
        let encoder: Vec<f32> = sae.w_enc_t()?.flatten_all()?.to_vec1()?;
        let decoder: Vec<f32> = sae.w_dec().flatten_all()?.to_vec1()?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let norm = |row: &[f32]| dot(row, row).sqrt();
        let cosine = |(enc, dec): (&[f32], &[f32])| match d_in == d_out {
            true => dot(enc, dec) / (norm(enc) * norm(dec)),
            false => f64::NAN,
        };
        Ok(Self {
            encoder_bias: sae.b_enc().iter().map(|b| f64::from(*b)).collect(),
            encoder_norm: encoder.chunks_exact(d_in).map(norm).collect(),
            encoder_decoder_cosine_sim: encoder
                .chunks_exact(d_in)
                .zip(decoder.chunks_exact(d_out))
                .map(cosine)
                .collect(),
        })
    }
}
