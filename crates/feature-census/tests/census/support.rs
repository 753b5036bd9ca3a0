//! A synthetic text with documents and sparse codes, and a census of it by brute force.
#![allow(dead_code, reason = "each test file uses its own part")]

use activation_store::{DocId, ResolvedFilter, TokenFilter, TokenPos};
use feature_census::*;
use sae_core::SparseFeatures;
use std::collections::{BTreeMap, BTreeSet};

pub const D_SAE: usize = 300;
pub const CONTEXT: usize = 16;

/// Splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Clone)]
pub struct Text {
    pub at: Vec<TokenPos>,
    pub tokens: Vec<u32>,
    pub documents: Vec<Option<DocId>>,
    pub codes: Vec<Vec<(u32, f32)>>,
}

impl Text {
    pub fn synthetic(n: usize, seed: u64) -> Self {
        Self::make(n, seed, false)
    }

    pub fn signed(n: usize, seed: u64) -> Self {
        Self::make(n, seed, true)
    }

    /// Rows of [`CONTEXT`] tokens that open with an inserted one; documents of 1 to 60 tokens. Some features are dead, some fire on half of all tokens, one always with
    /// the same activation.
    fn make(n: usize, seed: u64, signed: bool) -> Self {
        let mut random = Random(seed);
        let mut text = Self { at: vec![], tokens: vec![], documents: vec![], codes: vec![] };
        let (mut doc, mut left) = (0, 5);
        for i in 0..n {
            let at = TokenPos { row: (i / CONTEXT) as u64, pos: (i % CONTEXT) as u32 };
            let inserted = at.pos == 0;
            if !inserted && left == 0 {
                (doc, left) = (doc + 1, 1 + random.below(60));
            }
            left -= u64::from(!inserted);
            text.at.push(at);
            text.tokens.push(if inserted { 0 } else { 1 + random.below(50) as u32 });
            text.documents.push((!inserted).then_some(DocId { file: doc as u32 / 100, ordinal: doc }));
            text.codes.push(codes(&mut random, signed));
        }
        text
    }

    pub fn batch(&self, range: std::ops::Range<usize>) -> SparseFeatures {
        let mut parts = (vec![0u64], vec![], vec![]);
        for line in &self.codes[range] {
            line.iter().for_each(|&(f, v)| (parts.1.push(f), parts.2.push(v)).0);
            parts.0.push(parts.1.len() as u64);
        }
        SparseFeatures::new(parts.0, parts.1, parts.2, D_SAE as u32).unwrap()
    }

    /// Pushes part of the text.
    pub fn push(&self, census: &mut FeatureCensus, range: std::ops::Range<usize>) {
        let filter = census.options().filter.resolve(None).unwrap();
        let codes = self.batch(range.clone());
        let reason = |i: usize| {
            let inserted = self.documents[i].is_none();
            filter.exclusion(self.at[i], self.tokens[i], inserted, || 0.0)
        };
        let excluded: Vec<_> = range.clone().map(reason).collect();
        let batch = CensusBatch::new(&self.at[range.clone()], &self.tokens[range.clone()], &codes);
        census.push(&batch.documents(&self.documents[range]).excluded(&excluded)).unwrap();
    }

    pub fn census(&self, options: &CensusOptions, batch: usize) -> FeatureCensus {
        let mut census = FeatureCensus::new(D_SAE, options.clone()).unwrap();
        for start in (0..self.at.len()).step_by(batch.min(self.at.len())) {
            self.push(&mut census, start..self.at.len().min(start.saturating_add(batch)));
        }
        census
    }

    /// The rows of tokens.
    pub fn rows(&self) -> Vec<std::ops::Range<usize>> {
        (0..self.at.len()).step_by(CONTEXT).map(|start| start..self.at.len().min(start + CONTEXT)).collect()
    }
}

fn codes(random: &mut Random, signed: bool) -> Vec<(u32, f32)> {
    let mut line = BTreeMap::new();
    for _ in 0..random.below(12) {
        // Low numbers fire more often; the last tenth is dead.
        let feature = ((random.uniform() * random.uniform()) * D_SAE as f64 * 0.9) as u32;
        let magnitude = (12.0 * random.uniform() - 9.0 + 6.0 * f64::from(feature % 3)).exp2() as f32;
        // A coarse grid makes ties.
        let magnitude = if feature.is_multiple_of(2) { (magnitude * 4.0).ceil() / 4.0 } else { magnitude };
        let magnitude = if feature == 5 { 2.5 } else { magnitude };
        line.insert(feature, if signed && random.below(3) == 0 { -magnitude } else { magnitude });
    }
    // A stored zero is no activation.
    line.entry(D_SAE as u32 - 1).or_insert(0.0);
    line.into_iter().collect()
}

pub fn options() -> CensusOptions {
    let filter = TokenFilter::everything().with_ids([7]).with_exclude_inserted(true);
    CensusOptions { filter, seed: 11, sample_bins: 20, ..CensusOptions::default() }
}

/// An activation, where it is, the token there and its document.
type Fire = (f32, TokenPos, u32, Option<DocId>);

/// All activations of each feature, kept whole.
pub struct Brute {
    options: CensusOptions,
    filter: ResolvedFilter,
    tokens: u64,
    dense: Vec<Vec<Fire>>,
    rows: Vec<BTreeMap<u32, f32>>,
}

impl Brute {
    pub fn new(options: &CensusOptions, d_sae: usize, tokenizer: Option<&model_hooks::Tokenizer>) -> Self {
        let filter = options.filter.resolve(tokenizer).unwrap();
        Self { options: options.clone(), filter, tokens: 0, dense: vec![vec![]; d_sae], rows: vec![] }
    }

    /// Looks at one token.
    pub fn look(&mut self, at: TokenPos, token: u32, doc: Option<DocId>, codes: impl Iterator<Item = (u32, f32)>) {
        if self.filter.exclusion(at, token, doc.is_none(), || 0.0).is_some() {
            return;
        }
        self.tokens += 1;
        let fires: BTreeMap<u32, f32> = codes.filter(|(_, v)| *v != 0.0).collect();
        fires.iter().for_each(|(&f, &v)| self.dense[f as usize].push((v, at, token, doc)));
        self.rows.push(fires);
    }

    pub fn of(text: &Text, options: &CensusOptions) -> Self {
        let mut brute = Self::new(options, D_SAE, None);
        for i in 0..text.at.len() {
            brute.look(text.at[i], text.tokens[i], text.documents[i], text.codes[i].iter().copied());
        }
        brute
    }

    pub fn check(&self, census: &FeatureCensus) {
        assert_eq!(census.tokens(), self.tokens);
        for feature in 0..self.dense.len() as u32 {
            self.check_stats(census, feature);
            self.check_examples(census, feature);
        }
        let fires: usize = self.dense.iter().map(Vec::len).sum();
        assert_eq!(census.l0(), self.per_token(fires));
        let dead: Vec<u32> = (0..self.dense.len() as u32).filter(|&f| self.dense[f as usize].is_empty()).collect();
        assert_eq!(census.dead(), dead);
        self.options.together.iter().for_each(|&chosen| self.check_together(census, chosen));
        assert_eq!(census.stats_frame().unwrap().num_rows(), self.dense.len());
    }

    /// A rate; of no tokens at all it is 0, as documented.
    fn per_token(&self, count: usize) -> f64 {
        if self.tokens == 0 { 0.0 } else { count as f64 / self.tokens as f64 }
    }

    fn check_stats(&self, census: &FeatureCensus, feature: u32) {
        let (stats, all) = (census.stats(feature).unwrap(), &self.dense[feature as usize]);
        // The units of the documentation, by way of f64, in which an f32 and its square are exact.
        let units = |x: f64, unit: i32| (x * 2f64.powi(unit)).round();
        let sum: i128 = all.iter().map(|a| units(a.0.into(), 64) as i128).sum();
        let squares: u128 = all.iter().map(|a| units(f64::from(a.0) * f64::from(a.0), 52) as u128).sum();
        assert_eq!((stats.count, stats.density), (all.len() as u64, self.per_token(all.len())));
        assert_eq!(stats.sum, sum as f64 * 2f64.powi(-64), "feature {feature}");
        assert_eq!(stats.sum_squares, squares as f64 * 2f64.powi(-52), "feature {feature}");
        if !all.is_empty() {
            assert_eq!(stats.max, all.iter().map(|a| a.0).fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(stats.min, all.iter().map(|a| a.0).fold(f32::INFINITY, f32::min));
        }
        let documents: BTreeSet<DocId> = all.iter().filter_map(|a| a.3).collect();
        assert_eq!(stats.documents, self.options.documents.then_some(documents.len() as u64), "feature {feature}");
        let mut counts = vec![0; BINS];
        all.iter().for_each(|a| counts[(0..BINS).rfind(|&b| bin_start(b) <= a.0.abs()).unwrap()] += 1);
        assert_eq!(census.histogram(feature).unwrap().counts(), counts);
    }

    fn check_examples(&self, census: &FeatureCensus, feature: u32) {
        let all = &self.dense[feature as usize];
        let example = |a: &Fire| CensusExample { activation: a.0, at: a.1, token: a.2 };
        let mut best: Vec<CensusExample> = all.iter().map(example).collect();
        best.sort_by(|a, b| b.activation.abs().total_cmp(&a.activation.abs()).then(a.at.cmp(&b.at)));
        best.truncate(self.options.top);
        assert_eq!(census.top(feature).unwrap(), best, "feature {feature}");
        let looked_up = if feature % 16 == 1 { best.as_slice() } else { &[] };
        for (rank, e) in looked_up.iter().enumerate().step_by(7) {
            let found = census.features_at(e.at);
            assert!(found.contains(&FeatureAt { feature, activation: e.activation, rank: Some(rank) }));
        }
        let highest = all.iter().map(|a| bin_of(a.0)).max().unwrap_or(0);
        for bin in census.samples(feature).unwrap() {
            let mut of_bin: Vec<_> = all.iter().filter(|a| bin.bins.contains(&bin_of(a.0))).map(example).collect();
            assert_eq!(bin.total, of_bin.len() as u64);
            of_bin.sort_by_key(|e| sample_hash(self.options.seed, feature, e.at));
            let in_window = bin.bins.start + self.options.sample_bins > highest;
            of_bin.truncate(if in_window { self.options.samples_per_bin } else { 0 });
            assert_eq!(bin.examples, of_bin, "feature {feature}, bin {}", bin.bins.start);
        }
    }

    fn check_together(&self, census: &FeatureCensus, chosen: u32) {
        let mut both = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.contains_key(&chosen)) {
            row.keys().filter(|&&f| f != chosen).for_each(|&f| *both.entry(f).or_insert(0u64) += 1);
        }
        let found = census.together(chosen).unwrap();
        assert_eq!(found.iter().map(|t| (t.feature, t.both)).collect::<BTreeMap<_, _>>(), both);
        for t in found {
            let (ours, theirs) = (self.dense[chosen as usize].len(), self.dense[t.feature as usize].len());
            let either = ours as u64 + theirs as u64 - t.both;
            assert_eq!(t.jaccard, t.both as f64 / either as f64);
            let lift = (t.both as f64 / ours as f64) / (theirs as f64 / self.tokens as f64);
            assert!((t.lift / lift - 1.0).abs() < 1e-12);
        }
    }
}

/// The hash as the documentation states it, written once more.
pub fn sample_hash(seed: u64, feature: u32, at: TokenPos) -> u64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let golden = 0x9E37_79B9_7F4A_7C15u64;
    let address = at.row << 24 | u64::from(at.pos);
    let feature = mix(mix(seed ^ 0x2545_F491_4F6C_DD1D) ^ (u64::from(feature) + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93));
    mix(feature ^ mix(address.wrapping_add(golden)))
}

/// The bytes of the file.
pub fn bytes(census: &FeatureCensus) -> Vec<u8> {
    let mut bytes = Vec::new();
    census.write(&mut bytes).unwrap();
    bytes
}

/// Everything that can be asked is equal.
pub fn assert_same(a: &FeatureCensus, b: &FeatureCensus) {
    assert_eq!((a.tokens(), a.excluded()), (b.tokens(), b.excluded()));
    for f in 0..a.d_sae() as u32 {
        assert_eq!(a.stats(f).unwrap(), b.stats(f).unwrap());
        assert_eq!(a.top(f).unwrap(), b.top(f).unwrap());
        assert_eq!(a.samples(f).unwrap(), b.samples(f).unwrap());
    }
}
