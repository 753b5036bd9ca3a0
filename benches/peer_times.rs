//! The work of `benches/peers/torch_times.py` with a clock on each step, as JSON on standard output: the Rust half of
//! `benches/peers/compare_census.py`.
//!
//! ```text
//! peer_times census|blocks|encode|chosen|lens [PRECISION [BACKEND|best [BATCHES [FILE]]]]
//! ```
//! `census` tokenizes 8 rows of 128 tokens at a time, runs the model to the SAE's hook, encodes and counts all features (FILE:
//! where the census is saved). `blocks` is the forward pass alone, `encode` the encoder alone, `chosen` that of 100 features, `lens` the logit lens of all
//! features. `reference` as back end is candle.

mod support;

use candle_core::Tensor;
use feature_analysis::{LensOptions, logit_lens};
use sae_core::SparseCoder;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use support::{Clock, Setup, census_loop, cpu_ms, peak_rss_bytes};

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

/// The loop: text, model, SAE, census; tokenizing is on our clock.
fn census(setup: &Setup, batches: usize, out: Option<&Path>, clock: &mut Clock) -> Value {
    let census = census_loop(setup, &setup.sae, batches, clock);
    if let Some(out) = out {
        census.save(out).expect("the census is written");
    }
    let top = (0..census.d_sae() as u32).flat_map(|f| census.top(f).expect("a feature"));
    let top: f64 = top.map(|example| f64::from(example.activation)).sum();
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
