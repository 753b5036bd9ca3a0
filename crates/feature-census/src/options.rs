//! Options of a census and the memory that they take: [`CensusOptions`].

use crate::coverage::BYTES_PER_FEATURE;
use crate::error::{Error, Result};
use crate::histogram::BINS;
use crate::tally::{Kept, Tally};
use activation_store::TokenFilter;
use sae_core::check_feature_list;
use tensor_kernels::FeatureTop;

/// Largest numbers in [`CensusOptions`].
const MOST_TOP: usize = 4096;
const MOST_SAMPLES: usize = 256;

/// Options of a [`FeatureCensus`](crate::FeatureCensus): the data kept of each feature, and the tokens that count. Two censuses can be merged when all of this is equal.
#[derive(Clone, Debug, PartialEq)]
pub struct CensusOptions {
    /// Number of strongest activations, with their addresses. 0 to 4096.
    pub top: usize,
    /// Number of samples of each histogram bin: those `samples_per_bin` with the lowest `hash(seed, feature, address)`, that is, a uniform sample
    /// that does not depend on the order. 0 to 256.
    pub samples_per_bin: usize,
    /// Samples are kept for so many bins, down from the bin of the feature's largest magnitude (four bins are an octave). 1 to 126.
    pub sample_bins: usize,
    /// The seed of the samples.
    pub seed: u64,
    /// Features whose co-firing with all features is counted: for each of them a count for each feature of the SAE.
    pub together: Vec<u32>,
    /// Whether documents are counted. Every row of tokens must then arrive with its documents, its positions in order, and no row twice.
    pub documents: bool,
    /// Tokens that count; a [`CensusRun`](crate::CensusRun) finds special ones with the tokenizer of its source.
    pub filter: TokenFilter,
}

impl Default for CensusOptions {
    /// The best 20, 4 samples in each of 32 bins (8 octaves), documents counted; special and inserted tokens excluded.
    fn default() -> Self {
        Self {
            top: 20,
            samples_per_bin: 4,
            sample_bins: 32,
            seed: 0,
            together: Vec::new(),
            documents: true,
            filter: TokenFilter::default(),
        }
    }
}

impl CensusOptions {
    /// Upper bound of the memory of a census of `d_sae` features in bytes, for any text:
    ///
    /// ```text
    /// d_sae * ( 64                                    counts, sums, extremes
    ///         + 8 * 126                               the histogram
    ///         + 32 * top + 8                          the strongest
    ///         + 16 * samples_per_bin * sample_bins    the samples
    ///         + 8 * together.len() + 4                co-firing (nothing without)
    ///         + 16 )                                  the features of the two documents at the edges of the text (with `documents`)
    /// ```
    ///
    /// Each further stretch of rows between which rows are missing adds up to `8 * d_sae` with `documents` (the features of its first and last document), and
    /// a batch adds 40 bytes of scratch a token. Large arrays ask for huge pages; stretches of 2 MiB that are never touched
    /// are not resident.
    #[must_use]
    pub fn memory_bytes(&self, d_sae: usize) -> u64 {
        // Saturating: options are checked later, and this may be asked first.
        let kept = (self.samples_per_bin as u64).saturating_mul(self.sample_bins as u64);
        let kept = kept.saturating_mul(size_of::<Kept>() as u64);
        let together = if self.together.is_empty() { 0 } else { 8 * self.together.len() as u64 + 4 };
        let documents = if self.documents { BYTES_PER_FEATURE } else { 0 };
        let fixed = (size_of::<Tally>() + 8 * BINS) as u64;
        let each = kept.saturating_add(fixed + together + documents);
        (d_sae as u64).saturating_mul(each).saturating_add(FeatureTop::memory_bytes(d_sae, self.top))
    }

    /// Checks the ranges.
    pub(crate) fn check(&self, d_sae: usize) -> Result<()> {
        let range = |option, found: usize, expected| Err(Error::Option { option, expected, found: found.to_string() });
        if self.top > MOST_TOP {
            return range("top", self.top, "0 to 4096");
        }
        if self.samples_per_bin > MOST_SAMPLES {
            return range("samples_per_bin", self.samples_per_bin, "0 to 256");
        }
        if !(1..=BINS).contains(&self.sample_bins) {
            return range("sample_bins", self.sample_bins, "1 to 126");
        }
        if d_sae == 0 || d_sae > u32::MAX as usize {
            return range("d_sae", d_sae, "1 to 2^32 - 1");
        }
        if let Some(norm) = self.filter.max_norm.filter(|norm| !norm.is_finite()) {
            let found = norm.to_string();
            return Err(Error::Option { option: "filter.max_norm", expected: "a finite number", found });
        }
        match self.together.as_slice() {
            [] => Ok(()),
            together => Ok(check_feature_list(together, d_sae)?),
        }
    }
}

/// Labels that files store: model, SAE, hook point, engine and text. Two censuses can be merged when all of these are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CensusLabels {
    /// The model.
    pub model: String,
    /// The SAE.
    pub sae: String,
    /// The hook point.
    pub hook: String,
    /// The engine and precision of the products.
    pub engine: String,
    /// The text, or whatever else tells one run from another.
    pub source: String,
}
