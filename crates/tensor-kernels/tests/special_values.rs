//! Numbers at the ends of what an f32 can be, on every back end: infinities, NaN, the largest, the smallest, the unluckiest to round.

use tensor_kernels::{Arithmetic, Backend, MatrixRef, PackedMatrix, PackedRows, Precision, Store, product};

/// `x [m, k] w [k, n]`.
fn multiply(arithmetic: Arithmetic, x: &[f32], w: &[f32], k: usize, n: usize) -> Vec<f32> {
    let mut rows = PackedRows::new();
    rows.pack(arithmetic, x, k).unwrap();
    let packed = PackedMatrix::pack(arithmetic, MatrixRef::row_major(w, k, n).unwrap()).unwrap();
    let mut y = vec![0.0; rows.rows() * n];
    product(&rows, &packed, Store::new(&mut y, n, None).unwrap()).unwrap();
    y
}

/// Values in -2..2 without a pattern of 2, 16 or 32.
fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 4001) as f32 - 2000.0) / 1000.0).collect()
}

#[test]
fn what_is_not_finite_stays_so_and_keeps_to_its_row_or_column() {
    let (m, k, n) = (35, 70, 37);
    for arithmetic in Arithmetic::available() {
        let (x, w) = (values(m * k), values(k * n));
        let right = multiply(arithmetic, &x, &w, k, n);
        assert!(right.iter().all(|y| y.is_finite()));
        for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            for (i, q, j) in [(0, 0, 0), (17, 33, 16), (m - 1, k - 1, n - 1)] {
                let check = |y: Vec<f32>, hit: &dyn Fn(usize) -> bool| {
                    for (at, (y, right)) in y.iter().zip(&right).enumerate() {
                        let as_asked = if hit(at) { !y.is_finite() } else { y == right };
                        assert!(
                            as_asked && (!special.is_nan() || !hit(at) || y.is_nan()),
                            "{arithmetic:?} {special} {at}: {y}"
                        );
                    }
                };
                let (mut x, mut w) = (x.clone(), w.clone());
                x[i * k + q] = special;
                check(multiply(arithmetic, &x, &values(k * n), k, n), &|at| at / n == i);
                w[q * n + j] = special;
                check(multiply(arithmetic, &values(m * k), &w, k, n), &|at| at % n == j);
            }
        }
    }
}

#[test]
fn finite_numbers_stay_finite_up_to_the_largest() {
    let largest_bf16 = f32::from_bits(0x7f7f_0000);
    for arithmetic in Arithmetic::available() {
        for x in [f32::MAX, f32::MIN, 3.4e38, 3.397e38, largest_bf16, -largest_bf16, f32::from_bits(0x7f7f_8000)] {
            for w in [1.0, 0.5, -1.0] {
                let y = multiply(arithmetic, &[x], &[w], 1, 1)[0];
                let error = (f64::from(y) - f64::from(x) * f64::from(w)).abs() / (f64::from(x) * f64::from(w)).abs();
                let bound = if x.abs() > 3.3e38 { 2f64.powi(-7) } else { arithmetic.precision().bound(1) };
                assert!(error <= bound, "{arithmetic:?}: {x} * {w} = {y}");
            }
        }
        // Large, but their sum fits.
        let y = multiply(arithmetic, &[1e38, 1e38, 1e38, -3e38], &[1.0; 4], 4, 1)[0];
        assert!(f64::from(y).abs() <= arithmetic.precision().bound(4) * 6e38, "{arithmetic:?}: {y}");
    }
}

#[test]
fn small_numbers_are_lost_only_below_the_normal_ones() {
    for arithmetic in Arithmetic::available() {
        for (x, w) in [
            (1e-30f32, 1e-6f32),
            (1e-37, 3.0),
            (1e-40, 1e10),
            (1e-45, 1e38),
            (1e-20, 1e-20),
            (3.1e-36, 0.7),
            (1e-19, 1e-19),
        ] {
            for k in [1, 2, 40] {
                let y = multiply(arithmetic, &vec![x; k], &vec![w; k], k, 1)[0];
                let (x, w, terms) = (f64::from(x), f64::from(w), k as f64);
                let lost = 2f64.powi(-125) * terms * (x + w + 4.0);
                let bound = arithmetic.precision().bound(k) * terms * x * w + lost;
                assert!((f64::from(y) - terms * x * w).abs() <= bound, "{arithmetic:?}: {k} times {x} * {w} = {y}");
            }
        }
    }
}

#[test]
fn the_bounds_are_attained_and_kept_by_the_unluckiest_numbers() {
    let unlucky = [1.0 + 2f32.powi(-8), 1.0 + 2f32.powi(-8) + 2f32.powi(-17), 1.0 + 2f32.powi(-8) - 2f32.powi(-17)];
    for arithmetic in Arithmetic::available() {
        let mut largest = 0f64;
        for (a, b) in unlucky.iter().flat_map(|a| unlucky.iter().map(move |b| (*a, *b))) {
            for k in [1, 2, 3, 4, 17, 33, 500] {
                let y = multiply(arithmetic, &vec![a; k], &vec![b; k], k, 1)[0];
                let right = k as f64 * f64::from(a) * f64::from(b);
                let error = (f64::from(y) - right).abs() / right;
                assert!(error <= arithmetic.precision().bound(k), "{arithmetic:?}: {k} times {a} * {b}: {error}");
                largest = largest.max(error);
            }
        }
        if arithmetic.backend() == Backend::Amx {
            let attained = match arithmetic.precision() {
                Precision::F32Fast => 0.99 * 2f64.powi(-15),
                Precision::Bf16 => 0.99 * 2f64.powi(-7),
                _ => 0.0,
            };
            assert!(largest >= attained, "{arithmetic:?}: {largest} is less than the bound says");
        }
    }
}
