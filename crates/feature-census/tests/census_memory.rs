//! How much memory a census takes, measured, against what it says; and that a warm census takes no more.
//!
//! The allocator counts for the whole process, so there is one test.

#[path = "census/source.rs"]
mod source;
#[path = "census/support.rs"]
mod support;

use activation_store::TokenFilter;
use activation_store::{DocId, TokenPos};
use feature_census::*;
use sae_core::{SparseCoder, SparseFeatures};
use source::{BATCH, Positive, Synthetic, WIDTH};
use support::Random;
use tensor_kernels::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const TOKENS: usize = 512;
/// Scratch of 40 bytes a token, and lists that have doubled.
const SCRATCH: u64 = 2 * 64 * TOKENS as u64;

/// Batches in which every feature fires in many bins.
struct Batches {
    at: Vec<TokenPos>,
    tokens: Vec<u32>,
    documents: Vec<Option<DocId>>,
    codes: SparseFeatures,
}

impl Batches {
    fn new(d_sae: u32) -> Self {
        let mut random = Random(3);
        let (mut indptr, mut index, mut value) = (vec![0], vec![], vec![]);
        for token in 0..TOKENS as u32 {
            for feature in (token % 7..d_sae).step_by(7) {
                index.push(feature);
                value.push((30.0 * random.uniform() - 15.0).exp2() as f32);
            }
            indptr.push(index.len() as u64);
        }
        let codes = SparseFeatures::new(indptr, index, value, d_sae).unwrap();
        Self { at: vec![TokenPos::default(); TOKENS], tokens: vec![1; TOKENS], documents: vec![None; TOKENS], codes }
    }

    fn push(&mut self, number: u64, census: &mut FeatureCensus) {
        for i in 0..TOKENS as u64 {
            self.at[i as usize] = TokenPos { row: 8 * number + i / 64, pos: (i % 64) as u32 };
            self.documents[i as usize] = Some(DocId { file: 0, ordinal: (TOKENS as u64 * number + i) / 45 });
        }
        let batch = CensusBatch::new(&self.at, &self.tokens, &self.codes);
        census.push(&batch.documents(&self.documents)).unwrap();
    }
}

fn the_peak_is_what_is_said(d_sae: usize, options: CensusOptions) {
    let mut batches = Batches::new(d_sae as u32);
    let said = options.memory_bytes(d_sae);
    let before = CountingAllocator::live_bytes();
    CountingAllocator::reset_peak();
    let mut census = FeatureCensus::new(d_sae, options.clone()).unwrap();
    (0..12).for_each(|number| batches.push(number, &mut census));
    let peak = CountingAllocator::peak_bytes() - before;
    let saving = peak_of_saving(&census);
    println!("d_sae {d_sae}: said {said}, peak {peak}, saving takes {saving} more");
    assert!(saving <= 4 * said.min(options.memory_bytes(4096)) + (1 << 20));
    assert!(peak <= said + SCRATCH, "peak {peak}, said {said}");
    assert!(
        peak as f64 > 0.97 * said as f64 - 16.0 * d_sae as f64,
        "peak {peak}, said {said}: the formula is too wide"
    );
}

fn peak_of_saving(census: &FeatureCensus) -> u64 {
    let before = CountingAllocator::live_bytes();
    CountingAllocator::reset_peak();
    census.write(std::io::sink()).unwrap();
    CountingAllocator::peak_bytes() - before
}

/// Inside a pool, as rayon itself allocates now and then where work enters from outside.
fn a_warm_census_allocates_nothing(threads: usize) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let d_sae = 9_000;
        let mut batches = Batches::new(d_sae as u32);
        let options = CensusOptions { together: vec![3, 14, 15], ..CensusOptions::default() };
        let mut census = FeatureCensus::new(d_sae, options).unwrap();
        (0..4).for_each(|number| batches.push(number, &mut census));
        let before = CountingAllocator::calls();
        (4..40).for_each(|number| batches.push(number, &mut census));
        assert_eq!(CountingAllocator::calls() - before, 0, "on {threads} threads");
    });
}

/// What a run allocates beyond its source and its SAE.
fn a_warm_run_allocates_nothing() {
    let coder = Positive(WIDTH);
    let run = |batches: usize| {
        let filter = TokenFilter::everything().from_position(1);
        let options = CensusOptions { filter, ..CensusOptions::default() };
        let census = FeatureCensus::new(WIDTH, options).unwrap();
        let mut run = CensusRun::new().add(0, &coder, census).unwrap();
        let before = CountingAllocator::calls();
        run.run(&mut Synthetic::new(batches), &mut |_| {}).unwrap();
        CountingAllocator::calls() - before
    };
    let parts_alone = |batches: usize| {
        let before = CountingAllocator::calls();
        for batch in Synthetic::new(batches) {
            drop(coder.encode(&batch.unwrap().rows[0]).unwrap());
        }
        CountingAllocator::calls() - before
    };
    // One thread, so that rayon's own queues do not count; the first batches warm up.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        let (whole, parts) = (run(40) - run(10), parts_alone(40) - parts_alone(10));
        // One allocation a batch would be 30; candle's own differ by one or two between the two loops.
        assert!(whole <= parts + 5, "30 batches of {BATCH} tokens: {whole} in a run, {parts} in its parts");
    });
}

#[test]
fn memory_is_as_said_and_does_not_grow() {
    the_peak_is_what_is_said(6_000, CensusOptions::default());
    the_peak_is_what_is_said(5_000, CensusOptions { documents: false, top: 50, ..CensusOptions::default() });
    let wide =
        CensusOptions { samples_per_bin: 10, sample_bins: 60, together: (0..40).collect(), ..Default::default() };
    the_peak_is_what_is_said(3_000, wide);
    the_peak_is_what_is_said(4_097, CensusOptions { samples_per_bin: 0, top: 0, ..CensusOptions::default() });
    a_warm_census_allocates_nothing(1);
    a_warm_census_allocates_nothing(2);
    a_warm_run_allocates_nothing();
}
