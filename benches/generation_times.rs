//! What one more token costs behind a cache of so many others, as JSON on standard output: the Rust half of
//! `benches/peers/generation.py`.
//!
//! ```text
//! generation_times FOLDER [PRECISION [STEPS [PLACE ...]]]
//! ```
//! At each place the cache is filled up to there, then STEPS tokens are carried on one by one, the likeliest each time: the median of
//! their times, and the processor's time for each of them. Without a folder it does nothing.

use model_hooks::{LoadOptions, NoTap, Precision, Processing, TokenBatch, load};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// The processor's time of this process so far, in ms (to 10), where /proc says it.
fn cpu_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in parentheses: user and system time are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some(10.0 * (ticks(11)? + ticks(12)?))
}

/// Tokens of a prompt that run at once.
const CHUNK: usize = 512;

fn main() {
    // `cargo bench` and `cargo test` call every benchmark with flags of their own, which say nothing to this one.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [folder, rest @ ..] = words.as_slice() else { return };
    let precision = match rest.first().map_or("f32", String::as_str) {
        "f32" => Precision::F32,
        "f32fast" => Precision::F32Fast,
        "bf16" => Precision::Bf16,
        other => panic!("`{other}` is none of f32, f32fast, bf16"),
    };
    let number = |word: &String| word.parse::<usize>().expect("a number");
    let steps = rest.get(1).map_or(32, number);
    let places: Vec<usize> = rest.iter().skip(2).map(number).collect();
    let model = load(Path::new(folder), &LoadOptions::new(Processing::None).precision(precision)).expect("a model");
    let (generator, d_vocab) = (model.generator().expect("it generates"), model.shape().d_vocab);
    let mut cache = generator.new_cache();
    cache.reserve(places.iter().max().map_or(0, |place| place + steps));
    let run = |ids: &[u32], cache: &mut _| -> u32 {
        let logits = generator.next_logits(&TokenBatch::new(&[ids]).expect("tokens"), cache, &mut NoTap);
        let logits: Vec<f32> = logits.and_then(|x| Ok(x.flatten_all()?.to_vec1()?)).expect("logits");
        (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary") as u32
    };
    let mut found = Vec::new();
    for place in places {
        let started = Instant::now();
        let (first, mut next) = (cache.columns(), 0);
        while cache.columns() < place {
            let columns = cache.columns()..place.min(cache.columns() + CHUNK);
            let ids: Vec<u32> = columns.map(|i| ((i * 7919 + 13) % d_vocab) as u32).collect();
            next = run(&ids, &mut cache);
        }
        let prompt = started.elapsed().as_secs_f64() * 1e3 / (place - first).max(1) as f64;
        let (mut ids, cpu) = (Vec::with_capacity(steps), cpu_ms());
        let mut times: Vec<f64> = (0..steps)
            .map(|_| {
                let started = Instant::now();
                next = run(&[next], &mut cache);
                ids.push(next);
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        let cpu = cpu_ms().zip(cpu).map(|(after, before)| (after - before) / steps.max(1) as f64);
        times.sort_by(f64::total_cmp);
        found.push(json!({
            "place": place, "ms_per_token": times[times.len() / 2], "cpu_ms_per_token": cpu, "ms_per_prompt_token": prompt, "ids": ids,
        }));
    }
    let kernel = model.engine().arithmetic().map(|arithmetic| arithmetic.kernel_name());
    println!("{}", json!({ "who": "saescope", "kernel": kernel, "cache_bytes": cache.bytes(), "found": found }));
}
