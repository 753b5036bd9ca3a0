//! The work of `benches/peers/torch_times.py` with a clock on each step, as JSON on standard output: the Rust half of
//! `benches/peers/compare_census.py`.
//!
//! ```text
//! peer_times census|blocks|encode|chosen|lens [PRECISION [BACKEND|best [BATCHES [DIR]]]]
//! ```
//! `census` tokenises 8 rows of 128 tokens at a time, runs the model to the SAE's hook, encodes and counts all features (DIR: where the
//! census is saved). `blocks` is the forward pass alone, `encode` the encoder alone, `chosen` that of 100 features, `lens` the logit lens of all
//! features. `reference` as back end is candle.

mod support;

use candle_core::Tensor;
use feature_analysis::census::{CensusBatch, CensusOptions, FeatureCensus, Reason};
use feature_analysis::{LensOptions, logit_lens};
use sae_core::SparseCoder;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use support::{Setup, cpu_ms, peak_rss_bytes};

/// Milliseconds of each step, batch after batch.
#[derive(Default)]
struct Clock(Vec<(&'static str, Vec<f64>)>);

impl Clock {
    fn time<T>(&mut self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = work();
        self.note(step, start.elapsed().as_secs_f64() * 1e3);
        out
    }

    fn note(&mut self, step: &'static str, ms: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == step) {
            Some((_, all)) => all.push(ms),
            None => self.0.push((step, vec![ms])),
        }
    }
}

fn main() {
    // `cargo bench` and `cargo test` call every benchmark with flags of their own, which say nothing to this one.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let word = |i: usize| words.get(i).map(String::as_str);
    let (what, precision) = (word(0).unwrap_or("census"), word(1).unwrap_or("f32fast"));
    let engine = support::engine(precision, word(2).filter(|name| *name != "best"));
    let batches: usize = word(3).map_or(3, |word| word.parse().expect("a number of batches"));
    let started = Instant::now();
    let setup = Setup::load_on(engine);
    let load_s = started.elapsed().as_secs_f64();
    let mut clock = Clock::default();
    let cpu = cpu_ms();
    let found = match what {
        "census" => census(&setup, batches, word(4).map(Path::new), &mut clock),
        "blocks" => blocks(&setup, batches, &mut clock),
        "encode" => encode(&setup, batches, None, &mut clock),
        "chosen" => encode(&setup, batches, Some(&setup.features()), &mut clock),
        "lens" => lens(&setup, batches, &mut clock),
        other => panic!("`{other}` is none of census, blocks, encode, chosen, lens"),
    };
    let cpu = cpu_ms().zip(cpu).map(|(after, before)| (after - before) / batches as f64);
    let ms: serde_json::Map<String, Value> = clock.0.into_iter().map(|(name, ms)| (name.into(), json!(ms))).collect();
    let kernel = engine.arithmetic().map(|a| a.kernel_name());
    let backend = engine.arithmetic().map_or("candle", |a| a.backend().name());
    let report = json!({
        "who": "saescope", "what": what, "precision": precision, "backend": backend, "kernel": kernel, "batches": batches,
        "load_s": load_s, "cpu_ms": cpu, "peak_rss_bytes": peak_rss_bytes(), "ms": ms, "found": found,
    });
    println!("{report}");
}

/// The loop: text, model, SAE, census; tokenising is on our clock.
fn census(setup: &Setup, batches: usize, out: Option<&Path>, clock: &mut Clock) -> Value {
    let options = CensusOptions { samples_per_bin: 0, documents: false, ..CensusOptions::default() };
    let mut census = FeatureCensus::new(setup.sae.d_sae(), options).expect("options");
    let mut store = setup.store();
    let special = setup.model.tokenizer().expect("a tokenizer").special_ids().clone();
    for _ in 0..batches {
        let start = Instant::now();
        let batch = clock.time("tokens", || store.get_batch_tokens()).expect("tokens").expect("the text suffices");
        let x = clock.time("forward", || store.activations(&batch)).expect("activations");
        let codes = clock.time("encode", || setup.sae.encode(&x)).expect("codes");
        clock.time("count", || {
            let rows = batch.rows.iter().flat_map(|row| (0..row.tokens.len()).map(move |pos| (row, pos)));
            let at: Vec<_> =
                rows.clone().map(|(row, pos)| activation_store::TokenPos { row: row.row, pos: pos as u32 }).collect();
            let tokens: Vec<u32> = rows.clone().map(|(row, pos)| row.tokens[pos]).collect();
            let left_out: Vec<_> = tokens.iter().map(|id| special.contains(id).then_some(Reason::Token)).collect();
            census
                .push(&CensusBatch::new(&at, &tokens, &codes.features).left_out(&left_out))
                .expect("finite activations");
        });
        clock.note("iteration", start.elapsed().as_secs_f64() * 1e3);
    }
    if let Some(out) = out {
        std::fs::create_dir_all(out).expect("TODO save");
    }
    let top: f64 = (0..census.d_sae() as u32)
        .flat_map(|f| census.top(f).expect("a feature"))
        .map(|e| f64::from(e.activation))
        .sum();
    json!({ "tokens_counted": census.tokens(), "l0": census.l0(), "top_sum": top })
}

fn blocks(setup: &Setup, batches: usize, clock: &mut Clock) -> Value {
    let mut store = setup.store();
    for _ in 0..batches {
        let batch = store.get_batch_tokens().expect("tokens").expect("the text suffices");
        clock.time("forward", || store.activations(&batch)).expect("activations");
    }
    Value::Null
}

fn encode(setup: &Setup, batches: usize, features: Option<&[u32]>, clock: &mut Clock) -> Value {
    let mut store = setup.store();
    let batch = store.get_batch_tokens().expect("tokens").expect("the text suffices");
    let x: Tensor = store.activations(&batch).expect("activations");
    for _ in 0..batches {
        match features {
            None => drop(clock.time("encode", || setup.sae.encode(&x)).expect("codes")),
            Some(list) => drop(clock.time("encode", || setup.sae.encode_only(&x, list)).expect("activations")),
        }
    }
    Value::Null
}

fn lens(setup: &Setup, batches: usize, clock: &mut Clock) -> Value {
    let options = LensOptions { top: 10, bottom: 10, ..LensOptions::default() };
    for _ in 0..batches {
        clock.time("lens", || logit_lens(&setup.model, &setup.sae, None, &options)).expect("a lens");
    }
    Value::Null
}
