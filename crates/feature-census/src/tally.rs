//! Data of one feature: its numbers ([`Tally`]), a sampled activation ([`Kept`]), and all of it as files have it ([`FeatureParts`]).

/// The numbers of one feature, one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Tally {
    pub(crate) sum: i128,
    pub(crate) squares: u128,
    pub(crate) count: u64,
    /// In how many documents it fired, counted anew in each stretch of neighboring rows.
    pub(crate) documents: u64,
    /// Largest and smallest activation as bits, so that a tally is `Eq`; meaningless while `count` is 0.
    max: u32,
    min: u32,
    /// The number of the latest document in which it fired; 0 for none.
    pub(crate) document: u32,
    /// The bin of the largest magnitude.
    pub(crate) top_bin: u8,
}

impl Tally {
    pub(crate) const EMPTY: Self =
        Self { sum: 0, squares: 0, count: 0, documents: 0, max: 0, min: 0, document: 0, top_bin: 0 };

    pub(crate) fn max(&self) -> f32 {
        f32::from_bits(self.max)
    }

    pub(crate) fn min(&self) -> f32 {
        f32::from_bits(self.min)
    }

    /// Widens the range from `min` to `max`; the first time it is these two.
    pub(crate) fn widen(&mut self, first: bool, min: f32, max: f32) {
        if first || max > self.max() {
            self.max = max.to_bits();
        }
        if first || min < self.min() {
            self.min = min.to_bits();
        }
    }
}

/// A sampled activation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) address: u64,
    pub(crate) value: f32,
    pub(crate) token: u32,
}

/// All data of one feature, as files store it.
#[derive(Clone, Debug)]
pub(crate) struct FeatureParts {
    pub(crate) count: u64,
    pub(crate) sum: i128,
    pub(crate) squares: u128,
    pub(crate) min: f32,
    pub(crate) max: f32,
    pub(crate) documents: u64,
    /// The bins that are not empty, rising.
    pub(crate) histogram: Vec<(u8, u64)>,
    pub(crate) top: Vec<Kept>,
    /// By bin and hash.
    pub(crate) samples: Vec<(u8, Kept)>,
    pub(crate) together: Vec<u64>,
}
