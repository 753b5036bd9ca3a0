//! Products of which few values matter, at the sizes of GPT-2 small and a 24,576-feature SAE; also on the plain store that they save.
//!
//! `cargo bench -p tensor-kernels --bench sparse -- [FILTER]`; threads as rayon finds them (`RAYON_NUM_THREADS`).

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tensor_kernels::{
    Arithmetic, Backend, CsrBuffer, Grid, MatrixRef, PackedMatrix, PackedRows, Precision, SparseActivation,
    SparseEncoder, Store, TopBottom, decode_rows, product, product_on,
};

const TOKENS: usize = 1024;
const D: usize = 768;
const FEATURES: usize = 24_576;
const VOCAB: usize = 50_257;
/// 2.8 standard deviations of `x W`: about 70 features of a token fire.
const BIAS: f32 = -2.8;

/// Normal numbers from a seed, near enough: sums of four uniform ones.
fn normal(n: usize, seed: u64, deviation: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * deviation * 3f32.sqrt()).collect()
}

fn weights(n: usize) -> Vec<f32> {
    normal(D * n, 7, 1.0 / (D as f32).sqrt())
}

fn encode(c: &mut Criterion) {
    let (x, w, bias) = (normal(TOKENS * D, 1, 1.0), weights(FEATURES), vec![BIAS; FEATURES]);
    let matrix = MatrixRef::row_major(&w, D, FEATURES).unwrap();
    let mut group = c.benchmark_group("encode");
    group.sample_size(10).throughput(Throughput::Elements(TOKENS as u64));
    for arithmetic in Arithmetic::available() {
        let weights = PackedMatrix::pack(arithmetic, matrix).unwrap();
        let few = PackedMatrix::pack(arithmetic, MatrixRef::strided(&w, D, 100, FEATURES, 1).unwrap()).unwrap();
        let (mut rows, mut encoder, mut out) = (PackedRows::new(), SparseEncoder::new(), CsrBuffer::new());
        for (name, rule) in [("relu", SparseActivation::Relu), ("top64", SparseActivation::TopK { k: 64, norms: None })]
        {
            group.bench_function(BenchmarkId::new(name, arithmetic), |b| {
                b.iter(|| {
                    out.clear();
                    rows.pack(arithmetic, &x, D).unwrap();
                    encoder.encode(&rows, &weights, Some(&bias), rule, &mut out).unwrap();
                    black_box(&out);
                });
            });
        }
        let mut dense = vec![0.0; TOKENS * FEATURES];
        group.bench_function(BenchmarkId::new("dense-store", arithmetic), |b| {
            b.iter(|| {
                rows.pack(arithmetic, &x, D).unwrap();
                product(&rows, &weights, Store::new(&mut dense, FEATURES, Some(&bias)).unwrap()).unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("100-features", arithmetic), |b| {
            b.iter(|| {
                out.clear();
                rows.pack(arithmetic, &x, D).unwrap();
                encoder.encode(&rows, &few, Some(&bias[..100]), SparseActivation::Relu, &mut out).unwrap();
                black_box(&out);
            });
        });
    }
}

/// What looking at the sums costs: products of inner size 16, in which little else is done.
fn epilogue(c: &mut Criterion) {
    const K: usize = 16;
    let (x, w) = (normal(TOKENS * K, 1, 1.0), normal(K * FEATURES, 7, 1.0 / (K as f32).sqrt()));
    let matrix = MatrixRef::row_major(&w, K, FEATURES).unwrap();
    let mut group = c.benchmark_group("epilogue");
    group.sample_size(20).throughput(Throughput::Elements((TOKENS * FEATURES) as u64));
    for backend in Backend::available() {
        let arithmetic = Arithmetic::on(backend, Precision::F32).unwrap();
        let weights = PackedMatrix::pack(arithmetic, matrix).unwrap();
        let (mut rows, mut encoder, mut out) = (PackedRows::new(), SparseEncoder::new(), CsrBuffer::new());
        rows.pack(arithmetic, &x, K).unwrap();
        let grid = Grid::new(&rows, FEATURES);
        group.bench_function(BenchmarkId::new("none", backend), |b| {
            b.iter(|| product_on(&grid, &rows, &weights, &mut vec![0u8; grid.len()], |_, tile| _ = black_box(tile)));
        });
        let top = SparseActivation::TopK { k: 64, norms: None };
        for (name, bias, rule) in [
            ("relu", BIAS, SparseActivation::Relu),
            ("relu, 16 % active", -1.0, SparseActivation::Relu),
            ("relu, half active", 0.0, SparseActivation::Relu),
            ("top64", 0.0, top),
        ] {
            let bias = vec![bias; FEATURES];
            group.bench_function(BenchmarkId::new(name, backend), |b| {
                b.iter(|| {
                    out.clear();
                    encoder.encode(&rows, &weights, Some(&bias), rule, &mut out).unwrap();
                });
            });
        }
        group.bench_function(BenchmarkId::new("extremes", backend), |b| {
            b.iter_batched_ref(
                || TopBottom::new(TOKENS, 10, 10).unwrap(),
                |found| found.scan(0, &rows, 0, &weights, None).unwrap(),
                BatchSize::LargeInput,
            );
        });
    }
}

fn lens(c: &mut Criterion) {
    let (x, w) = (normal(TOKENS * D, 2, 1.0), weights(VOCAB));
    let matrix = MatrixRef::row_major(&w, D, VOCAB).unwrap();
    let mut group = c.benchmark_group("lens");
    group.sample_size(10).throughput(Throughput::Elements(TOKENS as u64));
    for arithmetic in Arithmetic::available() {
        let weights = PackedMatrix::pack(arithmetic, matrix).unwrap();
        let mut rows = PackedRows::new();
        group.bench_function(BenchmarkId::new("extremes", arithmetic), |b| {
            b.iter_batched_ref(
                || TopBottom::new(TOKENS, 10, 10).unwrap(),
                |found| {
                    rows.pack(arithmetic, &x, D).unwrap();
                    found.scan(0, &rows, 0, &weights, None).unwrap();
                },
                BatchSize::LargeInput,
            );
        });
    }
}

fn decode(c: &mut Criterion) {
    let (x, w, bias) = (normal(TOKENS * D, 1, 1.0), weights(FEATURES), vec![BIAS; FEATURES]);
    let arithmetic = Arithmetic::new(Precision::F32);
    let (mut rows, mut codes, mut y) = (PackedRows::new(), CsrBuffer::new(), vec![0.0; TOKENS * D]);
    rows.pack(arithmetic, &x, D).unwrap();
    let matrix = MatrixRef::transposed(&w, D, FEATURES).unwrap();
    SparseEncoder::new().encode(&rows, matrix, Some(&bias), SparseActivation::Relu, &mut codes).unwrap();
    let mut group = c.benchmark_group("decode");
    group.sample_size(20).throughput(Throughput::Elements(codes.index.len() as u64));
    for backend in Backend::available() {
        group.bench_function(BenchmarkId::new("rows", backend), |b| {
            b.iter(|| decode_rows(backend, codes.as_ref(), &w, D, None, Some(&x[..D]), &mut y).unwrap());
        });
    }
}

criterion_group!(benches, encode, epilogue, lens, decode);
criterion_main!(benches);
