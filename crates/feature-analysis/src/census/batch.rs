//! What a census takes in: [`CensusBatch`].

use super::{CensusError, LIMIT, address};
use crate::Result;
use activation_store::{DocId, TokenPos};
use sae_core::SparseFeatures;
use std::collections::BTreeSet;

/// Which tokens do not count. Each that is left out is counted, by the first reason that holds, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaveOut {
    /// Positions in a row: position 0, where attention sinks have their huge norms, say.
    pub positions: BTreeSet<u32>,
    /// Token ids: special ones, say.
    pub tokens: BTreeSet<u32>,
    /// Tokens that packing inserted and that are of no document. The source must remember its rows.
    pub inserted: bool,
    /// Tokens whose activation vector has a larger Euclidean norm than this.
    pub norm_above: Option<f32>,
}

impl LeaveOut {
    /// Why a token does not count, if it does not. The norm is asked for last.
    pub fn reason(&self, at: TokenPos, token: u32, inserted: bool, norm: impl FnOnce() -> f32) -> Option<Reason> {
        if self.positions.contains(&at.pos) {
            Some(Reason::Position)
        } else if self.tokens.contains(&token) {
            Some(Reason::Token)
        } else if self.inserted && inserted {
            Some(Reason::Inserted)
        } else {
            self.norm_above.filter(|limit| norm() > *limit).map(|_| Reason::Norm)
        }
    }

    /// Whether any token could be left out.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its position in the row.
    Position,
    /// Its id: a special token, say.
    Token,
    /// It comes from no document: packing inserted it.
    Inserted,
    /// The norm of its activation vector.
    Norm,
}

/// How many tokens were left out, by reason (the first that holds, in this order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// By position.
    pub position: u64,
    /// By id.
    pub token: u64,
    /// Inserted ones.
    pub inserted: u64,
    /// By norm.
    pub norm: u64,
}

impl LeftOut {
    pub(crate) fn count(&mut self, reason: Reason) {
        let counter = match reason {
            Reason::Position => &mut self.position,
            Reason::Token => &mut self.token,
            Reason::Inserted => &mut self.inserted,
            Reason::Norm => &mut self.norm,
        };
        *counter += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let Self { position, token, inserted, norm } = other;
        self.position += position;
        self.token += token;
        self.inserted += inserted;
        self.norm += norm;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.position + self.token + self.inserted + self.norm
    }
}

/// The sparse codes of some tokens with their addresses. Line `i` of each list belongs to token `i`.
#[derive(Clone, Copy, Debug)]
pub struct CensusBatch<'a> {
    pub(crate) at: &'a [TokenPos],
    pub(crate) tokens: &'a [u32],
    pub(crate) features: &'a SparseFeatures,
    pub(crate) documents: Option<&'a [Option<DocId>]>,
    pub(crate) left_out: Option<&'a [Option<Reason>]>,
}

impl<'a> CensusBatch<'a> {
    /// Tokens with their addresses and codes, `[n, d_sae]`.
    #[must_use]
    pub fn new(at: &'a [TokenPos], tokens: &'a [u32], features: &'a SparseFeatures) -> Self {
        Self { at, tokens, features, documents: None, left_out: None }
    }

    /// Of which document each token is; `None` for an inserted one.
    #[must_use]
    pub fn documents(mut self, documents: &'a [Option<DocId>]) -> Self {
        self.documents = Some(documents);
        self
    }

    /// Which tokens do not count, and why.
    #[must_use]
    pub fn left_out(mut self, left_out: &'a [Option<Reason>]) -> Self {
        self.left_out = Some(left_out);
        self
    }

    pub(crate) fn left_out_at(&self, row: usize) -> Option<Reason> {
        self.left_out.and_then(|left_out| left_out[row])
    }

    /// Checks lengths, addresses, and the activations of the tokens that count: what is left out for its huge norm may well be too large.
    pub(crate) fn check(&self, d_sae: usize) -> Result<()> {
        let n = self.at.len();
        let lengths = [
            ("tokens", Some(self.tokens.len()), n),
            ("rows of codes", Some(self.features.rows()), n),
            ("features", Some(self.features.d_sae()), d_sae),
            ("documents", self.documents.map(<[_]>::len), n),
            ("left-out marks", self.left_out.map(<[_]>::len), n),
        ];
        for (what, found, expected) in lengths {
            if let Some(found) = found.filter(|found| *found != expected) {
                return Err(CensusError::Batch { what, found, expected }.into());
            }
        }
        self.at.iter().try_for_each(|&at| address::pack(at).map(drop))?;
        // NaN is not below the limit.
        if self.features.value().iter().all(|value| value.abs() < LIMIT) {
            return Ok(());
        }
        self.bad_value().map_or(Ok(()), |bad| Err(bad.into()))
    }

    /// The first activation of a token that counts which cannot be summed.
    fn bad_value(&self) -> Option<CensusError> {
        let rows = self.at.iter().zip(self.features.iter()).enumerate();
        let counted = rows.filter(|(row, _)| self.left_out_at(*row).is_none());
        let mut entries =
            counted.flat_map(|(_, (at, (index, value)))| std::iter::zip(index, value).map(move |(f, v)| (*at, *f, *v)));
        let (at, feature, value) = entries.find(|(_, _, value)| value.is_nan() || value.abs() >= LIMIT)?;
        Some(CensusError::Value { feature, value, at })
    }
}
