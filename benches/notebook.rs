//! The three steps that the notebook spends its time in: forward to the hook, encode, and its loop over batches.
//!
//! ```text
//! cargo bench --workspace --bench notebook                                  # on the embedded demo
//! SAESCOPE_GPT2_RANDOM=.. SAESCOPE_GPT2_SAE=.. SAESCOPE_GPT2_CORPUS=.. cargo bench --workspace --bench notebook
//! ```
//!
//! Throughput is in tokens. A batch is 8 rows of 128 tokens.

mod support;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use feature_analysis::{CollectOptions, collect};
use sae_core::SparseCoder;
use std::hint::black_box;
use support::Setup;

const TOKENS: u64 = 8 * 128;
const LOOP_BATCHES: u64 = 4;

fn notebook(c: &mut Criterion) {
    let setup = Setup::load();
    let mut store = setup.store();
    let batch = store.get_batch_tokens().expect("tokens").expect("a batch");
    let acts = store.activations(&batch).expect("activations");
    let features = setup.features();
    let name = format!("{} {}->{}", setup.model.name(), setup.sae.d_in(), setup.sae.d_sae());

    let mut group = c.benchmark_group(name);
    group.sample_size(10).throughput(Throughput::Elements(TOKENS));
    group.bench_function("forward to the hook", |b| {
        b.iter(|| store.activations(black_box(&batch)).expect("activations"))
    });
    group.bench_function("encode, all features", |b| b.iter(|| setup.sae.encode(black_box(&acts)).expect("codes")));
    group.bench_function("encode, 100 features", |b| {
        b.iter(|| setup.sae.encode_only(black_box(&acts), &features).expect("activations"))
    });
    group.throughput(Throughput::Elements(TOKENS * LOOP_BATCHES));
    group.bench_function("seed loop, 4 batches", |b| {
        let options = CollectOptions::notebook(LOOP_BATCHES);
        let run = |mut store| collect(&setup.sae, &mut store, &features, &options, &mut |_| ()).expect("the loop runs");
        b.iter_batched(|| setup.store(), run, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, notebook);
criterion_main!(benches);
