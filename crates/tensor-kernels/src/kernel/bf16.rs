//! bf16: the upper half of an f32, 8 significant bits. Rounding to it, and splitting an f32 into two of them.
//!
//! Rounding is to nearest, ties to even, and never leaves the finite numbers: what lies beyond the largest bf16 becomes the largest, an
//! error of at most `2^-8 |x|` like any other rounding. Infinities stay, and what is no number stays none. Subnormal numbers are
//! rounded like others here; AMX takes them as zero when it multiplies.
//!
//! Straight-line code without branches: the compiler makes vector instructions of loops over it, where the caller enables them.

/// The largest finite bf16, `(2 - 2^-7) 2^127`.
const LARGEST: u32 = 0x7f7f;
/// Bits of an f32 infinity.
const INFINITY: u32 = 0x7f80_0000;
/// The largest bf16 below `2^120`: see [`split`].
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
const LARGEST_REST: f32 = f32::from_bits(0x7b7f_0000);

/// The nearest bf16: `|x - round(x)| <= 2^-8 |x|`, in absolute terms half of the last bit's worth.
#[inline(always)]
pub(crate) fn round(x: f32) -> u16 {
    let (size, sign) = (x.to_bits() & !(1 << 31), x.to_bits() >> 16 & 0x8000);
    let rounded = size.wrapping_add(0x7fff + (size >> 16 & 1)) >> 16; // wraps for nothing that is a number
    let finite = if rounded > LARGEST { LARGEST } else { rounded };
    let special = if size > INFINITY { 0x7fc0 } else { INFINITY >> 16 };
    (sign | if size < INFINITY { finite } else { special }) as u16
}

/// The f32 that a bf16 is.
#[inline(always)]
pub(crate) fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// `x` as a sum of two bf16, `hi` nearest to `x` and `lo` nearest to the rest: `|x - hi - lo| <= 2^-17 |x|` and `|lo| <= 2^-8 |x|`.
/// `hi + lo` is an f32.
///
/// For an `x` that is not finite `lo` is 0, so that `hi + lo` is `x`. Beyond `2^128 - 2^111` (about 3.4028e38) `lo` would be one that
/// makes `hi + lo` infinite: there it is the next below, and up to `2^-16 |x|` is left.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // only AMX computes with both parts
pub(crate) fn split(x: f32) -> (u16, u16) {
    let hi = round(x);
    let rest = (x - widen(hi)).clamp(-LARGEST_REST, LARGEST_REST);
    // The difference of an infinity and itself is no number.
    (hi, round(if rest.is_nan() { 0.0 } else { rest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every exponent and sign with mantissas at and beside the places where rounding changes, and many others.
    fn numbers() -> impl Iterator<Item = f32> {
        let edges = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1_0000, 0x1_7fff, 0x1_8000, 0x1_8001, 0x40_8000];
        let near_end = [0x7e_8000, 0x7e_8001, 0x7f_0000, 0x7f_7fff, 0x7f_8000, 0x7f_ffff];
        let mantissas = edges.into_iter().chain(near_end).chain((0..0x80_0000).step_by(10_007));
        mantissas.flat_map(|m| (0..512).map(move |e| f32::from_bits(e << 23 | m)))
    }

    #[test]
    fn rounding_is_to_the_nearest_ties_to_even() {
        for x in numbers() {
            let y = widen(round(x));
            if !x.is_finite() {
                assert!(y == x || (x.is_nan() && y.is_nan()), "{x} became {y}");
                continue;
            }
            let error = (f64::from(x) - f64::from(y)).abs();
            assert!(y.is_finite() && error <= f64::from(x).abs() / 256.0 || error <= f64::from(f32::from_bits(0x8000)));
            for beside in [round(x).wrapping_sub(1), round(x).wrapping_add(1)] {
                let other = (f64::from(x) - f64::from(widen(beside))).abs();
                let no_neighbor = !widen(beside).is_finite() || beside & 0x7fff == 0x7fff || round(x) & 0x7fff == 0;
                assert!(no_neighbor || error < other || (error == other && round(x) & 1 == 0), "{x}: {y}");
            }
        }
    }

    #[test]
    fn two_parts_leave_two_to_the_minus_seventeen() {
        for x in numbers() {
            let (hi, lo) = split(x);
            let (hi, lo) = (widen(hi), widen(lo));
            if !x.is_finite() {
                assert!(lo == 0.0 && (hi == x || x.is_nan() && hi.is_nan()));
                continue;
            }
            let (size, smallest) = (f64::from(x).abs(), f64::from(f32::from_bits(1)));
            let error = (f64::from(x) - f64::from(hi) - f64::from(lo)).abs();
            let bound = size * if size > 3.4028e38 { 2f64.powi(-16) } else { 2f64.powi(-17) };
            assert!(error <= bound || error <= smallest * 32768.0, "{x}: {hi} + {lo}");
            assert!(f64::from(lo).abs() <= size / 256.0 || size < smallest * 65536.0, "{x}: {lo}");
            assert!((hi + lo).is_finite() && f64::from(hi + lo) == f64::from(hi) + f64::from(lo), "{x}: {hi} + {lo}");
        }
    }
}
