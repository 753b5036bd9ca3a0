//! Counters of a block of neighboring features, in flat arrays: [`Shard`].

use crate::fixed_point::{square_units, sum_units};
use crate::histogram::{BINS, bin_of};
use crate::options::CensusOptions;
use crate::tally::{FeatureParts, Kept, Tally};
use activation_store::sample_hash;
use std::ops::Range;
use tensor_kernels::{FeatureTop, prefer_huge_pages, prefetch};

/// Features of a shard. Shards are worked on in parallel; a shard's counters fit a core's cache.
pub(crate) const SHARD: usize = 4096;

/// A bin's count is in the low 40 bits of its cell (there are fewer tokens than `2^36`); above it are the high 24 bits of the largest hash among its
/// samples, inverted: 0 as long as there is room for more.
const COUNT_BITS: u32 = 40;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const THRESHOLD: u64 = (1 << (64 - COUNT_BITS)) - 1;

/// A token that counts, ready for all shards.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) address: u64,
    pub(crate) key: u64,
    pub(crate) token: u32,
    /// Its row in the batch of sparse codes.
    pub(crate) row: u32,
    /// The number of its document; 0 for none.
    pub(crate) document: u32,
    /// Which of the chosen features fire on it: a stretch of a list beside the lines.
    pub(crate) together: Range<u32>,
}

/// Neighboring features `start .. start + tallies.len()`.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    pub(crate) start: u32,
    seed: u64,
    samples_per_bin: usize,
    sample_bins: usize,
    pub(crate) tallies: Vec<Tally>,
    /// `[features, BINS]`.
    cells: Vec<u64>,
    /// `[features, sample_bins, samples_per_bin]`: the samples of bin `b` are in slot `b % sample_bins`. Bins below the window have lost theirs, because
    /// the largest magnitude only grows; the number of samples of a bin in the window is its count or `samples_per_bin`, whichever is less.
    kept: Vec<Kept>,
    pub(crate) top: FeatureTop,
    /// `[chosen features, features]`.
    pub(crate) together: Vec<u64>,
}

impl Shard {
    pub(crate) fn new(features: Range<u32>, options: &CensusOptions) -> Self {
        let n = features.len();
        let mut cells = vec![0; n * BINS];
        let mut kept = vec![Kept::default(); n * options.samples_per_bin * options.sample_bins];
        prefer_huge_pages(&mut cells);
        prefer_huge_pages(&mut kept);
        Self {
            start: features.start,
            seed: options.seed,
            samples_per_bin: options.samples_per_bin,
            sample_bins: options.sample_bins,
            tallies: vec![Tally::EMPTY; n],
            cells,
            kept,
            top: FeatureTop::new(n, options.top),
            together: vec![0; n * options.together.len()],
        }
    }

    /// Counts one activation, which is not zero.
    #[inline]
    fn take(&mut self, feature: usize, value: f32, line: &Line) {
        let bin = bin_of(value);
        let tally = &mut self.tallies[feature];
        tally.widen(tally.count == 0, value, value);
        tally.count += 1;
        tally.sum += sum_units(value);
        tally.squares += square_units(value);
        tally.top_bin = tally.top_bin.max(bin as u8);
        // Document 0 is none.
        if tally.document != line.document && line.document != 0 {
            tally.document = line.document;
            tally.documents += 1;
        }
        if self.samples_per_bin > 0 && bin + self.sample_bins > usize::from(tally.top_bin) {
            let kept = Kept { address: line.address, value, token: line.token };
            self.sample(feature, bin, kept, line.key);
        }
        self.cells[feature * BINS + bin] += 1;
        self.top.offer(feature, value, line.address, line.token);
    }

    /// Keeps an activation of a bin in the window if its hash is among the lowest. The bin's count does not contain it yet.
    #[inline]
    fn sample(&mut self, feature: usize, bin: usize, kept: Kept, address_key: u64) {
        let hash = sample_hash::hash(self.key(feature), address_key);
        let cell = self.cells[feature * BINS + bin];
        if (hash >> COUNT_BITS) + (cell >> COUNT_BITS) <= THRESHOLD {
            self.keep(feature, bin, kept, hash);
        }
    }

    fn key(&self, feature: usize) -> u64 {
        sample_hash::feature_key(self.seed, self.start + feature as u32)
    }

    fn keep(&mut self, feature: usize, bin: usize, kept: Kept, hash: u64) {
        let key = self.key(feature);
        let slot = self.slot(feature, bin);
        let cell = &mut self.cells[feature * BINS + bin];
        let count = (*cell & COUNT) as usize;
        let slot = &mut self.kept[slot];
        let hash_of = |kept: &Kept| sample_hash::hash(key, sample_hash::address_key(kept.address));
        if count < slot.len() {
            slot[count] = kept;
            if count + 1 < slot.len() {
                return;
            }
        } else {
            let Some((worst, at)) = slot.iter().zip(0..).map(|(kept, i)| (hash_of(kept), i)).max() else { return };
            if hash > worst {
                return;
            }
            slot[at as usize] = kept;
        }
        let worst = slot.iter().map(hash_of).max().unwrap_or(0);
        *cell = *cell & COUNT | (THRESHOLD - (worst >> COUNT_BITS)) << COUNT_BITS;
    }

    fn slot(&self, feature: usize, bin: usize) -> Range<usize> {
        let start = (feature * self.sample_bins + bin % self.sample_bins) * self.samples_per_bin;
        start..start + self.samples_per_bin
    }

    /// The count of each bin of a feature.
    pub(crate) fn counts(&self, feature: usize) -> impl ExactSizeIterator<Item = u64> {
        self.cells[feature * BINS..(feature + 1) * BINS].iter().map(|cell| cell & COUNT)
    }

    /// The bins for which a feature has samples, if they are not empty.
    pub(crate) fn window(&self, feature: usize) -> Range<usize> {
        let top = usize::from(self.tallies[feature].top_bin);
        (top + 1).saturating_sub(self.sample_bins)..top + 1
    }

    /// The samples of a bin in the window, in no order.
    pub(crate) fn kept(&self, feature: usize, bin: usize) -> &[Kept] {
        let count = (self.cells[feature * BINS + bin] & COUNT) as usize;
        let slot = &self.kept[self.slot(feature, bin)];
        &slot[..count.min(slot.len())]
    }

    /// The samples of those of the bins that are in the window, by rising hash.
    pub(crate) fn samples(&self, feature: usize, bins: Range<usize>) -> Vec<Kept> {
        let (key, window) = (self.key(feature), self.window(feature));
        let bins = bins.start.max(window.start)..bins.end.min(window.end);
        let mut samples: Vec<Kept> = bins.flat_map(|bin| self.kept(feature, bin)).copied().collect();
        samples.sort_unstable_by_key(|kept| sample_hash::hash(key, sample_hash::address_key(kept.address)));
        samples
    }

    /// The part of a token's codes that is of features of this shard.
    fn own<'a>(&self, (index, value): (&'a [u32], &'a [f32])) -> (&'a [u32], &'a [f32]) {
        let (start, n) = (self.start, self.tallies.len());
        let from = index.partition_point(|&feature| feature < start);
        let to = from + index[from..].partition_point(|&feature| ((feature - start) as usize) < n);
        (&index[from..to], &value[from..to])
    }

    /// Starts to bring what the next token's features need into the cache. Counters are scattered over tens of megabytes: without this a census waits
    /// for memory most of the time.
    fn fetch(&self, (index, value): (&[u32], &[f32])) {
        for (&feature, &value) in index.iter().zip(value) {
            let feature = (feature - self.start) as usize;
            prefetch(&self.tallies, feature);
            prefetch(&self.cells, feature * BINS + bin_of(value));
        }
    }

    /// Counts the activations of these lines that are of features of this shard.
    pub(crate) fn take_lines(&mut self, lines: &[Line], present: &[u32], features: &sae_core::SparseFeatures) {
        let n = self.tallies.len();
        let mut ahead = lines.first().map_or((&[][..], &[][..]), |line| self.own(features.row(line.row as usize)));
        for (i, line) in lines.iter().enumerate() {
            let (index, value) = ahead;
            if let Some(next) = lines.get(i + 1) {
                ahead = self.own(features.row(next.row as usize));
                self.fetch(ahead);
            }
            for (&feature, &value) in index.iter().zip(value) {
                if value != 0.0 {
                    self.take((feature - self.start) as usize, value, line);
                }
            }
            for &chosen in &present[line.together.start as usize..line.together.end as usize] {
                let counts = &mut self.together[chosen as usize * n..(chosen as usize + 1) * n];
                for (&feature, &value) in index.iter().zip(value) {
                    counts[(feature - self.start) as usize] += u64::from(value != 0.0);
                }
            }
        }
    }

    /// Adds what another census kept of the same features.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.together.iter_mut().zip(&other.together) {
            *count += more;
        }
        self.top.merge(&other.top);
        let mut both = Vec::with_capacity(2 * self.samples_per_bin);
        for feature in 0..self.tallies.len() {
            self.merge_feature(feature, other, &mut both);
        }
    }

    fn merge_feature(&mut self, feature: usize, other: &Self, both: &mut Vec<Kept>) {
        let theirs = &other.tallies[feature];
        if theirs.count == 0 {
            return;
        }
        let ours = &mut self.tallies[feature];
        ours.widen(ours.count == 0, theirs.min(), theirs.max());
        ours.sum += theirs.sum;
        ours.squares += theirs.squares;
        ours.count += theirs.count;
        ours.documents += theirs.documents;
        ours.top_bin = ours.top_bin.max(theirs.top_bin);
        let window = self.window(feature);
        for bin in 0..BINS {
            let more = other.cells[feature * BINS + bin] & COUNT;
            if more == 0 {
                continue;
            }
            if window.contains(&bin) {
                both.clear();
                both.extend_from_slice(self.kept(feature, bin));
                both.extend_from_slice(other.kept(feature, bin));
                self.set_samples(feature, bin, both, more);
            }
            self.cells[feature * BINS + bin] += more;
        }
    }

    /// All data of a feature, given how many of its documents were counted twice.
    pub(crate) fn parts(&self, feature: usize, twice: u64) -> FeatureParts {
        let tally = &self.tallies[feature];
        let kept = |e: tensor_kernels::TopEntry| Kept { address: e.address, value: e.value, token: e.note };
        let of_bin = |bin: usize| self.samples(feature, bin..bin + 1).into_iter().map(move |kept| (bin as u8, kept));
        FeatureParts {
            count: tally.count,
            sum: tally.sum,
            squares: tally.squares,
            min: tally.min(),
            max: tally.max(),
            documents: tally.documents - twice,
            histogram: (0..).zip(self.counts(feature)).filter(|(_, count)| *count > 0).collect(),
            top: self.top.ranked(feature).into_iter().map(kept).collect(),
            samples: self.window(feature).flat_map(of_bin).collect(),
            together: self.together.iter().skip(feature).step_by(self.tallies.len()).copied().collect(),
        }
    }

    /// Largest number of samples of a bin.
    pub(crate) fn room(&self) -> usize {
        self.samples_per_bin
    }

    /// Sets the count and the samples of a bin that is empty so far; the samples by rising hash, and as many as there should be.
    pub(crate) fn set_bin(
        &mut self,
        feature: usize,
        bin: usize,
        count: u64,
        samples: impl Iterator<Item = Kept>,
    ) -> Result<(), String> {
        let mut samples: Vec<Kept> = samples.collect();
        let key = self.key(feature);
        let hash = |kept: &Kept| sample_hash::hash(key, sample_hash::address_key(kept.address));
        if !samples.is_sorted_by(|a, b| hash(a) < hash(b)) {
            return Err(format!("its samples of bin {bin} are out of order"));
        }
        if !samples.is_empty() {
            self.set_samples(feature, bin, &mut samples, count);
        }
        self.cells[feature * BINS + bin] += count;
        Ok(())
    }

    /// Sets the samples of a bin to the lowest of these, before `more` is added to its count.
    fn set_samples(&mut self, feature: usize, bin: usize, candidates: &mut [Kept], more: u64) {
        let key = self.key(feature);
        candidates.sort_unstable_by_key(|kept| sample_hash::hash(key, sample_hash::address_key(kept.address)));
        let slot = self.slot(feature, bin);
        let room = slot.len();
        let lowest = &candidates[..candidates.len().min(room)];
        self.kept[slot][..lowest.len()].copy_from_slice(lowest);
        let cell = &mut self.cells[feature * BINS + bin];
        if (*cell & COUNT) + more >= room as u64
            && let Some(worst) = lowest.last()
        {
            let worst = sample_hash::hash(key, sample_hash::address_key(worst.address));
            *cell = *cell & COUNT | (THRESHOLD - (worst >> COUNT_BITS)) << COUNT_BITS;
        }
    }
}
