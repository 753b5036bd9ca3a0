//! Loops over slices: whole vectors, then the part that is left.
//!
//! Macros, not functions of closures: a closure with much in it is not inlined, and is then compiled without the instructions of the
//! entry point that it runs under, forty times as slow.

use super::{Simd, Vector};

/// `x = f(x)`: `map!(s, x, |v| f(v))`.
macro_rules! map {
    ($s:ident, $x:expr, |$v:ident| $f:expr) => {{
        let mut chunks = $x.chunks_exact_mut($s.lanes());
        for chunk in &mut chunks {
            let $v = $s.load(chunk);
            $s.store($f, chunk);
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let $v = $s.load_part(rest, 0.0);
            $s.store_part($f, rest);
        }
    }};
}

/// `y = f(x, y)` for slices of equal length: `zip_map!(s, x, y, |v, w| f(v, w))`.
macro_rules! zip_map {
    ($s:ident, $x:expr, $y:expr, |$v:ident, $w:ident| $f:expr) => {{
        let (x, y): (&[f32], &mut [f32]) = ($x, $y);
        assert_eq!(x.len(), y.len(), "slices of equal length");
        let (mut xs, mut ys) = (x.chunks_exact($s.lanes()), y.chunks_exact_mut($s.lanes()));
        for (x, y) in xs.by_ref().zip(ys.by_ref()) {
            let ($v, $w) = ($s.load(x), $s.load(y));
            $s.store($f, y);
        }
        let (x, y) = (xs.remainder(), ys.into_remainder());
        if !y.is_empty() {
            let ($v, $w) = ($s.load_part(x, 0.0), $s.load_part(y, 0.0));
            $s.store_part($f, y);
        }
    }};
}

/// Four running values, each `fold(value, x)` over every fourth vector, so that they do not wait for each other; the last, partial
/// vector is filled up. Which value meets which depends on the place in the row alone: `fold!(s, x, start, fill, |value, v| ..)`.
macro_rules! fold {
    ($s:ident, $x:expr, $start:expr, $fill:expr, |$value:ident, $v:ident| $f:expr) => {{
        let lanes = $s.lanes();
        // Four variables, not an array that is indexed: they stay in registers.
        let [mut a, mut b, mut c, mut d] = [$s.splat($start); 4];
        let mut quads = $x.chunks_exact(4 * lanes);
        for quad in &mut quads {
            let ($value, $v) = (a, $s.load(quad));
            a = $f;
            let ($value, $v) = (b, $s.load(&quad[lanes..]));
            b = $f;
            let ($value, $v) = (c, $s.load(&quad[2 * lanes..]));
            c = $f;
            let ($value, $v) = (d, $s.load(&quad[3 * lanes..]));
            d = $f;
        }
        let mut all = [a, b, c, d];
        for (value, x) in all.iter_mut().zip(quads.remainder().chunks(lanes)) {
            let ($value, $v) = (*value, $s.load_part(x, $fill));
            *value = $f;
        }
        all
    }};
}

pub(crate) use {fold, map, zip_map};

/// The sum of four running sums, in a fixed order.
#[inline(always)]
pub(crate) fn total<V: Vector>([a, b, c, d]: [V; 4]) -> f32 {
    ((a + b) + (c + d)).sum()
}

/// The sum of a row, in an order that depends on its width alone. Zeros at the end of a row do not change it.
#[inline(always)]
pub(crate) fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    total(fold!(s, x, 0.0, 0.0, |sum, x| sum + x))
}

/// The largest value, NaN left aside; -inf for nothing.
#[inline(always)]
pub(crate) fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let [a, b, c, d] = fold!(s, x, f32::NEG_INFINITY, f32::NEG_INFINITY, |largest, x| x.max(largest));
    a.max(b).max(c.max(d)).largest()
}
