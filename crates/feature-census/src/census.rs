//! Every statistic and every top example of all features of an SAE from one pass over a text: [`FeatureCensus`].

use crate::batch::{CensusBatch, address};
use crate::coverage::{Coverage, MOST_DOCUMENTS, PassResult};
use crate::error::{Error, Result};
use crate::fixed_point::MOST_TOKENS;
use crate::options::{CensusLabels, CensusOptions};
use crate::shard::{Line, SHARD, Shard};
use crate::tally::Tally;
use activation_store::{ExclusionCounts, sample_hash};
use rayon::prelude::*;
use sae_core::SparseFeatures;

/// Fewer activations than this in a batch are not worth waking other threads.
const PARALLEL: usize = 1 << 14;

/// Statistics of all features of an SAE from one pass over a text: for each feature how often and how strongly it fires, its histogram, its strongest
/// activations with their addresses, a uniform sample of the others, the documents and the features that it fires with. Exact, in memory that does
/// not grow with the text.
///
/// A feature fires on a token where its activation is not zero. With `a_1 .. a_n` its activations on the tokens on which it fires:
///
/// ```text
/// count       n
/// density     n / tokens                 0 when no token counts
/// sum         a_1 + .. + a_n            as whole numbers of 2^-64: no rounding of the sum, whatever the order
/// squares     a_1^2 + .. + a_n^2        as whole numbers of 2^-52
/// min, max    the smallest and the largest a_i, with their signs
/// histogram   of |a_i| in bins of a quarter of an octave
/// top         the k largest |a_i|, equal ones by the lower address
/// samples     of each bin the m activations with the lowest hash(seed, feature, address)
/// documents   in how many documents it fires
/// together    for chosen features c: on how many tokens both fire
/// ```
///
/// All of it is a function of the set of tokens: batches, threads and order make no difference, and a census of each part of a text
/// [merges](Self::merge) into the census of the whole, byte for byte when saved. Dictionaries with signed activations are ranked, binned and
/// sampled by magnitude; for the usual ones, whose activations are not negative, that is by value.
///
/// Sums are exact as far as [`LIMIT`](crate::LIMIT) and the units go: activations from `2^-41` up enter the sum exactly and from `1/8` up the sum of squares;
/// smaller ones are rounded, each alone, by at most half a unit. NaN, infinity and magnitudes from `2^20` up are errors.
///
/// ```
/// use activation_store::TokenPos;
/// use feature_census::{CensusBatch, CensusOptions, FeatureCensus};
/// use sae_core::SparseFeatures;
///
/// # fn main() -> feature_census::Result<()> {
/// // An SAE of 3 features on two tokens: features 0 and 2 on the first, feature 2 on the second.
/// let features = SparseFeatures::new(vec![0, 2, 3], vec![0, 2, 2], vec![1.5, 0.5, 4.0], 3)?;
/// let at = [TokenPos { row: 0, pos: 0 }, TokenPos { row: 0, pos: 1 }];
/// let options = CensusOptions { top: 1, documents: false, ..CensusOptions::default() };
/// let mut census = FeatureCensus::new(3, options)?;
/// census.push(&CensusBatch::new(&at, &[11, 12], &features))?;
///
/// let stats = census.stats(2)?;
/// assert_eq!((stats.count, stats.density, stats.mean, stats.max), (2, 1.0, 2.25, 4.0));
/// let top = census.top(2)?;
/// assert_eq!((top[0].activation, top[0].at, top[0].token), (4.0, at[1], 12));
/// assert_eq!(census.dead(), [1]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct FeatureCensus {
    pub(crate) d_sae: usize,
    pub(crate) options: CensusOptions,
    pub(crate) names: CensusLabels,
    pub(crate) tokens: u64,
    pub(crate) excluded: ExclusionCounts,
    pub(crate) shards: Vec<Shard>,
    pub(crate) coverage: Coverage,
    /// For each feature its place among `options.together`, from 1; empty where none are chosen.
    chosen: Vec<u32>,
    scratch: Scratch,
}

/// Storage that a batch leaves to the next.
#[derive(Clone, Debug, Default)]
struct Scratch {
    lines: Vec<Line>,
    present: Vec<u32>,
    rows: Vec<u64>,
}

impl FeatureCensus {
    /// An empty census of an SAE of `d_sae` features. Allocates all its memory ([`CensusOptions::memory_bytes`]).
    ///
    /// # Errors
    /// Options outside their ranges.
    pub fn new(d_sae: usize, options: CensusOptions) -> Result<Self> {
        options.check(d_sae)?;
        let mut chosen = vec![0; if options.together.is_empty() { 0 } else { d_sae }];
        (1..).zip(&options.together).for_each(|(place, &feature)| chosen[feature as usize] = place);
        let shard = |start: usize| Shard::new(start as u32..d_sae.min(start + SHARD) as u32, &options);
        let shards = (0..d_sae).step_by(SHARD).map(shard).collect();
        Ok(Self {
            d_sae,
            options,
            names: CensusLabels::default(),
            tokens: 0,
            excluded: ExclusionCounts::default(),
            shards,
            coverage: Coverage::new(),
            chosen,
            scratch: Scratch::default(),
        })
    }

    /// Sets the labels that files store.
    #[must_use]
    pub fn named(mut self, names: CensusLabels) -> Self {
        self.names = names;
        self
    }

    /// Number of features.
    #[must_use]
    pub fn d_sae(&self) -> usize {
        self.d_sae
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &CensusOptions {
        &self.options
    }

    /// The labels.
    #[must_use]
    pub fn names(&self) -> &CensusLabels {
        &self.names
    }

    /// Tokens that count: the denominator of every density.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens that were excluded, by reason; not among [`tokens`](Self::tokens).
    #[must_use]
    pub fn excluded(&self) -> &ExclusionCounts {
        &self.excluded
    }

    /// Counts the sparse codes of some tokens; on an error none of them.
    ///
    /// Once the scratch has grown to the largest batch (40 bytes a token) nothing is allocated, but at the first end of a document and where the
    /// rows jump: then the features of a document at an edge are written down.
    ///
    /// # Errors
    /// An activation that is NaN, infinite or of magnitude `2^20` and more; lists of different lengths; with [`CensusOptions::documents`] a row that was
    /// taken in before, or a batch without documents.
    pub fn push(&mut self, batch: &CensusBatch) -> Result<()> {
        self.check(batch)?;
        let Scratch { mut lines, mut present, rows } = std::mem::take(&mut self.scratch);
        lines.clear();
        present.clear();
        for (row, &at) in batch.at.iter().enumerate() {
            let document = match self.options.documents {
                true => self.document(batch, row, &mut lines, &mut present),
                false => 0,
            };
            match batch.excluded_at(row) {
                Some(exclusion) => self.excluded.count(exclusion),
                None => {
                    let together = self.together_on(batch.features.row(row), &mut present);
                    let address = address(at)?;
                    let key = sample_hash::address_key(address);
                    lines.push(Line { address, key, token: batch.tokens[row], row: row as u32, document, together });
                }
            }
        }
        self.flush(&mut lines, &mut present, batch.features);
        self.scratch = Scratch { lines, present, rows };
        Ok(())
    }

    /// The number of a token's document. What came before is counted first where that matters.
    fn document(&mut self, batch: &CensusBatch, row: usize, lines: &mut Vec<Line>, present: &mut Vec<u32>) -> u32 {
        let (at, doc) = (batch.at[row], batch.documents.and_then(|documents| documents[row]));
        loop {
            match self.coverage.step(at, doc) {
                PassResult::Document(number) => return number,
                PassResult::Note => {
                    self.flush(lines, present, batch.features);
                    let features = self.in_latest_document();
                    self.coverage.note_head(features);
                }
                PassResult::Reopen => {
                    self.flush(lines, present, batch.features);
                    self.settle();
                    for feature in self.coverage.reopen(at) {
                        self.tally_mut(feature).document = self.coverage.number();
                    }
                }
            }
        }
    }

    /// The places of the chosen features that fire on a token, as a stretch of `present`.
    fn together_on(&self, (index, value): (&[u32], &[f32]), present: &mut Vec<u32>) -> std::ops::Range<u32> {
        let start = present.len() as u32;
        if !self.chosen.is_empty() {
            let fires = index.iter().zip(value).filter(|(_, value)| **value != 0.0);
            present.extend(fires.filter_map(|(&feature, _)| self.chosen[feature as usize].checked_sub(1)));
        }
        start..present.len() as u32
    }

    /// Counts the lines, each shard of features for itself.
    fn flush(&mut self, lines: &mut Vec<Line>, present: &mut Vec<u32>, features: &SparseFeatures) {
        self.tokens += lines.len() as u64;
        let take = |shard: &mut Shard| shard.take_lines(lines, present, features);
        if features.nnz() < PARALLEL || rayon::current_num_threads() == 1 {
            self.shards.iter_mut().for_each(take);
        } else {
            self.shards.par_iter_mut().for_each(take);
        }
        lines.clear();
        present.clear();
    }

    fn check(&mut self, batch: &CensusBatch) -> Result<()> {
        batch.check(self.d_sae)?;
        let tokens = self.tokens + batch.at.len() as u64;
        if tokens > MOST_TOKENS {
            return Err(Error::TooManyTokens { tokens });
        }
        if self.options.documents {
            if batch.documents.is_none() {
                return Err(Error::NoDocuments);
            }
            self.coverage.check(batch.at, &mut self.scratch.rows)?;
        }
        Ok(())
    }

    pub(crate) fn tally_mut(&mut self, feature: u32) -> &mut Tally {
        &mut self.shards[feature as usize / SHARD].tallies[feature as usize % SHARD]
    }

    /// The shard of a feature, and its place there.
    pub(crate) fn place(&self, feature: u32) -> Result<(&Shard, usize)> {
        if feature as usize >= self.d_sae {
            return Err(Error::FeatureRange { feature, d_sae: self.d_sae });
        }
        Ok((&self.shards[feature as usize / SHARD], feature as usize % SHARD))
    }

    /// The features that fired in the latest document of the open run.
    pub(crate) fn in_latest_document(&self) -> Vec<u32> {
        let number = self.coverage.number();
        let tallies = self.shards.iter().flat_map(|shard| &shard.tallies);
        (0..).zip(tallies).filter(|(_, tally)| tally.document == number).map(|(feature, _)| feature).collect()
    }

    /// Closes the open run.
    pub(crate) fn settle(&mut self) {
        let features = self.in_latest_document();
        for feature in self.coverage.settle(features) {
            self.tally_mut(feature).documents -= 1;
        }
        if self.coverage.number() >= MOST_DOCUMENTS {
            self.shards.iter_mut().flat_map(|shard| &mut shard.tallies).for_each(|tally| tally.document = 0);
            self.coverage.restart_numbers();
        }
    }
}
