//! Sparse rows, extremes and decoding against the whole product, worked through value by value.

use proptest::prelude::*;
use tensor_kernels::{
    Arithmetic, Backend, CsrBuffer, CsrRef, Error, MatrixRef, PackedMatrix, PackedRows, SparseActivation,
    SparseEncoder, Store, TopBottom, decode_rows, extremes, product,
};

/// Values from a seed. Kind 0: in -1..1. Kind 1: small integers, whose products are exact and often equal. Kind 2: as 0, with NaN, infinities
/// and zeros of both signs strewn in.
fn values(n: usize, seed: u64, kind: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0];
    (0..n)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match kind {
                1 => ((state >> 40) % 5) as f32 - 2.0,
                2 if (state >> 33).is_multiple_of(97) => odd[i % odd.len()],
                _ => (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0,
            }
        })
        .collect()
}

fn on<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// `value > limit`, and true when they cannot be compared.
fn above(value: f32, limit: f32) -> bool {
    value.is_nan() || limit.is_nan() || value > limit
}

/// The active values of one row of sums, from the formulas.
fn active(sums: &[f32], bias: &[f32], rule: SparseActivation<'_>) -> Vec<(u32, f32)> {
    let each = |value: &dyn Fn(usize) -> Option<f32>| -> Vec<(u32, f32)> {
        (0..sums.len()).filter_map(|j| value(j).filter(|&v| above(v, 0.0)).map(|v| (j as u32, v))).collect()
    };
    let h = |j: usize| sums[j] + bias[j];
    match rule {
        SparseActivation::Relu => each(&|j| Some(h(j))),
        SparseActivation::JumpRelu { threshold } => each(&|j| above(h(j), threshold[j]).then(|| h(j))),
        SparseActivation::Gated { gain, b_mag } => each(&|j| above(h(j), 0.0).then(|| sums[j] * gain[j] + b_mag[j])),
        SparseActivation::TopK { k, norms } => {
            let mut all = each(&|j| Some(h(j) * norms.map_or(1.0, |n| n[j])));
            let size = |v: f32| {
                if v.is_nan() { f64::INFINITY } else { f64::from(v.min(f32::MAX)) + f64::from(u8::from(v > f32::MAX)) }
            };
            // NaN before infinity before the largest number; the sort is stable.
            all.sort_by(|a, b| b.1.is_nan().cmp(&a.1.is_nan()).then(size(b.1).total_cmp(&size(a.1))));
            all.truncate(k);
            all.sort_by_key(|entry| entry.0);
            all
        }
        other => panic!("no oracle for {other:?}"),
    }
}

/// Equal, with NaN equal to NaN.
fn same(found: &[f32], right: &[f32]) -> bool {
    found.len() == right.len() && found.iter().zip(right).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}

fn dense(rows: &PackedRows, matrix: MatrixRef<'_>, m: usize, n: usize) -> Vec<f32> {
    let mut sums = vec![0.0; m * n];
    product(rows, matrix, Store::new(&mut sums, n, None).unwrap()).unwrap();
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn encode_is_the_rule_on_the_product(
        m in 0usize..60, k in 1usize..40, n in 0usize..300, seed: u64, kind in 0usize..3, top in 0usize..90, threads in 1usize..4,
        shift in -1.5f32..1.0,
    ) {
        let (x, w) = (values(m * k, seed, kind), values(k * n, !seed, kind.min(1)));
        let bias: Vec<f32> = values(n, seed ^ 5, kind.min(1)).iter().map(|b| b + if kind == 1 { shift.round() } else { shift }).collect();
        let parameter = values(n, seed ^ 9, kind.min(1));
        let norms: Vec<f32> = parameter.iter().map(|v| v.abs()).collect();
        let rules = [
            SparseActivation::Relu,
            SparseActivation::JumpRelu { threshold: &parameter },
            SparseActivation::Gated { gain: &norms, b_mag: &parameter },
            SparseActivation::TopK { k: top, norms: None },
            SparseActivation::TopK { k: top, norms: Some(&norms) },
        ];
        let matrix = MatrixRef::row_major(&w, k, n).unwrap();
        let mut encoder = SparseEncoder::new();
        for arithmetic in Arithmetic::available() {
            let mut rows = PackedRows::new();
            rows.pack(arithmetic, &x, k).unwrap();
            let sums = dense(&rows, matrix, m, n);
            let packed = PackedMatrix::pack(arithmetic, matrix).unwrap();
            for rule in rules {
                let mut out = CsrBuffer::new();
                on(threads, || encoder.encode(&rows, &packed, Some(&bias), rule, &mut out)).unwrap();
                prop_assert_eq!(out.rows(), m);
                for row in 0..m {
                    let right = active(&sums[row * n..(row + 1) * n], &bias, rule);
                    let (index, value): (Vec<u32>, Vec<f32>) = right.into_iter().unzip();
                    prop_assert_eq!(out.row(row).0, &index[..], "{:?} {:?} row {}", arithmetic, rule, row);
                    prop_assert!(same(out.row(row).1, &value), "{arithmetic:?} {rule:?} row {row}: {:?} {value:?}", out.row(row).1);
                }
            }
        }
    }

    #[test]
    fn extremes_are_those_of_the_sorted_product(
        m in 0usize..40, k in 1usize..30, n in 0usize..200, seed: u64, kind in 0usize..3, top in 0usize..40, bottom in 0usize..40,
        rows_at_once in 1usize..40, cols_at_once in 1usize..200, threads in 1usize..4,
    ) {
        let (x, w, bias) = (values(m * k, seed, kind), values(k * n, !seed, kind.min(1)), values(n, seed ^ 5, kind.min(1)));
        let matrix = MatrixRef::row_major(&w, k, n).unwrap();
        for arithmetic in Arithmetic::available() {
            let mut rows = PackedRows::new();
            rows.pack(arithmetic, &x, k).unwrap();
            let sums = dense(&rows, matrix, m, n);
            let whole = on(threads, || extremes(&rows, matrix, Some(&bias), top, bottom)).unwrap();
            let mut blocks = TopBottom::new(m, top, bottom).unwrap();
            for col in (0..n).step_by(cols_at_once) {
                let cols = cols_at_once.min(n - col);
                let block = MatrixRef::strided(&w[col..], k, cols, n, 1).unwrap();
                for row in (0..m).step_by(rows_at_once) {
                    let count = rows_at_once.min(m - row);
                    rows.pack(arithmetic, &x[row * k..(row + count) * k], k).unwrap();
                    blocks.scan(row, &rows, col, block, Some(&bias[col..col + cols])).unwrap();
                }
            }
            for row in 0..m {
                let mut all: Vec<(u32, f32)> = (0..n).map(|j| (j as u32, sums[row * n + j] + bias[j])).collect();
                let number = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
                all.sort_by(|a, b| b.1.is_nan().cmp(&a.1.is_nan()).then(number(b.1).total_cmp(&number(a.1))));
                let right: Vec<(u32, f32)> = all.iter().copied().take(top).collect();
                for found in [&whole, &blocks] {
                    compare(found.top(row).collect(), &right)?;
                }
                all.sort_by_key(|entry| entry.0);
                all.sort_by(|a, b| b.1.is_nan().cmp(&a.1.is_nan()).then(number(a.1).total_cmp(&number(b.1))));
                let right: Vec<(u32, f32)> = all.iter().copied().take(bottom).collect();
                for found in [&whole, &blocks] {
                    compare(found.bottom(row).collect(), &right)?;
                }
            }
        }
    }

    #[test]
    fn decoding_is_the_sum_of_rows(
        rows in 0usize..20, features in 1usize..30, width in 1usize..150, seed: u64, fired in 0usize..20, scaled: bool, threads in 1usize..4,
    ) {
        let (matrix, scale, bias) = (values(features * width, seed, 0), values(features, seed ^ 1, 0), values(width, seed ^ 2, 0));
        let mut codes = CsrBuffer::new();
        for row in 0..rows {
            let fired = (row * 7 + fired) % 20;
            codes.index.extend((0..fired).map(|i| ((i * 5 + row) % features) as u32));
            codes.value.extend(values(fired, seed ^ row as u64, 0));
            codes.indptr.push(codes.index.len() as u64);
        }
        let scale = scaled.then_some(&scale[..]);
        let mut first: Option<Vec<f32>> = None;
        for backend in Backend::available() {
            let mut out = vec![f32::NAN; rows * width];
            on(threads, || decode_rows(backend, codes.as_ref(), &matrix, width, scale, Some(&bias), &mut out)).unwrap();
            for (row, out) in out.chunks_exact(width).enumerate() {
                let (index, value) = codes.row(row);
                for (i, &found) in out.iter().enumerate() {
                    let term = |(&j, &v): (&u32, &f32)| {
                        f64::from(v) * scale.map_or(1.0, |s| f64::from(s[j as usize])) * f64::from(matrix[j as usize * width + i])
                    };
                    let right = index.iter().zip(value).map(term).sum::<f64>() + f64::from(bias[i]);
                    prop_assert!((f64::from(found) - right).abs() < 1e-5, "{backend} {row} {i}: {found} {right}");
                }
            }
            prop_assert!(first.get_or_insert_with(|| out.clone()) == &out, "{} has other bits", backend);
        }
    }
}

fn compare(found: Vec<(u32, f32)>, right: &[(u32, f32)]) -> Result<(), TestCaseError> {
    let (columns, numbers): (Vec<u32>, Vec<f32>) = found.into_iter().unzip();
    let (right_columns, right_numbers): (Vec<u32>, Vec<f32>) = right.iter().copied().unzip();
    prop_assert_eq!(columns, right_columns);
    prop_assert!(same(&numbers, &right_numbers), "{numbers:?} {right_numbers:?}");
    Ok(())
}

#[test]
fn bits_depend_on_neither_batch_nor_threads() {
    let (m, k, n) = (1100, 70, 2113);
    let (x, w) = (values(m * k, 1, 0), values(k * n, 2, 0));
    let bias: Vec<f32> = values(n, 3, 0).iter().map(|b| b - 6.0).collect();
    let matrix = MatrixRef::row_major(&w, k, n).unwrap();
    for arithmetic in Arithmetic::available() {
        let packed = PackedMatrix::pack(arithmetic, matrix).unwrap();
        for rule in [SparseActivation::Relu, SparseActivation::TopK { k: 20, norms: None }] {
            let encode = |threads: usize, batch: usize| {
                on(threads, || {
                    let (mut rows, mut encoder, mut out) = (PackedRows::new(), SparseEncoder::new(), CsrBuffer::new());
                    for x in x.chunks(batch * k) {
                        rows.pack(arithmetic, x, k).unwrap();
                        encoder.encode(&rows, &packed, Some(&bias), rule, &mut out).unwrap();
                    }
                    out
                })
            };
            let whole = encode(1, m);
            assert!(whole.index.len() > 4 * m, "{}", whole.index.len());
            for (threads, batch) in [(2, m), (3, m), (1, 37), (3, 512), (2, 1)] {
                assert!(encode(threads, batch) == whole, "{arithmetic:?}: {threads} threads, {batch} rows at a time");
            }
        }
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let arithmetic = Arithmetic::default();
    let w = [1.0; 6];
    let matrix = MatrixRef::row_major(&w, 2, 3).unwrap();
    let mut rows = PackedRows::new();
    rows.pack(arithmetic, &[1.0; 8], 2).unwrap();
    let encode = |bias: &[f32], rule: SparseActivation<'_>, out: &mut CsrBuffer| {
        SparseEncoder::new().encode(&rows, matrix, Some(bias), rule, out).unwrap_err().to_string()
    };
    assert_eq!(encode(&[0.0; 2], SparseActivation::Relu, &mut CsrBuffer::new()), "a bias: expected 3 values, found 2");
    let threshold = SparseActivation::JumpRelu { threshold: &[0.0] };
    assert_eq!(encode(&[0.0; 3], threshold, &mut CsrBuffer::new()), "thresholds: expected 3 values, found 1");
    let mut broken = CsrBuffer::new();
    broken.indptr.clear();
    assert!(encode(&[0.0; 3], SparseActivation::Relu, &mut broken).contains("the end of the last sparse row"));
    let mut found = TopBottom::new(5, 1, 1).unwrap();
    assert!(found.scan(2, &rows, 0, matrix, None).unwrap_err().to_string().contains("rows of extremes"));
    found.scan(1, &rows, 0, matrix, None).unwrap();
    let again = found.scan(0, &rows, 2, matrix, None).unwrap_err().to_string();
    assert!(again.contains("expected at least 3, found 2"), "{again}");
    let codes = CsrRef { indptr: &[0, 1], index: &[7], value: &[1.0] };
    let decode = |codes| decode_rows(Backend::Portable, codes, &w, 2, None, None, &mut [0.0; 2]).unwrap_err();
    assert!(decode(codes).to_string().contains("expected less than 3, found 7"));
    assert!(matches!(decode(CsrRef { indptr: &[0, 2], ..codes }), Error::Mismatch { .. }));
    assert!(matches!(decode(CsrRef { indptr: &[0, 1], index: &[], value: &[1.0] }), Error::Length { .. }));
}
