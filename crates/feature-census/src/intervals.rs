//! Uniform samples of `n` activations of each interval of a few features, from a second pass: [`IntervalPass`].

use crate::batch::{CensusBatch, address};
use crate::census::FeatureCensus;
use crate::error::{Error, Result};
use crate::fixed_point::MOST_TOKENS;
use crate::merge::same;
use crate::options::CensusOptions;
use crate::stats::CensusExample;
use activation_store::sample_hash;
use sae_core::check_feature_list;

/// A uniform sample of one interval of a feature's activations.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationInterval {
    /// Magnitudes from here
    pub start: f32,
    /// to here; the last interval of a feature holds its end too.
    pub end: f32,
    /// How many activations there are in all.
    pub total: u64,
    /// Those with the lowest hashes, by rising hash: `n`, or all where there are fewer.
    pub examples: Vec<CensusExample>,
}

/// One interval while it fills.
#[derive(Clone, Debug)]
struct Filling {
    total: u64,
    /// By rising hash, at most `n`.
    lowest: Vec<(u64, CensusExample)>,
}

/// The intervals of a few features, `parts` equally wide ones from 0 to the largest magnitude that a census found, and from each a uniform sample of `n`
/// activations: those with the lowest `hash(seed, feature, address)`. What [`FeatureCensus::intervals`] approximates from its bins, this pass over the same
/// text makes exact. Like a census it does not depend on order, batches and partitions.
///
/// Memory: `48 n` bytes for each interval.
#[derive(Clone, Debug)]
pub struct IntervalPass {
    options: CensusOptions,
    d_sae: usize,
    n: usize,
    parts: usize,
    /// The chosen features, rising, each with its largest magnitude and its key of the hash.
    features: Vec<(u32, f32, u64)>,
    /// `[features, parts]`.
    intervals: Vec<Filling>,
    tokens: u64,
}

impl IntervalPass {
    /// Intervals of these features of a census, with its seed, and the same tokens left out.
    ///
    /// # Errors
    /// A bad list of features; no parts.
    pub fn new(census: &FeatureCensus, features: &[u32], parts: usize, n: usize) -> Result<Self> {
        check_feature_list(features, census.d_sae())?;
        if parts == 0 {
            return Err(Error::Option { option: "parts", expected: "at least 1", found: "0".into() });
        }
        let seed = census.options().seed;
        let with_max = |&feature: &u32| {
            let stats = census.stats(feature)?;
            Ok((feature, stats.max.abs().max(stats.min.abs()), sample_hash::feature_key(seed, feature)))
        };
        let mut features = features.iter().map(with_max).collect::<Result<Vec<_>>>()?;
        features.sort_by_key(|feature| feature.0);
        let empty = Filling { total: 0, lowest: Vec::with_capacity(n + 1) };
        let intervals = vec![empty; parts * features.len()];
        let options = census.options().clone();
        Ok(Self { options, d_sae: census.d_sae(), n, parts, features, intervals, tokens: 0 })
    }

    /// The options of the census that it goes on from.
    #[must_use]
    pub fn options(&self) -> &CensusOptions {
        &self.options
    }

    /// Number of features of the SAE.
    #[must_use]
    pub fn d_sae(&self) -> usize {
        self.d_sae
    }

    /// Counts the sparse codes of some tokens; on an error none of them. Documents are ignored.
    ///
    /// # Errors
    /// As [`FeatureCensus::push`], but rows may come twice.
    pub fn push(&mut self, batch: &CensusBatch) -> Result<()> {
        batch.check(self.d_sae)?;
        let tokens = self.tokens + batch.at.len() as u64;
        if tokens > MOST_TOKENS {
            return Err(Error::TooManyTokens { tokens });
        }
        self.tokens = tokens;
        for (row, (index, value)) in batch.features.iter().enumerate() {
            if batch.excluded_at(row).is_some() {
                continue;
            }
            let (at, token) = (batch.at[row], batch.tokens[row]);
            for place in 0..self.features.len() {
                let found = index.binary_search(&self.features[place].0).map(|i| value[i]);
                if let Some(activation) = found.ok().filter(|value| *value != 0.0) {
                    self.take(place, CensusExample { at, token, activation })?;
                }
            }
        }
        Ok(())
    }

    /// The magnitude at which a part starts.
    fn edge(&self, max: f32, part: usize) -> f32 {
        (f64::from(max) * part as f64 / self.parts as f64) as f32
    }

    fn take(&mut self, place: usize, example: CensusExample) -> Result<()> {
        let (_, max, key) = self.features[place];
        // Above the largest magnitude, in another text than the census's, all is of the last part.
        let part = (1..self.parts).filter(|&part| self.edge(max, part) <= example.activation.abs()).count();
        let hash = sample_hash::hash(key, sample_hash::address_key(address(example.at)?));
        let interval = &mut self.intervals[place * self.parts + part];
        interval.total += 1;
        interval.offer(self.n, hash, example);
        Ok(())
    }

    /// Adds the result of another pass over another part of the text.
    ///
    /// # Errors
    /// A pass for other features, intervals or options.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let of = |pass: &Self| (pass.d_sae, pass.n, pass.parts);
        same("options", &self.options, &other.options)?;
        same("intervals", &of(self), &of(other))?;
        same("features", &self.features, &other.features)?;
        for (ours, theirs) in self.intervals.iter_mut().zip(&other.intervals) {
            ours.total += theirs.total;
            theirs.lowest.iter().for_each(|&(hash, example)| ours.offer(self.n, hash, example));
        }
        self.tokens += other.tokens;
        Ok(())
    }

    /// The intervals of a feature, the strongest first.
    ///
    /// # Errors
    /// A feature that was not chosen.
    pub fn intervals(&self, feature: u32) -> Result<Vec<ActivationInterval>> {
        let chosen = || self.features.iter().map(|feature| feature.0).collect();
        let place = self.features.binary_search_by_key(&feature, |chosen| chosen.0);
        let place = place.map_err(|_| Error::NotCollected { feature, collected: chosen() })?;
        let edge = |part: usize| self.edge(self.features[place].1, part);
        let interval = |part: usize| {
            let Filling { total, lowest } = &self.intervals[place * self.parts + part];
            let examples = lowest.iter().map(|(_, example)| *example).collect();
            ActivationInterval { start: edge(part), end: edge(part + 1), total: *total, examples }
        };
        Ok((0..self.parts).rev().map(interval).collect())
    }
}

impl Filling {
    fn offer(&mut self, n: usize, hash: u64, example: CensusExample) {
        let place = self.lowest.partition_point(|(kept, _)| *kept < hash);
        if place < n {
            self.lowest.insert(place, (hash, example));
            self.lowest.truncate(n);
        }
    }
}
