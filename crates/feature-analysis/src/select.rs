//! Keeping the best few of a long stream, with ties decided by key.

/// The `k` best of a stream of `(value, key)`: largest value first, equal values by the lower key.
///
/// The answer does not depend on the order in which entries arrive, so streams may be cut and merged at will.
/// `k` is meant to be small (tens): an entry that makes it costs a binary search and a shift.
///
/// ```
/// use feature_analysis::TopK;
/// let mut best = TopK::new(2);
/// for (key, value) in [3.0, 7.0, 7.0, 5.0].into_iter().enumerate() {
///     best.offer(value, key);
/// }
/// assert_eq!(best.entries(), &[(7.0, 1), (7.0, 2)]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TopK<K> {
    k: usize,
    entries: Vec<(f32, K)>,
}

impl<K: Copy + Ord> TopK<K> {
    /// Room for the best `k`.
    #[must_use]
    pub fn new(k: usize) -> Self {
        // `k` is an upper bound; do not allocate it up front.
        Self { k, entries: Vec::with_capacity(k.min(64)) }
    }

    /// Offers an entry. NaN is never kept: callers that must not lose one check before.
    pub fn offer(&mut self, value: f32, key: K) {
        let better = |&(v, kept): &(f32, K)| v > value || (v == value && kept < key);
        if value.is_nan() || (self.entries.len() == self.k && self.entries.last().is_none_or(better)) {
            return;
        }
        let place = self.entries.partition_point(better);
        if self.entries.len() == self.k {
            self.entries.pop();
        }
        self.entries.insert(place, (value, key));
    }

    /// The value that an entry must exceed (or tie with a lower key) to get in: minus infinity while there is room.
    #[must_use]
    pub fn floor(&self) -> f32 {
        match self.entries.last() {
            Some(&(value, _)) if self.entries.len() == self.k => value,
            _ if self.k == 0 => f32::INFINITY,
            _ => f32::NEG_INFINITY,
        }
    }

    /// The best so far, in order.
    #[must_use]
    pub fn entries(&self) -> &[(f32, K)] {
        &self.entries
    }

    /// Takes in the entries of another selection of the same stream.
    pub fn merge(&mut self, other: &Self) {
        for &(value, key) in &other.entries {
            self.offer(value, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_full_sort_in_any_order_and_merge(values in prop::collection::vec(-3i8..3, 0..60), k in 0usize..8, cut in 0usize..60) {
            let stream: Vec<(f32, usize)> = values.iter().enumerate().map(|(i, &v)| (f32::from(v), i)).collect();
            let mut want = stream.clone();
            want.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            want.truncate(k);
            let cut = cut.min(stream.len());
            let (mut left, mut right) = (TopK::new(k), TopK::new(k));
            stream[..cut].iter().rev().for_each(|&(v, i)| left.offer(v, i));
            stream[cut..].iter().for_each(|&(v, i)| right.offer(v, i));
            right.merge(&left);
            prop_assert_eq!(right.entries(), &want[..]);
        }
    }

    #[test]
    fn a_nan_is_never_kept() {
        let mut best = TopK::new(2);
        best.offer(f32::NAN, 0);
        best.offer(f32::NEG_INFINITY, 1);
        assert_eq!(best.entries(), &[(f32::NEG_INFINITY, 1)]);
    }
}
