//! Loops over slices: whole vectors, then the part that is left.

use super::{Simd, Vector};

/// `x = f(x)`.
#[inline(always)]
pub(crate) fn map<S: Simd>(s: S, x: &mut [f32], f: impl Fn(S::V) -> S::V) {
    let mut chunks = x.chunks_exact_mut(S::LANES);
    for x in &mut chunks {
        s.store(f(s.load(x)), x);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        s.store_part(f(s.load_part(rest, 0.0)), rest);
    }
}

/// `y = f(x, y)` for slices of equal length.
#[inline(always)]
pub(crate) fn zip_map<S: Simd>(s: S, x: &[f32], y: &mut [f32], f: impl Fn(S::V, S::V) -> S::V) {
    assert_eq!(x.len(), y.len(), "slices of equal length");
    let (mut xs, mut ys) = (x.chunks_exact(S::LANES), y.chunks_exact_mut(S::LANES));
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        s.store(f(s.load(x), s.load(y)), y);
    }
    let (x, y) = (xs.remainder(), ys.into_remainder());
    if !y.is_empty() {
        s.store_part(f(s.load_part(x, 0.0), s.load_part(y, 0.0)), y);
    }
}

/// Four running values, each `fold(value, x)` over every fourth vector, so that they do not wait for each other; the last, partial
/// vector is filled up. Which value meets which depends on the place in the row alone.
#[inline(always)]
pub(crate) fn fold<S: Simd>(s: S, x: &[f32], start: f32, fill: f32, fold: impl Fn(S::V, S::V) -> S::V) -> [S::V; 4] {
    let [mut a, mut b, mut c, mut d] = [s.splat(start); 4];
    let mut quads = x.chunks_exact(4 * S::LANES);
    for x in &mut quads {
        a = fold(a, s.load(x));
        b = fold(b, s.load(&x[S::LANES..]));
        c = fold(c, s.load(&x[2 * S::LANES..]));
        d = fold(d, s.load(&x[3 * S::LANES..]));
    }
    let mut all = [a, b, c, d];
    for (value, x) in all.iter_mut().zip(quads.remainder().chunks(S::LANES)) {
        *value = fold(*value, s.load_part(x, fill));
    }
    all
}

/// The sum of a row, in an order that depends on its width alone. Zeros at the end of a row do not change it.
#[inline(always)]
pub(crate) fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let [a, b, c, d] = fold(s, x, 0.0, 0.0, |sum, x| sum + x);
    ((a + b) + (c + d)).sum()
}

/// The largest value, NaN left aside; -inf for nothing.
#[inline(always)]
pub(crate) fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let [a, b, c, d] = fold(s, x, f32::NEG_INFINITY, f32::NEG_INFINITY, |largest, x| x.max(largest));
    a.max(b).max(c.max(d)).largest()
}
