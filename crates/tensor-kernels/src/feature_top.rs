//! The strongest few activations of each of many features, kept over a stream: [`FeatureTop`].

/// One activation with its address.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TopEntry {
    /// The activation; finite.
    pub value: f32,
    /// Goes along, and is not looked at (the token's id, say).
    pub note: u32,
    /// Its address; different for the entries of one feature.
    pub address: u64,
}

impl TopEntry {
    /// Entries in the order of their keys are in the order of their rank: the larger magnitude first, equal magnitudes by the lower address.
    fn key(&self) -> u128 {
        u128::from(!self.value.abs().to_bits()) << 64 | u128::from(self.address)
    }
}

/// For each of many features the `k` strongest activations of a stream: the largest magnitude first, equal magnitudes by the lower
/// address.
///
/// The answer does not depend on the order in which activations arrive, so streams may be cut and merged at will. Each feature has a buffer of
/// `2k` entries and a floor. An activation below the floor costs one comparison; others go to the end of the buffer, and when it is full
/// the best `k` are selected, `O(k)` for `k` entries, and the `k`-th is the new floor. A stream whose values are all equal
/// pays that selection for every `k` entries, and no more.
///
/// ```
/// use tensor_kernels::FeatureTop;
/// let mut top = FeatureTop::new(3, 2); // 3 features, the best 2 of each
/// for (address, value) in [(0, 3.0), (1, 7.0), (2, 7.0), (3, 5.0)] {
///     top.offer(1, value, address, 0);
/// }
/// let best: Vec<_> = top.ranked(1).iter().map(|entry| (entry.value, entry.address)).collect();
/// assert_eq!(best, [(7.0, 1), (7.0, 2)]);
/// ```
///
/// # Memory
/// `features * (32 k + 8)` bytes ([`memory_bytes`](Self::memory_bytes)), taken at construction; nothing is allocated afterwards but by
/// [`ranked`](Self::ranked).
#[derive(Clone, Debug)]
pub struct FeatureTop {
    k: usize,
    /// An activation with a smaller magnitude does not get in. Zero until a buffer was full; infinite where `k` is 0.
    floor: Vec<f32>,
    len: Vec<u32>,
    entries: Vec<TopEntry>,
}

impl FeatureTop {
    /// Room for the best `k` of each feature.
    ///
    /// # Panics
    /// If `2 k * features` entries are more than an address space holds.
    #[must_use]
    pub fn new(features: usize, k: usize) -> Self {
        let floor = if k == 0 { f32::INFINITY } else { 0.0 };
        let entries = k.checked_mul(2).and_then(|room| room.checked_mul(features)).expect("2 k * features overflows");
        let mut entries = vec![TopEntry::default(); entries];
        crate::prefer_huge_pages(&mut entries);
        Self { k, floor: vec![floor; features], len: vec![0; features], entries }
    }

    /// Memory that [`new`](Self::new) takes, in bytes.
    #[must_use]
    pub fn memory_bytes(features: usize, k: usize) -> u64 {
        features as u64 * (2 * k as u64 * size_of::<TopEntry>() as u64 + 8)
    }

    /// Number of features.
    #[must_use]
    pub fn features(&self) -> usize {
        self.floor.len()
    }

    /// Number of entries kept per feature.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Offers an activation. NaN is never kept: callers that must not lose one check before.
    ///
    /// # Panics
    /// If there is no such feature.
    #[inline]
    pub fn offer(&mut self, feature: usize, value: f32, address: u64, note: u32) {
        if value.abs() >= self.floor[feature] {
            self.keep(feature, TopEntry { value, note, address });
        }
    }

    fn keep(&mut self, feature: usize, entry: TopEntry) {
        let room = 2 * self.k;
        if room == 0 {
            return;
        }
        let buffer = &mut self.entries[feature * room..(feature + 1) * room];
        let len = &mut self.len[feature];
        buffer[*len as usize] = entry;
        *len += 1;
        if *len as usize == room {
            let (_, kth, _) = buffer.select_nth_unstable_by_key(self.k - 1, TopEntry::key);
            self.floor[feature] = kth.value.abs();
            *len = self.k as u32;
        }
    }

    /// Entries held for a feature: its best `k` and up to `k` more, unordered.
    ///
    /// # Panics
    /// If there is no such feature.
    #[must_use]
    pub fn held(&self, feature: usize) -> &[TopEntry] {
        let start = feature * 2 * self.k;
        &self.entries[start..start + self.len[feature] as usize]
    }

    /// The best `k` of a feature, strongest first; fewer where fewer were offered.
    ///
    /// # Panics
    /// If there is no such feature.
    #[must_use]
    pub fn ranked(&self, feature: usize) -> Vec<TopEntry> {
        let mut best = self.held(feature).to_vec();
        best.sort_unstable_by_key(TopEntry::key);
        best.truncate(self.k);
        best
    }

    /// Takes in what another selection over the same features holds.
    ///
    /// # Panics
    /// If the numbers of features differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.features(), other.features(), "two selections over different numbers of features");
        for feature in 0..self.features() {
            for entry in other.held(feature) {
                self.offer(feature, entry.value, entry.address, entry.note);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_full_sort_in_any_order_and_merge(
            stream in prop::collection::vec((0usize..4, -3i8..4), 0..400),
            k in 0usize..9,
            cut in 0usize..400,
            order in any::<u64>(),
        ) {
            let entry = |(i, &(feature, value)): (usize, &(usize, i8))| {
                (feature, TopEntry { value: f32::from(value), note: i as u32 ^ 7, address: (i as u64) << 30 })
            };
            let mut stream: Vec<(usize, TopEntry)> = stream.iter().enumerate().map(entry).collect();
            let want = |feature: usize| {
                let mut all: Vec<TopEntry> = stream.iter().filter(|(f, _)| *f == feature).map(|(_, e)| *e).collect();
                all.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()).then(a.address.cmp(&b.address)));
                all.truncate(k);
                all
            };
            let want: Vec<_> = (0..4).map(want).collect();
            // Any order will do: by a hash of the address.
            stream.sort_by_key(|(_, e)| (e.address | 1).wrapping_mul(order | 1));
            let cut = cut.min(stream.len());
            let (mut left, mut right) = (FeatureTop::new(4, k), FeatureTop::new(4, k));
            for (i, (feature, e)) in stream.iter().enumerate() {
                let side = if i < cut { &mut left } else { &mut right };
                side.offer(*feature, e.value, e.address, e.note);
            }
            right.merge(&left);
            for (feature, want) in want.iter().enumerate() {
                prop_assert_eq!(&right.ranked(feature), want);
            }
        }
    }

    #[test]
    fn a_nan_is_never_kept_and_the_memory_is_as_said() {
        let mut top = FeatureTop::new(5, 3);
        top.offer(4, f32::NAN, 1, 0);
        assert_eq!(top.held(4), []);
        let held = size_of_val(&top.floor[..]) + size_of_val(&top.len[..]) + size_of_val(&top.entries[..]);
        assert_eq!(held as u64, FeatureTop::memory_bytes(5, 3));
    }
}
