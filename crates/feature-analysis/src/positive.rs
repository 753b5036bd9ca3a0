//! The numbers of the histogram of positive activations (cell 22).

use crate::{CollectReport, FeatureExamples, Result};

/// How often and how strongly one feature fired.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PositiveActivations {
    /// The feature.
    pub feature: u32,
    /// Its activations above zero, in the order in which they were seen.
    pub values: Vec<f32>,
    /// How many of its activations were below zero, which `values` leaves out: none but of SAEs with signed codes.
    pub negative: usize,
    /// What was looked at; `counts.tokens` is the denominator.
    pub counts: CollectReport,
}

impl PositiveActivations {
    /// The positive activations of a collected feature.
    ///
    /// # Errors
    /// A feature that was not collected.
    pub fn of(kept: &FeatureExamples, feature: u32) -> Result<Self> {
        let mut values = kept.activations(feature)?;
        let negative = values.iter().filter(|a| **a < 0.0).count();
        values.retain(|&a| a > 0.0);
        Ok(Self { feature, values, negative, counts: *kept.counts() })
    }

    /// `100 * positive / tokens looked at`. The notebook divides by `total_batches * tokens per batch`: the same number
    /// when special tokens are kept and the text suffices.
    #[must_use]
    pub fn percent(&self) -> f64 {
        match self.counts.tokens {
            0 => 0.0,
            tokens => 100.0 * self.values.len() as f64 / tokens as f64,
        }
    }

    /// The notebook's title: "Histogram of positive activations - x.xxx% of activations were positive".
    #[must_use]
    pub fn title(&self) -> String {
        format!("Histogram of positive activations - {:.3}% of activations were positive", self.percent())
    }
}
