//! The bits of a product depend on the back end, the precision and `k` alone.

use tensor_kernels::{Arithmetic, MatrixRef, Operand, PackedMatrix, PackedRows, Precision, Store, product};

/// Normally distributed values, about: the sum of four uniform ones.
fn gaussian(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| uniform() + uniform() + uniform() + uniform()).collect()
}

/// `x [m, k] W [k, n]` with `n` columns of some operand.
fn multiply<'a>(arithmetic: Arithmetic, x: &[f32], w: impl Into<Operand<'a>>) -> Vec<f32> {
    let w = w.into();
    let mut rows = PackedRows::new();
    rows.pack(arithmetic, x, w.k()).unwrap();
    let mut y = vec![f32::NAN; rows.rows() * w.n()];
    product(&rows, w, Store::new(&mut y, w.n(), None).unwrap()).unwrap();
    y
}

fn pack(arithmetic: Arithmetic, w: &[f32], k: usize, n: usize) -> PackedMatrix {
    PackedMatrix::pack(arithmetic, MatrixRef::row_major(w, k, n).unwrap()).unwrap()
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}

/// Sizes with tails of every kind, and inner sizes of one and of several blocks of `k`.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 40, 33), (13, 7, 100), (29, 300, 65), (35, 513, 64), (600, 65, 97), (25, 1100, 31)];

#[test]
fn bits_depend_on_neither_threads_nor_the_other_rows() {
    for arithmetic in Arithmetic::available() {
        for (m, k, n) in SHAPES {
            let (x, w) = (gaussian(m * k, 1), gaussian(k * n, 2));
            let packed = pack(arithmetic, &w, k, n);
            let right = bits(&multiply(arithmetic, &x, &packed));
            for threads in [1, 2, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let y = pool.install(|| multiply(arithmetic, &x, &packed));
                assert!(bits(&y) == right, "{arithmetic:?} {m} x {k} x {n}: {threads} threads");
            }
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 31, 32] {
                let parts = x.chunks(rows * k).flat_map(|x| multiply(arithmetic, x, &packed));
                assert!(bits(&parts.collect::<Vec<_>>()) == right, "{arithmetic:?} {m} x {k} x {n}: by {rows} rows");
            }
        }
    }
}

#[test]
fn bits_depend_on_neither_the_other_columns_nor_how_a_matrix_lies_in_memory() {
    for arithmetic in Arithmetic::available() {
        for (m, k, n) in SHAPES {
            let (x, w) = (gaussian(m * k, 3), gaussian(k * n, 4));
            let packed = pack(arithmetic, &w, k, n);
            let right = bits(&multiply(arithmetic, &x, &packed));

            let chosen: Vec<u32> = (0..n as u32 + 5).map(|j| (j * 37 + 11) % n as u32).collect();
            let y = bits(&multiply(arithmetic, &x, &packed.gather(&chosen).unwrap()));
            for (row, right) in y.chunks(chosen.len()).zip(right.chunks(n)) {
                let same = row.iter().zip(&chosen).all(|(y, &j)| *y == right[j as usize]);
                assert!(same, "{arithmetic:?} {m} x {k} x {n}: chosen columns");
            }

            let transposed: Vec<f32> = (0..n * k).map(|i| w[i % k * n + i / k]).collect();
            let wider: Vec<f32> = w.chunks(n).flat_map(|row| row.iter().copied().chain([f32::NAN; 3])).collect();
            for view in [
                MatrixRef::row_major(&w, k, n).unwrap(),
                MatrixRef::transposed(&transposed, k, n).unwrap(),
                MatrixRef::strided(&wider, k, n, n + 3, 1).unwrap(),
            ] {
                assert!(bits(&multiply(arithmetic, &x, view)) == right, "{arithmetic:?}: plain {view:?}");
                let again = PackedMatrix::pack(arithmetic, view).unwrap();
                assert!(bits(&multiply(arithmetic, &x, &again)) == right, "{arithmetic:?}: packed {view:?}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_alignment() {
    let (m, k, n) = (14, 33, 41);
    for arithmetic in Arithmetic::available() {
        let (x, w) = (gaussian(m * k + 3, 5), gaussian(k * n + 3, 6));
        let right = bits(&multiply(arithmetic, &x[..m * k], &pack(arithmetic, &w[..k * n], k, n)));
        for off in 1..4 {
            let mut x = x.clone();
            let mut w = w.clone();
            x.copy_within(..m * k, off);
            w.copy_within(..k * n, off);
            let y = multiply(arithmetic, &x[off..off + m * k], &pack(arithmetic, &w[off..off + k * n], k, n));
            assert!(bits(&y) == right, "{arithmetic:?}: {off} off");
        }
    }
}

#[test]
fn empty_products_are_empty_or_zero() {
    for arithmetic in Arithmetic::available() {
        assert!(multiply(arithmetic, &[], &pack(arithmetic, &gaussian(12, 7), 3, 4)).is_empty());
        assert!(multiply(arithmetic, &[1.0; 6], &pack(arithmetic, &[], 3, 0)).is_empty());
        let mut rows = PackedRows::new();
        rows.pack_with(arithmetic, 5, 0, |_, _| {}).unwrap();
        let mut y = vec![f32::NAN; 5 * 37];
        product(&rows, &pack(arithmetic, &[], 0, 37), Store::new(&mut y, 37, None).unwrap()).unwrap();
        assert_eq!(y, [0.0; 5 * 37], "{arithmetic:?}");
        let none = pack(arithmetic, &gaussian(12, 7), 3, 4).gather(&[]).unwrap();
        assert_eq!((none.k(), none.n()), (3, 0));
        assert!(pack(arithmetic, &gaussian(12, 7), 3, 4).gather(&[4]).is_err());
    }
}

#[test]
fn columns_are_read_back_as_products_see_them() {
    let (k, n) = (45, 70);
    let w = gaussian(k * n, 8);
    for arithmetic in Arithmetic::available() {
        let packed = pack(arithmetic, &w, k, n);
        let picked = packed.gather(&[69, 0, 33]).unwrap();
        let (mut column, mut same) = (vec![0.0; k], vec![0.0; k]);
        for (place, j) in [69, 0, 33].into_iter().enumerate() {
            packed.column(j, &mut column).unwrap();
            picked.column(place, &mut same).unwrap();
            assert_eq!(column, same);
            for (i, &value) in column.iter().enumerate() {
                let unit: Vec<f32> = (0..k).map(|q| if q == i { 1.0 } else { 0.0 }).collect();
                assert_eq!(multiply(arithmetic, &unit, &picked)[place], value, "{arithmetic:?}");
                let original = w[i * n + j];
                let error = (value - original).abs();
                let bound = if arithmetic.is_exact() { 0.0 } else { original.abs() * 2f32.powi(-8) };
                assert!(error <= bound, "{arithmetic:?}: {original} became {value}");
            }
        }
    }
}

/// Sums of products in f64, and the sums of their sizes.
fn exact(x: &[f32], w: &[f32], k: usize, n: usize) -> Vec<(f64, f64)> {
    let rows = x.chunks(k);
    rows.flat_map(|x| {
        let mut sums = vec![(0.0, 0.0); n];
        for (x, w) in x.iter().zip(w.chunks(n)) {
            for ((sum, size), w) in sums.iter_mut().zip(w) {
                let term = f64::from(*x) * f64::from(*w);
                (*sum, *size) = (*sum + term, *size + term.abs());
            }
        }
        sums
    })
    .collect()
}

#[test]
fn errors_are_far_below_their_bounds() {
    let (m, k, n) = (40, 3072, 50);
    let w = gaussian(k * n, 9);
    let plain = gaussian(m * k, 10);
    // As in models with an attention sink: a few of the dimensions are a thousand times larger, in some rows.
    let mut outliers = plain.clone();
    for (row, x) in outliers.chunks_mut(k).enumerate() {
        for i in [3, 700, 2047] {
            x[i] *= if row % 3 == 0 { 1000.0 } else { 50.0 };
        }
    }
    for (name, x) in [("gaussian", &plain), ("outliers", &outliers)] {
        let right = exact(x, &w, k, n);
        for arithmetic in Arithmetic::available() {
            let y = multiply(arithmetic, x, &pack(arithmetic, &w, k, n));
            let relative = y.iter().zip(&right).map(|(y, (sum, size))| (f64::from(*y) - sum).abs() / size);
            let largest = relative.fold(0.0, f64::max);
            let bound = match arithmetic.precision() {
                // Blocks of `k` are summed on their own: a twentieth of `K eps` and less.
                Precision::F32 => arithmetic.precision().bound(k) / 20.0,
                _ => arithmetic.precision().bound(k) / 2.0,
            };
            assert!(largest <= bound, "{arithmetic:?}, {name}: {largest:e} > {bound:e}");
        }
    }
}

#[test]
fn widened_bf16_is_the_f32_product_of_rounded_operands() {
    let (m, k, n) = (20, 601, 45);
    let (x, w) = (gaussian(m * k, 11), gaussian(k * n, 12));
    let rounded = |x: &[f32]| -> Vec<f32> {
        let round = |bits: u32| (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
        x.iter().map(|x| f32::from_bits(round(x.to_bits()))).collect()
    };
    for arithmetic in Arithmetic::available().filter(|a| a.kernel_name().ends_with("widened")) {
        let single = Arithmetic::on(arithmetic.backend(), Precision::F32).unwrap();
        let right = multiply(single, &rounded(&x), &pack(single, &rounded(&w), k, n));
        assert_eq!(multiply(arithmetic, &x, &pack(arithmetic, &w, k, n)), right, "{arithmetic:?}");
    }
}
