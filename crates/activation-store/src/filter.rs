//! Which tokens count: [`TokenFilter`], one type and one default for statistics, training batches, evaluations, exports and preflights.

use crate::{ActivationBatch, Error, Result, RowIndex, TokenPos, TokenRow};
use candle_core::{DType, Tensor};
use model_hooks::Tokenizer;
use sae_core::{ExcludeSpecialTokens, SeqposSlice};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which tokens count. The default is what statistics mean: structural special tokens and tokens that packing inserted are excluded, and
/// counted in [`ExclusionCounts`]. [`everything`](Self::everything) counts every token, as the notebook does.
///
/// Activations in the documents' order ([`crate::Harvest`]) are delivered for every token, so that statistics can count what they exclude.
/// The shuffled batches of [`crate::ActivationStore::next_batch`] are filtered before the ring, with [`StoreOptions::filter`](field@crate::StoreOptions::filter).
///
/// ```
/// use activation_store::{SpecialTokenPolicy, TokenFilter};
///
/// let counted = TokenFilter::default();
/// assert!(counted.special == SpecialTokenPolicy::Structural && counted.exclude_inserted);
/// let without_sinks = TokenFilter::everything().from_position(1).with_max_norm(400.0);
/// let by_id = TokenFilter::everything().with_ids([0, 7]);
/// assert!(by_id.resolve(None).is_ok());
/// assert!(counted.resolve(None).is_err(), "special tokens cannot be found without a tokenizer");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TokenFilter {
    /// Which special tokens are excluded.
    pub special: SpecialTokenPolicy,
    /// Token ids that are excluded beside them.
    pub exclude_ids: BTreeSet<u32>,
    /// Positions of a row that count, counted from its start; `None`: all.
    pub positions: Option<SeqposSlice>,
    /// Whether tokens that packing inserted, and that are of no document, are excluded.
    pub exclude_inserted: bool,
    /// Tokens are excluded whose activation vector has a larger Euclidean norm than this.
    pub max_norm: Option<f32>,
}

/// Which special tokens are excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SpecialTokenPolicy {
    /// None.
    Keep,
    /// Begin, end, padding and separator: SAELens' `exclude_special_tokens=True`.
    Structural,
    /// Every token that the tokenizer's files mark as special, chat markers among them.
    All,
}

impl Default for TokenFilter {
    fn default() -> Self {
        Self { special: SpecialTokenPolicy::Structural, exclude_inserted: true, ..Self::everything() }
    }
}

impl TokenFilter {
    /// Every token counts.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            special: SpecialTokenPolicy::Keep,
            exclude_ids: BTreeSet::new(),
            positions: None,
            exclude_inserted: false,
            max_norm: None,
        }
    }

    /// What SAELens' `exclude_special_tokens=True` excludes: structural special tokens, wherever they come from.
    #[must_use]
    pub fn structural() -> Self {
        Self::everything().with_special(SpecialTokenPolicy::Structural)
    }

    /// The same with other special tokens excluded.
    #[must_use]
    pub fn with_special(mut self, special: SpecialTokenPolicy) -> Self {
        self.special = special;
        self
    }

    /// The same without these tokens too.
    #[must_use]
    pub fn with_ids(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        self.exclude_ids.extend(ids);
        self
    }

    /// The same with only these positions of a row.
    #[must_use]
    pub fn with_positions(mut self, positions: SeqposSlice) -> Self {
        self.positions = Some(positions);
        self
    }

    /// The same with only the positions from `first` on.
    #[must_use]
    pub fn from_position(self, first: u32) -> Self {
        self.with_positions(SeqposSlice { start: Some(i64::from(first)), ..SeqposSlice::default() })
    }

    /// The same with or without inserted tokens.
    #[must_use]
    pub fn with_exclude_inserted(mut self, exclude: bool) -> Self {
        self.exclude_inserted = exclude;
        self
    }

    /// The same without tokens whose activation vector has a larger norm.
    #[must_use]
    pub fn with_max_norm(mut self, max_norm: f32) -> Self {
        self.max_norm = Some(max_norm);
        self
    }

    /// The filter with the ids of a tokenizer's special tokens.
    ///
    /// # Errors
    /// [`Error::NoSpecialTokens`] where special tokens are to be excluded and there is neither a tokenizer nor an excluded id;
    /// [`Error::Option`] for a norm that is not finite and for positions that count from a row's end or have no step forward.
    pub fn resolve(&self, tokenizer: Option<&Tokenizer>) -> Result<ResolvedFilter> {
        let special = match (self.special, tokenizer) {
            (SpecialTokenPolicy::Keep, _) => BTreeSet::new(),
            (SpecialTokenPolicy::All, Some(tokenizer)) => tokenizer.special_ids().clone(),
            (SpecialTokenPolicy::Structural, Some(tokenizer)) => {
                let special = tokenizer.special();
                [special.bos, special.eos, special.pad, special.sep].into_iter().flatten().collect()
            }
            (_, None) if !self.exclude_ids.is_empty() => BTreeSet::new(),
            (_, None) => return Err(Error::NoSpecialTokens),
        };
        if let Some(norm) = self.max_norm.filter(|norm| !norm.is_finite()) {
            let (option, expected) = ("max_norm", "a finite number".into());
            return Err(Error::Option { option, found: norm.to_string(), expected });
        }
        let positions = self.positions.map(Positions::of).transpose()?;
        let (ids, inserted, max_norm) = (self.exclude_ids.clone(), self.exclude_inserted, self.max_norm);
        Ok(ResolvedFilter { special, ids, positions, inserted, max_norm })
    }
}

impl From<&ExcludeSpecialTokens> for TokenFilter {
    /// What the metadata of an SAE say of its training.
    fn from(metadata: &ExcludeSpecialTokens) -> Self {
        match metadata {
            ExcludeSpecialTokens::All(false) => Self::everything(),
            ExcludeSpecialTokens::All(true) => Self::structural(),
            ExcludeSpecialTokens::Ids(ids) => Self::everything().with_ids(ids.iter().copied()),
        }
    }
}

/// Every `step`-th position from `start` to before `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Positions {
    start: u32,
    stop: u32,
    step: u32,
}

impl Positions {
    fn of(slice: SeqposSlice) -> Result<Self> {
        let fail = |expected: &str| Error::Option {
            option: "positions",
            found: format!("{:?}:{:?}:{:?}", slice.start, slice.stop, slice.step),
            expected: expected.into(),
        };
        let end = |at: i64| {
            u32::try_from(at).map_err(|_| {
                fail("positions counted from the start of a row (StoreOptions::seqpos_slice also counts from its end)")
            })
        };
        let step = slice.step.unwrap_or(1);
        Ok(Self {
            start: end(slice.start.unwrap_or(0))?,
            stop: slice.stop.map_or(Ok(u32::MAX), end)?,
            step: u32::try_from(step).ok().filter(|s| *s > 0).ok_or_else(|| fail("a step of at least 1"))?,
        })
    }

    fn contains(self, pos: u32) -> bool {
        (self.start..self.stop).contains(&pos) && (pos - self.start).is_multiple_of(self.step)
    }
}

/// A [`TokenFilter`] with the ids of special tokens: what decides token by token.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedFilter {
    special: BTreeSet<u32>,
    ids: BTreeSet<u32>,
    positions: Option<Positions>,
    inserted: bool,
    max_norm: Option<f32>,
}

impl ResolvedFilter {
    /// Every token counts.
    #[must_use]
    pub fn everything() -> Self {
        Self { special: BTreeSet::new(), ids: BTreeSet::new(), positions: None, inserted: false, max_norm: None }
    }

    /// Why a token does not count, by the first reason of [`Exclusion`] that holds; `None`: it counts. The norm is computed last, where the
    /// filter has a limit.
    pub fn exclusion(&self, at: TokenPos, token: u32, inserted: bool, norm: impl FnOnce() -> f32) -> Option<Exclusion> {
        if self.positions.is_some_and(|positions| !positions.contains(at.pos)) {
            Some(Exclusion::Position)
        } else if self.special.contains(&token) {
            Some(Exclusion::Special)
        } else if self.ids.contains(&token) {
            Some(Exclusion::Id)
        } else if self.inserted && inserted {
            Some(Exclusion::Inserted)
        } else {
            self.max_norm.filter(|limit| norm() > *limit).map(|_| Exclusion::Norm)
        }
    }

    /// Whether no token is excluded, whatever it is.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::everything()
    }

    /// Whether inserted tokens are excluded, so that it must be known which those are.
    #[must_use]
    pub fn excludes_inserted(&self) -> bool {
        self.inserted
    }

    /// Whether the norm of activations decides.
    #[must_use]
    pub fn reads_norms(&self) -> bool {
        self.max_norm.is_some()
    }

    /// The token ids that are excluded wherever they are: special ones and chosen ones.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.special.union(&self.ids).copied()
    }

    /// Why each token of these rows does not count: row after row, the given positions of each.
    ///
    /// # Shapes
    /// `activations [.., width]` with one vector for each of these tokens; only read where the filter has a limit of norms.
    ///
    /// # Errors
    /// [`Error::BatchShape`] for a row that is too short or another number of vectors.
    pub fn exclusions(
        &self,
        rows: &[TokenRow],
        positions: &[u32],
        activations: &Tensor,
    ) -> Result<Vec<Option<Exclusion>>> {
        let count = rows.len() * positions.len();
        let norms = self.norms(activations, count)?;
        let mut marks = Vec::with_capacity(count);
        for row in rows {
            for &pos in positions {
                let token = row.tokens.get(pos as usize).zip(row.origin.get(pos as usize));
                let (&token, origin) = token.ok_or_else(|| Error::BatchShape {
                    expected: format!("rows with tokens and origins at position {pos}"),
                    found: format!("{} tokens and {} origins", row.tokens.len(), row.origin.len()),
                })?;
                let (at, i) = (TokenPos { row: row.row, pos }, marks.len());
                marks.push(self.exclusion(at, token, origin.is_none(), || norm_at(&norms, i)));
            }
        }
        Ok(marks)
    }

    /// Why each token of a batch does not count, into `marks`. `rows` are those of the batch's source; they are only read where inserted tokens
    /// are excluded.
    ///
    /// # Errors
    /// [`Error::NoTokenRow`] where inserted tokens are excluded and a row is not at hand; [`Error::BatchShape`] for activations of another length.
    pub fn exclusions_of_batch(
        &self,
        batch: &ActivationBatch,
        activations: &Tensor,
        rows: Option<&RowIndex>,
        marks: &mut Vec<Option<Exclusion>>,
    ) -> Result<()> {
        let norms = self.norms(activations, batch.len())?;
        let mut row: Option<&TokenRow> = None;
        marks.clear();
        for (i, (&at, &token)) in batch.at.iter().zip(&batch.tokens).enumerate() {
            let mut inserted = false;
            if self.inserted {
                if row.is_none_or(|row| row.row != at.row) {
                    row = rows.and_then(|rows| rows.get(at.row));
                }
                let origin = row.and_then(|row| row.origin.get(at.pos as usize));
                inserted = origin.ok_or(Error::NoTokenRow { at })?.is_none();
            }
            marks.push(self.exclusion(at, token, inserted, || norm_at(&norms, i)));
        }
        Ok(())
    }

    /// The Euclidean norm of each vector, summed in f64 from left to right; empty where no norm is read.
    fn norms(&self, activations: &Tensor, count: usize) -> Result<Vec<f32>> {
        if self.max_norm.is_none() {
            return Ok(Vec::new());
        }
        let width = activations.dims().last().copied().unwrap_or(0).max(1);
        let flat = activations.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if flat.len() != count * width {
            let (expected, found) = (format!("[{count}, {width}]"), format!("{:?}", activations.dims()));
            return Err(Error::BatchShape { expected, found });
        }
        let square = |x: &f32| f64::from(*x) * f64::from(*x);
        Ok(flat.chunks_exact(width).map(|row| row.iter().map(square).sum::<f64>().sqrt() as f32).collect())
    }
}

/// The norm of a token; 0 where norms are not read.
fn norm_at(norms: &[f32], i: usize) -> f32 {
    norms.get(i).copied().unwrap_or(0.0)
}

/// Why a token does not count: the first reason that holds, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Exclusion {
    /// Its position in the row.
    Position,
    /// It is a special token.
    Special,
    /// Its id is among the excluded ones.
    Id,
    /// It was inserted by packing and belongs to no document.
    Inserted,
    /// The norm of its activation vector.
    Norm,
}

/// How many tokens were excluded, by reason: the first that holds, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ExclusionCounts {
    /// By position.
    pub position: u64,
    /// Special tokens.
    pub special: u64,
    /// By id.
    pub ids: u64,
    /// Tokens that packing inserted.
    pub inserted: u64,
    /// By norm.
    pub norm: u64,
}

impl ExclusionCounts {
    /// Counts one token.
    pub fn count(&mut self, exclusion: Exclusion) {
        let counter = match exclusion {
            Exclusion::Position => &mut self.position,
            Exclusion::Special => &mut self.special,
            Exclusion::Id => &mut self.ids,
            Exclusion::Inserted => &mut self.inserted,
            Exclusion::Norm => &mut self.norm,
        };
        *counter += 1;
    }

    /// Adds the tokens of another part of a text.
    pub fn add(&mut self, other: &Self) {
        let Self { position, special, ids, inserted, norm } = other;
        // Saturating: counts may come from a file.
        self.position = self.position.saturating_add(*position);
        self.special = self.special.saturating_add(*special);
        self.ids = self.ids.saturating_add(*ids);
        self.inserted = self.inserted.saturating_add(*inserted);
        self.norm = self.norm.saturating_add(*norm);
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { position, special, ids, inserted, norm } = *self;
        [position, special, ids, inserted, norm].into_iter().fold(0, u64::saturating_add)
    }
}

impl std::fmt::Display for ExclusionCounts {
    /// `no tokens left out`, `3 special tokens left out`, `13 tokens left out (3 special, 10 inserted)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { position, special, ids, inserted, norm } = *self;
        let reasons = [
            (position, "by position"),
            (special, "special"),
            (ids, "by id"),
            (inserted, "inserted"),
            (norm, "by norm"),
        ];
        let held: Vec<_> = reasons.into_iter().filter(|(count, _)| *count > 0).collect();
        match held.as_slice() {
            [] => write!(f, "no tokens left out"),
            [(count, reason @ ("special" | "inserted"))] => write!(f, "{count} {reason} tokens left out"),
            [(count, reason)] => write!(f, "{count} tokens left out {reason}"),
            several => {
                let parts: Vec<_> = several.iter().map(|(count, reason)| format!("{count} {reason}")).collect();
                write!(f, "{} tokens left out ({})", self.total(), parts.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(filter: &TokenFilter, pos: u32, token: u32, inserted: bool, norm: f32) -> Option<Exclusion> {
        filter.resolve(None).unwrap().exclusion(TokenPos { row: 0, pos }, token, inserted, || norm)
    }

    #[test]
    fn the_first_reason_that_holds_is_counted() {
        let filter = TokenFilter::default().with_ids([7]).from_position(1).with_max_norm(2.0);
        assert_eq!(of(&filter, 0, 7, true, 9.0), Some(Exclusion::Position));
        assert_eq!(of(&filter, 1, 7, true, 9.0), Some(Exclusion::Id));
        assert_eq!(of(&filter, 1, 8, true, 9.0), Some(Exclusion::Inserted));
        assert_eq!(of(&filter, 1, 8, false, 9.0), Some(Exclusion::Norm));
        assert_eq!(of(&filter, 1, 8, false, 2.0), None);
        assert!(ResolvedFilter::everything().is_everything() && !filter.resolve(None).unwrap().is_everything());
    }

    #[test]
    fn what_cannot_be_decided_is_an_error() {
        let missing = TokenFilter::default().resolve(None).unwrap_err().to_string();
        assert!(missing.contains("tokenizer") && missing.contains("TokenFilter::everything()"), "{missing}");
        let slice = |start, step| SeqposSlice { start: Some(start), stop: None, step: Some(step) };
        for bad in [slice(-1, 1), slice(0, 0), slice(0, -1)] {
            assert!(TokenFilter::everything().with_positions(bad).resolve(None).is_err(), "{bad:?}");
        }
        assert!(TokenFilter::everything().with_max_norm(f32::NAN).resolve(None).is_err());
        let every_other = TokenFilter::everything().with_positions(slice(1, 2));
        assert_eq!([1, 2, 3].map(|pos| of(&every_other, pos, 0, false, 0.0).is_none()), [true, false, true]);
    }

    #[test]
    fn a_filter_is_data() {
        for filter in
            [TokenFilter::default(), TokenFilter::everything().with_ids([3]).from_position(2).with_max_norm(1.5)]
        {
            let json = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<TokenFilter>(&json).unwrap(), filter, "{json}");
        }
        assert!(serde_json::from_str::<TokenFilter>(r#"{"special":"some"}"#).is_err());
    }

    #[test]
    fn counts_in_words() {
        let mut counts = ExclusionCounts::default();
        assert_eq!(counts.to_string(), "no tokens left out");
        counts.count(Exclusion::Special);
        assert_eq!(counts.to_string(), "1 special tokens left out");
        counts.add(&ExclusionCounts { inserted: 2, norm: 1, ..ExclusionCounts::default() });
        assert_eq!(
            (counts.total(), counts.to_string().as_str()),
            (4, "4 tokens left out (1 special, 2 inserted, 1 by norm)")
        );
    }
}
