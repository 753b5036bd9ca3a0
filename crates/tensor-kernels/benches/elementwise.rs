//! Everything but products with weights, at the shapes of GPT-2 small with 8 x 128 tokens, on each vector back end.
//!
//! `RAYON_NUM_THREADS=1 cargo bench -p tensor-kernels --bench elementwise`

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tensor_kernels::{
    Activation, Arithmetic, AttentionOptions, AttentionShape, AttentionTaps, Backend, Norm, Precision, RopeLayout,
    RopeShape, activate, add_to, attention, attention_mix, attention_scores, log_sum_exp, rope, scale_and_shift,
    softmax_rows,
};

const TOKENS: usize = 8 * 128;

/// Values in -2..2.
fn values(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..n).map(|_| next()).collect()
}

fn rows(c: &mut Criterion) {
    for backend in Backend::available() {
        let mut group = c.benchmark_group(backend.name());
        let (x, mut y) = (values(TOKENS * 768), vec![0.0; TOKENS * 768]);
        let (gain, bias) = (values(768), values(768));
        group.bench_function("layer_norm [1024,768]", |b| {
            b.iter(|| {
                Norm::layer(1e-5).rows(backend, black_box(&x), 768, &mut y).unwrap();
            });
        });
        group.bench_function("layer_norm with gain and bias [1024,768]", |b| {
            b.iter(|| {
                Norm::layer(1e-5).rows(backend, black_box(&x), 768, &mut y).unwrap();
                scale_and_shift(backend, &mut y, 768, Some(&gain), Some(&bias)).unwrap();
            });
        });
        group.bench_function("add [1024,768]", |b| b.iter(|| add_to(backend, black_box(&x), &mut y).unwrap()));
        let (cos, sin) = (values(128 * 32), values(128 * 32));
        for (name, pairs) in [("halves", RopeLayout::Half), ("neighbors", RopeLayout::Interleaved)] {
            let shape = RopeShape { pos: 128, heads: 12, d_head: 64, d_rotary: 64, pairs };
            group.bench_function(format!("rope {name} [8,128,12,64]"), |b| {
                b.iter_batched_ref(
                    || x.clone(),
                    |x| rope(backend, x, shape, &cos, &sin).unwrap(),
                    BatchSize::NumIterations(20),
                );
            });
        }
        let logits = values(50_257);
        group.bench_function("log_sum_exp [50257]", |b| b.iter(|| log_sum_exp(backend, black_box(&logits))));
    }
}

fn activations(c: &mut Criterion) {
    for backend in Backend::available() {
        let mut group = c.benchmark_group(backend.name());
        let x = values(TOKENS * 3072);
        for act in [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu] {
            // In place again and again: what the values are does not matter, but they stay normal numbers.
            let mut y = x.clone();
            group.bench_function(format!("{act:?} [1024,3072]"), |b| {
                b.iter_custom(|n| {
                    let mut time = std::time::Duration::ZERO;
                    for _ in 0..n {
                        y.copy_from_slice(&x);
                        let start = std::time::Instant::now();
                        activate(backend, act, black_box(&mut y));
                        time += start.elapsed();
                    }
                    time
                });
            });
        }
        let scores = values(96 * 128 * 128);
        let mut y = scores.clone();
        group.bench_function("softmax [96,128,128]", |b| {
            b.iter_custom(|n| {
                let mut time = std::time::Duration::ZERO;
                for _ in 0..n {
                    y.copy_from_slice(&scores);
                    let start = std::time::Instant::now();
                    softmax_rows(backend, black_box(&mut y), 128).unwrap();
                    time += start.elapsed();
                }
                time
            });
        });
    }
}

fn attentions(c: &mut Criterion) {
    for backend in Backend::available() {
        let mut group = c.benchmark_group(backend.name());
        for precision in [Precision::F32, Precision::Bf16] {
            let arithmetic = Arithmetic::on(backend, precision).unwrap();
            for (batch, pos) in [(8, 128), (1, 1024)] {
                let shape = AttentionShape::new(batch, pos, 12, 12, 64);
                let x = values(batch * pos * 768);
                let (k, v, mut z) = (x[1..].to_vec(), x[2..].to_vec(), vec![0.0; x.len()]);
                let (k, v) = ([&k[..], &x[..1]].concat(), [&v[..], &x[..2]].concat());
                let options = AttentionOptions::new(8.0);
                group.bench_function(format!("attention {precision} [{batch},{pos},12,64]"), |b| {
                    b.iter(|| {
                        let taps = AttentionTaps::default();
                        attention(arithmetic, &shape, &options, black_box(&x), &k, &v, taps, &mut z).unwrap();
                    });
                });
                if (batch, precision) != (8, Precision::F32) {
                    continue;
                }
                let mut scores = vec![0.0; batch * 12 * pos * pos];
                group.bench_function("attention scores f32 [8,128,12,64]", |b| {
                    b.iter(|| attention_scores(arithmetic, &shape, &options, black_box(&x), &k, &mut scores).unwrap());
                });
                softmax_rows(backend, &mut scores, pos).unwrap();
                group.bench_function("attention mix f32 [8,128,12,64]", |b| {
                    b.iter(|| attention_mix(arithmetic, &shape, black_box(&scores), &v, &mut z).unwrap());
                });
            }
        }
    }
}

criterion_group!(benches, rows, activations, attentions);
criterion_main!(benches);
