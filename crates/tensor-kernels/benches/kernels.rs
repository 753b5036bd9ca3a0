//! Products of every back end and precision, from plain rows to stored sums.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tensor_kernels::{Arithmetic, Backend, MatrixRef, Operand, PackedMatrix, PackedRows, Precision, Store, product};

/// Rows, inner size, columns: a projection and both halves of an MLP of GPT-2 small, and a few rows.
const SHAPES: [(usize, usize, usize); 5] =
    [(1024, 768, 768), (1024, 768, 3072), (1024, 3072, 768), (8, 768, 3072), (1, 768, 3072)];

/// In -1..1.
fn values(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// `F32Fast` is a kernel of its own on AMX only.
fn kernels() -> impl Iterator<Item = Arithmetic> {
    Arithmetic::available().filter(|a| a.precision() != Precision::F32Fast || a.backend() == Backend::Amx)
}

fn products(c: &mut Criterion) {
    for (m, k, n) in SHAPES {
        let mut group = c.benchmark_group(format!("product {m} x {k} x {n}"));
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64)).sample_size(10);
        let (x, w) = (values(m * k), values(k * n));
        let view = MatrixRef::row_major(&w, k, n).expect("as long as its shape");
        let mut y = vec![0f32; m * n];
        for arithmetic in kernels() {
            let packed = PackedMatrix::pack(arithmetic, view).expect("small enough");
            let mut rows = PackedRows::new();
            for (kind, operand) in [("packed", Operand::Packed(&packed)), ("plain", Operand::Plain(view))] {
                group.bench_function(BenchmarkId::new(arithmetic.kernel_name(), kind), |b| {
                    b.iter(|| {
                        rows.pack(arithmetic, black_box(&x), k).expect("whole rows");
                        product(&rows, operand, Store::new(&mut y, n, None).expect("fits")).expect("fits");
                    });
                });
            }
        }
    }
}

fn packing(c: &mut Criterion) {
    let (k, n) = (768, 3072);
    let w = values(k * n);
    let mut group = c.benchmark_group(format!("pack {k} x {n}"));
    group.throughput(Throughput::Elements((k * n) as u64)).sample_size(20);
    for arithmetic in kernels() {
        for (kind, view) in
            [("row-major", MatrixRef::row_major(&w, k, n)), ("transposed", MatrixRef::transposed(&w, k, n))]
        {
            let view = view.expect("as long as its shape");
            group.bench_function(BenchmarkId::new(arithmetic.kernel_name(), kind), |b| {
                b.iter(|| PackedMatrix::pack(arithmetic, black_box(view)));
            });
        }
        let mut rows = PackedRows::new();
        group.bench_function(BenchmarkId::new(arithmetic.kernel_name(), "rows"), |b| {
            b.iter(|| rows.pack(arithmetic, black_box(&w), k));
        });
    }
}

criterion_group!(benches, products, packing);
criterion_main!(benches);
