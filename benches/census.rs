//! What a census costs beside the encoding: `cargo bench --bench census`.
//!
//! 1,024 tokens a batch with about 70 features each, drawn so that some fire often and most rarely, with documents counted. Cold: the first batches, in
//! which nearly every activation is among the strongest so far. Steady: after a million tokens.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use saescope::activation_store::{DocId, TokenPos};
use saescope::feature_census::{CensusBatch, CensusOptions, FeatureCensus};
use saescope::sae_core::SparseFeatures;
use std::time::Instant;

const TOKENS: usize = 1024;
const CONTEXT: u64 = 128;
const L0: usize = 70;
/// Different batches; they come again at other addresses.
const BATCHES: usize = 64;

fn batch(d_sae: usize, random: &mut ChaCha8Rng) -> SparseFeatures {
    let (mut indptr, mut index, mut value) = (vec![0], vec![], vec![]);
    for _ in 0..TOKENS {
        // Densities fall off like those of trained SAEs: the square of a uniform number favors low feature numbers.
        let draw = |random: &mut ChaCha8Rng| (random.random::<f64>().powi(2) * d_sae as f64) as u32;
        let mut row: Vec<u32> = (0..L0).map(|_| draw(random)).collect();
        row.sort_unstable();
        row.dedup();
        value.extend(row.iter().map(|_| (-3.0 * random.random::<f32>().ln()).max(1e-3)));
        index.extend(row);
        indptr.push(index.len() as u64);
    }
    SparseFeatures::new(indptr, index, value, d_sae as u32).expect("rows are sorted")
}

/// Milliseconds for each of the batches `from..to`.
fn push(census: &mut FeatureCensus, codes: &[SparseFeatures], from: u64, to: u64) -> Vec<f64> {
    let mut times = Vec::new();
    for i in from..to {
        let first = i * TOKENS as u64;
        let at: Vec<_> =
            (first..first + TOKENS as u64).map(|t| TokenPos { row: t / CONTEXT, pos: (t % CONTEXT) as u32 }).collect();
        let tokens: Vec<u32> = at.iter().map(|at| at.pos).collect();
        let documents: Vec<_> =
            (first..first + TOKENS as u64).map(|t| Some(DocId { file: 0, ordinal: t / 300 })).collect();
        let batch = CensusBatch::new(&at, &tokens, &codes[i as usize % BATCHES]).documents(&documents);
        let start = Instant::now();
        census.push(&batch).expect("a good batch");
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    println!(
        "{:>8} {:>8} {:>12} {:>12} {:>12} {:>10}",
        "d_sae", "threads", "cold, ms", "early, ms", "steady, ms", "MiB"
    );
    for d_sae in [6_144, 24_576, 131_072] {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let codes: Vec<_> = (0..BATCHES).map(|_| batch(d_sae, &mut random)).collect();
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let options = CensusOptions::default();
                let mib = options.memory_bytes(d_sae) as f64 / f64::from(1 << 20);
                let mut census = FeatureCensus::new(d_sae, options).expect("good options");
                let cold = median(push(&mut census, &codes, 0, 5));
                let early = median(push(&mut census, &codes, 5, 100));
                push(&mut census, &codes, 100, 1000);
                let steady = median(push(&mut census, &codes, 1000, 1100));
                println!("{d_sae:>8} {threads:>8} {cold:>12.3} {early:>12.3} {steady:>12.3} {mib:>10.0}");
            });
        }
    }
}
