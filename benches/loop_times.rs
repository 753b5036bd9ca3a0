//! The notebook's loop with a clock on each step, as JSON on standard output: the Rust half of `benches/peers/compare.py`.
//!
//! `all` does what the notebook does: the frame of every token, every feature of the SAE, then the hundred are taken. `chosen`
//! encodes only these. Words: `all|chosen [BATCHES [PRECISION]]`.

mod support;

use activation_store::ActivationSource;
use feature_analysis::{FeatureExamples, FrameOptions, token_frame};
use sae_core::SparseCoder;
use std::time::Instant;
use support::{Setup, cpu_ms, peak_rss_bytes};

fn main() {
    // `cargo bench` and `cargo test` call every benchmark with flags of their own, which say nothing to this one.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let all = words.next().is_some_and(|word| word == "all");
    let batches: usize = words.next().map_or(3, |word| word.parse().expect("a number of batches"));
    let precision = words.next().unwrap_or_else(|| "f32fast".into());
    let started = Instant::now();
    let setup = Setup::load_on(support::engine(&precision, None));
    let load_s = started.elapsed().as_secs_f64();
    let mut store = setup.store();
    let features = setup.features();
    let mut kept = FeatureExamples::new(&setup.sae, &features, batches as u64).expect("features");
    // As in the notebook every token counts.
    let positions = store.spec().positions.clone();
    let mut steps: [Vec<f64>; 5] = Default::default();
    let cpu_before = cpu_ms();
    for i in 0..batches {
        let mut at = vec![Instant::now()];
        let batch = store.get_batch_tokens().expect("tokens").expect("the text suffices");
        if all {
            let tokenizer = setup.model.tokenizer().expect("a tokenizer");
            token_frame(&batch.rows, i as u64, tokenizer, &FrameOptions::default()).expect("a frame");
        }
        at.push(Instant::now());
        let x = store.activations(&batch).expect("activations");
        at.push(Instant::now());
        let acts = match all {
            true => setup.sae.encode(&x).and_then(|codes| codes.features.columns(&features)).expect("codes"),
            false => setup.sae.encode_only(&x, &features).expect("activations"),
        };
        at.push(Instant::now());
        let all = vec![None; batch.len() * positions.len()];
        kept.push(&batch.rows, &positions, &all, &acts).expect("rows");
        at.push(Instant::now());
        for (step, pair) in steps.iter_mut().zip(at.windows(2)) {
            step.push((pair[1] - pair[0]).as_secs_f64() * 1e3);
        }
        steps[4].push((at[4] - at[0]).as_secs_f64() * 1e3);
    }
    let cpu = cpu_ms().zip(cpu_before).map(|(after, before)| (after - before) / batches as f64);
    let [tokens, forward, encode, keep, iteration] = steps;
    let reconstructions = kept.reconstructions().expect("reconstructions");
    let phases = serde_json::json!({ "tokens": tokens, "forward": forward, "encode": encode, "keep": keep, "iteration": iteration });
    let report = serde_json::json!({
        "who": if all { "saescope, all features" } else { "saescope, 100 features" }, "batches": batches, "precision": precision, "load_s": load_s, "cpu_ms": cpu,
        "kept": kept.len(), "acts_sum": kept.acts().iter().map(|&a| f64::from(a)).sum::<f64>(),
        "reconstructions": reconstructions.dims(), "ms": phases, "peak_rss_bytes": peak_rss_bytes(),
    });
    println!("{report}");
}
