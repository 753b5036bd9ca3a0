//! Results of a census: [`FeatureStats`], examples, samples, co-firing.

use crate::census::FeatureCensus;
use crate::coverage::Coverage;
use crate::error::{Error, Result};
use crate::fixed_point::{SQUARE_UNIT, SUM_UNIT};
use crate::histogram::{BINS, Histogram, bin_end, bin_of, bin_start};
use crate::shard::Shard;
use crate::tally::{Kept, Tally};
use activation_store::TokenPos;
use rayon::prelude::*;
use std::collections::HashMap;
use tensor_kernels::TopEntry;

/// The numbers of one feature. Where it never fired, everything is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FeatureStats {
    /// The feature.
    pub feature: u32,
    /// Tokens on which it fires.
    pub count: u64,
    /// Their share of all tokens.
    pub density: f64,
    /// Sum of its activations.
    pub sum: f64,
    /// Sum of their squares.
    pub sum_squares: f64,
    /// Mean activation over the tokens on which it fires.
    pub mean: f64,
    /// Standard deviation over the tokens on which it fires.
    pub std: f64,
    /// Its smallest activation (the most negative one, where activations are signed).
    pub min: f32,
    /// Its largest activation.
    pub max: f32,
    /// Documents in which it fires; `None` where they were not counted.
    pub documents: Option<u64>,
}

/// An activation with its address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CensusExample {
    /// Where.
    pub at: TokenPos,
    /// The token there.
    pub token: u32,
    /// The activation.
    pub activation: f32,
}

impl FeatureStats {
    /// Its strongest activation: the one of the largest magnitude, with its sign. For activations that are not negative it is `max`.
    #[must_use]
    pub fn strongest(&self) -> f32 {
        if self.min.abs() > self.max.abs() { self.min } else { self.max }
    }
}

impl From<TopEntry> for CensusExample {
    fn from(TopEntry { value, note, address }: TopEntry) -> Self {
        Self { at: TokenPos::from_u64(address), token: note, activation: value }
    }
}

impl From<Kept> for CensusExample {
    fn from(Kept { address, value, token }: Kept) -> Self {
        Self { at: TokenPos::from_u64(address), token, activation: value }
    }
}

/// A uniform sample of the activations in one or more neighboring histogram bins.
#[derive(Clone, Debug, PartialEq)]
pub struct BinSamples {
    /// The bins.
    pub bins: std::ops::Range<usize>,
    /// The least magnitude in them.
    pub start: f32,
    /// The end of the last one.
    pub end: f32,
    /// How many activations there are in all.
    pub total: u64,
    /// The sample, in the order of its hash: any first part of a bin's sample is a uniform sample too.
    pub examples: Vec<CensusExample>,
}

/// A feature that has a token among its examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureAt {
    /// The feature.
    pub feature: u32,
    /// Its activation there.
    pub activation: f32,
    /// Its place among the feature's strongest, from 0; `None` if it is only among the samples.
    pub rank: Option<usize>,
}

/// Co-firing of two features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cofiring {
    /// The other feature.
    pub feature: u32,
    /// Tokens on which both fire.
    pub both: u64,
    /// `tokens * both / (count * count of the other)`: 1 if they fire independently.
    pub lift: f64,
    /// `both / either`.
    pub jaccard: f64,
}

impl FeatureCensus {
    /// The numbers of a feature.
    ///
    /// # Errors
    /// A feature that the SAE does not have.
    pub fn stats(&self, feature: u32) -> Result<FeatureStats> {
        let twice = self.documents_counted_twice();
        self.stats_with(feature, twice.get(&feature).copied().unwrap_or(0))
    }

    /// The numbers of all features, in order.
    ///
    /// # Errors
    /// None that is expected.
    pub fn all_stats(&self) -> Result<Vec<FeatureStats>> {
        let twice = self.documents_counted_twice();
        let stats = |feature: u32| self.stats_with(feature, twice.get(&feature).copied().unwrap_or(0));
        (0..self.d_sae as u32).map(stats).collect()
    }

    pub(crate) fn stats_with(&self, feature: u32, twice: u64) -> Result<FeatureStats> {
        let (shard, place) = self.place(feature)?;
        let tally = &shard.tallies[place];
        let count = tally.count as f64;
        let (sum, sum_squares) = (tally.sum as f64 * SUM_UNIT, tally.squares as f64 * SQUARE_UNIT);
        let per = |x: f64, n: f64| if n > 0.0 { x / n } else { 0.0 };
        let mean = per(sum, count);
        Ok(FeatureStats {
            feature,
            count: tally.count,
            density: per(count, self.tokens as f64),
            sum,
            sum_squares,
            mean,
            std: (per(sum_squares, count) - mean * mean).max(0.0).sqrt(),
            min: tally.min(),
            max: tally.max(),
            documents: self.options.documents.then_some(tally.documents - twice),
        })
    }

    /// Where rows are missing between two runs, a document that both have is counted in both.
    fn documents_counted_twice(&self) -> HashMap<u32, u64> {
        let mut counts = HashMap::new();
        if !self.coverage.is_one_run() {
            let (runs, settled) = self.coverage.runs(self.in_latest_document());
            let across = Coverage::twice_across_gaps(&runs);
            settled.into_iter().chain(across).for_each(|feature| *counts.entry(feature).or_insert(0) += 1);
        }
        counts
    }

    /// Mean number of features that fire on a token.
    #[must_use]
    pub fn l0(&self) -> f64 {
        let fires: u64 = self.tallies().map(|tally| tally.count).sum();
        if self.tokens == 0 { 0.0 } else { fires as f64 / self.tokens as f64 }
    }

    fn tallies(&self) -> impl Iterator<Item = &Tally> {
        self.shards.iter().flat_map(|shard| &shard.tallies)
    }

    /// The share of tokens on which each feature fires, `[d_sae]`.
    #[must_use]
    pub fn densities(&self) -> Vec<f64> {
        let tokens = self.tokens.max(1) as f64;
        self.tallies().map(|tally| tally.count as f64 / tokens).collect()
    }

    /// The features that never fired.
    #[must_use]
    pub fn dead(&self) -> Vec<u32> {
        (0..).zip(self.tallies()).filter(|(_, tally)| tally.count == 0).map(|(feature, _)| feature).collect()
    }

    /// The features that fire on more than this share of the tokens.
    #[must_use]
    pub fn dense(&self, share: f64) -> Vec<u32> {
        (0..).zip(self.densities()).filter(|(_, density)| *density > share).map(|(feature, _)| feature).collect()
    }

    /// A feature's histogram.
    ///
    /// # Errors
    /// A feature that the SAE does not have.
    pub fn histogram(&self, feature: u32) -> Result<Histogram> {
        let (shard, place) = self.place(feature)?;
        Ok(Histogram::new(shard.counts(place).collect()))
    }

    /// A feature's strongest activations: the largest magnitude first, equal magnitudes by the lower address (as
    /// `feature_analysis::top_activations` ranks them).
    ///
    /// # Errors
    /// A feature that the SAE does not have.
    pub fn top(&self, feature: u32) -> Result<Vec<CensusExample>> {
        let (shard, place) = self.place(feature)?;
        Ok(shard.top.ranked(place).into_iter().map(CensusExample::from).collect())
    }

    /// A feature's samples, one entry for each bin that is not empty, from the largest magnitudes down. Bins farther than
    /// [`sample_bins`](crate::CensusOptions::sample_bins) below the largest have a count and no examples.
    ///
    /// # Errors
    /// A feature that the SAE does not have.
    pub fn samples(&self, feature: u32) -> Result<Vec<BinSamples>> {
        self.samples_of(feature, (0..BINS).map(|bin| bin..bin + 1))
    }

    /// A feature's activations in about `parts` equally wide intervals from 0 to its largest magnitude, the strongest first, as dashboards show them: how many
    /// there are in each, and up to `n` of them. The borders are moved to the nearest edges of bins, so that the counts are exact; intervals that
    /// vanish thereby, and empty ones, are left out.
    ///
    /// The examples are the `n` with the lowest hashes among the samples of the interval's bins: a uniform sample of the interval for `n` up to
    /// [`samples_per_bin`](crate::CensusOptions::samples_per_bin), beyond that one in which a bin has at most that many.
    ///
    /// # Errors
    /// A feature that the SAE does not have.
    pub fn intervals(&self, feature: u32, parts: usize, n: usize) -> Result<Vec<BinSamples>> {
        let stats = self.stats(feature)?;
        let max = stats.max.abs().max(stats.min.abs());
        let nearest = |edge: f32| {
            let bin = bin_of(edge);
            // In a bin's upper half the next edge is nearer. The last edge is the end of the largest magnitude's bin.
            bin + usize::from(bin_end(bin) - edge < edge - bin_start(bin))
        };
        let mut edges: Vec<usize> = (1..parts).map(|i| nearest(max * i as f32 / parts as f32)).collect();
        edges.insert(0, 0);
        edges.push(bin_of(max) + 1);
        edges.dedup();
        let mut intervals = self.samples_of(feature, edges.windows(2).map(|pair| pair[0]..pair[1].max(pair[0])))?;
        intervals.iter_mut().for_each(|interval| interval.examples.truncate(n));
        Ok(intervals)
    }

    /// Samples of ranges of bins, given from below; those with any activation, from above.
    fn samples_of(
        &self,
        feature: u32,
        ranges: impl Iterator<Item = std::ops::Range<usize>>,
    ) -> Result<Vec<BinSamples>> {
        let (shard, place) = self.place(feature)?;
        let counts: Vec<u64> = shard.counts(place).collect();
        let mut samples: Vec<_> = ranges
            .map(|bins| BinSamples {
                start: bin_start(bins.start),
                end: bin_end(bins.end - 1),
                total: counts[bins.clone()].iter().sum(),
                examples: shard.samples(place, bins.clone()).into_iter().map(CensusExample::from).collect(),
                bins,
            })
            .filter(|bin| bin.total > 0)
            .collect();
        samples.reverse();
        Ok(samples)
    }

    /// The features that have this token among their strongest activations or their samples, by number. Looks through all examples of all features.
    #[must_use]
    pub fn features_at(&self, at: TokenPos) -> Vec<FeatureAt> {
        let Some(address) = at.to_u64() else { return Vec::new() };
        let found = |shard: &Shard| -> Vec<FeatureAt> {
            (0..shard.tallies.len()).filter_map(|place| feature_at(shard, place, address)).collect()
        };
        self.shards.par_iter().map(found).collect::<Vec<_>>().concat()
    }

    /// The features that fire together with a chosen one, the most alike (by Jaccard) first, equal ones by number; itself left out.
    ///
    /// # Errors
    /// A feature that is not among [`CensusOptions::together`](crate::CensusOptions::together).
    pub fn together(&self, chosen: u32) -> Result<Vec<Cofiring>> {
        let place = self.options.together.iter().position(|&feature| feature == chosen);
        let place =
            place.ok_or_else(|| Error::NotTogether { feature: chosen, together: self.options.together.clone() })?;
        let ours = self.stats(chosen)?.count;
        let counts = self.shards.iter().flat_map(|shard| {
            let n = shard.tallies.len();
            shard.together[place * n..(place + 1) * n].iter().zip(&shard.tallies)
        });
        let of = |(feature, (&both, theirs)): (u32, (&u64, &Tally))| Cofiring {
            feature,
            both,
            lift: self.tokens as f64 * both as f64 / (ours as f64 * theirs.count as f64),
            jaccard: both as f64 / (ours + theirs.count - both) as f64,
        };
        let mut together: Vec<Cofiring> =
            (0..).zip(counts).filter(|(feature, (both, _))| **both > 0 && *feature != chosen).map(of).collect();
        together.sort_by(|a, b| b.jaccard.total_cmp(&a.jaccard).then(a.feature.cmp(&b.feature)));
        Ok(together)
    }
}

/// The activation that a feature of a shard has kept of an address.
fn feature_at(shard: &Shard, place: usize, address: u64) -> Option<FeatureAt> {
    let feature = shard.start + place as u32;
    let held = shard.top.held(place).iter().any(|entry| entry.address == address);
    let ranked = if held { shard.top.ranked(place) } else { Vec::new() };
    if let Some(rank) = ranked.iter().position(|entry| entry.address == address) {
        return Some(FeatureAt { feature, activation: ranked[rank].value, rank: Some(rank) });
    }
    let kept = shard.window(place).flat_map(|bin| shard.kept(place, bin)).find(|kept| kept.address == address)?;
    Some(FeatureAt { feature, activation: kept.value, rank: None })
}
