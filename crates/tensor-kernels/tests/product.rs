//! Every kernel of this machine against a sum in f64.

use proptest::prelude::*;
use tensor_kernels::{AddTo, Arithmetic, MatrixRef, Operand, PackedMatrix, PackedRows, Store, product};

/// Values as a linear congruential generator gives them, in -1..1; every `outlier`-th is 100 times as large.
fn values(n: usize, seed: u64, outlier: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..n)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            if outlier > 0 && i % outlier == 0 { 100.0 * x } else { x }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_are_within_their_bounds(
        m in 0usize..70, k in 0usize..600, n in 0usize..100, seed: u64, outlier in 0usize..9, transposed: bool,
    ) {
        let (x, w) = (values(m * k, seed, outlier), values(k * n, !seed, outlier));
        let bias = values(n, seed ^ 5, 0);
        let matrix = if transposed { MatrixRef::transposed(&w, k, n) } else { MatrixRef::row_major(&w, k, n) }.unwrap();
        let at = |i: usize, j: usize| if transposed { w[j * k + i] } else { w[i * n + j] };
        for arithmetic in Arithmetic::available() {
            let mut rows = PackedRows::new();
            rows.pack(arithmetic, &x, k).unwrap();
            let m = if k == 0 { 0 } else { m };
            let packed = PackedMatrix::pack(arithmetic, matrix).unwrap();
            let mut y = vec![f32::NAN; m * n];
            product(&rows, &packed, Store::new(&mut y, n, Some(&bias)).unwrap()).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let terms = (0..k).map(|q| f64::from(x[i * k + q]) * f64::from(at(q, j)));
                    let (right, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                    let right = right + f64::from(bias[j]);
                    let bound = arithmetic.precision().bound(k) * size + 2e-7 * right.abs() + 1e-30;
                    let error = (f64::from(y[i * n + j]) - right).abs();
                    prop_assert!(error <= bound, "{arithmetic:?} {i} {j}: {error} > {bound}");
                }
            }
            let mut plain = vec![1.0; m * n];
            product(&rows, Operand::Plain(matrix), AddTo::new(&mut plain, n, Some(&bias)).unwrap()).unwrap();
            prop_assert!(plain.iter().zip(&y).all(|(plain, y)| *plain == 1.0 + y), "{arithmetic:?}");
        }
    }
}
