//! Addresses as one number, whose order is corpus order.

use super::CensusError;
use activation_store::TokenPos;

/// Bits of the position in a row.
const POS_BITS: u32 = 24;
/// Bits of the row's number.
const ROW_BITS: u32 = 40;

/// `row * 2^24 + pos`.
///
/// # Errors
/// A row from `2^40` or a position from `2^24`.
pub(crate) fn pack(at: TokenPos) -> Result<u64, CensusError> {
    if at.row >> ROW_BITS != 0 || at.pos >> POS_BITS != 0 {
        return Err(CensusError::Address { at });
    }
    Ok(at.row << POS_BITS | u64::from(at.pos))
}

pub(crate) fn unpack(address: u64) -> TokenPos {
    TokenPos { row: address >> POS_BITS, pos: (address & ((1 << POS_BITS) - 1)) as u32 }
}
