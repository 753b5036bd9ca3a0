//! Scratch memory of a thread, kept between calls so that nothing is allocated once a loop has warmed up, up to [`KEPT`] bytes: what a
//! call needs beyond that is given back when it ends.

use crate::buffer::Buffer;
use std::cell::Cell;

thread_local! {
    static SCRATCH: [Cell<Option<Buffer>>; 3] = const { [const { Cell::new(None) }; 3] };
}

/// The most bytes that a thread keeps in each of its buffers. Attention needs that many for 32 queries of 16 thousand keys; what takes
/// more takes long enough that asking for memory again costs little beside it.
pub(crate) const KEPT: usize = 8 << 20;

/// One of a thread's scratch buffers: a kernel that runs inside another one's scratch needs its own.
#[derive(Clone, Copy)]
pub(crate) enum Slot {
    /// Sums of the tiles under way.
    Sums = 0,
    /// An operand packed on the fly.
    Operand = 1,
    /// Everything that attention works on.
    Attention = 2,
}

/// Lends the thread's scratch of at least `bytes` bytes. Its contents are unspecified.
pub(crate) fn with<R>(slot: Slot, bytes: usize, work: impl FnOnce(&mut Buffer) -> R) -> R {
    // Taken out while it is used: a nested call for the same slot finds nothing and makes its own, it never shares.
    let mut buffer = SCRATCH.with(|all| all[slot as usize].take()).unwrap_or_default();
    buffer.reserve(bytes);
    let result = work(&mut buffer);
    if buffer.len() <= KEPT {
        SCRATCH.with(|all| all[slot as usize].set(Some(buffer)));
    }
    result
}
