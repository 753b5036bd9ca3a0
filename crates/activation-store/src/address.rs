//! Address of an activation row: [`TokenPos`].

/// Bits of the position in a row.
const POS_BITS: u32 = 24;
/// Bits of the row's number.
const ROW_BITS: u32 = 40;

/// The address of an activation row, for ever: a row of tokens and a position in it. `Ord` is corpus order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenPos {
    /// Number of the row of tokens in the stream, from 0.
    pub row: u64,
    /// Position in it, from 0.
    pub pos: u32,
}

impl TokenPos {
    /// The address as one number, `row * 2^24 + pos`, whose order is corpus order; `None` for a row from `2^40` or a position from `2^24`.
    #[must_use]
    #[inline]
    pub fn to_u64(self) -> Option<u64> {
        let fits = self.row >> ROW_BITS == 0 && self.pos >> POS_BITS == 0;
        fits.then(|| self.row << POS_BITS | u64::from(self.pos))
    }

    /// The address of a number that [`to_u64`](Self::to_u64) returned.
    #[must_use]
    #[inline]
    pub fn from_u64(address: u64) -> Self {
        Self { row: address >> POS_BITS, pos: (address & ((1 << POS_BITS) - 1)) as u32 }
    }
}

impl std::fmt::Display for TokenPos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.row, self.pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_address_comes_back() {
        let last = TokenPos { row: (1 << 40) - 1, pos: (1 << 24) - 1 };
        for at in [TokenPos::default(), TokenPos { row: 7, pos: 9 }, last] {
            assert_eq!(at.to_u64().map(TokenPos::from_u64), Some(at));
        }
        assert_eq!(last.to_u64(), Some(u64::MAX));
        assert_eq!(TokenPos { row: 1 << 40, pos: 0 }.to_u64(), None);
        assert_eq!(TokenPos { row: 0, pos: 1 << 24 }.to_u64(), None);
    }
}
