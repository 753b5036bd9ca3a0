//! Quarter-octave bins of magnitudes, and a feature's [`Histogram`] over them.

use std::ops::Range;

/// Octaves with bins of their own: `2^-15` to `2^16`.
const LOWEST: i32 = -15;
const HIGHEST: i32 = 16;

/// Number of bins: one below `2^-15`, four for each of 31 octaves, one from `2^16`.
pub const BINS: usize = 2 + 4 * (HIGHEST - LOWEST) as usize;

/// Fractions of the first f32 at or above `2^(1/4)`, `2^(2/4)`, `2^(3/4)`. None of these powers is an f32, so that no activation lies on an edge
/// within an octave.
const QUARTERS: [u32; 3] = [1_587_185, 3_474_676, 5_719_293];

/// The bin of an activation's magnitude, by its bits alone: the same on every machine.
///
/// ```text
/// bin 0                      |a| < 2^-15
/// bin 1 + q, q = 0 .. 124    2^(-15 + q/4) <= |a| < 2^(-15 + (q+1)/4)
/// bin 125                    2^16 <= |a|
/// ```
#[must_use]
#[inline]
pub fn bin_of(activation: f32) -> usize {
    let bits = activation.to_bits() & 0x7fff_ffff;
    let fraction = bits & 0x7f_ffff;
    let quarter: u32 = QUARTERS.iter().map(|&edge| u32::from(fraction >= edge)).sum();
    let octave = (bits >> 23) as i32 - 127 - LOWEST;
    (4 * octave + quarter as i32 + 1).clamp(0, BINS as i32 - 1) as usize
}

/// The least magnitude of a bin (0 for bin 0).
///
/// # Panics
/// If there is no such bin.
#[must_use]
pub fn bin_start(bin: usize) -> f32 {
    assert!(bin < BINS, "bin {bin} of {BINS}");
    let Some(quarters) = bin.checked_sub(1) else { return 0.0 };
    let exponent = (quarters / 4) as i32 + LOWEST + 127;
    let fraction = match quarters % 4 {
        0 => 0,
        quarter => QUARTERS[quarter - 1],
    };
    f32::from_bits((exponent as u32) << 23 | fraction)
}

/// The end of a bin: the start of the next; infinity for the last.
///
/// # Panics
/// If there is no such bin.
#[must_use]
pub fn bin_end(bin: usize) -> f32 {
    if bin + 1 == BINS { f32::INFINITY } else { bin_start(bin + 1) }
}

/// Counts of a feature's activations by magnitude, one for each of [`BINS`] quarter-octave bins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    pub(crate) fn new(counts: Vec<u64>) -> Self {
        debug_assert_eq!(counts.len(), BINS);
        Self { counts }
    }

    /// The count of each bin.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The sum of all counts: tokens on which the feature fired.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bins from the first to the last that is not empty.
    #[must_use]
    pub fn occupied(&self) -> Range<usize> {
        let first = self.counts.iter().position(|&count| count > 0);
        let last = self.counts.iter().rposition(|&count| count > 0);
        first.zip(last).map_or(0..0, |(first, last)| first..last + 1)
    }

    /// Exactly re-binned: groups of `per` neighboring occupied bins (4 makes octaves), each as `(start, end, count)` of magnitudes. Groups are cut at
    /// fixed places, so that those of two features lie over each other.
    ///
    /// # Panics
    /// If `per` is 0.
    #[must_use]
    pub fn grouped(&self, per: usize) -> Vec<(f32, f32, u64)> {
        let occupied = self.occupied();
        if occupied.is_empty() {
            return Vec::new();
        }
        // Bin 1 opens a group, so that octaves are octaves.
        let group = |bin: usize| bin.div_ceil(per);
        let bins = |g: usize| (g * per + 1).saturating_sub(per)..(g * per + 1).min(BINS);
        (group(occupied.start)..=group(occupied.end - 1))
            .map(|g| {
                let bins = bins(g);
                (bin_start(bins.start), bin_end(bins.end - 1), self.counts[bins].iter().sum())
            })
            .collect()
    }

    /// Re-binned to `n` equally wide bins from 0 to `max`, for plots: a bin's count is shared out as if its activations were spread evenly in it.
    /// An estimate, off by what of a quarter-octave bin lies on the wrong side of an edge; the total is kept.
    #[must_use]
    pub fn linear(&self, n: usize, max: f32) -> Vec<f64> {
        let mut linear = vec![0.0; n];
        let width = f64::from(max) / n as f64;
        if n == 0 || !width.is_finite() || width <= 0.0 {
            return linear;
        }
        for bin in self.occupied() {
            let [start, end] = [bin_start(bin), bin_end(bin)].map(|edge| f64::from(edge.min(max)));
            let place = |x: f64| ((x / width) as usize).min(n - 1);
            for (i, share) in linear.iter_mut().enumerate().take(place(end) + 1).skip(place(start)) {
                let (left, right) = (start.max(i as f64 * width), end.min((i + 1) as f64 * width));
                let part = if end > start { ((right - left) / (end - start)).max(0.0) } else { 1.0 };
                *share += self.counts[bin] as f64 * part;
            }
        }
        linear
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bin_holds_what_lies_between_its_edges(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(!value.is_nan());
            let bin = bin_of(value);
            prop_assert!(bin_start(bin) <= value.abs());
            prop_assert!(value.abs() < bin_end(bin) || bin + 1 == BINS);
        }

        #[test]
        fn rebinning_keeps_the_total(counts in prop::collection::vec(0u64..50, BINS), n in 1usize..40, per in 1usize..9) {
            let histogram = Histogram::new(counts);
            let total = histogram.total();
            prop_assert_eq!(histogram.grouped(per).iter().map(|g| g.2).sum::<u64>(), total);
            let linear: f64 = histogram.linear(n, 70_000.0).iter().sum();
            prop_assert!((linear - total as f64).abs() < 1e-6 * (1.0 + total as f64));
        }
    }

    #[test]
    fn edges_are_quarter_octaves() {
        for bin in 1..BINS {
            let (start, exact) = (bin_start(bin), 2f64.powf(f64::from(LOWEST) + (bin - 1) as f64 / 4.0));
            // The first f32 that is not below the edge.
            assert!(f64::from(start) >= exact * (1.0 - 1e-15) && f64::from(start.next_down()) < exact, "bin {bin}");
            assert_eq!((bin_of(start), bin_of(start.next_down())), (bin, bin - 1));
            assert_eq!(bin_of(-start), bin);
        }
        assert_eq!((bin_of(0.0), bin_of(f32::MAX), bin_of(1.0), bin_start(61)), (0, BINS - 1, 61, 1.0));
    }

    #[test]
    fn octaves_by_hand() {
        let mut counts = vec![0; BINS];
        (counts[bin_of(1.0)], counts[bin_of(1.99)], counts[bin_of(2.0)]) = (1, 2, 4);
        let histogram = Histogram::new(counts);
        assert_eq!(histogram.grouped(4), [(1.0, 2.0, 3), (2.0, 4.0, 4)]);
        assert_eq!(histogram.grouped(1).len(), 5);
        assert_eq!(Histogram::new(vec![0; BINS]).grouped(4), []);
    }
}
