//! Input of a census: [`CensusBatch`].

use crate::error::{Error, Result};
use crate::fixed_point::LIMIT;
use activation_store::{DocId, Exclusion, TokenPos};
use sae_core::SparseFeatures;

/// The sparse codes of some tokens with their addresses. Line `i` of each list belongs to token `i`.
#[derive(Clone, Copy, Debug)]
pub struct CensusBatch<'a> {
    pub(crate) at: &'a [TokenPos],
    pub(crate) tokens: &'a [u32],
    pub(crate) features: &'a SparseFeatures,
    pub(crate) documents: Option<&'a [Option<DocId>]>,
    pub(crate) excluded: Option<&'a [Option<Exclusion>]>,
}

impl<'a> CensusBatch<'a> {
    /// Tokens with their addresses and codes, `[n, d_sae]`.
    #[must_use]
    pub fn new(at: &'a [TokenPos], tokens: &'a [u32], features: &'a SparseFeatures) -> Self {
        Self { at, tokens, features, documents: None, excluded: None }
    }

    /// Sets the document of each token; `None` for an inserted one.
    #[must_use]
    pub fn documents(mut self, documents: &'a [Option<DocId>]) -> Self {
        self.documents = Some(documents);
        self
    }

    /// Sets the tokens that do not count, each with its reason.
    #[must_use]
    pub fn excluded(mut self, excluded: &'a [Option<Exclusion>]) -> Self {
        self.excluded = Some(excluded);
        self
    }

    pub(crate) fn excluded_at(&self, row: usize) -> Option<Exclusion> {
        self.excluded.and_then(|excluded| excluded[row])
    }

    /// Checks lengths, addresses, and the activations of the tokens that count; excluded tokens may exceed the limit.
    pub(crate) fn check(&self, d_sae: usize) -> Result<()> {
        let n = self.at.len();
        let lengths = [
            ("tokens", Some(self.tokens.len()), n),
            ("rows of codes", Some(self.features.rows()), n),
            ("features", Some(self.features.d_sae()), d_sae),
            ("documents", self.documents.map(<[_]>::len), n),
            ("exclusions", self.excluded.map(<[_]>::len), n),
        ];
        for (what, found, expected) in lengths {
            if let Some(found) = found.filter(|found| *found != expected) {
                return Err(Error::Batch { what, found, expected });
            }
        }
        self.at.iter().try_for_each(|&at| address(at).map(drop))?;
        // NaN is not below the limit.
        if self.features.value().iter().all(|value| value.abs() < LIMIT) {
            return Ok(());
        }
        self.bad_value().map_or(Ok(()), Err)
    }

    /// The first activation of a token that counts which cannot be summed.
    fn bad_value(&self) -> Option<Error> {
        let rows = self.at.iter().zip(self.features.iter()).enumerate();
        let counted = rows.filter(|(row, _)| self.excluded_at(*row).is_none());
        let mut entries =
            counted.flat_map(|(_, (at, (index, value)))| std::iter::zip(index, value).map(move |(f, v)| (*at, *f, *v)));
        let (at, feature, value) = entries.find(|(_, _, value)| value.is_nan() || value.abs() >= LIMIT)?;
        Some(Error::Value { feature, value, at })
    }
}

/// An address as one number.
pub(crate) fn address(at: TokenPos) -> Result<u64> {
    at.to_u64().ok_or(Error::Address { at })
}
