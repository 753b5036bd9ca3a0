//! Sums that do not depend on the order: activations as whole numbers of a small unit.
//!
//! ```text
//! activation   in units of 2^-64   exact for magnitudes of 2^-41 and more (and 0), else rounded: off by at most 2^-65
//! its square   in units of 2^-52   exact for magnitudes of 1/2^3 and more (and 0), else rounded: off by at most 2^-53
//! ```
//!
//! Each value is rounded alone, to the nearest unit, halves away from zero, so that sums stay independent of order and grouping. Magnitudes are
//! below [`LIMIT`] and there are at most [`MOST_TOKENS`]: sums stay below `2^20 * 2^36 * 2^64 = 2^120`, sums of squares below
//! `2^40 * 2^36 * 2^52 = 2^128`. Nothing can overflow.

/// Activations are below this magnitude, `2^20`; others are an error.
pub const LIMIT: f32 = 1_048_576.0;

/// A census takes in at most so many tokens, `2^36` (6.9e10).
pub const MOST_TOKENS: u64 = 1 << 36;

/// Unit of a sum of activations, `2^-64`.
pub(crate) const SUM_UNIT: f64 = 1.0 / (1u128 << 64) as f64;

/// Unit of a sum of squares, `2^-52`.
pub(crate) const SQUARE_UNIT: f64 = 1.0 / (1u64 << 52) as f64;

/// Magnitude as `significand * 2^(exponent - 150)`.
fn parts(value: f32) -> (u32, i32) {
    let bits = value.to_bits() & 0x7fff_ffff;
    let (exponent, fraction) = (bits >> 23, bits & 0x7f_ffff);
    // Numbers below the normal ones have no hidden bit and the smallest exponent.
    if exponent == 0 { (fraction, 1) } else { (fraction | 0x80_0000, exponent as i32) }
}

/// `significand * 2^shift`, rounded to a whole number, halves up.
fn scaled(significand: u64, shift: i32) -> u128 {
    if shift >= 0 {
        u128::from(significand) << shift
    } else if shift > -64 {
        u128::from((significand + (1 << (-shift - 1))) >> -shift)
    } else {
        0
    }
}

/// An activation in units of `2^-64`.
pub(crate) fn sum_units(value: f32) -> i128 {
    let (significand, exponent) = parts(value);
    let units = scaled(u64::from(significand), exponent - 150 + 64) as i128;
    if value < 0.0 { -units } else { units }
}

/// The square of an activation in units of `2^-52`.
pub(crate) fn square_units(value: f32) -> u128 {
    let (significand, exponent) = parts(value);
    let significand = u64::from(significand);
    scaled(significand * significand, 2 * (exponent - 150) + 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn units_are_the_nearest(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite() && value.abs() < LIMIT);
            let exact = f64::from(value);
            let sum = sum_units(value) as f64 * SUM_UNIT;
            let allowed = if value.abs() >= 2f32.powi(-41) { 0.0 } else { 2f64.powi(-65) };
            prop_assert!((sum - exact).abs() <= allowed, "{value:e}: {sum:e}");
            // The square of an f32 is exact in f64.
            let square = square_units(value) as f64 * SQUARE_UNIT;
            let allowed = if value.abs() >= 0.125 { 0.0 } else { 2f64.powi(-53) };
            prop_assert!((square - exact * exact).abs() <= allowed, "{value:e}: {square:e}");
        }
    }

    #[test]
    fn by_hand() {
        assert_eq!(sum_units(1.0), 1 << 64);
        assert_eq!(sum_units(-2.5), -(5 << 63));
        assert_eq!(square_units(-3.0), 9 << 52);
        assert_eq!((sum_units(0.0), square_units(-0.0), sum_units(f32::from_bits(1))), (0, 0, 0));
        // Half a unit goes up, the next smaller number goes down.
        assert_eq!(sum_units(2f32.powi(-65)), 1);
        assert_eq!(sum_units(2f32.powi(-65).next_down()), 0);
        let largest = LIMIT.next_down();
        assert!(sum_units(largest).checked_mul(i128::from(MOST_TOKENS)).is_some());
        assert!(square_units(largest).checked_mul(u128::from(MOST_TOKENS)).is_some());
    }
}
