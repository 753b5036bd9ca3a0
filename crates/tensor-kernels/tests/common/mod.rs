//! What several tests use.
#![allow(dead_code)]

use rayon::ThreadPoolBuilder;

/// Roughly normal values with this spread, as a linear congruential generator gives them.
pub fn normal(n: usize, seed: u64, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    // Twelve uniform values have variance 1.
    (0..n).map(|_| spread * (0..12).map(|_| uniform()).sum::<f32>()).collect()
}

/// The bits of values, for comparisons that tell NaN and zeros apart.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Runs on 1, 2 and 3 threads.
pub fn on_pools<R: Send>(run: impl Fn() -> R + Sync) -> [R; 3] {
    [1, 2, 3].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&run))
}

/// The same multiplication in f64: `a b` with `a` `[m, k]`, `b` read by `at(k, n)`; and the sums of absolute values.
pub fn product_f64(a: &[f32], at: impl Fn(usize, usize) -> f32, m: usize, k: usize, n: usize) -> Vec<(f64, f64)> {
    let entry = |i: usize, j: usize| {
        let terms = (0..k).map(|q| f64::from(a[i * k + q]) * f64::from(at(q, j)));
        terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
    };
    (0..m * n).map(|i| entry(i / n, i % n)).collect()
}
