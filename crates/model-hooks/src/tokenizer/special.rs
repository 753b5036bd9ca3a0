//! Special ids, and the tokens that a tokenizer's template adds by itself.

use crate::{Error, Result};
use std::collections::BTreeSet;

/// The special tokens of a vocabulary by role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecialTokens {
    /// Beginning of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Unknown.
    pub unk: Option<u32>,
    /// Separator.
    pub sep: Option<u32>,
    /// Classification.
    pub cls: Option<u32>,
    /// Mask.
    pub mask: Option<u32>,
    /// Special tokens without one of these roles (ends of turns, several ends of sequence).
    pub others: BTreeSet<u32>,
    /// Every id that ends a generated text, beside [`eos`](Self::eos): those of chat models' turns, and all others that the files name.
    /// The vocabulary need not have them.
    pub eos_ids: BTreeSet<u32>,
    /// Whether the tokenizer itself puts a BOS before a text; `None`: what its post-processor does.
    pub adds_bos: Option<bool>,
}

impl SpecialTokens {
    /// All that the vocabulary has.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<u32> {
        let roles = [self.bos, self.eos, self.pad, self.unk, self.sep, self.cls, self.mask];
        roles.into_iter().flatten().chain(self.others.iter().copied()).collect()
    }
}

/// Tokens that the tokenizer's own template puts around a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Template {
    Nothing,
    Bos(u32),
    /// Something that [`crate::AddBos`] does not describe.
    Other(String),
}

impl Template {
    /// From `adds_bos`, or else found by letting the post-processor work on a probe.
    pub(super) fn of(inner: &tokenizers::Tokenizer, special: &SpecialTokens) -> Result<Self> {
        match (special.adds_bos, special.bos) {
            (Some(false), _) => return Ok(Self::Nothing),
            (Some(true), Some(bos)) => return Ok(Self::Bos(bos)),
            (Some(true), None) => {
                let reason = "add_bos_token is true, but there is no BOS token".into();
                return Err(Error::Tokenizer { path: None, reason });
            }
            (None, _) => {}
        }
        let ids = |add| -> Result<Vec<u32>> {
            let encoded = super::caught(|| inner.encode("a", add));
            let encoded = encoded.map_err(|reason| Error::Tokenizer { path: None, reason })?;
            Ok(encoded.get_ids().to_vec())
        };
        let (bare, full) = (ids(false)?, ids(true)?);
        Ok(match special.bos {
            _ if full == bare => Self::Nothing,
            Some(bos) if full.split_first() == Some((&bos, &bare)) => Self::Bos(bos),
            _ => Self::Other(format!("the text `a`, tokens {bare:?}, becomes {full:?}")),
        })
    }

    /// The BOS that the template adds.
    pub(super) fn bos(&self) -> Result<Option<u32>> {
        match self {
            Self::Nothing => Ok(None),
            Self::Bos(bos) => Ok(Some(*bos)),
            Self::Other(what) => Err(Error::Tokenizer {
                path: None,
                reason: format!(
                    "the template adds something other than one BOS: {what}; choose AddBos::Always or AddBos::Never"
                ),
            }),
        }
    }
}
