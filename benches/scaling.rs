//! How the cost of a census grows: with the text, the number of features, the number of features asked for, the threads.
//!
//! ```text
//! scaling run tokens|d_sae|features|threads   measures and prints one JSON object
//! scaling page RUNS.jsonl OUT.html            draws what `run` printed; prints it as a table
//! ```
//! With the variables of `benches/README.md` on a model of GPT-2 small's shape, else on the demo. `d_sae` uses SAEs of random weights (TopK, 32 active).

#[path = "scaling/draw.rs"]
mod draw;
mod support;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_core::{Activation, Sae, SaeParts, SparseCoder};
use serde_json::{Value, json};
use support::{Clock, Setup, census_loop};

fn main() {
    // `cargo bench` and `cargo test` call every benchmark with flags of their own, which say nothing to this one.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["page", runs, out] => draw::page(runs.as_ref(), out.as_ref()),
        ["run", what] => println!("{}", run(what, &Setup::load())),
        [] => println!("{}", run("features", &Setup::load())),
        _ => panic!("expected `run tokens|d_sae|features|threads` or `page RUNS.jsonl OUT.html`, found {words:?}"),
    }
}

fn run(what: &str, setup: &Setup) -> Value {
    let points: Vec<Value> = match what {
        "tokens" => tokens(setup),
        "d_sae" => [6_144, 12_288, 24_576, 49_152, 98_304, 131_072].map(|d_sae| width(setup, d_sae)).into(),
        "features" => features(setup),
        "threads" => (1..=rayon::current_num_threads()).map(|n| threads(setup, n)).collect(),
        other => panic!("`{other}` is none of tokens, d_sae, features, threads"),
    };
    let engine = setup.model.engine().to_string();
    json!({ "what": what, "engine": engine, "threads": rayon::current_num_threads(), "d_sae": setup.sae.d_sae(), "points": points })
}

/// The median of what comes after a warm-up, where there is that much.
fn median(ms: &[f64]) -> f64 {
    let mut ms = ms[if ms.len() > 3 { 2 } else { ms.len().min(2) - 1 }..].to_vec();
    ms.sort_by(f64::total_cmp);
    ms[ms.len() / 2]
}

/// Milliseconds of a census loop's steps.
fn steps(setup: &Setup, sae: &Sae, batches: usize) -> Value {
    let mut clock = Clock::default();
    census_loop(setup, sae, batches, &mut clock);
    clock.0.iter().map(|(name, ms)| ((*name).to_owned(), json!(median(ms)))).collect::<serde_json::Map<_, _>>().into()
}

/// Ever further into the text: each tenth of 40 batches.
fn tokens(setup: &Setup) -> Vec<Value> {
    let mut clock = Clock::default();
    census_loop(setup, &setup.sae, 40, &mut clock);
    let (_, ms) = clock.0.iter().find(|(name, _)| *name == "iteration").expect("it is noted");
    ms.chunks(4).enumerate().map(|(i, ms)| json!({ "x": 4096 * (i + 1), "iteration": median(ms) })).collect()
}

/// An SAE of so many features, of which 32 are active on a token.
fn width(setup: &Setup, d_sae: usize) -> Value {
    let d_in = setup.sae.d_in();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let rows: Vec<f32> = (0..d_sae * d_in).map(|_| rng.random_range(-1.0..1.0)).collect();
    let w_dec = candle_core::Tensor::from_vec(rows, (d_sae, d_in), &candle_core::Device::Cpu).expect("rows");
    let w_enc = w_dec.t().and_then(|t| t.contiguous()).expect("columns");
    let mut parts = SaeParts::new(w_enc, vec![0.0; d_sae], w_dec, vec![0.0; d_in]);
    parts.activation = Activation::TopK { k: 32, rescale_by_decoder_norm: false };
    parts.metadata = setup.sae.metadata().clone();
    let sae = Sae::new(parts).expect("an SAE");
    let mut point = steps(setup, &sae, 5);
    point["x"] = json!(d_sae);
    point
}

/// The encoder of a few features and of ever more.
fn features(setup: &Setup) -> Vec<Value> {
    let mut store = setup.store();
    let batch = store.get_batch_tokens().expect("tokens").expect("the text suffices");
    let x = store.activations(&batch).expect("activations");
    let d_sae = setup.sae.d_sae();
    let some = |n: usize| -> Value {
        let list: Vec<u32> = (0..n).map(|i| (i * d_sae / n) as u32).collect();
        let mut clock = Clock::default();
        for _ in 0..9 {
            clock.time("encode", || setup.sae.encode_only(&x, &list)).expect("activations");
        }
        json!({ "x": n, "encode": median(&clock.0[0].1) })
    };
    let counts = [1, 10, 100, 1_000, 10_000].into_iter().filter(|n| *n < d_sae);
    let mut points: Vec<Value> = counts.map(some).collect();
    let mut clock = Clock::default();
    for _ in 0..5 {
        clock.time("encode", || setup.sae.encode(&x)).expect("codes");
    }
    points.push(json!({ "x": d_sae, "encode": median(&clock.0[0].1) }));
    points
}

fn threads(setup: &Setup, n: usize) -> Value {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads");
    let mut point = pool.install(|| steps(setup, &setup.sae, 8));
    point["x"] = json!(n);
    point
}
