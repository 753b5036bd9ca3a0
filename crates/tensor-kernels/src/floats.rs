//! Memory for activations, as the kernels like it.

use crate::buffer::Buffer;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// A slice of f32 in memory of its own, zeroed at first: aligned to a cache line, and in huge pages where it is large.
///
/// For activations that are used again from batch to batch: `Vec<f32>` starts where vectors of 64 bytes straddle two cache lines.
pub struct AlignedVec {
    memory: Buffer,
    len: usize,
}

impl AlignedVec {
    /// `len` zeros.
    ///
    /// # Panics
    /// If so many cannot be addressed.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let bytes = len.checked_mul(size_of::<f32>()).filter(|bytes| *bytes <= isize::MAX as usize / 2);
        Self { memory: Buffer::new(bytes.expect("a length that can be addressed")), len }
    }
}

impl Default for AlignedVec {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory.as_slice()[..self.len]
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory.as_mut_slice()[..self.len]
    }
}

impl fmt::Debug for AlignedVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Floats({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_aligned_zeros() {
        for len in [0, 1, 17, 600_000] {
            let mut floats = AlignedVec::new(len);
            assert_eq!((floats.len(), floats.as_ptr() as usize % 64), (len, 0));
            assert!(floats.iter().all(|x| *x == 0.0));
            floats.fill(1.0);
            assert_eq!(floats.iter().sum::<f32>(), len as f32);
        }
    }
}
