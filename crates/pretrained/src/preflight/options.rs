use super::Thresholds;
use crate::Entry;
use activation_store::TokenFilter;

/// What is known of the SAE beforehand, and how much to look at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PreflightOptions {
    /// What the release says that the SAE does, if it says so.
    pub expected: Option<Expected>,
    /// Other names under which the model is known to be the right one.
    pub aliases: Vec<String>,
    /// Tokens to measure on, at most; a row that is longer is cut.
    pub tokens: usize,
    /// The hook point to read, where it is not the one of the SAE's metadata.
    pub hook: Option<String>,
    /// Which tokens are measured, beside what a preflight always leaves out. Of a model without a tokenizer the BOS of [`bos`](Self::bos) is its only
    /// special token. Tokens come without their documents here, so that none counts as inserted.
    pub filter: TokenFilter,
    /// The id of the BOS token, for models without a tokenizer.
    pub bos: Option<u32>,
    /// Bytes that are held at once, at most, beside model, SAE and one forward pass over the sample: activations of the sample, codes and reconstructions of a
    /// part of it. Fewer tokens are measured on where `tokens` of them would not fit. 256 MiB by default.
    pub memory_bytes: u64,
    /// Whether to try what would help (other scales, centering, norms, the model's other hook points): a pass over a part of the sample through the
    /// model, and some twenty to a hundred encodings of a few of its tokens.
    pub remedies: bool,
    /// Multiplications that trying the model's other hook points may take, those of encoding a token counted as `d_in * d_sae`: where all of them would take
    /// more, the nearest are tried, eight at least. 2e11 by default, seconds on a laptop: all points of GPT-2 small with 24,576 features.
    pub remedy_work: u64,
    /// Whether to compare the model's loss on the tokens with that on the same tokens in another order; needs logits.
    pub loss: bool,
    /// The limits.
    pub thresholds: Thresholds,
}

impl Default for PreflightOptions {
    fn default() -> Self {
        Self {
            expected: None,
            aliases: Vec::new(),
            tokens: 2048,
            hook: None,
            filter: TokenFilter::default(),
            bos: None,
            memory_bytes: 256 << 20,
            remedies: true,
            remedy_work: 200_000_000_000,
            loss: true,
            thresholds: Thresholds::default(),
        }
    }
}

impl PreflightOptions {
    /// With what the release says: [`Expected`], or the table's entry of the SAE (`&Entry`).
    #[must_use]
    pub fn expecting(mut self, expected: impl Into<Expected>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn l0(&self) -> Option<f64> {
        self.expected.and_then(|expected| expected.l0)
    }

    pub(super) fn variance_explained(&self) -> Option<f64> {
        self.expected.and_then(|expected| expected.variance_explained)
    }
}

/// What a release says of its SAE.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expected {
    /// Features that fire on a token, on average.
    pub l0: Option<f64>,
    /// Share of the variance that the reconstruction keeps.
    pub variance_explained: Option<f64>,
}

/// What the table of releases says of an SAE; what it does not know stays unknown.
impl From<&Entry> for Expected {
    fn from(entry: &Entry) -> Self {
        Self { l0: entry.l0, variance_explained: entry.variance_explained }
    }
}
