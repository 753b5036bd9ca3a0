//! Which features fire on a family of words (the days of the week), found by their activations on a text.
//!
//! ```text
//! recall(f) = P(f fires | a member's token),   share(f) = P(a member's token | f fires),   score(f) = recall * share
//! ```
//!
//! The score is high only for features that fire on many of the family's tokens and on little else. It is counted over the text in
//! one pass: `d_sae * (members + 4)` counters, whatever the text's length.

use crate::kept::{check_places, places};
use crate::seed_loop::skip;
use crate::{CollectReport, Error, Progress, Result};
use activation_store::{ActivationSource, ActivationStore, Exclusion, TokenFilter, TokenRow};
use model_hooks::Tokenizer;
use sae_core::{SparseCoder, SparseFeatures};
use std::collections::HashMap;

/// A family of words, each with the token ids that spell it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WordList {
    /// The words that are tokens, with their ids.
    pub members: Vec<(String, Vec<u32>)>,
    /// Words that no single token spells; they cannot be counted.
    pub not_tokens: Vec<String>,
}

impl WordList {
    /// Looks each word up, with and without a space before it.
    ///
    /// # Errors
    /// [`Error::NoWordIsAToken`].
    pub fn new(words: &[&str], tokenizer: &Tokenizer) -> Result<Self> {
        let (mut members, mut not_tokens) = (Vec::new(), Vec::new());
        for word in words {
            let mut ids: Vec<u32> = Vec::new();
            for text in [format!(" {word}"), (*word).to_owned()] {
                if let [id] = tokenizer.encode(&text)?.ids[..]
                    // An unknown word may become the one token "unknown": that is not the word.
                    && tokenizer.piece(id).is_some_and(|piece| piece.trim() == *word)
                    && !ids.contains(&id)
                {
                    ids.push(id);
                }
            }
            match ids.is_empty() {
                true => not_tokens.push((*word).to_owned()),
                false => members.push(((*word).to_owned(), ids)),
            }
        }
        match members.is_empty() {
            true => Err(Error::NoWordIsAToken { words: not_tokens }),
            false => Ok(Self { members, not_tokens }),
        }
    }

    /// Monday to Sunday.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn days(tokenizer: &Tokenizer) -> Result<Self> {
        Self::new(&["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"], tokenizer)
    }
}

/// How much text to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct WordFeatureOptions {
    /// Batches to look at; `None` for the whole text.
    pub total_batches: Option<u64>,
    /// Batches to pass over first.
    pub skip_batches: u64,
    /// How many features to report.
    pub top: usize,
    /// Which tokens count.
    pub filter: TokenFilter,
}

impl Default for WordFeatureOptions {
    fn default() -> Self {
        Self { total_batches: None, skip_batches: 0, top: 20, filter: TokenFilter::default() }
    }
}

/// What one feature has to do with the family.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WordFeature {
    /// The feature.
    pub feature: u32,
    /// Tokens on which it fired.
    pub firings: u64,
    /// Share of these that are the family's.
    pub precision: f64,
    /// Share of its summed activation that is on the family.
    pub activation_mass: f64,
    /// Share of the family's tokens on which it fired.
    pub recall: f64,
    /// The same for each member; NaN for a member that never occurred.
    pub recall_per_member: Vec<f64>,
    /// `recall * precision`, by which features are ranked (ties: lower feature first).
    pub score: f64,
}

/// The features of a family, best first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WordReport {
    /// Each member and how often it occurred.
    pub occurrences: Vec<(String, u64)>,
    /// Words that no single token spells; they were not counted.
    pub not_tokens: Vec<String>,
    /// The best features; only such that fired on the family at all.
    pub features: Vec<WordFeature>,
    /// What was looked at.
    pub counts: CollectReport,
}

/// Runs the text through model and SAE (all features) and ranks the features by what they have to do with the family.
///
/// # Errors
/// The store's, model's or SAE's own errors.
pub fn word_features(
    coder: &dyn SparseCoder,
    store: &mut ActivationStore,
    family: &WordList,
    options: &WordFeatureOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<WordReport> {
    let filter = options.filter.resolve(store.model().tokenizer())?;
    let positions = store.spec().positions.clone();
    let asked = options.total_batches.unwrap_or(u64::MAX);
    let mut counter = WordFeatureCounter::new(family, coder.d_sae());
    skip(store, options.skip_batches)?;
    while counter.counts.batches_done < asked {
        let Some(batch) = store.get_batch_tokens()? else { break };
        let activations = store.activations(&batch)?;
        let excluded = filter.exclusions(&batch.rows, &positions, &activations)?;
        counter.push(&batch.rows, &positions, &excluded, &coder.encode(&activations)?.features)?;
        progress(Progress {
            batches_done: counter.counts.batches_done,
            batches: options.total_batches,
            examples: counter.found(),
        });
    }
    counter.counts.batches_asked = options.total_batches.unwrap_or(counter.counts.batches_done);
    Ok(counter.report(options.top))
}

/// The counters of one pass.
#[derive(Clone, Debug)]
pub struct WordFeatureCounter<'a> {
    family: &'a WordList,
    member_of: HashMap<u32, usize>,
    occurrences: Vec<u64>,
    firings: Vec<u64>,
    mass: Vec<f64>,
    /// Firings on each member, `[members, d_sae]`.
    on_member: Vec<Vec<u64>>,
    mass_on: Vec<f64>,
    counts: CollectReport,
}

impl<'a> WordFeatureCounter<'a> {
    /// All counters at zero.
    #[must_use]
    pub fn new(family: &'a WordList, d_sae: usize) -> Self {
        let members = family.members.len();
        let ids = |(member, (_, ids)): (usize, &'a (String, Vec<u32>))| ids.iter().map(move |&id| (id, member));
        Self {
            family,
            member_of: family.members.iter().enumerate().flat_map(ids).collect(),
            occurrences: vec![0; members],
            firings: vec![0; d_sae],
            mass: vec![0.0; d_sae],
            on_member: vec![vec![0; d_sae]; members],
            mass_on: vec![0.0; d_sae],
            counts: CollectReport::default(),
        }
    }

    /// Takes in one batch: the sparse features of these positions of every row, in order, and which of them do not count.
    ///
    /// # Errors
    /// Features of another number of places or of another SAE, or rows that are too short.
    pub fn push(
        &mut self,
        rows: &[TokenRow],
        positions: &[u32],
        excluded: &[Option<Exclusion>],
        features: &SparseFeatures,
    ) -> Result<()> {
        let count = rows.len() * positions.len();
        if features.rows() != count || features.d_sae() != self.firings.len() {
            let expected = format!("[{count}, {}]", self.firings.len());
            return Err(Error::Shape {
                what: "the features",
                expected,
                found: vec![features.rows(), features.d_sae()],
            });
        }
        check_places(rows, positions, excluded)?;
        for (((_, row, pos), exclusion), (index, value)) in places(rows, positions).zip(excluded).zip(features.iter()) {
            if let Some(exclusion) = exclusion {
                self.counts.excluded.count(*exclusion);
                continue;
            }
            self.counts.tokens += 1;
            self.count(self.member_of.get(&row.tokens[pos]).copied(), index, value);
        }
        self.counts.rows += rows.len() as u64;
        self.counts.batches_done += 1;
        Ok(())
    }

    fn count(&mut self, member: Option<usize>, index: &[u32], value: &[f32]) {
        if let Some(member) = member {
            self.occurrences[member] += 1;
        }
        for (&feature, &value) in index.iter().zip(value) {
            let feature = feature as usize;
            self.firings[feature] += 1;
            self.mass[feature] += f64::from(value);
            if let Some(member) = member {
                self.on_member[member][feature] += 1;
                self.mass_on[feature] += f64::from(value);
            }
        }
    }

    /// Tokens of the family seen so far.
    fn found(&self) -> usize {
        self.occurrences.iter().sum::<u64>() as usize
    }

    /// The `top` best features of what was counted.
    #[must_use]
    pub fn report(&self, top: usize) -> WordReport {
        let mut features: Vec<_> = (0..self.firings.len()).filter_map(|feature| self.feature(feature)).collect();
        features.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.feature.cmp(&b.feature)));
        features.truncate(top);
        let words = self.family.members.iter().map(|(word, _)| word.clone());
        WordReport {
            occurrences: words.zip(self.occurrences.iter().copied()).collect(),
            not_tokens: self.family.not_tokens.clone(),
            features,
            counts: self.counts,
        }
    }

    fn feature(&self, feature: usize) -> Option<WordFeature> {
        let on_family: u64 = self.on_member.iter().map(|hits| hits[feature]).sum();
        if on_family == 0 {
            return None;
        }
        let ratio = |part: u64, whole: u64| part as f64 / whole as f64;
        let (firings, seen) = (self.firings[feature], self.occurrences.iter().sum());
        let (recall, precision) = (ratio(on_family, seen), ratio(on_family, firings));
        let members = self.on_member.iter().zip(&self.occurrences);
        Some(WordFeature {
            feature: feature as u32,
            firings,
            precision,
            activation_mass: self.mass_on[feature] / self.mass[feature],
            recall,
            recall_per_member: members.map(|(hits, &seen)| ratio(hits[feature], seen)).collect(),
            score: recall * precision,
        })
    }
}
