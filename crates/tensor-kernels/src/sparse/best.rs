//! The few best of a long stream, as numbers that order themselves.
//!
//! An entry is one `u64` that is larger the better the entry: its value's rank above, the complement of its column below, so that of
//! equal values the lower column wins. Entries are collected unsorted; whenever twice as many as wanted have come, a selection drops the worse
//! half and raises the floor that later ones must exceed.

/// Entries that a row of a tile can add.
const TILE: usize = crate::TILE_COLS;

/// Number of entries collected before a selection.
pub(crate) fn limit(k: usize) -> usize {
    2 * k + TILE
}

/// Largest number of entries of a list, for any input.
pub(crate) fn room(k: usize) -> usize {
    limit(k) + TILE
}

/// Drops all but the `k` largest; the least of those kept, if there are `k`.
pub(crate) fn keep(keys: &mut Vec<u64>, k: usize) -> Option<u64> {
    if keys.len() < k || k == 0 {
        keys.truncate(k);
        return None;
    }
    let (_, &mut last, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    keys.truncate(k);
    Some(last)
}

/// Takes the best of another list, which is empty afterwards. Both have [`room`] enough.
pub(crate) fn join(keys: &mut Vec<u64>, others: &mut Vec<u64>, k: usize) {
    keep(others, k);
    keys.append(others);
    keep(keys, k);
}

/// Values by their size, with room for a sign: `|value|` (31 bits), complement of the column, sign.
pub(crate) mod by_size {
    /// NaN is larger than any number, whatever its bits.
    pub fn key(value: f32, column: u32) -> u64 {
        let size = if value.is_nan() { f32::NAN } else { value.abs() };
        u64::from(size.to_bits() & (u32::MAX >> 1)) << 33
            | u64::from(!column) << 1
            | u64::from(value.is_sign_negative())
    }

    pub fn value(key: u64) -> f32 {
        f32::from_bits((key >> 33) as u32 | ((key & 1) as u32) << 31)
    }

    pub fn column(key: u64) -> u32 {
        !((key >> 1) as u32)
    }
}

/// Values in the order of numbers, NaN above all: an order-keeping image of the value, complement of the column.
pub(crate) mod by_value {
    const NAN: u32 = u32::MAX;

    /// Rank of a value: rises with it. Both zeros are the same.
    fn rank(value: f32) -> u32 {
        let bits = (value + 0.0).to_bits();
        if value.is_nan() {
            NAN
        } else if bits >> 31 == 1 {
            !bits
        } else {
            bits | 1 << 31
        }
    }

    /// The largest first.
    pub fn top(value: f32, column: u32) -> u64 {
        u64::from(rank(value)) << 32 | u64::from(!column)
    }

    /// The smallest first.
    pub fn bottom(value: f32, column: u32) -> u64 {
        let rank = rank(value);
        u64::from(if rank == NAN { NAN } else { !rank }) << 32 | u64::from(!column)
    }

    pub fn top_value(key: u64) -> f32 {
        let rank = (key >> 32) as u32;
        f32::from_bits(if rank >> 31 == 1 { rank & (u32::MAX >> 1) } else { !rank })
    }

    pub fn bottom_value(key: u64) -> f32 {
        match (key >> 32) as u32 {
            NAN => f32::NAN,
            rank => top_value(u64::from(!rank) << 32),
        }
    }

    pub fn column(key: u64) -> u32 {
        !(key as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f32; 8] = [f32::NEG_INFINITY, -2.0, -1e-40, 0.0, 1e-40, 1.0, f32::MAX, f32::INFINITY];

    #[test]
    fn keys_order_like_values_then_columns_and_give_them_back() {
        for (i, &a) in VALUES.iter().enumerate() {
            assert_eq!((by_value::top_value(by_value::top(a, 7)), by_value::column(by_value::top(a, 7))), (a, 7));
            assert_eq!(
                (by_value::bottom_value(by_value::bottom(a, 9)), by_value::column(by_value::bottom(a, 9))),
                (a, 9)
            );
            assert_eq!((by_size::value(by_size::key(a, 3)), by_size::column(by_size::key(a, 3))), (a, 3));
            assert!(by_value::top(a, 3) > by_value::top(a, 4) && by_value::bottom(a, 3) > by_value::bottom(a, 4));
            assert!(by_size::key(a, 3) > by_size::key(-a, 4));
            for &b in &VALUES[i + 1..] {
                assert!(by_value::top(a, 0) < by_value::top(b, 9) && by_value::bottom(a, 9) > by_value::bottom(b, 0));
            }
            for nan in [f32::NAN, -f32::NAN] {
                assert!(
                    by_value::top(nan, 9) > by_value::top(a, 0) && by_value::bottom(nan, 9) > by_value::bottom(a, 0)
                );
                assert!(by_size::key(nan, 9) > by_size::key(a, 0));
                assert!(by_value::top_value(by_value::top(nan, 1)).is_nan());
                assert!(by_value::bottom_value(by_value::bottom(nan, 1)).is_nan());
                assert!(by_size::value(by_size::key(nan, 1)).is_nan());
            }
        }
        assert_eq!(by_value::top(0.0, 1), by_value::top(-0.0, 1));
        assert_eq!(by_value::bottom(0.0, 1), by_value::bottom(-0.0, 1));
    }

    #[test]
    fn keep_keeps_the_largest() {
        let mut keys = vec![5, 1, 9, 7];
        assert_eq!(keep(&mut keys, 6), None);
        assert_eq!(keep(&mut keys, 2), Some(7));
        keys.sort_unstable();
        assert_eq!(keys, [7, 9]);
        assert_eq!(keep(&mut keys, 0), None);
        assert!(keys.is_empty());
    }
}
